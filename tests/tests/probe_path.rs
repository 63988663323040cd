//! Checks through the encapsulation: they go where clients' packets go, and see what checks by the backends' own addresses
//! do not; and nothing else that the node has for a VIP leaves it.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use maglev_e2e::{
    lab::{
        Site,
        addresses::{WWW4, outer_sources},
        site::counter,
        skip,
    },
    matrix::Matrix,
};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{recv, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;
use serde_json::Value;

/// Quick, and patient enough for a machine that does something else too.
const TIMES: &str = "interval: 500ms, timeout: 400ms, jitter: 50ms, rise: 2";

#[test]
fn backends_are_checked_through_the_encapsulation_over_every_family() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let netns = site.balancers[0].netns().clone();
    for offload in ["off", "on"] {
        // A network card finishes checksums; a packet that is encapsulated must not hide from it what to finish.
        for interface in ["eth0", "near"] {
            netns.output(Command::new("ethtool").args(["-K", interface, "tx", offload]))?;
        }
        for (vip, pool, families) in [
            ("www-tcp", "four", "IPv4 in IPv4"),
            ("www6-tcp", "four", "IPv6 in IPv4"),
            ("alt-tcp", "six", "IPv4 in IPv6"),
            ("alt6-tcp", "six", "IPv6 in IPv6"),
        ] {
            for kind in ["tcp", "http", "udp, payload: ping, expect: web"] {
                let name = format!(
                    "{families}, {}, checksums left to the card: {offload}",
                    &kind[..kind.find(',').unwrap_or(kind.len())]
                );
                row("encap", &name, || {
                    check(&mut site, pool, "")?;
                    check(&mut site, pool, &format!("check: {{ kind: {kind}, vip: {vip}, {TIMES} }}"))?;
                    await_health(&mut site, pool, "all healthy", |all| all.iter().all(is_healthy))
                })?;
            }
            check(&mut site, pool, "")?;
        }
    }
    let counters = site.balancers[0].maglev_json(&["counters"])?;
    ensure!(counter(&counters, "check_sent")? > 100 && counter(&counters, "check_unsent")? == 0, "{counters}");
    Ok(())
}

#[test]
fn a_vip_that_is_missing_and_decapsulation_that_is_broken_fail_on_the_clients_path_alone() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let on_the_way = format!("check: {{ kind: http, vip: www-tcp, {TIMES} }}");
    let direct = format!("check: {{ kind: http, via: direct, port: 80, {TIMES} }}");
    check(&mut site, "four", &on_the_way)?;
    await_health(&mut site, "four", "all healthy", |all| all.iter().all(is_healthy))?;
    let both = |site: &mut Site, name: &str| {
        row("encap", &format!("{name}: fails"), || {
            check(site, "four", &on_the_way)?;
            let said = await_health(site, "four", "web1 unhealthy", |all| {
                let error = all[0]["health"]["last"]["error"].as_str();
                all[0]["health"]["state"] == "unhealthy" && error == Some("connect: timed out after 400 ms")
            })?;
            await_health(site, "four", "the others healthy", |all| all[1..].iter().all(is_healthy))?;
            // A single check by an operator uses the same path.
            for (backend, code) in [("web1", 1), ("web2", 0)] {
                let answer = site.balancers[0].maglev(&["backend", "check", "four", backend])?;
                ensure!(answer.code == code && answer.stdout.contains("encap, VIP www-tcp"), "{answer:?}");
            }
            Ok(said)
        })?;
        row("direct", &format!("{name}: passes"), || {
            check(site, "four", &direct)?;
            await_health(site, "four", "all healthy", |all| all.iter().all(is_healthy))
        })
    };
    let web1 = site.lab.netns("web1");
    web1.ip(&[format!("address del {WWW4}/32 dev lo")])?;
    both(&mut site, "the VIP is missing from a backend's loopback")?;
    web1.ip(&[format!("address add {WWW4}/32 dev lo")])?;
    check(&mut site, "four", &on_the_way)?;
    await_health(&mut site, "four", "all healthy", |all| all.iter().all(is_healthy))?;
    site.backends[0].stop_decap()?;
    both(&mut site, "a backend's decapsulation is broken")?;

    // The outer header is not removed any more, so it can be examined.
    check(&mut site, "four", &on_the_way)?;
    row("encap", "the outer source is of the configured range", || {
        let seen = web1.run(|| outer(8))?;
        let [range, _] = outer_sources(1);
        ensure!(range == "10.64.1.0/24", "{range}");
        for (source, _) in &seen {
            ensure!(source.octets()[..3] == [10, 64, 1], "{source}: {seen:?}");
        }
        let sources: BTreeSet<_> = seen.iter().map(|(source, _)| source).collect();
        ensure!(sources.len() > 1, "host bits come from the flow hash: {seen:?}");
        ensure!(seen.iter().all(|(_, inner)| IpAddr::V4(*inner) == WWW4), "{seen:?}");
        Ok(sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    })
}

