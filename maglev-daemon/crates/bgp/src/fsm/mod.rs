//! The protocol with one neighbor, without a socket and without a clock: inputs come with the present time, outputs are
//! orders to the driver.
//!
//! ```text
//!            start              connected               their OPEN              their KEEPALIVE
//!   Idle ───────────▶ Connect ────────────▶ OpenSent ──────────────▶ OpenConfirm ──────────────▶ Established
//!    ▲                │   ▲                    │                         │                          │
//!    │ stop     failed▼   │retry               │      whatever goes wrong, with a NOTIFICATION      │
//!    └─────────────── Active ◀─────────────────┴─────────────────────────┴──────────────────────────┘
//! ```
//!
//! A neighbor is either dialled or listened for, so connections do not collide (RFC 4271, section 6.8). A passive neighbor that
//! connects again has two connections for a moment, each a [`Connection`]: once its OPEN is accepted on the new one, the old one is
//! closed. [`table`] says what an event means to a connection, [`rib`] holds the prefixes to announce.

mod configure;
mod connection;
mod connections;
mod io;
#[cfg(test)]
mod model;
mod retry;
mod rib;
mod session;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use maglev_model::bgp::{Carried, Neighbor, OnDrain, Route};

use super::wire::{self, Boundary, Family, Message, Notification, Open, RouteRefresh};
use connection::Connection;
use connections::Reason;
pub(crate) use io::{Configured, End, Input, Output, Side, State};
use retry::{Backoff, jitter};
use rib::Rib;
use session::Session;
pub(crate) use table::Phase;
use table::{Event, Step};

/// The settings of a session.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) local_as: u32,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) neighbor: Arc<Neighbor>,
    /// The attributes of a prefix that is about to be withdrawn.
    pub(crate) on_drain: OnDrain,
    /// Seconds for which the neighbor keeps our prefixes while we are away.
    pub(crate) graceful_restart: Option<u16>,
    /// This process follows another one that announced the same.
    pub(crate) restarted: bool,
    /// Packets were forwarded in between.
    pub(crate) forwarding_kept: bool,
    pub(crate) dial: bool,
    pub(crate) listen: bool,
    pub(crate) seed: u64,
}

/// The protocol with one neighbor.
#[derive(Debug)]
pub(crate) struct Peer {
    settings: Settings,
    rng: fastrand::Rng,
    running: bool,
    connections: [Connection; 2],
    backoff: Backoff,
    retry_at: Option<Duration>,
    up_since: Option<Duration>,
    /// A session was up since the process began.
    had_session: bool,
    rib: Rib,
    outputs: Vec<Output>,
}

