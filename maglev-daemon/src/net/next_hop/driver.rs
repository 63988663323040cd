//! The task that follows the ways: it hears notices, asks the kernel, and tells what changed. It must not know what a
//! way is good for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::decide::{Decision, Knowledge, Neighbour, Route};
use super::probes::Probes;
use super::{Since, Wanted, messages};
use crate::net::connection::{self, NetError, Notice, Sockets};
use crate::net::links::{Link, sleep_until};
use crate::reconcile::{Event, Resolution};

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

/// The pause between two sweeps, each of which asks for all routes anew: a routing daemon changes many of them.
const REST: Duration = Duration::from_millis(100);

/// Routes asked for before notices are heard again: a sweep must not keep a neighbour's death waiting.
const CHUNK: usize = 128;

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

/// A followed address.
#[derive(Debug)]
struct Way {
    since: Since,
    /// The kernel's last answer; `None` until there is one.
    route: Option<Route>,
    /// What was last told.
    told: Option<Resolution>,
}

/// Why following ended.
enum End {
    /// Nobody listens any more.
    Unwanted,
    /// Netlink failed.
    Failed(NetError),
}

impl From<NetError> for End {
    fn from(error: NetError) -> Self {
        Self::Failed(error)
    }
}

impl From<watch::error::RecvError> for End {
    fn from(_: watch::error::RecvError) -> Self {
        Self::Unwanted
    }
}

impl From<mpsc::error::SendError<Event>> for End {
    fn from(_: mpsc::error::SendError<Event>) -> Self {
        Self::Unwanted
    }
}

pub(super) struct Driver {
    sockets: Sockets,
    events: mpsc::Sender<Event>,
    knowledge: Knowledge,
    ways: BTreeMap<IpAddr, Way>,
    /// Addresses whose routes are to be asked for.
    queue: BTreeSet<IpAddr>,
    stale: Stale,
    /// When the next sweep may begin.
    rested: Instant,
    probes: Probes,
}

impl Driver {
    /// Opens the sockets in the calling thread's network namespace; needs a tokio runtime. Usable neighbours are asked
    /// again each `keep_fresh`.
    pub(super) fn open(events: mpsc::Sender<Event>, keep_fresh: Duration) -> Result<Self, NetError> {
        Ok(Self {
            sockets: Sockets::open("next hops", &GROUPS)?,
            events,
            knowledge: Knowledge::default(),
            ways: BTreeMap::new(),
            queue: BTreeSet::new(),
            stale: Stale::Everything,
            rested: Instant::now(),
            probes: Probes::new(keep_fresh),
        })
    }

    /// Follows until nobody listens any more.
    pub(super) async fn run(mut self, mut wanted: watch::Receiver<Wanted>) {
        while let End::Failed(error) = self.follow(&mut wanted).await {
            self.stale = Stale::Everything;
            self.rested = Instant::now();
            self.sockets.renew(error).await;
        }
    }

    async fn follow(&mut self, wanted: &mut watch::Receiver<Wanted>) -> End {
        loop {
            if let Err(end) = self.turn(wanted).await {
                return end;
            }
        }
    }

    /// Brings everything up to date, one chunk of routes at most, and waits for news unless more routes are queued.
    async fn turn(&mut self, wanted: &mut watch::Receiver<Wanted>) -> Result<(), End> {
        self.take_over(&wanted.borrow_and_update().addresses);
        self.sweep().await?;
        self.look_up_routes().await?;
        self.tell().await?;
        self.ask_due_neighbours().await?;
        let sweep = (self.stale > Stale::Nothing).then_some(self.rested);
        tokio::select! {
            changed = wanted.changed() => changed?,
            notice = self.sockets.notices.next() => self.hear(notice?),
            () = sleep_until(self.probes.next().map(Instant::from_std)) => {}
            () = sleep_until(sweep), if self.queue.is_empty() => {}
            () = std::future::ready(()), if !self.queue.is_empty() => {}
        }
        while let Some(notice) = self.sockets.notices.ready() {
            self.hear(notice);
        }
        Ok(())
    }

    /// Takes over which addresses are wanted; one that was not wanted for a while is a new one.
    fn take_over(&mut self, wanted: &BTreeMap<IpAddr, Since>) {
        self.ways.retain(|address, way| wanted.get(address) == Some(&way.since));
        self.queue.retain(|address| wanted.contains_key(address));
        for (&address, &since) in wanted {
            self.ways.entry(address).or_insert_with(|| {
                self.queue.insert(address);
                Way { since, route: None, told: None }
            });
        }
    }

