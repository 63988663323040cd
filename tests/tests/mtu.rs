//! A network without jumbo links, where backends announce an MSS that leaves room for the outer header; and MTUs that change while
//! clients send.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use maglev_e2e::{
    bytes,
    lab::{
        Backend, Lab, Services, Site, UPLINK, Vip, addresses,
        addresses::{ALT4, ALT6, WWW4, WWW6},
        site::counter,
        skip,
    },
    matrix::{Matrix, is_full},
    netns::Netns,
};
use nix::sys::socket::{getsockopt, sockopt::TcpMaxSeg};
use serde_json::Value;

const MB: u64 = 1_000_000;
/// Bytes that a segment gives to the timestamps option, which both ends of the lab use.
const TIMESTAMPS: u32 = 12;
/// How long an upload may stand still while its path gets narrow.
const STALL: Duration = Duration::from_secs(1);
/// How soon the node has an MTU that changed: it follows the kernel's notices.
const NOTICED: Duration = Duration::from_secs(3);

/// A VIP with one backend: its name, the VIP, the backend's number, an address of the family by which the backend is reached, and the
/// MSS that a backend announces on links of 1,500 bytes.
struct Case {
    name: &'static str,
    vip: IpAddr,
    backend: u8,
    like: IpAddr,
    mss: u32,
}

/// Both places of a backend, and every combination of families.
const CASES: [Case; 4] = [
    Case { name: "far-4in4", vip: WWW4, backend: 1, like: WWW4, mss: 1_428 },
    Case { name: "near-6in4", vip: WWW6, backend: 3, like: WWW4, mss: 1_408 },
    Case { name: "near-4in6", vip: ALT4, backend: 3, like: WWW6, mss: 1_408 },
    Case { name: "far-6in6", vip: ALT6, backend: 2, like: WWW6, mss: 1_388 },
];

impl Case {
    fn target(&self) -> SocketAddr {
        SocketAddr::new(self.vip, Backend::PORT)
    }
}

fn services(lab: &Lab) -> Services {
    let mut services = Services::default();
    for Case { name, vip, backend, like, .. } in CASES {
        services.pools.push(lab.pool(name, like, &[(backend, 100)]));
        services.vips.push(Vip::new(name, (vip, Backend::PORT), "tcp", name));
    }
    services
}

fn row(subject: &str, name: &str, case: impl FnOnce() -> Result<String>) -> Result<()> {
    Matrix::Packets.row(subject, name, case)
}

fn answered(site: &Site) -> Result<u64> {
    counter(&site.balancers[0].maglev_json(&["counters"])?, "packet_too_big")
}

/// No link of the lab takes more than 1,500 bytes, and no backend starts with more than these options.
fn without_jumbo_links(options: &[&str]) -> Result<Site> {
    let mut site = Site::new(1, services)?;
    for (node, devices) in [
        ("router", &["lb1", "switch", "web1", "web2"][..]),
        ("switch", &["router", "lb1", "web3", "segment"]),
        ("lb1", &["eth0", "near"]),
        ("web1", &["eth0"]),
        ("web2", &["eth0"]),
        ("web3", &["eth0"]),
    ] {
        let lines: Vec<_> = devices.iter().map(|device| format!("link set {device} mtu 1500")).collect();
        site.lab.netns(node).ip(&lines)?;
    }
    restart_decap(&mut site, options)?;
    Ok(site)
}

fn restart_decap(site: &mut Site, options: &[&str]) -> Result<()> {
    let Site { lab, backends, .. } = site;
    backends.iter_mut().try_for_each(|backend| {
        backend.stop_decap()?;
        backend.start_decap(lab, options)
    })
}

/// How many SYNs were answered with a lower MSS.
fn lowered(site: &Site) -> Result<u64> {
    let counters = site.backends.iter().map(Backend::counters).collect::<Result<Vec<_>>>()?;
    Ok(counters.iter().filter_map(|counters| counters.get("mss_lowered")).sum())
}

/// The MSS that a client is announced.
fn announced(from: &Netns, to: SocketAddr) -> Result<u32> {
    let segment = from.run(|| Ok(getsockopt(&TcpStream::connect(to)?, TcpMaxSeg)?))?;
    Ok(segment + TIMESTAMPS)
}

