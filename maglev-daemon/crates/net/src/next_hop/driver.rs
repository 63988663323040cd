//! The task that follows next hops: it reads notices, asks the kernel, and reports changes. It must not know the use of a
//! next hop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use maglev_model::Resolution;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Found;
use super::decide::{Knowledge, Neighbour, Route};
use super::gateways::{Gateways, Question};
use super::probes::Probes;
use super::recheck::Recheck;
use super::{Settings, Since, Wanted, messages, neighbours};
use crate::connection::{self, Sockets};
use crate::error::NetError;
use crate::links::{Link, sleep_until};
use crate::notices::Notice;

/// The notices that may change a next hop.
pub(super) const GROUPS: [MulticastGroup; 9] = [
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

/// Routes asked for before notices are read again: a sweep must not keep a neighbor's death waiting.
const CHUNK: usize = 128;

/// Routes that are asked for again in one round though no notice came: 2,560 a second at most.
const RECHECKED: usize = 256;

/// The parts that have to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stale {
    /// Nothing: the notices were enough.
    Nothing,
    /// The routes.
    Routes,
    /// Everything: notices were lost.
    Everything,
}

/// A followed address.
#[derive(Debug, Default)]
struct Destination {
    /// The kernel's last answer; `None` until there is one.
    route: Option<Route>,
    /// The last report.
    reported: Option<Resolution>,
}

/// Why following ended.
enum End {
    /// The receiver is gone.
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

impl From<mpsc::error::SendError<Found>> for End {
    fn from(_: mpsc::error::SendError<Found>) -> Self {
        Self::Unwanted
    }
}

pub(super) struct Driver {
    sockets: Sockets,
    events: mpsc::Sender<Found>,
    knowledge: Knowledge,
    destinations: BTreeMap<IpAddr, Destination>,
    /// The call whose addresses these are.
    taken_over: Since,
    /// Addresses whose routes are to be asked for.
    queue: BTreeSet<IpAddr>,
    stale: Stale,
    /// When the next sweep may begin.
    rested: Instant,
    recheck: Recheck,
    probes: Probes,
    gateways: Gateways,
    /// Whether something changed that affects next hops.
    changed: bool,
}

impl Driver {
    /// Opens the sockets in the calling thread's network namespace; needs a tokio runtime.
    pub(super) fn open(events: mpsc::Sender<Found>, settings: &Settings) -> Result<Self, NetError> {
        Ok(Self {
            sockets: Sockets::open("next hops", settings.groups)?,
            events,
            knowledge: Knowledge::default(),
            destinations: BTreeMap::new(),
            taken_over: Since::default(),
            queue: BTreeSet::new(),
            stale: Stale::Everything,
            rested: Instant::now(),
            recheck: Recheck::new(settings.recheck, fastrand::Rng::new()),
            probes: Probes::new(settings.keep_fresh),
            gateways: Gateways::default(),
            changed: true,
        })
    }

    /// Follows until the receiver is gone.
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
        self.take_over(&wanted.borrow_and_update());
        self.sweep().await?;
        self.queue.extend(self.recheck.take_due(now(), RECHECKED));
        self.look_up_routes().await?;
        self.changed |= self.gateways.end_trials(now());
        if std::mem::take(&mut self.changed) {
            self.report().await?;
        }
        self.ask_due_neighbours().await?;
        self.ask_due_gateways().await?;
        let sweep = (self.stale > Stale::Nothing).then_some(self.rested);
        let due = [self.probes.next(), self.gateways.next(), self.recheck.next()].into_iter().flatten().min();
        tokio::select! {
            changed = wanted.changed() => changed?,
            notice = self.sockets.notices.next() => self.take(notice?),
            () = sleep_until(due.map(Instant::from_std)), if !self.changed => {}
            () = sleep_until(sweep), if self.queue.is_empty() => {}
            () = std::future::ready(()), if !self.queue.is_empty() || self.changed => {}
        }
        while let Some(notice) = self.sockets.notices.ready() {
            self.take(notice);
        }
        Ok(())
    }