#[test]
fn other_packets_are_not_sent_to_a_vip() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(1)?;
    let (balancer, arrived) = (&site.balancers[0], |site: &Site| -> Result<u64> {
        site.backends.iter().map(|backend| Ok(backend.counters()?["decapsulated"])).sum()
    });
    let before = arrived(&site)?;
    row("encap", "an unmarked packet of the node's own to a VIP is dropped and counted", || {
        let said = balancer.netns().run(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").context("bind")?;
            (0..10).for_each(|_| drop(socket.send_to(b"stray", (WWW4, 80))));
            socket.set_read_timeout(Some(std::time::Duration::from_millis(300)))?;
            ensure!(socket.recv(&mut [0; 64]).is_err(), "another node would have answered");
            Ok("10 datagrams, no answer".to_owned())
        })?;
        let counters = balancer.maglev_json(&["counters"])?;
        ensure!(counter(&counters, "stray")? == 10, "{counters}");
        ensure!(arrived(&site)? == before, "a backend saw one");
        Ok(said)
    })
}

#[test]
fn without_a_path_a_check_names_the_reason() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let netns = site.balancers[0].netns().clone();
    let ip = |line: &str| netns.ip(&[line.to_owned()]);
    let words = |site: &mut Site, at: usize, expected: &str| {
        await_health(site, "four", expected, |all| {
            all[at]["health"]["last"]["error"].as_str().is_some_and(|error| error == expected)
        })
    };
    check(&mut site, "four", &format!("check: {{ kind: tcp, vip: www-tcp, {TIMES} }}"))?;
    await_health(&mut site, "four", "all healthy", |all| all.iter().all(is_healthy))?;

    row("encap", "the VIP is routed by an interface that is not configured", || {
        ip("link add other type veth peer name beyond")?;
        ip("link set beyond up")?;
        ip("link set other up")?;
        ip("address add 10.9.0.1/24 dev other")?;
        ip("neighbour add 10.9.0.2 lladdr 02:00:00:00:00:22 nud permanent dev other")?;
        ip(&format!("route add {WWW4}/32 via 10.9.0.2"))?;
        words(&mut site, 0, "VIP 203.0.113.10 is routed via other, which is not listed in `interfaces`")
    })?;
    row("encap", "the VIP is routed by another configured interface", || {
        ip(&format!("route replace {WWW4}/32 via 10.4.0.1 dev near"))?;
        await_health(&mut site, "four", "all healthy", |all| all.iter().all(is_healthy))
    })?;
    row("encap", "the VIP is not routed", || {
        ip(&format!("route replace unreachable {WWW4}/32"))?;
        words(&mut site, 0, "VIP www-tcp: the route to 203.0.113.10 is unreachable, blackhole or prohibit")
    })?;
    ip(&format!("route del unreachable {WWW4}/32"))?;
    await_health(&mut site, "four", "all healthy", |all| all.iter().all(is_healthy))?;
    row("encap", "a backend has no next hop: unreachable", || {
        ip("route add unreachable 10.3.1.2/32")?;
        let said = words(&mut site, 0, "the route to 10.3.1.2 is unreachable, blackhole or prohibit")?;
        await_health(&mut site, "four", "web1 unreachable", |all| {
            all[0]["health"]["state"] == "unreachable" && all[1..].iter().all(is_healthy)
        })?;
        Ok(said)
    })?;
    ip("route del unreachable 10.3.1.2/32")?;
    row("encap", "a pool that no VIP uses stays checking and says why", || {
        for vip in ["www-tcp", "www-udp", "www6-tcp", "www6-udp"] {
            site.balancers[0].maglev_ok(&["vip", "remove", vip])?;
        }
        await_health(&mut site, "four", "all checking", |all| {
            let waits = |backend: &&Value| {
                let why = backend["health"]["waiting"].as_str().unwrap_or_default();
                backend["health"]["state"] == "checking" && why.contains("no VIP uses pool four")
            };
            all.iter().all(waits)
        })
    })
}