/// Uploads and downloads whole; returns how long both took.
fn transfer(site: &Site, case: &Case) -> Result<Duration> {
    let (client, length, began) = (site.lab.client(), if is_full() { 50 * MB } else { 5 * MB }, Instant::now());
    let receipt = client.upload(case.target(), length)?;
    ensure!(receipt.sha256 == bytes::digest(length), "other bytes were uploaded");
    ensure!(client.download(case.target(), length)? == bytes::digest(length), "other bytes were downloaded");
    Ok(began.elapsed())
}

#[test]
fn a_lower_mss_makes_a_network_without_jumbo_links_work() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = without_jumbo_links(&["--mss", "auto"])?;
    let client = site.lab.netns("client");
    for case in &CASES {
        let name = format!("up and down over links of 1,500 bytes, decap --mss auto, {}", case.name);
        row("mss", &name, || {
            let took = transfer(&site, case)?;
            let (mss, answers) = (announced(&client, case.target())?, answered(&site)?);
            ensure!((mss, answers) == (case.mss, 0), "MSS {mss}, {answers} packets answered with the MTU");
            Ok(format!("{:.1} s, MSS {mss}, no packet too big", took.as_secs_f64()))
        })?;
    }
    row("mss", "checksums that are left to the network card", || {
        for backend in ["web1", "web2"] {
            let mut ethtool = Command::new("ethtool");
            site.lab.netns(backend).output(ethtool.args(["-K", "eth0", "tx", "on"]))?;
        }
        for case in [&CASES[0], &CASES[3]] {
            transfer(&site, case)?;
            ensure!(announced(&client, case.target())? == case.mss, "{}", case.name);
        }
        Ok("IPv4 and IPv6".to_owned())
    })?;
    row("mss", "a connection without a load balancer keeps its MSS", || {
        let router = site.lab.netns("router");
        let backend = addresses::behind_router(1, 2);
        router.ip(&[
            format!("route add {WWW4} via {} table 201", backend.v4),
            "rule add iif lo lookup 201 priority 90".to_owned(),
        ])?;
        let [direct, balanced] = [announced(&router, CASES[0].target())?, announced(&client, CASES[0].target())?];
        ensure!((direct, balanced) == (1_460, 1_428), "{direct} directly, {balanced} by the node");
        let lowered = lowered(&site)?;
        ensure!(lowered > 0, "mss_lowered is 0");
        Ok(format!("{direct} directly, {balanced} by the node; {lowered} lowered so far"))
    })?;
    row("mss", "it goes on without its process, until one starts without --mss", || {
        let target = CASES[0].target();
        site.backends[0].kill_decap()?;
        let killed = announced(&client, target)?;
        site.backends[0].start_decap(&site.lab, &["--on-stop", "keep", "--mss", "1200"])?;
        let adopted = announced(&client, target)?;
        site.backends[0].stop_decap()?;
        let kept = announced(&client, target)?;
        site.backends[0].start_decap(&site.lab, &[])?;
        let without = announced(&client, target)?;
        let all = [killed, adopted, kept, without];
        ensure!(all == [1_428, 1_200, 1_200, 1_460], "{all:?}");
        Ok(format!("killed {killed}, the next one with 1200 {adopted}, kept {kept}, without {without}"))
    })?;
    restart_decap(&mut site, &[])?;
    row("mss", "control: without --mss packets are too big", || {
        let took = transfer(&site, &CASES[0])?;
        let answers = answered(&site)?;
        ensure!(answers > 0, "no packet was too big");
        Ok(format!("{:.1} s, {answers} packets answered with the MTU", took.as_secs_f64()))
    })
}

