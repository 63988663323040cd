//! The lab's router as a real one: BIRD, FRR or GoBGP learns the VIPs' prefixes from the load balancers and sets the
//! kernel's routes by them. It must not know what is announced.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{
    FLOWS_CPU, Lab, Netns, Process,
    addresses::{self, ROUTER_AS},
};

mod bird;
mod frr;
mod gobgp;
mod watch;

pub use watch::Watch;

/// The implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// BIRD 2.
    Bird,
    /// FRR: zebra and bgpd.
    Frr,
    /// GoBGP, which speaks the protocol and sets no route.
    Gobgp,
}

/// A running router. Dropping it ends its processes; the kernel's routes stay.
#[derive(Debug)]
pub struct Router {
    kind: Kind,
    netns: Netns,
    directory: PathBuf,
    /// The one that speaks BGP comes first.
    processes: Vec<Process>,
}

/// Where a route leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// The gateway's address; `on-link` if there is none.
    pub gateway: String,
    /// Its part of the flows, relative to the others'.
    pub weight: u64,
}

impl Kind {
    /// Whether it sets the kernel's routes.
    ///
    /// # Errors
    /// If it does not, and why.
    pub fn ensure_routes(self) -> Result<()> {
        match self {
            Self::Bird | Self::Frr => Ok(()),
            // Tried with every dialect it has: it panics at the first interface that zebra reports.
            Self::Gobgp => bail!(
                "GoBGP sets no route by itself, and Debian's GoBGP 3.10 does not understand Debian's zebra 8.4, which \
                 would: allowed here are bird and frr; `cargo xtask test bgp` speaks with GoBGP"
            ),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bird => "BIRD",
            Self::Frr => "FRR",
            Self::Gobgp => "GoBGP",
        })
    }
}

impl Router {
    /// Starts the daemons in the router's namespace. They wait for the load balancers to connect.
    ///
    /// # Errors
    /// If one does not come up.
    pub(super) fn start(lab: &Lab, kind: Kind) -> Result<Self> {
        let (netns, directory) = (lab.netns("router"), lab.directory());
        let neighbors = neighbors(lab.topology().balancers);
        let processes = match kind {
            Kind::Bird => bird::start(&netns, &directory, &neighbors),
            Kind::Frr => frr::start(&netns, &directory, &neighbors),
            Kind::Gobgp => gobgp::start(&netns, &directory, &neighbors),
        };
        let processes = processes.with_context(|| format!("{kind}: `cargo xtask setup` installs it"))?;
        Ok(Self { kind, netns, directory, processes })
    }

    /// Its route to an address, in its own words.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub fn route_text(&self, address: IpAddr) -> Result<String> {
        route_text(self.kind, &self.netns, &self.directory, address)
    }

    /// Waits until it says of an address what `holds` looks for.
    ///
    /// # Errors
    /// If half a minute passes, or it cannot be asked.
    pub fn await_route_text(&mut self, address: IpAddr, holds: impl Fn(&str) -> bool) -> Result<()> {
        let Self { kind, netns, directory, processes } = self;
        let speaker = processes.first_mut().context("no process")?;
        speaker.await_event(&format!("what was awaited of {address}"), |_| {
            Ok(holds(&route_text(*kind, netns, directory, address)?))
        })
    }

    /// Waits until the kernel leads an address to these load balancers, and to no other.
    ///
    /// # Errors
    /// If half a minute passes; the message carries what the router logged.
    pub fn await_route(&mut self, address: IpAddr, through: &[u8]) -> Result<()> {
        let expected = through.iter().map(|&n| addresses::balancer(n, 2).like(address).to_string());
        let (netns, expected) = (self.netns.clone(), expected.collect::<Vec<_>>());
        let what = format!("{address} to lead through {expected:?}");
        let holds = |_: &Process| {
            let gateways = next_hops(&netns, address)?.into_iter().map(|hop| hop.gateway);
            Ok(gateways.collect::<Vec<_>>() == expected)
        };
        let speaker = self.processes.first_mut().context("no process")?;
        let awaited = speaker.await_event(&what, holds);
        awaited.with_context(|| format!("{} says of it: {}", self.kind, self.route_text(address).unwrap_or_default()))
    }

    /// The kernel's route to an address as `ip` shows it, or nothing.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn route_line(&self, address: IpAddr) -> Result<String> {
        let mut ip = Command::new("ip");
        let shown = self.netns.output(ip.args([family(address), "route", "show", "to", &address.to_string()]))?;
        let shown = String::from_utf8_lossy(&shown);
        Ok(shown.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"))
    }

    /// Lets its processes outlive this handle.
    pub fn keep(&mut self) {
        self.processes.iter_mut().for_each(Process::keep);
    }
}

fn route_text(kind: Kind, netns: &Netns, directory: &Path, address: IpAddr) -> Result<String> {
    match kind {
        Kind::Bird => bird::ask(directory, &format!("show route for {address} all")),
        Kind::Frr => frr::ask(directory, &format!("show bgp {} unicast {address}", family_name(address))),
        Kind::Gobgp => gobgp::ask(netns, &["global", "rib", "-a", family_name(address)]),
    }
}

/// Where the kernel of a namespace leads an address by the route of it alone, in order; nowhere if it has none.
///
/// # Errors
/// If `ip` fails.
pub fn next_hops(netns: &Netns, address: IpAddr) -> Result<Vec<NextHop>> {
    let routes = netns.ip_json(&[family(address), "route", "show", "to", &address.to_string()])?;
    let mut all: Vec<NextHop> = routes.as_array().into_iter().flatten().flat_map(hops).collect();
    all.sort();
    Ok(all)
}

/// The next hops of one route that `ip` shows.
pub fn hops(route: &Value) -> Vec<NextHop> {
    let hops = route["nexthops"].as_array().cloned().unwrap_or_else(|| vec![route.clone()]);
    let hop = |hop: &Value| NextHop {
        gateway: hop["gateway"].as_str().unwrap_or("on-link").to_owned(),
        weight: hop["weight"].as_u64().unwrap_or(1),
    };
    hops.iter().map(hop).collect()
}

/// The load balancers' addresses, each a neighbor of its own.
fn neighbors(balancers: u8) -> Vec<IpAddr> {
    let both = |n| {
        let pair = addresses::balancer(n, 2);
        [IpAddr::V4(pair.v4), IpAddr::V6(pair.v6)]
    };
    (1..=balancers).flat_map(both).collect()
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "-4" } else { "-6" }
}

fn family_name(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ipv4" } else { "ipv6" }
}

/// Starts a daemon on the CPU of all flows: see `topology::one_cpu_a_flow`.
fn daemon(name: &str, netns: &Netns, directory: &Path, command: &mut Command) -> Result<Process> {
    Process::start_on(FLOWS_CPU, name, netns, directory, command)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
