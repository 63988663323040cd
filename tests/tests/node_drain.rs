//! A node is taken out of service, and put back, under a stream of datagrams: nothing is lost, and the daemon proves it. Nor
//! is anything lost while its daemon is away.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use maglev_e2e::{
    client::stream::Stream,
    lab::{
        Backend, Balancer, Settings, Site, Topology,
        addresses::{WWW4, WWW6},
        binary,
        router::Kind,
        site::every_family,
        skip,
    },
};
use serde_json::Value;

/// Datagrams a second.
const RATE: u32 = 3_000;
/// Datagrams after which whatever was going to be lost is.
const A_WHILE: u64 = 1_500;

/// Two seconds are as good as ten in a test.
const TIMES: &str = "drain: { lead: 2s, quiet: 2s }\n";

#[test]
fn a_node_is_drained_and_comes_back_with_bird() -> Result<()> {
    if skip() { Ok(()) } else { drained_and_back(Kind::Bird) }
}

#[test]
fn a_node_is_drained_and_comes_back_with_frr() -> Result<()> {
    if skip() { Ok(()) } else { drained_and_back(Kind::Frr) }
}

fn drained_and_back(kind: Kind) -> Result<()> {
    let mut site = routed(kind, 2, announcing)?;
    let stream = stream_to(&site, &[WWW4, WWW6]);
    stream.pass(A_WHILE)?;

    let answer = site.balancers[0].maglev(&["node", "drain", "--wait", "--timeout", "2m", "--reason", "new disk"])?;
    ensure!(answer.code == 0, "{}{}", answer.stdout, answer.stderr);
    let proof = &answer.stdout;
    let forwarded = proof.strip_prefix("drained: 0 VIP packets for 2s, ").and_then(|rest| rest.split_once(' '));
    let (forwarded, rest) = forwarded.with_context(|| proof.clone())?;
    ensure!(rest == "packets forwarded while draining, safe to stop\n", "{proof}");
    // How many depends on how soon the router prefers the other.
    ensure!(forwarded.parse::<u64>().is_ok(), "{proof}");
    for (stage, name) in (1..).zip(["marked", "leaving", "withdrawing", "waiting", "drained"]) {
        ensure!(answer.stderr.contains(&format!("{stage} of 5  {name} ")), "{}", answer.stderr);
    }
    await_routes(&mut site, &[2])?;

    // The other one carries everything.
    let before = received(&site.balancers)?;
    stream.pass(A_WHILE)?;
    let after = received(&site.balancers)?;
    ensure!(after[0] == before[0] && after[1] >= before[1] + A_WHILE, "{before:?}, {after:?}");

    // It stays so over the end of its daemon, killed or stopped.
    site.balancers[0].kill()?;
    site.balancers[0].restart()?;
    is_drained(&mut site.balancers[0])?;
    site.balancers[0].stop()?;
    site.balancers[0].restart()?;
    is_drained(&mut site.balancers[0])?;
    let again = site.balancers[0].maglev(&["node", "drain"])?;
    ensure!(again.code == 1 && again.stderr.contains("already") && again.stderr.contains("(new disk)"), "{again:?}");
    await_routes(&mut site, &[2])?;

    // Its counters began anew with its data plane.
    let before = received(&site.balancers)?;
    site.balancers[0].maglev_ok(&["node", "undrain"])?;
    await_routes(&mut site, &[1, 2])?;
    stream.pass(A_WHILE)?;
    let again = site.balancers[0].maglev(&["node", "undrain"])?;
    ensure!(again.code == 1 && again.stderr.contains("the node is not draining: it serves"), "{again:?}");
    ensure!(received(&site.balancers)?[0] > before[0], "it carries its part again");
    stream.finish()?.none_lost()
}

#[test]
fn a_drain_is_taken_back_while_routers_are_only_asked_to_prefer_others() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let long = "drain: { lead: 1h, quiet: 2s, last_node: true }\n";
    let mut site = routed(Kind::Bird, 2, |n| with(Settings::announcing(n), long))?;
    let stream = stream(&site);
    let answer = site.balancers[0].maglev(&["node", "drain"])?;
    ensure!(answer.code == 0 && answer.stderr.contains("they will be without service"), "{answer:?}");
    await_routes(&mut site, &[2])?;
    let reported = site.router()?.route_text(WWW4)?;
    ensure!(reported.contains("(65535,0)"), "{reported}");
    // A daemon that follows goes on asking: the community is there again, and the route is not gone.
    site.balancers[0].kill()?;
    site.balancers[0].restart()?;
    site.balancers[0].await_answer("sessions", &["bgp", "neighbors"], established)?;
    let node = site.balancers[0].maglev_json(&["node", "status"])?;
    ensure!(node["drain"]["stages"][1]["stage"] == "leaving", "{node}");
    let reported = site.router()?.route_text(WWW4)?;
    ensure!(reported.contains("(65535,0)"), "{reported}");
    site.balancers[0].maglev_ok(&["node", "undrain"])?;
    await_routes(&mut site, &[1, 2])?;
    stream.pass(A_WHILE)?;
    stream.finish()?.none_lost()
}

