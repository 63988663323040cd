//! The ways to backends: for each address the route, the outgoing interface and the neighbour's MAC address, followed
//! live. This is the driver; what follows from what is heard is decided in `decide`, when to ask in `probes`.
//!
//! ```text
//!             follow ─┐                      ┌─▶ route and neighbour requests, probes
//!  netlink notices ───┼─▶ Driver (one task) ─┤
//!        probe due ───┘                      └─▶ Event::NextHop, only when something changed
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures_util::{TryStreamExt, pin_mut};
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::connection::{NetError, Notice, Notices, Requests};
use super::links::Link;
use crate::reconcile::{Event, Resolution};
use decide::{Knowledge, Neighbour, Route};
use probes::Probes;

mod decide;
mod messages;
mod probes;

/// What changes a way.
const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// Notices that come within this time of each other are acted on together: a routing daemon changes many routes.
const BURST: Duration = Duration::from_millis(20);

/// Follows the ways to a set of addresses. Dropping it ends its task.
#[derive(Debug)]
pub struct Resolver {
    follow: watch::Sender<BTreeSet<IpAddr>>,
    task: JoinHandle<()>,
}

impl Resolver {
    /// Starts the task, in the calling thread's network namespace; needs a tokio runtime. What is found goes to
    /// `events`, as [`Event::NextHop`].
    ///
    /// # Errors
    /// No netlink socket.
    pub fn start(events: mpsc::Sender<Event>) -> Result<Self, NetError> {
        Self::with_interval(events, probes::KEEP_FRESH)
    }

    fn with_interval(events: mpsc::Sender<Event>, keep_fresh: Duration) -> Result<Self, NetError> {
        let (follow, wanted) = watch::channel(BTreeSet::new());
        let driver = Driver {
            notices: Notices::open(&GROUPS)?,
            requests: Requests::open()?,
            events,
            knowledge: Knowledge::default(),
            routes: BTreeMap::new(),
            told: BTreeMap::new(),
            probes: Probes::new(keep_fresh),
        };
        let task = tokio::spawn(async move {
            if let Err(error) = driver.run(wanted).await {
                tracing::error!(%error, "next hops are no longer followed");
            }
        });
        Ok(Self { follow, task })
    }

