//! Proof that the requests took the way the demo claims: native XDP, no packet lost or slipped past, no other route.

use std::{thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;

use super::stage::Stage;
use crate::lab::{
    Balancer, NEAR, Netns, UPLINK,
    addresses::{WWW4, WWW6, balancer},
};

/// What netlink calls XDP in the driver (`XDP_ATTACHED_DRV`), as opposed to generic (2) or offloaded (3).
const NATIVE: u64 = 1;

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Evidence {
    /// Each load balancer's interfaces, `lb1/eth0`, that netlink reports native XDP on.
    pub(super) native_xdp: Vec<String>,
    pub(super) packets: Packets,
    /// The router's routes to the VIPs: each leads to these gateways and to no other.
    pub(super) gateways: Vec<String>,
}

/// Packets since the lab was built, counted at three places.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Packets {
    /// By VIP, as they came in to the load balancers.
    pub(super) vips: u64,
    /// Encapsulated and sent out of the interface they came in by.
    pub(super) transmitted: u64,
    /// Encapsulated and sent out of another interface.
    pub(super) redirected: u64,
    /// Decapsulated at the backends.
    pub(super) decapsulated: u64,
}

impl Packets {
    fn balance(&self) -> bool {
        let Self { vips, transmitted, redirected, decapsulated } = self;
        vips == &(transmitted + redirected) && vips == decapsulated
    }
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
    for balancer in &stage.balancers {
        for interface in [UPLINK, NEAR] {
            ensure_native(balancer.netns(), interface)?;
            native_xdp.push(format!("{}/{interface}", balancer.name()));
        }
    }
    let gateways = gateways(stage)?;
    Ok(Evidence { native_xdp, packets: await_balance(stage)?, gateways })
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
        let routes = stage.lab.netns("router").ip_json(&[family, "route", "show", "match", &vip.to_string()])?;
        let found: Vec<String> = routes.as_array().into_iter().flatten().flat_map(hops).collect();
        let balancers: Vec<String> =
            (1..=stage.lab.topology().balancers).map(|n| balancer(n, 2).like(vip).to_string()).collect();
        ensure!(
            !found.is_empty() && found.iter().all(|hop| balancers.contains(hop)),
            "{vip} is routed past the load balancers: {routes}"
        );
        all.extend(found);
    }
    Ok(all)
}

/// The gateways of one route; a route without any is a way past the load balancers.
fn hops(route: &Value) -> Vec<String> {
    let hops = route["nexthops"].as_array().cloned().unwrap_or_else(|| vec![route.clone()]);
    hops.iter().map(|hop| hop["gateway"].as_str().unwrap_or("on-link").to_owned()).collect()
}

/// Reads the counters until they agree. The last packets of a connection are still under way when its request is
/// answered, and `decap` writes its counters ten times a second.
fn await_balance(stage: &Stage) -> Result<Packets> {
    let mut last = Packets::default();
    for _ in 0..100 {
        let packets = packets(stage)?;
        if packets.balance() && packets == last {
            return Ok(packets);
        }
        last = packets;
        thread::sleep(Duration::from_millis(150));
    }
    bail!("packets of VIPs, encapsulated and decapsulated do not come to agree: {last:?}")
}

fn packets(stage: &Stage) -> Result<Packets> {
    let mut sum = Packets::default();
    for balancer in &stage.balancers {
        let counters = balancer.maglev_json(&["counters"])?;
        let vips = counters["vips"].as_array().context("maglev counters: no VIPs")?;
        sum.vips += vips.iter().filter_map(|vip| vip["packets"].as_u64()).sum::<u64>();
        sum.transmitted += counter(balancer, &counters, "transmitted")?;
        sum.redirected += counter(balancer, &counters, "redirected")?;
    }
    for backend in &stage.backends {
        sum.decapsulated += backend.counters()?.get("decapsulated").copied().unwrap_or(0);
    }
    Ok(sum)
}

fn counter(balancer: &Balancer, counters: &Value, name: &str) -> Result<u64> {
    let all = counters["counters"].as_array().into_iter().flatten();
    let found = all.filter(|counter| counter["name"] == name).find_map(|counter| counter["packets"].as_u64());
    found.with_context(|| format!("{}: maglev counters does not name {name}", balancer.name()))
}
