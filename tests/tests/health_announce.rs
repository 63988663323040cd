//! Health and what is announced: what is withdrawn when backends fail, when it comes back, and what a daemon that starts
//! takes to be healthy.

use std::{
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use maglev_e2e::{
    lab::{
        Backend, Lab, Services, Settings, Site, Topology, Vip,
        addresses::{ALT4, WWW4},
        router::Kind,
        skip,
    },
    matrix::Matrix,
};
use serde_json::Value;

/// How a pool is checked where it is to be known soon.
const CHECK: &str = "check: { kind: http, path: /, via: direct, port: 80, interval: 500ms, timeout: 250ms }";

/// How long what was withdrawn is held down.
const HOLD_DOWN: Duration = Duration::from_secs(3);

/// How long a check of an unused address takes.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A backend's address that no host has: the router drops its packets.
const NO_HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

#[test]
fn when_all_fail_the_vip_stays_announced_unless_min_healthy_says_otherwise() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::with_settings(Topology::standard(1).routed_by(Kind::Bird), two_pools, settings)?;
    with_lines(&site, "web", CHECK)?;
    with_lines(&site, "strict", &format!("{CHECK}\n    min_healthy: 2"))?;
    site.balancers[0].maglev_ok(&["reload"])?;
    await_backends(&mut site, "healthy backends", |backend| backend["health"]["state"] == "healthy")?;
    for vip in [WWW4, ALT4] {
        site.router()?.await_route(vip, &[1])?;
    }
    let watch = site.router()?.watch()?;
    // The servers serve; it is the checks that are wrong.
    let asks = |site: &Site, before: &str, now: &str| {
        let file = site.balancers[0].services();
        let text = fs::read_to_string(&file).context("services.yaml")?;
        let (before, now) = (format!("path: {before},"), format!("path: {now},"));
        fs::write(&file, text.replace(&before, &now)).context("services.yaml")?;
        site.balancers[0].maglev_ok(&["reload"]).map(drop)
    };
    Matrix::Health.row("BIRD", "all fail: traffic flows to all, the VIP stays announced", || {
        asks(&site, "/", "/nothing")?;
        // Until then they fall one by one, and each takes the connections along that live on it.
        site.balancers[0].await_status("panic of both pools", |status| {
            let all = status["pools"].as_array();
            status["publishing"] == false && all.is_some_and(|all| all.iter().all(|pool| pool["panic"] == true))
        })?;
        site.router()?.await_route(ALT4, &[])?;
        let outcomes = site.lab.client().requests(&[(WWW4, Backend::PORT).into()], 300, 16)?;
        outcomes.all_answered()?;
        let answered = outcomes.by_backend().len();
        ensure!(answered == 3, "{:?}", outcomes.by_backend());
        let changes = watch.changes(WWW4)?;
        ensure!(changes.is_empty(), "{changes:?}");
        Ok("300 of 300 requests answered, by 3 of 3; a pool with min_healthy: 2 is withdrawn".to_owned())
    })?;
    Matrix::Health.row("BIRD", "enough again: announced after the hold-down", || {
        asks(&site, "/nothing", "/")?;
        let strict = |backend: &Value| backend["pool"] != "strict" || backend["health"]["state"] == "healthy";
        await_backends(&mut site, "healthy backends", strict)?;
        let healthy = Instant::now();
        site.balancers[0].await_answer("the hold-down", &["bgp", "routes"], |routes| {
            routes.to_string().contains("withdrawn for lack of healthy backends; enough are healthy again")
        })?;
        site.router()?.await_route(ALT4, &[1])?;
        let took = healthy.elapsed();
        // The last of them was healthy a little later than two were, which is enough.
        ensure!(took > HOLD_DOWN - Duration::from_secs(2), "{took:?}");
        Ok(format!("{:.1} s after all were healthy; hold_down: {} s", took.as_secs_f64(), HOLD_DOWN.as_secs()))
    })
}

