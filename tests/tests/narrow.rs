//! Links that take less than a client's or a backend's packets: a hop on the way to the client, whose errors reach another node than
//! the client's packets, and links between nodes and backends. Transfers come to their end over both encapsulations, also while
//! backends drain and pools change; without ICMP they hang.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use maglev_e2e::{
    bytes,
    client::download::Downloaded,
    lab::{
        Backend, Lab, Services, Site, Vip, addresses,
        addresses::{ALT4, ALT6, WWW4, WWW6},
        site::counter,
        skip,
    },
    matrix::{Matrix, is_full},
    netns::Netns,
};

const MB: u64 = 1_000_000;
/// How long a transfer may stand still at most.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a transfer that cannot go on is watched, once it has begun.
const BEGUN: Duration = Duration::from_millis(500);
const STALL: Duration = Duration::from_secs(3);
/// The hop to the client, and the links between nodes and backends.
const HOP: u16 = 1_280;
const LINK: u16 = 1_400;
const ENCAPS: [&str; 2] = ["ipip", "gue"];

/// Each VIP with two backends behind the router: every combination of families, and an address of the family by which the backends
/// are reached.
const VIPS: [(&str, IpAddr, IpAddr); 4] =
    [("4in4", WWW4, WWW4), ("6in4", WWW6, WWW4), ("4in6", ALT4, WWW6), ("6in6", ALT6, WWW6)];

fn services(lab: &Lab) -> Services {
    let mut services = Services::default();
    for (name, vip, like) in VIPS {
        services.pools.push(lab.pool(name, like, &[(1, 100), (2, 100)]));
        services.vips.push(Vip::new(name, (vip, Backend::PORT), "tcp", name));
    }
    services
}

/// Bytes of a transfer.
fn length() -> u64 {
    if is_full() { 50 * MB } else { 10 * MB }
}

fn row(name: &str, case: impl FnOnce() -> Result<String>) -> Result<()> {
    let subject = if name.contains("up ") || name.contains("upload") { "upload" } else { "narrow" };
    Matrix::Packets.row(subject, name, case)
}

fn at(vip: IpAddr) -> SocketAddr {
    SocketAddr::new(vip, Backend::PORT)
}

fn count(site: &Site, node: usize, name: &str) -> Result<u64> {
    counter(&site.balancers[node].maglev_json(&["counters"])?, name)
}

/// Runs a command of the CLI on every node.
fn all(site: &Site, arguments: &[&str]) -> Result<()> {
    site.balancers.iter().try_for_each(|balancer| balancer.maglev_ok(arguments).map(drop))
}

fn encapsulate(site: &Site, encap: &str) -> Result<()> {
    VIPS.iter().try_for_each(|(pool, ..)| all(site, &["pool", "set", pool, "--encap", encap]))
}

fn hop(site: &Site, mtu: u16) -> Result<()> {
    site.lab.netns("router").ip(&[format!("link set client mtu {mtu}")])
}

/// Path MTUs that the backends have learned are removed.
fn forget(site: &Site) -> Result<()> {
    for name in site.lab.backend_names() {
        for family in ["-4", "-6"] {
            site.lab.netns(&name).output(Command::new("ip").args([family, "route", "flush", "cache"]))?;
        }
    }
    Ok(())
}

/// Clients' packets go to the first node, errors of the router itself to the second.
fn two_ways() -> Result<Site> {
    let site = Site::new(2, services)?;
    let (router, gateway) = (site.lab.netns("router"), addresses::balancer(2, 2));
    site.lab.route_vips(&[1])?;
    let [v4, v6] = addresses::VIP_PREFIXES;
    router.ip(&[
        format!("route add {v4} via {} table 200", gateway.v4),
        format!("route add {v6} via {} table 200", gateway.v6),
    ])?;
    rule(&router, &["iif", "lo", "lookup", "200", "priority", "100"])?;
    Ok(site)
}

/// Adds a routing rule of both families.
fn rule(netns: &Netns, words: &[&str]) -> Result<()> {
    for family in ["-4", "-6"] {
        netns.output(Command::new("ip").arg(family).args(["rule", "add"]).args(words))?;
    }
    Ok(())
}

/// A pause that is short enough, in words.
fn short(pause: Duration, most: Duration) -> Result<String> {
    ensure!(pause <= most, "stood still for {pause:?}");
    Ok(format!("longest pause {} ms", pause.as_millis()))
}