    /// Begins to ask for all routes, if they are stale, the sweep before is done, and there was a pause.
    async fn sweep(&mut self) -> Result<(), NetError> {
        if self.stale == Stale::Nothing || !self.queue.is_empty() || Instant::now() < self.rested {
            return Ok(());
        }
        if self.stale == Stale::Everything {
            self.read_everything().await?;
            self.sockets.works();
        }
        self.stale = Stale::Nothing;
        self.rested = Instant::now() + REST;
        self.queue.extend(self.ways.keys());
        Ok(())
    }

    fn hear(&mut self, notice: Notice) {
        let stale = match notice {
            Notice::Changed(message) => self.hear_message(*message),
            Notice::Lost => {
                tracing::warn!("netlink notices were lost: reading everything again");
                Stale::Everything
            }
        };
        self.stale = self.stale.max(stale);
    }

    fn hear_message(&mut self, message: RouteNetlinkMessage) -> Stale {
        match message {
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
            self.probes.changed(&place, usable, std::time::Instant::now());
        }
        Stale::Nothing
    }

    async fn read_everything(&mut self) -> Result<(), NetError> {
        let links = self.sockets.requests.links().await?;
        self.knowledge.links = links.into_iter().map(|link| (link.index, link)).collect();
        let neighbours = self.sockets.requests.handle.neighbours().get().execute();
        let neighbours = connection::all("list neighbours", neighbours).await?;
        let neighbours = neighbours.iter().filter_map(messages::neighbour);
        self.knowledge.replace_neighbours(neighbours.filter_map(|(place, state)| Some((place, state?))));
        Ok(())
    }

    /// Asks for some of the queued routes.
    async fn look_up_routes(&mut self) -> Result<(), NetError> {
        for _ in 0..CHUNK {
            let Some(&address) = self.queue.first() else { return Ok(()) };
            let route = self.look_up(address).await?;
            self.queue.remove(&address);
            if let Some(way) = self.ways.get_mut(&address) {
                way.route = Some(route);
            }
        }
        self.rested = Instant::now() + REST;
        Ok(())
    }

    async fn look_up(&self, address: IpAddr) -> Result<Route, NetError> {
        const WHAT: &str = "ask for a route";
        let answer = self.sockets.requests.handle.route().get(messages::route_request(address)).execute();
        match connection::part(WHAT, &mut pin!(answer)).await {
            Ok(Some(message)) => Ok(messages::route(&message)),
            Ok(None) => Err(NetError::Silent { what: WHAT }),
            Err(NetError::Request { source: rtnetlink::Error::NetlinkError(error), .. }) => {
                Ok(messages::route_error(&error))
            }
            Err(error) => Err(error),
        }
    }

    /// Tells what changed; an error if nobody listens any more.
    async fn tell(&mut self) -> Result<(), mpsc::error::SendError<Event>> {
        let mut wanted = BTreeSet::new();
        for (&address, way) in &mut self.ways {
            let Some(route) = &way.route else { continue };
            let Decision { resolution, probe } = self.knowledge.decide(address, route);
            wanted.extend(probe);
            if way.told.as_ref() != Some(&resolution) {
                tracing::debug!(%address, ?resolution, "next hop changed");
                way.told = Some(resolution.clone());
                self.events.send(Event::NextHop { address, resolution }).await?;
            }
        }
        self.probes.keep(wanted, std::time::Instant::now());
        let Self { probes, knowledge, .. } = self;
        knowledge.forget_failed(|place| probes.contains(place));
        Ok(())
    }

    /// Asks the neighbours that are due, by the kernel's own means: as if a packet were to be sent to each.
    async fn ask_due_neighbours(&mut self) -> Result<(), NetError> {
        let Self { probes, knowledge, sockets, .. } = self;
        for (interface, address) in probes.take_due(std::time::Instant::now(), |place| knowledge.neighbour(place)) {
            let request = sockets.requests.handle.neighbours().add(interface, address);
            let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use).replace();
            if let Err(error) = connection::done("ask for a neighbour", request.execute()).await? {
                tracing::debug!(%address, interface, %error, "neighbour could not be asked for");
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn breaker(&self) -> impl Fn() + use<> {
        self.sockets.breaker()
    }
}