#[test]
fn routers_keep_a_node_whose_daemon_is_killed_or_kept_with_bird() -> Result<()> {
    if skip() { Ok(()) } else { killed_and_kept(Kind::Bird) }
}

#[test]
fn routers_keep_a_node_whose_daemon_is_killed_or_kept_with_frr() -> Result<()> {
    if skip() { Ok(()) } else { killed_and_kept(Kind::Frr) }
}

/// There is one node: were its route gone for a moment, its packets would be.
fn killed_and_kept(kind: Kind) -> Result<()> {
    let mut site = routed(kind, 1, |n| {
        let settings = announcing(n);
        let more = settings.more.replace("bgp:\n", "bgp:\n  on_stop: keep\n");
        Settings { on_stop: "keep", more, ..settings }
    })?;
    let targets = [(WWW4, Backend::PORT).into()];
    let stream = site.lab.client().stream(&targets, RATE);
    stream.pass(A_WHILE)?;
    for killed in [true, false, true] {
        match killed {
            true => site.balancers[0].kill()?,
            false => site.balancers[0].stop()?,
        }
        stream.pass(A_WHILE)?;
        await_routes(&mut site, &[1])?;
        site.balancers[0].restart()?;
        site.balancers[0].await_answer("sessions", &["bgp", "neighbors"], established)?;
        stream.pass(A_WHILE)?;
    }

    // A prefix that is not announced again is dropped once End-of-RIB arrives: not before, as the other stays.
    site.balancers[0].kill()?;
    let services = fs::read_to_string(site.balancers[0].services())?;
    let kept: String =
        services.lines().filter(|line| !line.contains("name: www6-")).map(|l| format!("{l}\n")).collect();
    fs::write(site.balancers[0].services(), kept)?;
    site.balancers[0].restart()?;
    site.router()?.await_route(WWW6, &[])?;
    site.router()?.await_route(WWW4, &[1])?;
    stream.pass(A_WHILE)?;
    stream.finish()?.none_lost()
}

#[test]
fn a_vip_that_is_removed_and_a_node_that_stops_are_let_go_of_first() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = routed(Kind::Bird, 2, announcing)?;
    let stream = stream(&site);
    stream.pass(A_WHILE)?;
    for vip in ["www-tcp", "www-udp"] {
        site.balancers[0].maglev_ok(&["vip", "remove", vip])?;
    }
    site.router()?.await_route(WWW4, &[2])?;
    site.router()?.await_route(WWW6, &[1, 2])?;
    stream.pass(A_WHILE)?;
    site.balancers[0].stop()?;
    await_routes(&mut site, &[2])?;
    stream.pass(A_WHILE)?;
    stream.finish()?.none_lost()
}

