//! BGP sessions, and what is shown of announcements.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use maglev_e2e::{
    client::Client,
    lab::{
        Backend, Lab, Services, Settings, Site, Topology, Vip,
        addresses::{WWW4, WWW6},
        binary,
        router::Kind,
        skip,
    },
    matrix::Matrix,
};
use serde_json::Value;

/// A VIP of each family; the pool's backends are IPv4.
fn services(lab: &Lab) -> Services {
    let pool = lab.pool("web", WWW4, &[(1, 100), (2, 100)]);
    let vip = |name, vip| Vip::new(name, (vip, Backend::PORT), "tcp", "web");
    Services { pools: vec![pool], vips: vec![vip("www4", WWW4), vip("www6", WWW6)] }
}

/// The display of a VIP: whether it is announced, to how many neighbors of how many, and why not to all.
fn shown(site: &Site, vip: &str) -> Result<(Value, Value, Value, Value)> {
    let health = site.balancers[0].maglev_json(&["vip", "show", vip])?["health"].clone();
    let [announced, to, of, reason] =
        ["announced", "announced_to", "neighbors", "withheld"].map(|key| health[key].clone());
    Ok((announced, to, of, reason))
}

fn metrics(site: &Site) -> Result<String> {
    let at = ([127, 0, 0, 1], 9642).into();
    Client::new(site.balancers[0].netns().clone(), Vec::new()).text(at, "/metrics")
}

/// The line of `maglev status` about BGP.
fn status_line(site: &Site) -> Result<String> {
    let status = site.balancers[0].maglev_ok(&["status"])?;
    let line = status.lines().find(|line| line.starts_with("bgp ")).context("no line about BGP")?;
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn prefix_events(site: &Site) -> Result<Vec<String>> {
    let lines = site.balancers[0].maglev_ok(&["--output", "json", "events"])?;
    let events = lines.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>().context("events")?;
    let prefixes = events.iter().filter(|event| event["event"] == "prefix");
    Ok(prefixes.filter_map(|event| event["text"].as_str().map(str::to_owned)).collect())
}

#[test]
fn without_bgp_nothing_is_said_to_be_announced() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::new(1, services)?;
    Matrix::Fault.row("T2", "no `bgp` section: BGP off in vip list, status, routes and metrics; no event", || {
        ensure!(
            shown(&site, "www4")? == (Value::Null, Value::Null, Value::Null, "BGP off".into()),
            "{:?}",
            shown(&site, "www4")?
        );
        let list = site.balancers[0].maglev_ok(&["vip", "list"])?;
        ensure!(list.lines().skip(1).all(|line| line.ends_with("BGP off")), "{list}");
        ensure!(status_line(&site)? == "bgp off", "{}", status_line(&site)?);
        ensure!(site.balancers[0].maglev_json(&["bgp", "routes"])? == Value::Array(Vec::new()), "routes");
        ensure!(!metrics(&site)?.contains("bgp_prefix_announced{"), "{}", metrics(&site)?);
        ensure!(prefix_events(&site)?.is_empty(), "{:?}", prefix_events(&site)?);
        Ok("BGP off".into())
    })
}

#[test]
fn announced_is_what_neighbors_hold() -> Result<()> {
    if skip() {
        return Ok(());
    }
    // The lab's IPv6 neighbor takes both families; IPv6 prefixes go to it alone.
    let mut site = Site::with_settings(Topology::standard(1).routed_by(Kind::Bird), services, Settings::announcing)?;
    site.router()?.await_route(WWW4, &[1])?;
    site.router()?.await_route(WWW6, &[1])?;
    Matrix::Fault.row("C3", "sessions up: announced to N of M in every view", || {
        site.balancers[0].await_status("both sessions", |status| {
            status["bgp"]["established"] == 2 && status["bgp"]["announced"] == 2
        })?;
        let (announced, to, of, reason) = shown(&site, "www4")?;
        ensure!(announced == true && to == of && reason.is_null(), "{announced} {to} {of} {reason}");
        let line = status_line(&site)?;
        ensure!(line == "bgp 2 of 2 neighbors established, 2 prefixes announced", "{line}");
        ensure!(
            metrics(&site)?.contains("maglev_bgp_prefix_announced{prefix=\"203.0.113.10/32\"} 1"),
            "{}",
            metrics(&site)?
        );
        let routes = site.balancers[0].maglev_ok(&["bgp", "routes"])?;
        ensure!(routes.contains(&format!("to {to} of {of} neighbors")), "{routes}");
        Ok(line)
    })?;
    Matrix::Fault.row("C3", "every session down: announced to none, and why, in every view and as events", || {
        drop(site.router.take());
        site.balancers[0].await_status("no session", |status| status["bgp"]["established"] == 0)?;
        let (announced, to, _, reason) = shown(&site, "www4")?;
        ensure!(announced == false && to == 0, "{announced} {to}");
        ensure!(reason == "no BGP session is established", "{reason}");
        let line = status_line(&site)?;
        ensure!(line == "bgp 0 of 2 neighbors established, 0 of 2 prefixes announced", "{line}");
        ensure!(
            metrics(&site)?.contains("maglev_bgp_prefix_announced{prefix=\"203.0.113.10/32\"} 0"),
            "{}",
            metrics(&site)?
        );
        let routes = site.balancers[0].maglev_ok(&["bgp", "routes"])?;
        ensure!(routes.contains("no: no BGP session is established"), "{routes}");
        let expected = "203.0.113.10/32 is withdrawn, for VIP www4: no BGP session is established";
        ensure!(prefix_events(&site)?.iter().any(|text| text == expected), "{:?}", prefix_events(&site)?);
        Ok(line)
    })
}

#[test]
fn a_removal_that_waits_for_routers_outlives_a_stop() -> Result<()> {
    if skip() {
        return Ok(());
    }
    // A neighbor that may hold prefixes of an earlier daemon, and is away when they are withdrawn: a removal waits for it.
    let settings = |n| {
        let settings = Settings::announcing(n);
        let absent = "    - { name: absent, address: 192.0.2.1, remote_as: 65000, multihop: 2 }\n";
        Settings { on_stop: "keep", more: settings.more + absent, ..Settings::new(n) }
    };
    let mut site = Site::with_settings(Topology::standard(1).routed_by(Kind::Bird), services, settings)?;
    site.router()?.await_route(WWW4, &[1])?;
    Matrix::Fault.row(
        "R8",
        "SIGTERM while the removal of a VIP waits for routers that keep prefixes: the next daemon serves it until they know",
        || {
            let balancer = &mut site.balancers[0];
            balancer.kill()?;
            balancer.restart()?;
            balancer.await_status("its announcements", |status| status["bgp"]["announced"] == 2)?;
            let mut remove = Command::new(binary("maglev")?);
            remove.arg("--socket").arg(balancer.socket()).args(["vip", "remove", "www4"]).stderr(Stdio::null());
            let mut remove = remove.spawn().context("maglev")?;
            balancer.await_log("no VIP asks for it any more")?;
            balancer.stop()?;
            remove.wait()?;
            balancer.restart()?;
            let vips = balancer.maglev_ok(&["vip", "list"])?;
            ensure!(!vips.contains("www4"), "{vips}");
            let vip = format!("{WWW4}:{}", Backend::PORT);
            let explained = balancer.maglev_ok(&["flow", "explain", "198.51.100.9:40000", &vip, "tcp"])?;
            ensure!(explained.contains("forwarded"), "the absent neighbor does not know yet: {explained}");
            site.router()?.await_route(WWW4, &[])?;
            Ok("it is removed and withdrawn, and packets for it are still taken".into())
        },
    )
}