    /// Follows exactly these addresses from now on. The way to each new one is told as soon as it is looked up.
    pub fn follow(&self, addresses: BTreeSet<IpAddr>) {
        self.follow.send_replace(addresses);
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What has to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stale {
    /// Nothing: what was heard is enough.
    Nothing,
    /// The routes.
    Routes,
    /// Everything: notices were lost.
    Everything,
}

struct Driver {
    notices: Notices,
    requests: Requests,
    events: mpsc::Sender<Event>,
    knowledge: Knowledge,
    /// The followed addresses and the kernel's last answer for each.
    routes: BTreeMap<IpAddr, Route>,
    /// What was last told of each.
    told: BTreeMap<IpAddr, Resolution>,
    probes: Probes,
}

impl Driver {
    async fn run(mut self, mut wanted: watch::Receiver<BTreeSet<IpAddr>>) -> Result<(), NetError> {
        let mut stale = Stale::Everything;
        loop {
            if stale == Stale::Everything {
                self.read_everything().await?;
            }
            let addresses = wanted.borrow_and_update().clone();
            self.look_up_routes(addresses, stale >= Stale::Routes).await;
            if self.tell().await.is_err() {
                return Ok(());
            }
            self.ask_due_neighbours().await;
            stale = tokio::select! {
                changed = wanted.changed() => match changed {
                    Ok(()) => Stale::Nothing,
                    Err(_) => return Ok(()),
                },
                notice = self.notices.next() => match notice {
                    Some(notice) => self.burst(notice).await,
                    None => return Ok(()),
                },
                () = sleep_until(self.probes.next()) => Stale::Nothing,
            };
        }
    }

    /// Takes in a notice and those that follow closely.
    async fn burst(&mut self, first: Notice) -> Stale {
        let mut stale = self.hear(first);
        let end = tokio::time::Instant::now() + BURST;
        while let Ok(Some(notice)) = tokio::time::timeout_at(end, self.notices.next()).await {
            stale = stale.max(self.hear(notice));
        }
        stale
    }

    fn hear(&mut self, notice: Notice) -> Stale {
        let Notice::Changed(message) = notice else {
            tracing::warn!("netlink notices were lost: reading everything again");
            return Stale::Everything;
        };
        match *message {
            RouteNetlinkMessage::NewNeighbour(message) => self.hear_neighbour(&message, true),
            RouteNetlinkMessage::DelNeighbour(message) => self.hear_neighbour(&message, false),
            // A bridge tells of its ports by messages of its own, which say little of the interface.
            RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)
                if message.header.interface_family != AddressFamily::Unspec =>
            {
                Stale::Nothing
            }
            RouteNetlinkMessage::NewLink(message) => {
                let link = Link::from_message(&message);
                self.knowledge.links.insert(link.index, link);
                Stale::Routes
            }
            RouteNetlinkMessage::DelLink(message) => {
                self.knowledge.links.remove(&message.header.index);
                Stale::Routes
            }
            // Addresses, routes, rules and next-hop objects: which way they point, only a new look-up tells.
            _ => Stale::Routes,
        }
    }

    fn hear_neighbour(&mut self, message: &NeighbourMessage, present: bool) -> Stale {
        if let Some((place, state)) = messages::neighbour(message) {
            let state = state.filter(|_| present);
            self.knowledge.neighbour_changed(place, state);
            let usable = matches!(state, Some(Neighbour::Usable { .. }));
            self.probes.changed(&place, usable, Instant::now());
        }
        Stale::Nothing
    }

    async fn read_everything(&mut self) -> Result<(), NetError> {
        let links = self.requests.links().await?;
        self.knowledge.links = links.into_iter().map(|link| (link.index, link)).collect();
        let neighbours: Vec<NeighbourMessage> = (self.requests.handle.neighbours().get().execute().try_collect().await)
            .map_err(|source| NetError::Request { what: "list neighbours", source })?;
        let neighbours = neighbours.iter().filter_map(messages::neighbour);
        self.knowledge.replace_neighbours(neighbours.filter_map(|(place, state)| Some((place, state?))));
        Ok(())
    }

    /// Looks up the routes to addresses that are new, or to all.
    async fn look_up_routes(&mut self, addresses: BTreeSet<IpAddr>, all: bool) {
        let mut before = std::mem::take(&mut self.routes);
        for address in addresses {
            let route = match before.remove(&address) {
                Some(route) if !all => route,
                _ => self.look_up(address).await,
            };
            self.routes.insert(address, route);
        }
    }

    async fn look_up(&self, address: IpAddr) -> Route {
        let answer = self.requests.handle.route().get(messages::route_request(address)).execute();
        pin_mut!(answer);
        match answer.try_next().await {
            Ok(Some(message)) => messages::route(&message),
            Ok(None) => Route::Missing,
            Err(error) => messages::route_error(&error),
        }
    }

    /// Tells what changed; an error if nobody listens any more.
    async fn tell(&mut self) -> Result<(), mpsc::error::SendError<Event>> {
        self.told.retain(|address, _| self.routes.contains_key(address));
        let mut wanted = BTreeSet::new();
        for (&address, route) in &self.routes {
            let decide::Decision { resolution, probe } = self.knowledge.decide(address, route);
            wanted.extend(probe);
            if self.told.get(&address) != Some(&resolution) {
                tracing::debug!(%address, ?resolution, "next hop changed");
                self.told.insert(address, resolution.clone());
                self.events.send(Event::NextHop { address, resolution }).await?;
            }
        }
        self.probes.keep(wanted, Instant::now());
        let Self { probes, knowledge, .. } = self;
        knowledge.forget_failed(|place| probes.contains(place));
        Ok(())
    }

    /// Asks the neighbours that are due, by the kernel's own means: as if a packet were to be sent to each.
    async fn ask_due_neighbours(&mut self) {
        let Self { probes, knowledge, requests, .. } = self;
        for (interface, address) in probes.take_due(Instant::now(), |place| knowledge.neighbour(place)) {
            let request = requests.handle.neighbours().add(interface, address);
            let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use).replace();
            if let Err(error) = request.execute().await {
                tracing::debug!(%address, interface, %error, "neighbour could not be asked for");
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