/// Runs one case and prints its row.
fn row(subject: &str, name: &str, case: impl FnOnce() -> Result<String>) -> Result<()> {
    Matrix::Health.row(subject, name, case)
}

/// Reloads the services with this line alone for the checks of a pool.
fn check(site: &mut Site, pool: &str, line: &str) -> Result<()> {
    let path = site.balancers[0].services();
    let text = fs::read_to_string(&path).context("services.yaml")?;
    let mut lines: Vec<&str> = Vec::new();
    let mut here = false;
    for old in text.lines() {
        if let Some(name) = old.trim_start().strip_prefix("- name: ") {
            here = name == pool;
            lines.push(old);
            if here && !line.is_empty() {
                lines.push("    CHECK");
            }
        } else if !(here && old.trim_start().starts_with("check: ")) {
            lines.push(old);
        }
    }
    fs::write(&path, lines.join("\n").replace("CHECK", line) + "\n").context("services.yaml")?;
    site.balancers[0].maglev_ok(&["reload"]).map(drop)
}

/// Waits until a pool's backends are as `holds` looks for; says how the first one's last check ended.
fn await_health(site: &mut Site, pool: &str, what: &str, holds: impl Fn(&[&Value]) -> bool) -> Result<String> {
    let said = std::cell::RefCell::new(String::new());
    site.balancers[0].await_status(what, |status| {
        let all = status["backends"].as_array().into_iter().flatten().filter(|backend| backend["pool"] == pool);
        let all: Vec<&Value> = all.collect();
        if let Some(first) = all.first() {
            let last = &first["health"]["last"];
            *said.borrow_mut() = last["error"].as_str().map_or_else(|| "ok".to_owned(), str::to_owned);
        }
        holds(&all)
    })?;
    Ok(said.into_inner())
}

/// Whether it is healthy, and its last check succeeded: one that has begun to fail is healthy for a while.
fn is_healthy(backend: &&Value) -> bool {
    let health = &backend["health"];
    health["state"] == "healthy" && health["last"].is_object() && health["last"]["error"].is_null()
}

/// The source of so many outer headers, and the destination of the packets in them.
fn outer(count: usize) -> Result<Vec<(Ipv4Addr, Ipv4Addr)>> {
    /// The protocol number of IPv4 in IPv4.
    const IN_IP: u8 = 4;
    let raw = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::empty(), Some(SockProtocol::EthAll));
    let raw = raw.context("socket")?;
    setsockopt(&raw, sockopt::ReceiveTimeout, &TimeVal::new(30, 0)).context("timeout")?;
    let mut seen = Vec::new();
    let mut packet = [0; 2_048];
    while seen.len() < count {
        let length = recv(raw.as_raw_fd(), &mut packet, MsgFlags::empty()).context("no packet came")?;
        if length < 40 || packet[0] != 0x45 || packet[9] != IN_IP {
            continue;
        }
        let address = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
        seen.push((address(12), address(36)));
    }
    Ok(seen)
}