impl Peer {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(settings.seed),
            settings,
            running: false,
            connections: Default::default(),
            backoff: Backoff::default(),
            retry_at: None,
            up_since: None,
            had_session: false,
            rib: Rib::default(),
            outputs: Vec::new(),
        }
    }

    /// Processes an input.
    pub(crate) fn handle(&mut self, input: Input<'_>, now: Duration) -> Vec<Output> {
        match input {
            Input::Start => self.start(now),
            Input::Stop(end) => self.stop(&end, now),
            Input::Reset(text) => self.reset(&text, now),
            Input::Configure(configured) => self.configure(configured, now),
            Input::Announce(routes) => self.rib.announce(routes),
            Input::Withdraw(prefixes) => self.rib.withdraw(prefixes),
            Input::Complete => self.rib.complete(),
            Input::Connected(local) => self.connected(local, now),
            Input::Incoming => self.make_room(now),
            Input::Accepted(side, local) => self.accepted(side, local, now),
            Input::Closed(side, why) => self.event(side, Event::Closed, &Reason::Text(why), now),
            Input::Bytes(side, bytes) => self.bytes(side, bytes, now),
            Input::Flushed(side) => self.connection(side).flushed(now),
            Input::Tick => {}
        }
        self.tick(now);
        self.pump(now);
        std::mem::take(&mut self.outputs)
    }

    /// When [`Input::Tick`] is due, if nothing comes before.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.connections.iter().map(Connection::deadline).chain([self.retry_at]).flatten().min()
    }

    pub(crate) fn state(&self) -> State {
        let [first, second] = &self.connections;
        match first.phase.max(second.phase) {
            Phase::Absent if !self.running => State::Idle,
            Phase::Absent => State::Active,
            Phase::Dialing => State::Connect,
            Phase::OpenSent => State::OpenSent,
            Phase::OpenConfirm => State::OpenConfirm,
            Phase::Established => State::Established,
        }
    }

    /// Prefixes that are announced to the neighbor: the Adj-RIB-Out of the session, empty without one.
    pub(crate) const fn announced(&self) -> &Arc<BTreeSet<IpNet>> {
        self.rib.said()
    }

    /// Whether a family's prefixes are sent, or why not.
    pub(crate) fn carried(&self, family: Family) -> Carried {
        if !self.settings.families().contains(&family) {
            return Carried::No;
        }
        let established = self.connections.iter().find(|connection| connection.phase == Phase::Established);
        let Some((local, session)) =
            established.and_then(|connection| Some((connection.local?, connection.session()?)))
        else {
            return Carried::Yes;
        };
        match session.families.contains(&family) {
            false => Carried::NotTaken,
            true if self.settings.without_next_hop(session, local).contains(&family) => Carried::NoNextHop,
            true => Carried::Yes,
        }
    }

    /// Connections whose hold timer has expired. Their sockets are to be read before the time is handled: then this process
    /// was late, not the neighbor.
    pub(crate) fn overdue(&self, now: Duration) -> impl Iterator<Item = Side> + use<> {
        let late = |connection: &Connection| {
            connection.phase > Phase::Dialing && connection.hold_at.is_some_and(|at| at <= now)
        };
        let late = self.connections.each_ref().map(late);
        Side::BOTH.into_iter().zip(late).filter_map(|(side, late)| late.then_some(side))
    }

    /// Whether all wanted prefixes were sent to the neighbor, as far as any can be sent: without a session they were, unless it
    /// may keep prefixes of an earlier process.
    pub(crate) fn is_all_said(&self) -> bool {
        match self.connections.iter().find(|connection| connection.phase == Phase::Established) {
            Some(connection) => connection.is_flushed() && self.rib.is_all_said(),
            None => self.had_session || !self.settings.restarted,
        }
    }

    const fn connection(&mut self, side: Side) -> &mut Connection {
        &mut self.connections[side as usize]
    }

    const fn other(&self, side: Side) -> &Connection {
        &self.connections[side.other() as usize]
    }

    fn send(&mut self, side: Side, now: Duration, write: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        write(&mut bytes);
        self.connection(side).sending(now);
        self.outputs.push(Output::Send(side, bytes));
    }

    /// Processes octets, message by message, until the connection ends or more octets must come.
    fn bytes(&mut self, side: Side, bytes: &[u8], now: Duration) {
        if !self.connection(side).is_present() {
            return;
        }
        self.connection(side).receive(bytes);
        while self.connection(side).is_present() {
            match self.connection(side).next() {
                Ok(None) => return,
                Ok(Some(message)) => self.message(side, message, now),
                Err(notification) => self.event(side, Event::Malformed, &Reason::Ours(notification), now),
            }
        }
    }

    fn message(&mut self, side: Side, message: Message, now: Duration) {
        let reason = Reason::Text(String::new());
        match message {
            Message::Open(open) if self.connection(side).phase.step(Event::Open) == Step::Confirm => {
                self.confirm(side, open, now);
            }
            Message::Open(_) => self.event(side, Event::Open, &reason, now),
            Message::Update(_) => self.event(side, Event::Update, &reason, now),
            Message::Keepalive => self.event(side, Event::Keepalive, &reason, now),
            Message::Notification(theirs) => self.event(side, Event::Notification, &Reason::Theirs(theirs), now),
            Message::RouteRefresh(refresh) => {
                if self.connection(side).phase.step(Event::RouteRefresh) == Step::Resend {
                    self.resend(side, refresh);
                } else {
                    self.event(side, Event::RouteRefresh, &reason, now);
                }
            }
        }
    }

    /// Carries out the step of an event on a connection. `reason` counts if the connection ends by it.
    fn event(&mut self, side: Side, event: Event, reason: &Reason, now: Duration) {
        match self.connection(side).phase.step(event) {
            // Greeting, confirming and answering need the data of the event: see there.
            Step::Nothing | Step::Greet | Step::Confirm | Step::Resend => {}
            Step::Establish => self.establish(side, now),
            Step::Alive => self.connection(side).alive(now),
            Step::Drop | Step::Notify => self.end(side, reason, now),
            Step::NotifyFault(fault) => self.end(side, &Reason::Ours(Notification::new(fault)), now),
        }
    }

    fn confirm(&mut self, side: Side, open: Open, now: Duration) {
        let session = match self.settings.agree(&open) {
            Ok(session) => session,
            Err(notification) => return self.end(side, &Reason::Ours(notification), now),
        };
        self.take_over(side, now);
        let pace = session.hold_time.map(|_| jitter(&mut self.rng, session.pace));
        let connection = self.connection(side);
        connection.phase = Phase::OpenConfirm;
        connection.theirs = Some((open, session));
        connection.alive(now);
        connection.keepalive_at = pace.map(|pace| now + pace);
        self.send(side, now, wire::keepalive);
    }

    fn establish(&mut self, side: Side, now: Duration) {
        let connection = self.connection(side);
        connection.phase = Phase::Established;
        connection.alive(now);
        let (Some(local), Some(session)) = (connection.local, connection.session().cloned()) else { return };
        self.retry_at = None;
        self.up_since = Some(now);
        self.had_session = true;
        self.rib.begin(&session.families);
        self.outputs.push(Output::Up);
        self.log_next_hops(&session, local, &[]);
    }

    /// Reports the families without a next hop, except those that are known.
    fn log_next_hops(&mut self, session: &Session, local: IpAddr, known: &[Family]) {
        let without = self.settings.without_next_hop(session, local);
        for family in without.into_iter().filter(|family| !known.contains(family)) {
            let text = format!("no {family} prefixes are announced: there is no next hop for them; set it");
            self.outputs.push(Output::Log(text));
        }
    }

    /// Sends all of a family again, if it was negotiated. The marks around the neighbor's own answers are ignored: we never
    /// ask for a refresh.
    fn resend(&mut self, side: Side, RouteRefresh { family, boundary }: RouteRefresh) {
        let (Some(family), Some(Boundary::Request)) = (family, boundary) else { return };
        if self.connection(side).session().is_some_and(|session| session.families.contains(&family)) {
            self.rib.refresh(family);
        }
    }

    fn tick(&mut self, now: Duration) {
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        if due(self.retry_at) {
            self.dial(now);
        }
        for side in Side::BOTH {
            let connection = self.connection(side);
            if due(connection.hold_at) {
                let reason = Reason::Text("no answer within 10 s".into());
                self.event(side, Event::HoldExpired, &reason, now);
            } else if due(connection.send_hold_at) {
                self.event(side, Event::SendHoldExpired, &Reason::Text(String::new()), now);
            } else if due(connection.keepalive_at) {
                self.keep_alive(side, now);
            }
        }
    }

    fn keep_alive(&mut self, side: Side, now: Duration) {
        let Some(pace) = self.connection(side).session().map(|session| session.pace) else { return };
        let at = now + jitter(&mut self.rng, pace);
        // An unsent message serves as a sign of life; once it is sent, a KEEPALIVE is due.
        let flushed = self.connection(side).is_flushed();
        self.connection(side).keepalive_at = flushed.then_some(at);
        if flushed {
            self.send(side, now, wire::keepalive);
        }
    }

    /// Sends pending changes, once the neighbor has received all earlier ones.
    fn pump(&mut self, now: Duration) {
        for side in Side::BOTH {
            let connection = &self.connections[side as usize];
            if connection.phase != Phase::Established || !connection.is_flushed() {
                continue;
            }
            let (Some(local), Some(session)) = (connection.local, connection.session()) else { continue };
            let settings = &self.settings;
            let mut bytes = Vec::new();
            let too_long = self.rib.write(&mut bytes, session.encoding, session.enhanced_refresh, |family, route| {
                let agreed = session.families.contains(&family);
                agreed.then(|| settings.attributes(session, local, family, route)).flatten()
            });
            if too_long > 0 {
                let text = format!("{too_long} prefixes are not announced: their communities fill a message");
                self.outputs.push(Output::Log(text));
            }
            if !bytes.is_empty() {
                self.send(side, now, |out| *out = bytes);
            }
        }
    }
}