#[test]
fn downloads_pass_a_narrow_hop_whose_errors_reach_another_node() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = two_ways()?;
    for encap in ENCAPS {
        encapsulate(&site, encap)?;
        for (name, vip, _) in VIPS {
            let case = format!("{} MB down through a hop of {HOP} bytes, {name}, {encap}", length() / MB);
            row(&case, || {
                hop(&site, HOP)?;
                forget(&site)?;
                let before = count(&site, 1, "icmp_error")?;
                let Downloaded { took, pause, .. } = site.lab.client().download_whole(at(vip), length())?;
                let errors = count(&site, 1, "icmp_error")? - before;
                ensure!(errors > 0 && count(&site, 0, "icmp_error")? == 0, "{errors} errors by the other node");
                Ok(format!("{:.1} s, {}, {errors} errors by the other node", took.as_secs_f64(), short(pause, PAUSE)?))
            })?;
        }
        for (name, vip) in [("4in4", WWW4), ("6in6", ALT6)] {
            drained_below(&site, name, vip, encap)?;
        }
        for (name, vip, like) in [("6in4", WWW6, WWW4), ("4in6", ALT4, WWW6)] {
            let address = site.lab.backend_address(4, like).to_string();
            let add = ["backend", "add", name, "web4", "--address", &address];
            let change = if encap == ENCAPS[0] { &add[..] } else { &["backend", "weight", name, "web4", "300"] };
            added_below(&site, name, vip, (encap, change))?;
        }
    }
    for (family, vip, prefix) in [("IPv4", WWW4, 0), ("IPv6", WWW6, 1)] {
        row(&format!("control: errors are dropped: no download, {family}"), || {
            let blackhole = format!("route replace blackhole {} table 200", addresses::VIP_PREFIXES[prefix]);
            site.lab.netns("router").ip(&[blackhole])?;
            forget(&site)?;
            hangs(&site, "bytes_received", || site.lab.client().download_whole(at(vip), length()))
        })?;
    }
    Ok(())
}

/// Downloads that are under way, and that begin, while their backend drains and the hop shrinks.
fn drained_below(site: &Site, name: &str, vip: IpAddr, encap: &str) -> Result<()> {
    let drain = |verb: &str, backend: &str| all(site, &["backend", verb, name, backend]);
    row(&format!("the hop shrinks below a download while its backend drains, {name}, {encap}"), || {
        hop(site, 1_500)?;
        forget(site)?;
        let before = count(site, 1, "icmp_error")?;
        let download = site.lab.client().download_slowly(at(vip), "web1", length().max(20 * MB))?;
        drain("drain", "web1")?;
        hop(site, HOP)?;
        let Downloaded { length, pause, .. } = download.finish()?;
        let errors = count(site, 1, "icmp_error")? - before;
        ensure!(errors > 0, "no error came by the other node");
        Ok(format!("{} MB, {}, {errors} errors by the other node", length / MB, short(pause, PAUSE)?))
    })?;
    row(&format!("six downloads begin while a backend drains, {name}, {encap}"), || {
        let mut longest = Duration::ZERO;
        for _ in 0..6 {
            forget(site)?;
            longest = longest.max(site.lab.client().download_whole(at(vip), length() / 5)?.pause);
        }
        short(longest, PAUSE)
    })?;
    // The next of these drains starts from a pool whose backends are all in use.
    drain("undrain", "web1")
}

/// A download that is under way while its pool gets a backend, or that backend more weight, and the hop shrinks.
fn added_below(site: &Site, name: &str, vip: IpAddr, (encap, change): (&str, &[&str])) -> Result<()> {
    row(&format!("the hop shrinks below a download while web4's weight grows, {name}, {encap}"), || {
        hop(site, 1_500)?;
        forget(site)?;
        let before = count(site, 1, "icmp_error")?;
        let download = site.lab.client().download_slowly(at(vip), "web2", length().max(20 * MB))?;
        all(site, change)?;
        hop(site, HOP)?;
        let Downloaded { length, pause, .. } = download.finish()?;
        let errors = count(site, 1, "icmp_error")? - before;
        ensure!(errors > 0, "no error came by the other node");
        Ok(format!("{} MB, {}, {errors} errors by the other node", length / MB, short(pause, PAUSE)?))
    })
}

