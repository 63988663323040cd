//! Which packets a backend unwraps, and its decapsulation after the process ends or when an interface is late.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use maglev_e2e::client::flood::{Flags, Flood};
use maglev_e2e::lab::addresses::{VIPS, WWW4, WWW6, behind_router};
use maglev_e2e::lab::{Backend, Lab, Netns, Services, Site, Vip, skip};
use maglev_e2e::matrix::{Matrix, is_full};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};

fn targets() -> Vec<SocketAddr> {
    [WWW4, WWW6].map(|vip| (vip, Backend::PORT).into()).to_vec()
}

fn row(number: &str, name: &str, case: impl FnOnce() -> Result<String>) -> Result<()> {
    Matrix::Fault.row(number, name, case)
}

/// One VIP of each family, all of whose flows are `web1`'s.
fn alone(lab: &Lab) -> Services {
    let vip = |name: &str, address: IpAddr| Vip::new(name, (address, Backend::PORT), "tcp", "one");
    Services { pools: vec![lab.pool("one", WWW4, &[(1, 100)])], vips: vec![vip("www", WWW4), vip("www6", WWW6)] }
}

/// Waits until a backend's counter is at least this, and returns it.
fn await_counter(backend: &Backend, name: &str, least: u64) -> Result<u64> {
    let mut last = 0;
    for _ in 0..300 {
        last = backend.counters()?.get(name).copied().unwrap_or(0);
        if last >= least {
            return Ok(last);
        }
        thread::sleep(Duration::from_millis(50));
    }
    bail!("{}: {name} is {last}, not {least}", backend.name())
}

#[test]
fn decapsulation_goes_on_without_its_process() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let Site { lab, backends, .. } = &mut site;
    let client = lab.client();
    let rounds = if is_full() { 5 } else { 1 };
    row("D14", "kill -9 under load, and the next process adopts", || {
        let traffic = client.start(&targets(), u64::MAX, 4);
        for _ in 0..rounds {
            client.requests(&targets(), 100, 8)?.all_answered()?;
            let web1 = &mut backends[0];
            let before = web1.counters()?["decapsulated"];
            web1.kill_decap()?;
            client.requests(&targets(), 200, 8)?.all_answered()?;
            web1.start_decap(lab, &[])?;
            ensure!(web1.decap()?.log().contains("decapsulation adopted"), "{}", web1.decap()?.log());
            client.requests(&targets(), 100, 8)?.all_answered()?;
            let after = web1.counters()?["decapsulated"];
            ensure!(after > before, "counters go on: {before}, then {after}");
        }
        let outcomes = traffic.stop()?;
        outcomes.all_answered()?;
        Ok(format!("{rounds} × killed, {} requests, 0 lost", outcomes.0.len() + 400 * rounds))
    })?;
    row("D14", "SIGTERM with --on-stop keep, and the next process adopts", || {
        let web1 = &mut backends[0];
        web1.stop_decap()?;
        ensure!(!web1.pins(lab).exists(), "a plain stop leaves nothing");
        web1.start_decap(lab, &["--on-stop", "keep"])?;
        let traffic = client.start(&targets(), u64::MAX, 4);
        let kept = web1.stop_decap()?["decapsulated"];
        client.requests(&targets(), 200, 8)?.all_answered()?;
        web1.start_decap(lab, &[])?;
        let outcomes = traffic.stop()?;
        outcomes.all_answered()?;
        await_counter(web1, "decapsulated", kept + 1)?;
        web1.stop_decap()?;
        ensure!(!web1.pins(lab).exists(), "what is detached leaves nothing");
        Ok(format!("{} requests, 0 lost", outcomes.0.len() + 200))
    })?;
    row("D14", "a second process on the same interface", || {
        let web1 = &mut backends[0];
        web1.start_decap(lab, &[])?;
        let first = web1.decap()?.id();
        let refused = lab.netns("web1").output(
            std::process::Command::new(maglev_e2e::lab::binary("maglevd")?)
                .args(["decap", "--interface", "eth0", "--from", "10.64.0.0/16", "--pin"])
                .arg(web1.pins(lab)),
        );
        let said = refused.err().context("it was not refused")?.to_string();
        let process = format!("another maglevd decap (process {first}) runs on eth0");
        ensure!(said.contains(&process), "{said}");
        client.requests(&targets(), 100, 8)?.all_answered()?;
        Ok(process)
    })
}