    /// Takes over which addresses are wanted; one that was not wanted for a while is a new one.
    fn take_over(&mut self, wanted: &Wanted) {
        let Self { destinations, recheck, queue, changed, .. } = self;
        let before = std::mem::replace(&mut self.taken_over, wanted.last);
        if before == wanted.last {
            return;
        }
        for (&address, _) in wanted.addresses.iter().filter(|(_, since)| **since > before) {
            if destinations.insert(address, Destination::default()).is_some() {
                recheck.forget(&address);
                *changed = true;
            }
            queue.insert(address);
        }
        // All that are wanted are in it now: as many as are wanted are exactly those.
        if destinations.len() == wanted.addresses.len() {
            return;
        }
        destinations.retain(|address, _| {
            let kept = wanted.addresses.contains_key(address);
            if !kept {
                recheck.forget(address);
                queue.remove(address);
                *changed = true;
            }
            kept
        });
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
        self.queue.extend(self.destinations.keys());
        Ok(())
    }

    fn take(&mut self, notice: Notice) {
        let stale = match notice {
            Notice::Changed(message) => self.take_message(*message),
            Notice::NextHopObject => Stale::Routes,
            Notice::Unknown => Stale::Everything,
            Notice::Lost => {
                tracing::warn!("netlink notices were lost: reading everything again");
                Stale::Everything
            }
        };
        self.stale = self.stale.max(stale);
    }