#[test]
fn uploads_cross_narrow_links_to_their_backends() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::new(1, services)?;
    let (node, router) = (site.lab.netns("lb1"), site.lab.netns("router"));
    let gateway = addresses::balancer(1, 1);
    for n in [1, 2] {
        let backend = addresses::behind_router(n, 2);
        let routes =
            [(backend.v4.to_string(), gateway.v4.to_string()), (backend.v6.to_string(), gateway.v6.to_string())];
        node.ip(&routes.map(|(to, via)| format!("route add {to} via {via} mtu {LINK}")))?;
        router.ip(&[format!("link set web{n} mtu {LINK}")])?;
    }
    for encap in ENCAPS {
        encapsulate(&site, encap)?;
        for (name, vip, _) in VIPS {
            let case = format!("{} MB up over a link of {LINK} bytes to the backend, {name}, {encap}", length() / MB);
            row(&case, || {
                let before = count(&site, 0, "packet_too_big")?;
                let receipt = site.lab.client().upload(at(vip), length())?;
                ensure!(receipt.sha256 == bytes::digest(length()), "other bytes");
                let answers = count(&site, 0, "packet_too_big")? - before;
                ensure!(answers > 0, "no packet was too big");
                let pause = short(Duration::from_micros(receipt.pause_microseconds), PAUSE)?;
                Ok(format!("{pause}, {answers} packets answered with the MTU"))
            })?;
            forget_at_client(&site)?;
        }
    }
    for (name, vip) in [("4in4", WWW4), ("6in6", ALT6)] {
        row(&format!("an upload while its pool changes its encapsulation and both backends drain, {name}"), || {
            let upload = site.lab.client().upload_on(at(vip));
            for change in [
                &["pool", "set", name, "--encap", "ipip"][..],
                &["backend", "drain", name, "web1"],
                &["pool", "set", name, "--encap", "gue"],
                &["backend", "undrain", name, "web1"],
                &["backend", "drain", name, "web2"],
                &["backend", "undrain", name, "web2"],
            ] {
                upload.pass(MB)?;
                all(&site, change)?;
            }
            upload.pass(MB)?;
            let uploaded = upload.finish()?;
            Ok(format!("{} MB, {}", uploaded.length / MB, short(uploaded.pause, PAUSE)?))
        })?;
        forget_at_client(&site)?;
    }
    // Packets from a VIP that come by a node are its answers.
    for prefix in addresses::VIP_PREFIXES {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        let words = ["rule", "add", "from", prefix, "iif", "lb1", "priority", "90", "blackhole"];
        router.output(Command::new("ip").arg(family).args(words))?;
    }
    for (family, vip) in [("IPv4", WWW4), ("IPv6", WWW6)] {
        row(&format!("control: the node's answers are dropped: no upload, {family}"), || {
            hangs(&site, "bytes_acked", || site.lab.client().upload(at(vip), length()))
        })?;
    }
    Ok(())
}

/// Path MTUs that the client has learned are removed.
fn forget_at_client(site: &Site) -> Result<()> {
    for family in ["-4", "-6"] {
        site.lab.netns("client").output(Command::new("ip").args([family, "route", "flush", "cache"]))?;
    }
    Ok(())
}

/// Watches a transfer that cannot go on, and ends it.
fn hangs<T: Send>(site: &Site, field: &str, transfer: impl FnOnce() -> Result<T> + Send) -> Result<String> {
    let client = site.lab.netns("client");
    thread::scope(|scope| {
        let transfer = scope.spawn(transfer);
        let watch = || {
            thread::sleep(BEGUN);
            let begun = moved(&client, field)?;
            thread::sleep(STALL);
            Ok((begun, moved(&client, field)?))
        };
        let watched: Result<_> = watch();
        let hung = !transfer.is_finished();
        client.output(Command::new("ss").args(["-K", "-t"]))?;
        let ended = transfer.join().ok().context("a transfer panicked")?;
        let (begun, then) = watched?;
        ensure!(hung && ended.is_err(), "the transfer ended by itself");
        ensure!(begun == then && then < MB / 10, "{begun} bytes at first, {then} after {STALL:?}");
        Ok(format!("hangs after {then} bytes: not one more in {} s", STALL.as_secs()))
    })
}

/// Bytes of the client's connections, by a field of `ss`.
fn moved(client: &Netns, field: &str) -> Result<u64> {
    let shown = client.output(Command::new("ss").args(["-H", "-t", "-i", "-n", "state", "established"]))?;
    let shown = String::from_utf8_lossy(&shown).into_owned();
    if shown.trim().is_empty() {
        bail!("no connection is open");
    }
    let values = shown.split_whitespace().filter_map(|word| word.strip_prefix(field)?.strip_prefix(':'));
    Ok(values.filter_map(|value| value.parse::<u64>().ok()).sum())
}