#[test]
fn a_daemon_that_starts_announces_once_it_has_checked_and_uses_backends_known_to_be_healthy() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site =
        Site::with_settings(Topology::standard(1).routed_by(Kind::Bird), with_a_backend_without_host, settings)?;
    site.lab.netns("router").ip(&[format!("route add blackhole {NO_HOST}/32")])?;
    site.router()?.await_route(WWW4, &[1])?;
    Matrix::Health.row("BIRD", "start: announced after the first round of checks", || {
        site.balancers[0].stop()?;
        site.router()?.await_route(WWW4, &[])?;
        with_lines(&site, "web", "check: { kind: tcp, via: direct, port: 80, interval: 3s, timeout: 2s }")?;
        let began = Instant::now();
        site.balancers[0].restart()?;
        let reported = site.balancers[0].maglev_ok(&["bgp", "routes"])?;
        site.router()?.await_route(WWW4, &[1])?;
        let took = began.elapsed();
        ensure!(took >= TIMEOUT, "announced after {took:?}: {reported}");
        Ok(format!("after {} ms, of which an unanswered check took {} s", took.as_millis(), TIMEOUT.as_secs()))
    })?;
    // A backend that was in use before, unchecked, is not given up by its first failure.
    await_backends(&mut site, "known health", |backend| backend["health"]["state"] != "checking")?;
    Matrix::Health.row("BIRD", "stop and start: a backend known to be dead is not used", || {
        site.balancers[0].stop()?;
        site.router()?.await_route(WWW4, &[])?;
        site.balancers[0].restart()?;
        a_backend_without_a_host_is_unused(&site)?;
        site.router()?.await_route(WWW4, &[1])?;
        Ok("while it is being checked again".to_owned())
    })?;
    await_backends(&mut site, "known health", |backend| backend["health"]["state"] != "checking")?;
    Matrix::Health.row("BIRD", "kill -9 and start: the same, and the route stays", || {
        let watch = site.router()?.watch()?;
        site.balancers[0].kill()?;
        site.balancers[0].restart()?;
        a_backend_without_a_host_is_unused(&site)?;
        await_backends(&mut site, "known health", |backend| backend["health"]["state"] != "checking")?;
        site.balancers[0].await_answer("its announcements", &["bgp", "neighbors"], |neighbors| {
            neighbors.as_array().is_some_and(|all| all.iter().any(|neighbor| neighbor["prefixes_sent"] == 1))
        })?;
        let deleted = watch.changes(WWW4)?.into_iter().find(|line| line.starts_with("Deleted"));
        ensure!(deleted.is_none(), "{deleted:?}");
        Ok("End-of-RIB after the first round of checks".to_owned())
    })
}

#[test]
fn a_node_that_reaches_no_backend_leaves_the_vip_to_others() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::with_settings(Topology::standard(2).routed_by(Kind::Bird), two_pools, settings)?;
    site.router()?.await_route(WWW4, &[1, 2])?;
    let backends = site.balancers[0].maglev_json(&["backend", "list", "web"])?;
    let addresses = backends.as_array().into_iter().flatten().filter_map(|backend| backend["address"].as_str());
    let routes = |action: &str| -> Vec<String> {
        addresses.clone().map(|address| format!("route {action} unreachable {address}/32")).collect()
    };
    Matrix::Health.row("BIRD", "no backend can be reached from one of two nodes: withdrawn there", || {
        site.lab.netns("lb1").ip(&routes("add"))?;
        let began = Instant::now();
        site.router()?.await_route(WWW4, &[2])?;
        let took = began.elapsed();
        let reported = site.balancers[0].maglev_ok(&["bgp", "routes"])?;
        ensure!(reported.contains("fewer than its min_healthy 1; 3 unreachable"), "{reported}");
        let outcomes = site.lab.client().requests(&[(WWW4, Backend::PORT).into()], 100, 16)?;
        outcomes.all_answered()?;
        site.lab.netns("lb1").ip(&routes("del"))?;
        site.router()?.await_route(WWW4, &[1, 2])?;
        Ok(format!("after {:.1} s, and 100 of 100 requests answered by way of the other", took.as_secs_f64()))
    })
}

/// The backend without a host is being checked, and owns no slots.
fn a_backend_without_a_host_is_unused(site: &Site) -> Result<()> {
    let backends = site.balancers[0].maglev_json(&["backend", "list", "web"])?;
    let hostless = backends.as_array().into_iter().flatten().find(|backend| backend["name"] == "hostless");
    let hostless = hostless.context("no such backend")?;
    ensure!(hostless["health"]["state"] == "checking" && hostless["slots"] == 0, "{hostless}");
    Ok(())
}

fn settings(n: u8) -> Settings {
    let settings = Settings::announcing(n);
    let more = format!("{}health: {{ hold_down: {}s }}\n", settings.more, HOLD_DOWN.as_secs());
    Settings { more, ..settings }
}

/// Pools `web` and `strict`, with a VIP each.
fn two_pools(lab: &Lab) -> Services {
    let pool = |name| lab.pool(name, WWW4, &[(1, 100), (2, 100), (3, 100)]);
    let vip = |name, vip, pool| Vip::new(name, (vip, Backend::PORT), "tcp", pool);
    Services {
        pools: vec![pool("web"), pool("strict")],
        vips: vec![vip("www", WWW4, "web"), vip("alt", ALT4, "strict")],
    }
}

fn with_a_backend_without_host(lab: &Lab) -> Services {
    let mut pool = lab.pool("web", WWW4, &[(1, 100), (2, 100)]);
    pool.backends.push(("hostless".to_owned(), NO_HOST.into(), 100));
    Services { pools: vec![pool], vips: vec![Vip::new("www", (WWW4, Backend::PORT), "tcp", "web")] }
}

/// Writes further lines of a pool into the services file.
fn with_lines(site: &Site, pool: &str, lines: &str) -> Result<()> {
    let file = site.balancers[0].services();
    let text = fs::read_to_string(&file).context("services.yaml")?;
    let name = format!("- name: {pool}\n");
    ensure!(text.contains(&name), "{text}");
    fs::write(&file, text.replacen(&name, &format!("{name}    {lines}\n"), 1)).context("services.yaml")
}

/// Waits until all backends are as `holds` looks for.
fn await_backends(site: &mut Site, what: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
    site.balancers[0]
        .await_status(what, |status| status["backends"].as_array().is_some_and(|all| all.iter().all(&holds)))
}