#[test]
fn only_vips_are_unwrapped() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::new(1, alone)?;
    let router = site.lab.netns("router");
    let web1 = site.lab.netns("web1");
    row("D7", "a router advertisement inside the encapsulation", || {
        let routes = || web1.ip_json(&["-6", "route", "show", "proto", "ra"]);
        let before = routes()?;
        for _ in 0..3 {
            advertise(&router, behind_router(1, 2).v4)?;
        }
        await_counter(&site.backends[0], "neighbor_discovery", 3)?;
        ensure!(routes()? == before, "a route was learned: {}", routes()?);
        Ok("3 sent, 3 dropped as neighbor_discovery, no route learned".to_owned())
    })?;
    row("D7", "a VIP that leaves loopback and comes back", || {
        site.lab.client().requests(&targets(), 50, 4)?.all_answered()?;
        web1.ip(&[format!("address del {WWW4}/32 dev lo")])?;
        let dropped = await_refusal(&site)?;
        web1.ip(&[format!("address add {WWW4}/32 dev lo")])?;
        // A SYN that is dropped meanwhile is sent again.
        site.lab.client().requests(&targets(), 50, 4)?.all_answered()?;
        Ok(format!("{dropped} dropped as foreign_destination, then 50 requests answered"))
    })?;
    row("D7", "no VIP on loopback and no --to", || {
        web1.ip(&VIPS.map(|vip| format!("address del {vip}/{} dev lo", if vip.is_ipv4() { 32 } else { 128 })))?;
        let backend = &mut site.backends[0];
        backend.stop_decap()?;
        backend.start_decap(&site.lab, &[])?;
        let log = backend.decap()?.log();
        ensure!(log.contains("no VIP on lo and no --to"), "{log}");
        syns(&site, 5)?;
        await_counter(&site.backends[0], "foreign_destination", 5)?;
        Ok("5 sent, 5 dropped, and the process says why".to_owned())
    })
}

#[test]
fn a_backend_without_the_vip_makes_no_loop() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::new(1, alone)?;
    let web1 = site.lab.netns("web1");
    web1.sysctl(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])?;
    web1.ip(&[format!("address del {WWW4}/32 dev lo"), format!("address del {WWW6}/128 dev lo")])?;
    let arrived = |site: &Site| -> Result<u64> {
        let counters = site.balancers[0].maglev_json(&["counters"])?;
        Ok(counters["vips"].as_array().into_iter().flatten().filter_map(|vip| vip["packets"].as_u64()).sum())
    };
    // Until decapsulation knows that the VIP is gone, packets go around as often as their TTL lets them.
    let refused = await_refusal(&site)?;
    let before = arrived(&site)?;
    let looped = |site: &Site, sent: u64| -> Result<String> {
        let dropped = await_counter(&site.backends[0], "foreign_destination", refused + sent)?;
        let arrived = arrived(site)? - before;
        ensure!(arrived == sent, "{sent} sent, {arrived} arrived, {dropped} dropped");
        Ok(format!("{sent} SYNs stay {arrived}, all dropped at the backend"))
    };
    row("D13", "a backend that forwards and lacks the VIP", || {
        syns(&site, 60)?;
        looped(&site, 60)
    })?;
    row("D13", "the same after decapsulation was killed", || {
        site.backends[0].kill_decap()?;
        syns(&site, 60)?;
        site.backends[0].start_decap(&site.lab, &[])?;
        looped(&site, 120)
    })?;
    row("D13", "the VIP is on another interface, and named with --to", || {
        site.backends[0].stop_decap()?;
        web1.ip(&[
            "link add held type veth peer name beside",
            "link set held up",
            &format!("address add {WWW4}/32 dev held"),
        ]
        .map(str::to_owned))?;
        site.backends[0].start_decap(&site.lab, &["--to", &WWW4.to_string()])?;
        site.lab.client().requests(&targets()[..1], 50, 4)?.all_answered()?;
        Ok("50 requests answered".to_owned())
    })
}

