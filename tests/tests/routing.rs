//! The lab itself, without a load balancer: the backends answer on their own addresses, through the router. What fails
//! here is the lab's fault.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use maglev_e2e::{
    bytes,
    lab::{Backend, Lab, Topology, addresses, skip},
};

const MB: u64 = 1_000_000;

#[test]
fn backends_answer_on_their_own_addresses() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let lab = Lab::new(Topology::standard(2))?;
    let _backends = lab.start_servers()?;
    let client = lab.client();
    for like in [addresses::WWW4, addresses::WWW6] {
        for (n, name) in (1..).zip(lab.backend_names()) {
            let target = SocketAddr::new(lab.backend_address(n, like), Backend::PORT);
            let outcomes = client.requests(&[target], 20, 4)?;
            outcomes.all_answered()?;
            assert_eq!(outcomes.by_backend(), [(name.as_str(), 20)].into());

            let echoes = client.datagrams(target, 20)?;
            echoes.all_answered()?;
            assert_eq!(echoes.by_backend(), [(name.as_str(), 20)].into());
        }
    }
    Ok(())
}

#[test]
fn bulk_crosses_the_router_unharmed() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let lab = Lab::new(Topology::standard(1))?;
    let _backends = lab.start_servers()?;
    for like in [addresses::WWW4, addresses::WWW6] {
        let target = SocketAddr::new(lab.backend_address(1, like), Backend::PORT);
        let receipt = lab.client().upload(target, 50 * MB)?;
        assert_eq!((receipt.length, receipt.sha256), (50 * MB, bytes::digest(50 * MB)));
        assert_eq!(lab.client().download(target, 50 * MB)?, bytes::digest(50 * MB));
    }
    Ok(())
}

#[test]
fn vips_lead_to_the_load_balancers_and_no_further() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let lab = Lab::new(Topology::standard(2))?;
    let _backends = lab.start_servers()?;
    // The load balancers run no program yet and do not route: nobody may answer for a VIP.
    for vip in addresses::VIPS {
        let routes =
            lab.netns("router").ip_json(&[family(vip.is_ipv4()), "route", "show", "match", &vip.to_string()])?;
        let hops: Vec<String> = routes.as_array().into_iter().flatten().flat_map(gateways).collect();
        let expected = [1, 2].map(|n| addresses::balancer(n, 2).like(vip).to_string());
        ensure!(hops == expected, "{vip}: {routes}");
        let forwards = lab.netns("lb1").run(|| Ok(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?))?;
        assert_eq!(forwards.trim(), "0");
    }
    Ok(())
}

fn family(v4: bool) -> &'static str {
    if v4 { "-4" } else { "-6" }
}

fn gateways(route: &serde_json::Value) -> Vec<String> {
    let hops = route["nexthops"].as_array().cloned().unwrap_or_else(|| vec![route.clone()]);
    hops.iter().map(|hop| hop["gateway"].as_str().unwrap_or("none").to_owned()).collect()
}
