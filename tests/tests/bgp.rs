//! Nodes draw traffic by announcing their VIPs to a real router, and let go of it by withdrawing them. The router has no
//! other route to a VIP.

use anyhow::{Context, Result, ensure};
use maglev_e2e::{
    lab::{
        Backend, Balancer, Lab, Services, Settings, Site, Topology, Vip,
        addresses::{self, WWW4, WWW6},
        router::{self, Kind},
        skip,
    },
    matrix::Matrix,
};
use serde_json::Value;

#[test]
fn vips_are_announced_to_bird_and_withdrawn() -> Result<()> {
    if skip() { Ok(()) } else { announced_and_withdrawn(Kind::Bird) }
}

#[test]
fn vips_are_announced_to_frr_and_withdrawn() -> Result<()> {
    if skip() { Ok(()) } else { announced_and_withdrawn(Kind::Frr) }
}

fn announced_and_withdrawn(kind: Kind) -> Result<()> {
    let mut site = Site::with_settings(Topology::standard(2).routed_by(kind), services, Settings::announcing)?;
    for vip in [WWW4, WWW6] {
        site.router()?.await_route(vip, &[1, 2])?;
    }
    let targets = [WWW4, WWW6].map(|vip| (vip, Backend::PORT).into());
    site.lab.client().requests(&targets, 100, 8)?.all_answered()?;

    let neighbors = site.balancers[0].maglev_json(&["bgp", "neighbors"])?;
    let states: Vec<&str> = list(&neighbors)?.iter().filter_map(|neighbor| neighbor["state"].as_str()).collect();
    assert_eq!(states, ["established", "established"]);
    let sent: Vec<&Value> = list(&neighbors)?.iter().map(|neighbor| &neighbor["prefixes_sent"]).collect();
    assert_eq!(sent, [1, 1]);
    let text = site.balancers[0].maglev_ok(&["bgp", "routes"])?;
    assert!(text.contains("203.0.113.10/32") && text.contains("to 1 of 1 neighbors"), "{text}");

    // A reset ends one session, and another follows; a neighbor that is not one is named with those that are.
    site.balancers[0].maglev_ok(&["bgp", "reset", "router6"])?;
    let again = |neighbors: &Value| neighbors[1]["sessions"] == 2 && neighbors[1]["state"] == "established";
    site.balancers[0].await_answer("another session", &["bgp", "neighbors"], again)?;
    let refused = site.balancers[0].maglev(&["bgp", "reset", "router9"])?;
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("unknown BGP neighbor router9; known: router, router6"), "{}", refused.stderr);

    // A VIP that is gone from one node is reached through the other.
    site.balancers[0].maglev_ok(&["vip", "remove", "www6"])?;
    site.router()?.await_route(WWW6, &[2])?;
    site.router()?.await_route(WWW4, &[1, 2])?;
    site.lab.client().requests(&targets, 100, 8)?.all_answered()?;

    // So is one that its pool can no longer serve.
    for backend in ["web1", "web2"] {
        site.balancers[1].maglev_ok(&["backend", "weight", "web", backend, "0", "--force"])?;
    }
    site.router()?.await_route(WWW4, &[1])?;
    let text = site.balancers[1].maglev_ok(&["bgp", "routes"])?;
    assert!(text.contains("no: VIP www4: pool web has 0 usable backends, fewer than its min_healthy 1"), "{text}");
    site.lab.client().requests(&targets[..1], 100, 8)?.all_answered()?;

    // A node that stops withdraws its prefixes, and no traffic is sent to it any more.
    site.balancers[0].stop()?;
    site.router()?.await_route(WWW4, &[])
}

/// GoBGP sets no routes: its word is all there is.
#[test]
fn gobgp_learns_vips_from_both_nodes() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::with_settings(Topology::standard(2).routed_by(Kind::Gobgp), services, Settings::announcing)?;
    for vip in [WWW4, WWW6] {
        let hops = [1, 2].map(|n| addresses::balancer(n, 2).like(vip).to_string());
        Matrix::Bgp.row("GoBGP", &format!("a VIP from two nodes: {vip}"), || {
            site.router()?.await_route_text(vip, |text| hops.iter().all(|hop| text.contains(hop.as_str())))?;
            Ok(hops.join(" "))
        })?;
    }
    let refused = Kind::Gobgp.ensure_routes().err().context("GoBGP sets routes?")?.to_string();
    ensure!(refused.contains("allowed here are bird and frr"), "{refused}");
    Ok(())
}

/// Of four parts, one goes to the first node and three to the second.
#[test]
fn link_bandwidth_is_a_weight_in_the_kernel_of_frr() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let settings = |n| {
        let settings = Settings::announcing(n);
        let bandwidth = if n == 1 { "10G" } else { "30G" };
        let more = settings.more.replace("bgp:\n", &format!("bgp:\n  link_bandwidth: {bandwidth}\n"));
        Settings { more, ..settings }
    };
    let mut site = Site::with_settings(Topology::standard(2).routed_by(Kind::Frr), services, settings)?;
    Matrix::Bgp.row("FRR", "link bandwidth 10G and 30G: weights", || {
        for vip in [WWW4, WWW6] {
            site.router()?.await_route(vip, &[1, 2])?;
            let hops = router::next_hops(&site.lab.netns("router"), vip)?;
            // FRR counts in hundredths, and rounds.
            let off = (3 * hops[0].weight).abs_diff(hops[1].weight);
            ensure!(off <= 3 && hops[1].weight > 50, "{vip}: {hops:?}\n{}", site.router()?.route_text(vip)?);
        }
        let line = site.router()?.route_line(WWW4)?;
        Ok(line.split_whitespace().filter(|word| *word != "nexthop").collect::<Vec<_>>().join(" "))
    })?;
    // The second node sees three quarters of the flows: a share of 0.75 of 800, and the deviation is 12.2.
    let targets = [WWW4, WWW6].map(|vip| (vip, Backend::PORT).into());
    let before = packets(&site)?;
    site.lab.client().requests(&targets, 800, 8)?.all_answered()?;
    let after = packets(&site)?;
    let [one, two] = [0, 1].map(|n| (after[n] - before[n]) as f64);
    let share = two / (one + two);
    ensure!((0.68..0.82).contains(&share), "{share} of the packets went to the second node");
    Ok(())
}

/// Packets for VIPs, by node.
fn packets(site: &Site) -> Result<Vec<u64>> {
    let of = |balancer: &Balancer| {
        let counters = balancer.maglev_json(&["counters"])?;
        Ok(list(&counters["vips"])?.iter().filter_map(|vip| vip["packets"].as_u64()).sum())
    };
    site.balancers.iter().map(of).collect()
}

fn services(lab: &Lab) -> Services {
    let pool = lab.pool("web", WWW4, &[(1, 100), (2, 100)]);
    let vip = |name, vip| Vip::new(name, (vip, Backend::PORT), "tcp", "web");
    Services { pools: vec![pool], vips: vec![vip("www4", WWW4), vip("www6", WWW6)] }
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().with_context(|| format!("{value} is no list"))
}