#[test]
fn an_interface_that_is_late_is_awaited() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::new(1, alone)?;
    let web1 = site.lab.netns("web1");
    let manager = Manager::listen(&site.lab.directory().join("web1.notify"))?;
    let late = ["--mode", "generic", "--interface", "late"];
    row("C6", "decap: an interface that comes after the start", || {
        site.backends[0].stop_decap()?;
        let decap = site.backends[0].begin_decap(&site.lab, &late)?;
        decap.await_event("what it waits for", |decap| Ok(decap.log().contains("does not exist: waiting for it")))?;
        manager.expect("STATUS=waiting for late")?;
        ensure!(!decap.stdout()?.contains("ready"), "it is not ready");
        // The interface that is there is served meanwhile.
        site.lab.client().requests(&targets(), 50, 4)?.all_answered()?;
        web1.ip(&["link add late type veth peer name early".to_owned()])?;
        site.backends[0].decap()?.await_line("ready")?;
        manager.expect("STATUS=decapsulating on eth0, late")?;
        manager.expect("READY=1")?;
        Ok("READY once it is attached; the other interface decapsulates meanwhile".to_owned())
    })?;
    row("C6", "decap: it goes and comes", || {
        for _ in 0..2 {
            web1.ip(&["link del late".to_owned()])?;
            manager.expect("STATUS=waiting for late")?;
            web1.ip(&["link add late type veth peer name early".to_owned()])?;
            manager.expect("STATUS=decapsulating on eth0, late")?;
        }
        Ok("attached anew twice".to_owned())
    })?;
    row("C6", "decap in generic mode serves requests and a download", || {
        site.lab.client().requests(&targets(), 50, 4)?.all_answered()?;
        site.lab.client().download(targets()[0], 1 << 20)?;
        Ok("50 requests, 1 MiB".to_owned())
    })
}

/// A service manager that is notified.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(path: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(path).context("notify socket")?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self(socket))
    }

    /// Waits for a state.
    fn expect(&self, state: &str) -> Result<()> {
        let mut seen = Vec::new();
        let mut message = [0; 512];
        while let Ok(length) = self.0.recv(&mut message) {
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            if text == state {
                return Ok(());
            }
            seen.push(text);
        }
        bail!("{state:?} was not notified, but {seen:?}")
    }
}

/// Sends so many first packets of connections to the first VIP.
fn syns(site: &Site, count: u32) -> Result<()> {
    let IpAddr::V4(vip) = WWW4 else { bail!("not an IPv4 address") };
    let flood = Flood { flags: Flags::Syn, first: 0, tuples: count, passes: 1 };
    site.lab.client().flood(SocketAddrV4::new(vip, Backend::PORT), flood).finish().map(drop)
}

/// Sends first packets until one is refused for its destination; returns how many were.
fn await_refusal(site: &Site) -> Result<u64> {
    for _ in 0..100 {
        syns(site, 1)?;
        // Counters are written ten times a second.
        thread::sleep(Duration::from_millis(150));
        if let Some(&refused @ 1..) = site.backends[0].counters()?.get("foreign_destination") {
            return Ok(refused);
        }
    }
    bail!("the packets of a VIP that was removed are unwrapped")
}

/// Sends a router advertisement to all nodes, in an outer header from a load balancer's address to a backend.
fn advertise(from: &Netns, backend: Ipv4Addr) -> Result<()> {
    let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad);
    let nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut message = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    let words = [router.octets(), nodes.octets()].concat();
    let words = words.iter().chain(&[0, 0, 0, 16, 0, 0, 0, 58]).chain(&message).copied().collect::<Vec<u8>>();
    let sum: u32 = words.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    message[2..4].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    let mut packet = vec![0x45, 0, 0, 20 + 40 + 16, 0, 0, 0, 0, 64, 41, 0, 0, 10, 64, 1, 9];
    packet.extend(backend.octets());
    packet.extend([0x60, 0, 0, 0, 0, 16, 58, 255]);
    packet.extend(router.octets());
    packet.extend(nodes.octets());
    packet.extend(message);
    from.run(|| {
        let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), Some(SockProtocol::Raw))?;
        let to = SockaddrIn::from(SocketAddrV4::new(backend, 0));
        sendto(raw.as_raw_fd(), &packet, &to, MsgFlags::empty()).context("the advertisement was not sent").map(drop)
    })
}
