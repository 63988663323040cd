//! A whole site: a lab with its backends and load balancers running, and the packets counted along the way.

use std::{thread, time::Duration};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use super::{
    Backend, Balancer, Lab, Router, Services, Settings, Topology, Vip,
    addresses::{ALT4, ALT6, WWW4, WWW6},
};

/// Everything that runs. The lab comes last: it is dropped after what lives in it.
#[derive(Debug)]
pub struct Site {
    /// The load balancers, in the order of their numbers.
    pub balancers: Vec<Balancer>,
    /// The backends, in the order of their numbers.
    pub backends: Vec<Backend>,
    /// The router, if it is one that learns from the load balancers.
    pub router: Option<Router>,
    /// The lab they run in.
    pub lab: Lab,
}

/// Packets since the site was built, counted at three places.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Packets {
    /// By VIP, as they came in to the load balancers.
    pub vips: u64,
    /// Encapsulated and sent out of the interface they came in by.
    pub transmitted: u64,
    /// Encapsulated and sent out of another interface.
    pub redirected: u64,
    /// Too long for the path to their backend, and answered with its MTU.
    pub answered: u64,
    /// Of health checks that load balancers made to a VIP, encapsulated like clients' packets.
    pub checks: u64,
    /// Decapsulated at the backends.
    pub decapsulated: u64,
}

impl Site {
    /// Builds the standard topology with these services.
    ///
    /// # Errors
    /// If anything does not come up.
    pub fn new(balancers: u8, services: impl FnOnce(&Lab) -> Services) -> Result<Self> {
        Self::with_settings(Topology::standard(balancers), services, Settings::new)
    }

    /// Builds this topology with these services, and with these settings of each load balancer.
    ///
    /// # Errors
    /// If anything does not come up.
    pub fn with_settings(
        topology: Topology,
        services: impl FnOnce(&Lab) -> Services,
        settings: impl Fn(u8) -> Settings,
    ) -> Result<Self> {
        let mut lab = Lab::new(topology)?;
        let backends = lab.start_backends()?;
        let router = lab.start_router()?;
        let balancers = lab.start_balancers(&services(&lab), settings)?;
        Ok(Self { balancers, backends, router, lab })
    }

    /// The site most tests use: every combination of inner and outer family, TCP and UDP, three backends of four.
    ///
    /// # Errors
    /// If anything does not come up.
    pub fn standard(balancers: u8) -> Result<Self> {
        Self::new(balancers, every_family)
    }

    /// The router that learns from the load balancers.
    ///
    /// # Errors
    /// If the topology names none.
    pub fn router(&mut self) -> Result<&mut Router> {
        self.router.as_mut().context("the lab's router has fixed routes")
    }

    /// Lets everything stand when this handle is dropped.
    ///
    /// # Errors
    /// If the mark for later runs cannot be written.
    pub fn keep(&mut self) -> Result<()> {
        self.balancers.iter_mut().for_each(Balancer::keep);
        self.backends.iter_mut().for_each(Backend::keep);
        self.router.iter_mut().for_each(Router::keep);
        self.lab.keep()
    }

    /// Reads the counters until they agree and stand still: every packet to a VIP was encapsulated and decapsulated.
    /// The last packets of a connection are still under way when its request is answered, and `decap` writes its
    /// counters ten times a second.
    ///
    /// # Errors
    /// If they do not come to agree.
    pub fn await_balance(&self) -> Result<Packets> {
        let mut last = Packets::default();
        for _ in 0..100 {
            let packets = self.packets()?;
            if packets.balance() && packets == last {
                return Ok(packets);
            }
            last = packets;
            thread::sleep(Duration::from_millis(150));
        }
        bail!("packets of VIPs, encapsulated and decapsulated do not come to agree: {last:?}")
    }

    fn packets(&self) -> Result<Packets> {
        let mut sum = Packets::default();
        for balancer in &self.balancers {
            let counters = balancer.maglev_json(&["counters"])?;
            let vips = counters["vips"].as_array().context("maglev counters: no VIPs")?;
            sum.vips += vips.iter().filter_map(|vip| vip["packets"].as_u64()).sum::<u64>();
            sum.transmitted += counter(&counters, "transmitted")?;
            sum.redirected += counter(&counters, "redirected")?;
            sum.answered += counter(&counters, "packet_too_big")?;
            sum.checks += counter(&counters, "check_sent")?;
        }
        for backend in &self.backends {
            sum.decapsulated += backend.counters()?.get("decapsulated").copied().unwrap_or(0);
        }
        Ok(sum)
    }
}

impl Packets {
    /// Whether every packet to a VIP was encapsulated, and decapsulated, or answered with the MTU.
    pub fn balance(&self) -> bool {
        let Self { vips, transmitted, redirected, answered, checks, decapsulated } = self;
        *vips == transmitted + redirected + answered && transmitted + redirected + checks == *decapsulated
    }
}

/// A counter by name in what `maglev counters --output json` answered.
///
/// # Errors
/// If it is not there.
pub fn counter(counters: &Value, name: &str) -> Result<u64> {
    let all = counters["counters"].as_array().into_iter().flatten();
    let found = all.filter(|counter| counter["name"] == name).find_map(|counter| counter["packets"].as_u64());
    found.with_context(|| format!("maglev counters does not name {name}"))
}

/// Pools `four` and `six`, named for their backends' family, of `web1`, `web2` and `web3`; the first VIP addresses go
/// to `four`, the second to `six`; TCP and UDP.
pub fn every_family(lab: &Lab) -> Services {
    let weights = [(1, 100), (2, 100), (3, 100)];
    let mut vips = Vec::new();
    for (name, address, pool) in
        [("www", WWW4, "four"), ("www6", WWW6, "four"), ("alt", ALT4, "six"), ("alt6", ALT6, "six")]
    {
        for protocol in ["tcp", "udp"] {
            vips.push(Vip::new(&format!("{name}-{protocol}"), (address, Backend::PORT), protocol, pool));
        }
    }
    Services { pools: vec![lab.pool("four", WWW4, &weights), lab.pool("six", WWW6, &weights)], vips }
}
