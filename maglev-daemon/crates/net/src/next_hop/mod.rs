//! Next hops: for each address the route, the outgoing interface and the neighbor's MAC address, followed live. This is
//! the door; `driver` listens and asks, `decide` computes next hops from routes and neighbors, `recheck` when to ask for a
//! route again, `probes` and `gateways` when to ask neighbors.
//!
//! ```text
//!              follow ─┐                      ┌─▶ route and neighbor requests (`messages`, `neighbours`)
//!     netlink notices ─┼─▶ Driver (one task) ─┤
//!  probe, recheck due ─┘                      └─▶ Found, only when something changed
//! ```
//!
//! How long a silent death stays unnoticed: with another path, 2.5 s (`gateways`). Without one there is nothing to
//! turn to: the kernel's own patience of up to 45 s (`base_reachable_time_ms`, `delay_first_probe_time`, three probes) and our
//! half minute between two questions (`probes`); a health check finds it sooner.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use maglev_model::Resolution;
use rtnetlink::MulticastGroup;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::error::NetError;
use driver::Driver;

mod decide;
mod driver;
mod gateways;
mod messages;
mod neighbours;
mod probes;
mod recheck;

/// The next hop to an address from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The address of a backend or a VIP.
    pub address: IpAddr,
    /// Its next hop now.
    pub resolution: Resolution,
}

/// Which notices are followed, and how often the kernel is asked without one.
#[derive(Clone, Copy, Debug)]
struct Settings {
    groups: &'static [MulticastGroup],
    /// Usable neighbors are asked again after this time.
    keep_fresh: Duration,
    /// Each route is asked for again after this time at the earliest, and three times as long at the latest.
    recheck: Duration,
}

impl Settings {
    const USUAL: Self = Self { groups: &driver::GROUPS, keep_fresh: probes::KEEP_FRESH, recheck: recheck::EARLIEST };
}

/// The call of [`Resolver::follow`] since which an address is followed without a break.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Since(u64);

/// The addresses to follow.
#[derive(Debug, Default)]
struct Wanted {
    last: Since,
    addresses: BTreeMap<IpAddr, Since>,
}

/// Follows the next hops to a set of addresses. Dropping it ends its task.
#[derive(Debug)]
pub struct Resolver {
    wanted: watch::Sender<Wanted>,
    task: JoinHandle<()>,
}

impl Resolver {
    /// Starts the task, in the calling thread's network namespace; needs a tokio runtime. What is found goes to
    /// `events`. Where netlink fails later, it is asked until it answers.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn start(events: mpsc::Sender<Found>) -> Result<Self, NetError> {
        Ok(Self::run(Driver::open(events, &Settings::USUAL)?))
    }

    fn run(driver: Driver) -> Self {
        let (wanted, received) = watch::channel(Wanted::default());
        Self { wanted, task: tokio::spawn(driver.run(received)) }
    }

    /// Follows exactly these addresses from now on. The next hop to each new one is reported as soon as it is looked up, even
    /// if it was reported before.
    pub fn follow(&self, addresses: BTreeSet<IpAddr>) {
        self.wanted.send_modify(|Wanted { last, addresses: before }| {
            last.0 += 1;
            let since = |address| (address, before.get(&address).copied().unwrap_or(*last));
            *before = addresses.into_iter().map(since).collect();
        });
    }

    /// Follows these addresses besides, and the removed ones no longer. One that is in both, or is followed already, goes on.
    pub fn change(&self, added: &BTreeSet<IpAddr>, removed: &BTreeSet<IpAddr>) {
        self.wanted.send_modify(|Wanted { last, addresses }| {
            last.0 += 1;
            addresses.retain(|address, _| !removed.contains(address) || added.contains(address));
            for address in added {
                addresses.entry(*address).or_insert(*last);
            }
        });
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests;
