//! The ways to backends: for each address the route, the outgoing interface and the neighbour's MAC address, followed
//! live. This is the door; `driver` listens and asks, `decide` knows what follows from what is heard, `probes` when to ask
//! neighbours.
//!
//! ```text
//!             follow ─┐                      ┌─▶ route and neighbour requests, probes
//!  netlink notices ───┼─▶ Driver (one task) ─┤
//!        probe due ───┘                      └─▶ Event::NextHop, only when something changed
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::connection::NetError;
use crate::reconcile::Event;
use driver::Driver;

mod decide;
mod driver;
mod messages;
mod probes;

/// The call of [`Resolver::follow`] since which an address is followed without a break.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Since(u64);

/// The addresses to follow.
#[derive(Debug, Default)]
struct Wanted {
    last: Since,
    addresses: BTreeMap<IpAddr, Since>,
}

/// Follows the ways to a set of addresses. Dropping it ends its task.
#[derive(Debug)]
pub struct Resolver {
    wanted: watch::Sender<Wanted>,
    task: JoinHandle<()>,
}

impl Resolver {
    /// Starts the task, in the calling thread's network namespace; needs a tokio runtime. What is found goes to
    /// `events`, as [`Event::NextHop`]. Where netlink fails later, it is asked until it answers.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn start(events: mpsc::Sender<Event>) -> Result<Self, NetError> {
        Ok(Self::run(Driver::open(events, probes::KEEP_FRESH)?))
    }

    fn run(driver: Driver) -> Self {
        let (wanted, received) = watch::channel(Wanted::default());
        Self { wanted, task: tokio::spawn(driver.run(received)) }
    }

    /// Follows exactly these addresses from now on. The way to each new one is told as soon as it is looked up, even if
    /// it was told before: whoever stopped following it has forgotten.
    pub fn follow(&self, addresses: BTreeSet<IpAddr>) {
        self.wanted.send_modify(|Wanted { last, addresses: before }| {
            last.0 += 1;
            let since = |address| (address, before.get(&address).copied().unwrap_or(*last));
            *before = addresses.into_iter().map(since).collect();
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