    fn take_message(&mut self, message: RouteNetlinkMessage) -> Stale {
        match message {
            RouteNetlinkMessage::NewNeighbour(message) => self.take_neighbour(&message, true),
            RouteNetlinkMessage::DelNeighbour(message) => self.take_neighbour(&message, false),
            // A bridge describes its ports by messages of its own, which say little of the interface.
            RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)
                if message.header.interface_family != AddressFamily::Unspec =>
            {
                Stale::Nothing
            }
            RouteNetlinkMessage::NewLink(message) => {
                let link = Link::from_message(&message);
                self.knowledge.links.insert(link.index, link);
                self.changed = true;
                Stale::Routes
            }
            RouteNetlinkMessage::DelLink(message) => {
                self.knowledge.links.remove(&message.header.index);
                self.changed = true;
                Stale::Routes
            }
            // Addresses, routes and rules: where they lead, only a new look-up says.
            _ => Stale::Routes,
        }
    }

    fn take_neighbour(&mut self, message: &NeighbourMessage, present: bool) -> Stale {
        let Some((place, state)) = messages::neighbour(message) else { return Stale::Nothing };
        let state = state.filter(|_| present);
        let before = self.knowledge.neighbour(&place);
        self.knowledge.neighbour_changed(place, state);
        let after = self.knowledge.neighbour(&place);
        let usable = matches!(state, Some(Neighbour::Usable { .. }));
        self.probes.changed(&place, usable, now());
        self.changed |= self.gateways.changed(&place, state, now());
        self.changed |= before.and_then(Neighbour::mac) != after.and_then(Neighbour::mac);
        if after != before && !usable {
            // It failed, or waits: the text changes. Its routes may lead elsewhere meanwhile.
            self.changed = true;
            let through = |(address, destination): (&IpAddr, &Destination)| {
                destination.route.as_ref()?.places(*address).any(|found| found == place).then_some(*address)
            };
            if after == Some(Neighbour::Failed) {
                self.queue.extend(self.destinations.iter().filter_map(through));
            }
        }
        Stale::Nothing
    }

    async fn read_everything(&mut self) -> Result<(), NetError> {
        let links = self.sockets.requests.links().await?;
        self.knowledge.links = links.into_iter().map(|link| (link.index, link)).collect();
        let neighbours = self.sockets.requests.handle.neighbours().get().execute();
        let neighbours = connection::all("list neighbors", neighbours).await?;
        let neighbours = neighbours.iter().filter_map(messages::neighbour);
        self.knowledge.replace_neighbours(neighbours.filter_map(|(place, state)| Some((place, state?))));
        self.changed = true;
        Ok(())
    }

    /// Asks for some of the queued routes.
    async fn look_up_routes(&mut self) -> Result<(), NetError> {
        for _ in 0..CHUNK {
            let Some(&address) = self.queue.first() else { return Ok(()) };
            let route = self.look_up(address).await?;
            self.queue.remove(&address);
            self.recheck.asked(address, now());
            if let Some(destination) = self.destinations.get_mut(&address)
                && destination.route.as_ref() != Some(&route)
            {
                destination.route = Some(route);
                self.changed = true;
            }
        }
        self.rested = Instant::now() + REST;
        Ok(())
    }

    /// The route to an address. Where the kernel shows a next hop object by its number only, it says which path it would take.
    async fn look_up(&self, address: IpAddr) -> Result<Route, NetError> {
        match self.ask_route(messages::route_request(address)).await? {
            Some(route) => Ok(route),
            None => Ok(self.ask_route(messages::one_path_request(address)).await?.unwrap_or(Route::Missing)),
        }
    }

    async fn ask_route(&self, request: RouteMessage) -> Result<Option<Route>, NetError> {
        const WHAT: &str = "ask for a route";
        let answer = self.sockets.requests.handle.route().get(request).execute();
        match connection::part(WHAT, &mut pin!(answer)).await {
            Ok(Some(message)) => Ok(messages::route(&message)),
            Ok(None) => Err(NetError::Silent { what: WHAT }),
            Err(NetError::Request { source: rtnetlink::Error::NetlinkError(error), .. }) => {
                Ok(Some(messages::route_error(&error)))
            }
            Err(error) => Err(error),
        }
    }

    /// Reports changes; an error if the receiver is gone.
    async fn report(&mut self) -> Result<(), mpsc::error::SendError<Found>> {
        self.keep_known();
        let Self { destinations, knowledge, gateways, events, .. } = self;
        for (&address, destination) in destinations {
            let Some(route) = &destination.route else { continue };
            let resolution = knowledge.decide(address, route, |place| gateways.trust(place));
            if destination.reported.as_ref() != Some(&resolution) {
                tracing::debug!(%address, ?resolution, "next hop changed");
                destination.reported = Some(resolution.clone());
                events.send(Found { address, resolution }).await?;
            }
        }
        Ok(())
    }

    /// Keeps the neighbors known that routes lead to: where there is a choice among them, much more closely.
    fn keep_known(&mut self) {
        let Self { destinations, knowledge, probes, gateways, .. } = self;
        let (mut single, mut several) = (BTreeSet::new(), BTreeSet::new());
        for (address, destination) in &*destinations {
            let Some(route) = &destination.route else { continue };
            let places = route.places(*address).filter(|place| knowledge.has_neighbours(place));
            if route.has_choice() { several.extend(places) } else { single.extend(places) }
        }
        single.retain(|place| !several.contains(place));
        probes.keep(single, now());
        gateways.keep(&several, now());
        knowledge.forget_failed(|place| probes.contains(place) || gateways.contains(place));
    }

    /// Asks the neighbors that are due, by the kernel's own means: as if a packet were to be sent to each.
    async fn ask_due_neighbours(&mut self) -> Result<(), NetError> {
        let Self { probes, knowledge, sockets, .. } = self;
        for place in probes.take_due(now(), |place| knowledge.neighbour(place)) {
            neighbours::find(&sockets.requests, place).await?;
        }
        Ok(())
    }

    /// Asks the gateways of multipath routes that are due.
    async fn ask_due_gateways(&mut self) -> Result<(), NetError> {
        let Self { gateways, knowledge, sockets, .. } = self;
        for (place, question) in gateways.take_due(now(), |place| knowledge.neighbour(place)) {
            match question {
                Question::Confirm => neighbours::confirm(&sockets.requests, place).await?,
                Question::Find => neighbours::find(&sockets.requests, place).await?,
                Question::Look => {
                    let state = neighbours::look(&sockets.requests, place).await?;
                    let answered = state.filter(|state| state.is_proven());
                    self.changed |= match answered {
                        Some(state) => gateways.changed(&place, Some(state), now()),
                        None => gateways.fell_silent(&place, now()),
                    };
                }
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn breaker(&self) -> impl Fn() + use<> {
        self.sockets.breaker()
    }
}

fn now() -> std::time::Instant {
    std::time::Instant::now()
}