#[test]
fn a_drain_that_does_not_end_says_which_vip_still_receives() -> Result<()> {
    if skip() {
        return Ok(());
    }
    // The router's routes are fixed: they cannot be withdrawn.
    let mut site = Site::with_settings(Topology::standard(1), every_family, |n| with(Settings::new(n), TIMES))?;
    let stream = site.lab.client().stream(&[(WWW4, Backend::PORT).into()], RATE);
    let answer = site.balancers[0].maglev(&["node", "drain", "--wait", "--timeout", "5s"])?;
    ensure!(answer.code == 1, "{answer:?}");
    ensure!(answer.stderr.contains("this node announces no prefix (maglev.yaml has no `bgp`)"), "{answer:?}");
    let last = answer.stderr.lines().last().unwrap_or_default();
    let start = "maglev: the node is not drained after 5s: packets still arrive: www-udp ";
    ensure!(last.starts_with(start) && last.ends_with(" packets/s; it goes on draining"), "{answer:?}");
    stream.finish()?.none_lost()?;

    // No more packets arrive: now it ends. A waiting client may order it a second time.
    let answer = site.balancers[0].maglev(&["node", "drain", "--wait", "--timeout", "2m"])?;
    ensure!(answer.code == 0 && answer.stdout.starts_with("drained: 0 VIP packets for 2s, "), "{answer:?}");
    is_drained(&mut site.balancers[0])?;

    // A damaged file has a twin; if that is damaged too, the node stays drained. Both are reported.
    site.balancers[0].kill()?;
    let file = site.balancers[0].services().with_file_name("node-state.json");
    fs::write(&file, "{")?;
    site.balancers[0].restart()?;
    is_drained(&mut site.balancers[0])?;
    let log = site.balancers[0].log();
    ensure!(log.contains("node-state.json cannot be read") && log.contains("continuing with"), "{log}");
    site.balancers[0].kill()?;
    fs::write(&file, "{")?;
    fs::write(file.with_file_name("node-state.json.copy"), "{")?;
    site.balancers[0].restart()?;
    is_drained(&mut site.balancers[0])?;
    let status = site.balancers[0].maglev_ok(&["status"])?;
    ensure!(status.contains("node-state.json cannot be read"), "{status}");
    site.balancers[0].maglev_ok(&["node", "undrain"])?;
    ensure!(!file.exists(), "the file is gone");
    ensure!(site.balancers[0].maglev_ok(&["node", "status"])? == "node       serving\n");
    let bad = site.balancers[0].maglev(&["node", "drain", "--reason", ""])?;
    ensure!(bad.code == 2, "{bad:?}");
    Ok(())
}

#[test]
fn a_second_speaker_of_the_same_identity_is_refused() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = routed(Kind::Bird, 1, announcing)?;
    let balancer = &site.balancers[0];
    let config = fs::read_to_string(balancer.config())?;
    let config = config.replace("maglev.sock", "other.sock").replace(":9642", ":9643").replace("lb1,", "other,");
    let other = site.lab.directory().join("other.yaml");
    fs::write(&other, config)?;
    let mut second = Command::new(binary("maglevd")?);
    let output = balancer.netns().run(|| second.args(["run", "--config"]).arg(&other).output().context("maglevd"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let first = format!("another maglevd (process {}) speaks BGP as router id", balancer.process_id());
    ensure!(output.status.code() == Some(1) && said.contains(&first), "{said}");
    site.balancers[0].await_answer("sessions", &["bgp", "neighbors"], established)
}

/// Load balancers that announce to a router, which has learnt from all of them.
fn routed(kind: Kind, balancers: u8, settings: impl Fn(u8) -> Settings) -> Result<Site> {
    let mut site = Site::with_settings(Topology::standard(balancers).routed_by(kind), every_family, settings)?;
    let all: Vec<u8> = (1..=balancers).collect();
    await_routes(&mut site, &all)?;
    Ok(site)
}

fn announcing(n: u8) -> Settings {
    with(Settings::announcing(n), TIMES)
}

fn with(settings: Settings, more: &str) -> Settings {
    Settings { more: settings.more.clone() + more, ..settings }
}

fn stream(site: &Site) -> Stream {
    stream_to(site, &[WWW4, WWW6])
}

fn stream_to(site: &Site, vips: &[IpAddr]) -> Stream {
    let targets: Vec<SocketAddr> = vips.iter().map(|&vip| (vip, Backend::PORT).into()).collect();
    site.lab.client().stream(&targets, RATE)
}

fn await_routes(site: &mut Site, through: &[u8]) -> Result<()> {
    [WWW4, WWW6].into_iter().try_for_each(|vip| site.router()?.await_route(vip, through))
}

fn is_drained(balancer: &mut Balancer) -> Result<()> {
    balancer.await_answer("a drained node", &["node", "status"], |node| {
        let last = node["drain"]["stages"].as_array().and_then(|stages| stages.last());
        last.is_some_and(|passed| passed["stage"] == "drained")
    })
}

fn established(neighbors: &Value) -> bool {
    neighbors.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(|n| n["state"] == "established"))
}

/// Packets that came in for VIPs, by load balancer.
fn received(balancers: &[Balancer]) -> Result<Vec<u64>> {
    let of = |balancer: &Balancer| {
        let counters = balancer.maglev_json(&["counters"])?;
        let vips = counters["vips"].as_array().context("no VIPs")?;
        Ok(vips.iter().filter_map(|vip| vip["packets"].as_u64()).sum())
    };
    balancers.iter().map(of).collect()
}
