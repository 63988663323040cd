//! Proof that the requests took the way the demo claims: native XDP, no packet lost or slipped past, no other route.

use anyhow::{Result, ensure};
use serde::Serialize;

use super::stage::Stage;
use crate::lab::{
    NEAR, Netns, Packets, UPLINK,
    addresses::{WWW4, WWW6, balancer},
    router,
};

/// Netlink's value for XDP in the driver (`XDP_ATTACHED_DRV`), as opposed to generic (2) or offloaded (3).
const NATIVE: u64 = 1;

/// The findings.
#[derive(Debug, Serialize)]
pub(super) struct Evidence {
    /// Each load balancer's interfaces, `lb1/eth0`, that netlink reports native XDP on.
    pub(super) native_xdp: Vec<String>,
    pub(super) packets: Packets,
    /// The router's routes to the VIPs: each leads to these gateways and to no other.
    pub(super) gateways: Vec<String>,
}

impl Evidence {
    /// Whether the packets add up and took both ways; the rest is checked as it is collected.
    pub(super) fn check(&self) -> Result<()> {
        let packets = &self.packets;
        ensure!(packets.balance(), "packets of VIPs, encapsulated and decapsulated differ: {packets:?}");
        ensure!(packets.transmitted > 0 && packets.redirected > 0, "one way carried no packet: {packets:?}");
        Ok(())
    }
}

/// Collects the evidence, once the last packets have arrived.
pub(super) fn collect(stage: &Stage) -> Result<Evidence> {
    let mut native_xdp = Vec::new();
    for balancer in &stage.site.balancers {
        for interface in [UPLINK, NEAR] {
            ensure_native(balancer.netns(), interface)?;
            native_xdp.push(format!("{}/{interface}", balancer.name()));
        }
    }
    let gateways = gateways(stage)?;
    stage.check_no_more()?;
    Ok(Evidence { native_xdp, packets: stage.site.await_balance()?, gateways })
}

fn ensure_native(netns: &Netns, interface: &str) -> Result<()> {
    let link = netns.ip_json(&["-details", "link", "show", "dev", interface])?;
    let mode = link[0]["xdp"]["mode"].as_u64();
    ensure!(mode == Some(NATIVE), "{} {interface}: netlink reports XDP mode {mode:?}, not native", netns.name());
    Ok(())
}

/// The gateways of every route that covers a VIP.
fn gateways(stage: &Stage) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for vip in [WWW4, WWW6] {
        let family = if vip.is_ipv4() { "-4" } else { "-6" };
        let routes = stage.site.lab.netns("router").ip_json(&[family, "route", "show", "match", &vip.to_string()])?;
        let hops = routes.as_array().into_iter().flatten().flat_map(router::hops);
        let found: Vec<String> = hops.map(|hop| hop.gateway).collect();
        let balancers: Vec<String> =
            (1..=stage.site.lab.topology().balancers).map(|n| balancer(n, 2).like(vip).to_string()).collect();
        ensure!(
            !found.is_empty() && found.iter().all(|hop| balancers.contains(hop)),
            "{vip} is routed past the load balancers: {routes}"
        );
        all.extend(found);
    }
    Ok(all)
}
