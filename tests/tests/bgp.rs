//! Nodes draw traffic by announcing their VIPs to a real BIRD, and let go of it by withdrawing them. The router has no
//! other route to a VIP.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use maglev_e2e::lab::{
    Backend, Process, Services, Settings, Site, Topology, Vip,
    addresses::{self, VIP_PREFIXES, WWW4, WWW6},
    skip,
};
use serde_json::Value;

#[test]
fn vips_are_announced_to_bird_and_withdrawn() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::of(Topology::standard(2), services, settings)?;
    let mut bird = start_bird(&site)?;
    for vip in [WWW4, WWW6] {
        bird.await_event("both next hops", |_| Ok(next_hops(&site, &vip.to_string())? == 2))?;
    }
    let targets = [WWW4, WWW6].map(|vip| (vip, Backend::PORT).into());
    site.lab.client().requests(&targets, 100, 8)?.all_answered()?;

    let neighbors = site.balancers[0].maglev_json(&["bgp", "neighbors"])?;
    let states: Vec<&str> = list(&neighbors)?.iter().filter_map(|neighbor| neighbor["state"].as_str()).collect();
    assert_eq!(states, ["established", "established"]);
    let sent: Vec<&Value> = list(&neighbors)?.iter().map(|neighbor| &neighbor["prefixes_sent"]).collect();
    assert_eq!(sent, [1, 1]);
    let text = site.balancers[0].maglev_ok(&["bgp", "routes"])?;
    assert!(text.contains("203.0.113.10/32") && text.contains("yes"), "{text}");

    // A reset ends one session, and another follows; a neighbour that is not one is named with those that are.
    site.balancers[0].maglev_ok(&["bgp", "neighbor", "router6", "reset"])?;
    let again = |neighbors: &Value| neighbors[1]["sessions"] == 2 && neighbors[1]["state"] == "established";
    bird.await_event("another session", |_| Ok(again(&site.balancers[0].maglev_json(&["bgp", "neighbors"])?)))?;
    let refused = site.balancers[0].maglev(&["bgp", "neighbor", "router9", "reset"])?;
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("no BGP neighbour router9; there is: 10.2.1.1, router6"), "{}", refused.stderr);

    // A VIP that is gone from one node is reached through the other.
    site.balancers[0].maglev_ok(&["vip", "remove", "www6"])?;
    bird.await_event("one next hop", |_| Ok(next_hops(&site, &WWW6.to_string())? == 1))?;
    assert_eq!(next_hops(&site, &WWW4.to_string())?, 2);
    site.lab.client().requests(&targets, 100, 8)?.all_answered()?;

    // So is one that its pool can no longer serve.
    for backend in ["web1", "web2"] {
        site.balancers[1].maglev_ok(&["backend", "weight", "web", backend, "0"])?;
    }
    bird.await_event("one next hop", |_| Ok(next_hops(&site, &WWW4.to_string())? == 1))?;
    let text = site.balancers[1].maglev_ok(&["bgp", "routes"])?;
    assert!(text.contains("no: VIP www4: pool web has 0 usable backends, fewer than its min_healthy 1"), "{text}");
    site.lab.client().requests(&targets[..1], 100, 8)?.all_answered()?;

    // A node that stops says so, and nobody turns to it any more.
    site.balancers[0].stop()?;
    bird.await_event("no next hop", |_| Ok(next_hops(&site, &WWW4.to_string())? == 0))?;
    Ok(())
}

fn services(lab: &maglev_e2e::lab::Lab) -> Services {
    let pool = lab.pool("web", WWW4, &[(1, 100), (2, 100)]);
    let vip = |name, vip| Vip::new(name, (vip, Backend::PORT), "tcp", "web");
    Services { pools: vec![pool], vips: vec![vip("www4", WWW4), vip("www6", WWW6)] }
}

fn settings(n: u8) -> Settings {
    let (router, own) = (addresses::balancer(n, 1), addresses::balancer(n, 2));
    let more = format!(
        "bgp:\n  local_as: 65010\n  router_id: {}\n  neighbors:\n    - {{ address: {}, remote_as: 65000, gtsm: true }}\n    \
         - {{ name: router6, address: \"{}\", remote_as: 65000, gtsm: true }}\n",
        own.v4, router.v4, router.v6
    );
    Settings { more, ..Settings::of(n) }
}

/// BIRD in the router's namespace, and no static routes to the VIPs beside it.
fn start_bird(site: &Site) -> Result<Process> {
    let (router, directory) = (site.lab.netns("router"), site.lab.directory());
    router.ip(&VIP_PREFIXES.map(|prefix| format!("route del {prefix}")))?;
    let mut config = "router id 10.2.0.1; protocol device {}\n".to_owned();
    for family in ["ipv4", "ipv6"] {
        config += &format!(
            "protocol kernel {{ merge paths on; {family} {{ export where source = RTS_BGP; import none; }}; }}\n\
             protocol direct {{ {family}; }}\n"
        );
    }
    for n in 1..=2 {
        let own = addresses::balancer(n, 2);
        for (family, address) in [("ipv4", own.v4.to_string()), ("ipv6", own.v6.to_string())] {
            config += &format!(
                "protocol bgp {{ local as 65000; neighbor {address} as 65010; passive on; ttl security on; \
                 {family} {{ import all; export none; }}; }}\n"
            );
        }
    }
    let file = directory.join("bird.conf");
    fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
    let mut command = Command::new("bird");
    command.arg("-f").arg("-c").arg(&file).arg("-s").arg(directory.join("bird.ctl"));
    Process::start("bird", &router, &directory, &mut command)
}

/// Through how many nodes the router's kernel reaches an address.
fn next_hops(site: &Site, address: &str) -> Result<usize> {
    let family = if address.contains(':') { "-6" } else { "-4" };
    let routes = site.lab.netns("router").ip_json(&[family, "route", "show", address])?;
    let routes = list(&routes)?;
    ensure!(routes.len() <= 2, "{routes:?}");
    let hops = |route: &Value| route["nexthops"].as_array().map_or(1, Vec::len);
    Ok(routes.iter().map(hops).sum())
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().with_context(|| format!("{value} is no list"))
}