/// A change of an MTU on the path to a backend, and its reverse, as lines of `ip` in a node's namespace.
struct Change {
    what: &'static str,
    narrow: Vec<(&'static str, String)>,
    wide: Vec<(&'static str, String)>,
}

/// The route that the node has to a backend.
fn route(case: &Case) -> Change {
    let gateway = addresses::balancer(1, 1).like(case.like);
    let backend = addresses::behind_router(case.backend, 2).like(case.like);
    Change {
        what: "route",
        narrow: vec![("lb1", format!("route replace {backend} via {gateway} dev {UPLINK} mtu 1400"))],
        wide: vec![("lb1", format!("route replace {backend} via {gateway} dev {UPLINK}"))],
    }
}

/// Both ends of the link to the segment where the backend is.
fn interface(_: &Case) -> Change {
    let ends =
        |mtu: u16| vec![("lb1", format!("link set near mtu {mtu}")), ("switch", format!("link set lb1 mtu {mtu}"))];
    Change { what: "interface", narrow: ends(1_400), wide: ends(1_600) }
}

#[test]
fn mtus_that_change_during_an_upload_are_followed() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::new(1, services)?;
    for (case, change) in [
        (&CASES[0], route(&CASES[0])),
        (&CASES[3], route(&CASES[3])),
        (&CASES[1], interface(&CASES[1])),
        (&CASES[2], interface(&CASES[2])),
    ] {
        let name = format!("the MTU of the {} to the backend is 1,400 during an upload, {}", change.what, case.name);
        row("mtu", &name, || {
            let before = answered(&site)?;
            let upload = site.lab.client().upload_on(case.target());
            upload.pass(2 * MB)?;
            let overhead = if case.like.is_ipv4() { 20 } else { 40 };
            let narrow = apply(&mut site, case, &change.narrow, 1_400 - overhead)?;
            upload.pass(2 * MB)?;
            let answers = answered(&site)? - before;
            let wide = apply(&mut site, case, &change.wide, 1_600 - overhead)?;
            upload.pass(2 * MB)?;
            let uploaded = upload.finish()?;
            ensure!(answers > 0, "no packet was answered with the MTU");
            ensure!(uploaded.pause <= STALL, "the upload stood still for {:?}", uploaded.pause);
            let [narrow, wide, pause] = [narrow, wide, uploaded.pause].map(|time| time.as_millis());
            let moved = uploaded.length / MB;
            Ok(format!("{moved} MB, noticed in {narrow} and {wide} ms, {answers} answers, longest pause {pause} ms"))
        })?;
    }
    Ok(())
}

/// Makes a change, and waits until the node says what the longest packet to the backend is; returns how long that took.
fn apply(site: &mut Site, case: &Case, change: &[(&str, String)], longest: u64) -> Result<Duration> {
    let began = Instant::now();
    for (node, line) in change {
        site.lab.netns(node).ip(std::slice::from_ref(line))?;
    }
    let backend = format!("web{}", case.backend);
    let show = ["backend", "show", case.name, &backend];
    let node = site.balancers.first_mut().context("a node")?;
    node.await_answer("the path's MTU", &show, |backend| backend["next_hop"]["longest_packet"] == longest)?;
    ensure!(began.elapsed() < NOTICED, "noticed after {:?}", began.elapsed());
    Ok(began.elapsed())
}

#[test]
fn packets_that_a_link_loses_without_a_word_are_counted_at_the_interface() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::new(1, services)?;
    row("mtu", "only the far end of the node's link is narrow, far-4in4", || {
        site.lab.netns("router").ip(&["link set lb1 mtu 1500".to_owned()])?;
        let lost = |counters: &Value| {
            let all = counters["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default().iter();
            let of_uplink = all.filter(|counter| counter["interface"] == UPLINK && counter["source"] == "driver");
            of_uplink.filter_map(|counter| counter["packets"].as_u64()).sum::<u64>()
        };
        let before = lost(&site.balancers[0].maglev_json(&["counters"])?);
        let _stalled = site.lab.netns("client").run(|| {
            let mut stream = TcpStream::connect(CASES[0].target())?;
            stream.write_all(&[0; 10_000])?;
            Ok(stream)
        })?;
        let node = site.balancers.first_mut().context("a node")?;
        node.await_answer("packets that the driver lost", &["counters"], |counters| lost(counters) > before)?;
        let text = node.maglev(&["counters"])?.stdout;
        ensure!(text.contains("COUNTED BY") && text.contains("xdp_tx_errors"), "{text}");
        Ok(format!("{} lost by the driver's count", lost(&node.maglev_json(&["counters"])?) - before))
    })
}
