//! HTTP requests through the VIPs: every combination of inner and outer family, both ways to a backend, many at once.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use maglev_e2e::lab::{
    Backend, Balancer, Lab, NEAR, Settings, Site, Topology, UPLINK,
    addresses::{VIPS, WWW4, WWW6},
    site::{counter, every_family},
    skip,
};

#[test]
fn every_family_reaches_every_backend() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(2)?;
    for vip in VIPS {
        let outcomes = site.lab.client().requests(&[SocketAddr::new(vip, Backend::PORT)], 300, 16)?;
        outcomes.all_answered()?;
        let names: Vec<&str> = outcomes.by_backend().into_keys().collect();
        // Three backends of equal weight: the chance that 300 flows miss one is below 1e-52.
        assert_eq!(names, ["web1", "web2", "web3"], "{vip}");
    }
    let packets = site.await_balance()?;
    ensure!(packets.transmitted > 0 && packets.redirected > 0, "both ways carry packets: {packets:?}");
    for balancer in &site.balancers {
        let counters = balancer.maglev_json(&["counters"])?;
        ensure!(counter(&counters, "transmitted")? > 0, "{} took part", balancer.name());
        for dropped in counters["counters"].as_array().into_iter().flatten().filter(|c| c["outcome"] == "dropped") {
            assert_eq!(dropped["packets"], 0, "{}: {dropped}", balancer.name());
        }
    }
    Ok(())
}

#[test]
fn a_thousand_connections_stand_at_once() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(2)?;
    for vip in [WWW4, WWW6] {
        let outcomes = site.lab.client().simultaneous(SocketAddr::new(vip, Backend::PORT), 1_000)?;
        outcomes.all_answered()?;
        assert_eq!(outcomes.0.len(), 1_000);
        assert_eq!(outcomes.by_backend().len(), 3, "{:?}", outcomes.by_backend());
    }
    site.await_balance()?;
    Ok(())
}

#[test]
fn generic_mode_forwards_as_well() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut lab = Lab::new(Topology::standard(1))?;
    let backends = lab.start_backends()?;
    let interfaces = [UPLINK, NEAR].map(|name| (name.to_owned(), "generic")).to_vec();
    let settings = Settings { interfaces, ..Settings::new(1) };
    let mut balancer = Balancer::start(&lab, 1, &settings, &every_family(&lab))?;
    balancer.await_next_hops()?;
    let site = Site { balancers: vec![balancer], backends, router: None, lab };
    let targets = VIPS.map(|vip| SocketAddr::new(vip, Backend::PORT));
    let outcomes = site.lab.client().requests(&targets, 400, 16)?;
    outcomes.all_answered()?;
    assert_eq!(outcomes.by_backend().len(), 3, "{:?}", outcomes.by_backend());
    site.await_balance()?;
    let link = site.balancers[0].netns().ip_json(&["-details", "link", "show", "dev", UPLINK])?;
    // XDP_ATTACHED_SKB
    assert_eq!(link[0]["xdp"]["mode"], 2, "{link}");
    Ok(())
}
