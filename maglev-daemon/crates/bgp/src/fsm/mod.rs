//! The protocol with one neighbour, without a socket and without a clock: inputs come with the present time, outputs say
//! what is to be done.
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
//! connects again has two connections for a moment, each a [`Line`]: once its OPEN is accepted on the new one, the old one is
//! closed. [`table`] says what an event means to a line, [`rib`] what the neighbour is to know.

mod line;
#[cfg(test)]
mod model;
mod retry;
mod rib;
mod session;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use maglev_model::bgp::{Carried, Cause, Neighbor, OnDrain, Route};

use super::wire::{self, Boundary, Family, Fault, Message, Notification, Open, RouteRefresh};
use line::Line;
use retry::{Backoff, jitter};
use rib::Rib;
pub(crate) use table::Phase;
use table::{Event, Step};

/// A session that lasted so long was good: the next attempt follows soon.
const GOOD: Duration = Duration::from_secs(5);

/// Who speaks to whom.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) local_as: u32,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) neighbor: Arc<Neighbor>,
    /// What is said of a prefix that is about to go.
    pub(crate) on_drain: OnDrain,
    /// Seconds for which the neighbour keeps our prefixes while we are away.
    pub(crate) graceful_restart: Option<u16>,
    /// This process follows another one that announced the same.
    pub(crate) restarted: bool,
    /// Packets were forwarded in between.
    pub(crate) forwarding_kept: bool,
    pub(crate) dial: bool,
    pub(crate) listen: bool,
    pub(crate) seed: u64,
}

/// One of the two places for a connection. A dialled connection is always the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    First,
    Second,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::First, Self::Second];

    const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// How we end sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a NOTIFICATION: the neighbour drops what it knows of us.
    Cease(String),
    /// Without a word: the neighbour keeps it for the time of a graceful restart.
    Silent,
}

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    Start,
    Stop(End),
    /// End the session and begin again.
    Reset(String),
    Announce(Vec<(IpNet, Arc<Route>)>),
    Withdraw(Vec<IpNet>),
    /// All that is to be announced has been: the end may be marked.
    Complete,
    /// The connection that was dialled is there; this is our address.
    Connected(IpAddr),
    /// A connection comes in: one of the others makes room for it, if there is none. See [`Peer::vacancy`].
    Incoming,
    /// The connection that came in has this place; this is our address.
    Accepted(Side, IpAddr),
    /// A connection failed or was closed, and why.
    Closed(Side, String),
    Bytes(Side, &'a [u8]),
    /// All that was to be sent is.
    Flushed(Side),
    /// Time has passed.
    Tick,
}

/// Something that is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Dial,
    /// Send this; [`Input::Flushed`] tells when it is out.
    Send(Side, Vec<u8>),
    /// Close this connection, or give up dialling, once what was to be sent is.
    Close(Side),
    /// The session is up.
    Up,
    /// The session, or an attempt at one, ended, and why.
    Down(Cause),
    /// Something an operator may want to know.
    Log(String),
}

/// What the RFC calls the state of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Idle,
    Active,
    Connect,
    OpenSent,
    OpenConfirm,
    Established,
}

/// The protocol with one neighbour.
#[derive(Debug)]
pub(crate) struct Peer {
    settings: Settings,
    rng: fastrand::Rng,
    running: bool,
    lines: [Line; 2],
    backoff: Backoff,
    retry_at: Option<Duration>,
    up_since: Option<Duration>,
    /// A session was up since the process began.
    had_session: bool,
    rib: Rib,
    outputs: Vec<Output>,
}

/// Why a line ends.
enum Reason {
    /// We say so.
    Ours(Notification),
    /// They said so.
    Theirs(Notification),
    /// The network, the system, or nobody.
    Text(String),
}

impl Peer {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(settings.seed),
            settings,
            running: false,
            lines: Default::default(),
            backoff: Backoff::default(),
            retry_at: None,
            up_since: None,
            had_session: false,
            rib: Rib::default(),
            outputs: Vec::new(),
        }
    }

    /// Takes an input in.
    pub(crate) fn handle(&mut self, input: Input<'_>, now: Duration) -> Vec<Output> {
        match input {
            Input::Start => self.start(now),
            Input::Stop(end) => self.stop(&end, now),
            Input::Reset(text) => self.reset(&text, now),
            Input::Announce(routes) => self.rib.announce(routes),
            Input::Withdraw(prefixes) => self.rib.withdraw(prefixes),
            Input::Complete => self.rib.complete(),
            Input::Connected(local) => self.connected(local, now),
            Input::Incoming => self.make_room(now),
            Input::Accepted(side, local) => self.accepted(side, local, now),
            Input::Closed(side, why) => self.event(side, Event::Closed, &Reason::Text(why), now),
            Input::Bytes(side, bytes) => self.bytes(side, bytes, now),
            Input::Flushed(side) => self.line(side).flushed(now),
            Input::Tick => {}
        }
        self.tick(now);
        self.pump(now);
        std::mem::take(&mut self.outputs)
    }

    /// When [`Input::Tick`] is due, if nothing comes before.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.lines.iter().map(Line::deadline).chain([self.retry_at]).flatten().min()
    }

    pub(crate) fn state(&self) -> State {
        let [first, second] = &self.lines;
        match first.phase.max(second.phase) {
            Phase::Absent if !self.running => State::Idle,
            Phase::Absent => State::Active,
            Phase::Dialing => State::Connect,
            Phase::OpenSent => State::OpenSent,
            Phase::OpenConfirm => State::OpenConfirm,
            Phase::Established => State::Established,
        }
    }

    /// Prefixes that the neighbour knows of us: the Adj-RIB-Out of the session, empty without one.
    pub(crate) const fn announced(&self) -> &Arc<BTreeSet<IpNet>> {
        self.rib.said()
    }

    /// What becomes of a family's prefixes.
    pub(crate) fn carried(&self, family: Family) -> Carried {
        if !self.settings.families().contains(&family) {
            return Carried::No;
        }
        let established = self.lines.iter().find(|line| line.phase == Phase::Established);
        let Some((local, session)) = established.and_then(|line| Some((line.local?, line.session()?))) else {
            return Carried::Yes;
        };
        match session.families.contains(&family) {
            false => Carried::NotTaken,
            true if self.settings.without_next_hop(session, local).contains(&family) => Carried::NoNextHop,
            true => Carried::Yes,
        }
    }

    /// Connections whose hold timer has run out. What waits in their sockets is to be read before time is handled: then it was
    /// this process that was late, not the neighbor.
    pub(crate) fn overdue(&self, now: Duration) -> impl Iterator<Item = Side> + use<> {
        let late = |line: &Line| line.phase > Phase::Dialing && line.hold_at.is_some_and(|at| at <= now);
        let late = self.lines.each_ref().map(late);
        Side::BOTH.into_iter().zip(late).filter_map(|(side, late)| late.then_some(side))
    }

    /// Whether the neighbour was told all that is wanted, as far as it can be told anything: with no session it is, unless it
    /// may keep what an earlier process said.
    pub(crate) fn is_all_said(&self) -> bool {
        match self.lines.iter().find(|line| line.phase == Phase::Established) {
            Some(line) => line.is_flushed() && self.rib.is_all_said(),
            None => self.had_session || !self.settings.restarted,
        }
    }

    /// What to say to a connection that came in and cannot be taken; `None`: it can.
    pub(crate) fn refusal(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        Notification::new(Fault::REJECTED).encode(&mut bytes);
        (!self.running || !self.settings.listen).then_some(bytes)
    }

    /// The place for a connection that came in; after [`Input::Incoming`] there is one.
    pub(crate) fn vacancy(&self) -> Option<Side> {
        Side::BOTH.into_iter().zip(&self.lines).find_map(|(side, line)| (!line.is_present()).then_some(side))
    }

    const fn line(&mut self, side: Side) -> &mut Line {
        &mut self.lines[side as usize]
    }

    const fn other(&self, side: Side) -> &Line {
        &self.lines[side.other() as usize]
    }

    fn start(&mut self, now: Duration) {
        if !self.running {
            self.running = true;
            self.backoff.reset();
            self.dial(now);
        }
    }

    fn dial(&mut self, now: Duration) {
        self.retry_at = None;
        if self.settings.dial && !self.line(Side::First).is_present() {
            *self.line(Side::First) = Line::dialing(now);
            self.outputs.push(Output::Dial);
        }
    }

    fn stop(&mut self, end: &End, now: Duration) {
        self.running = false;
        for side in Side::BOTH {
            match end {
                End::Cease(text) => {
                    let cease = Notification::with_text(Fault::SHUTDOWN, text);
                    self.event(side, Event::Stop, &Reason::Ours(cease), now);
                }
                End::Silent => self.event(side, Event::Closed, &Reason::Text("stopped for a restart".into()), now),
            }
        }
        self.retry_at = None;
    }

    fn reset(&mut self, text: &str, now: Duration) {
        for side in Side::BOTH {
            let cease = Notification::with_text(Fault::RESET, text);
            self.event(side, Event::Stop, &Reason::Ours(cease), now);
        }
        if self.running {
            self.backoff.reset();
            self.dial(now);
        }
    }

    fn connected(&mut self, local: IpAddr, now: Duration) {
        if self.line(Side::First).phase.step(Event::Connected) == Step::Greet {
            self.greet(Side::First, local, now);
        }
    }

    /// Of two connections, the one that is further from a session is closed, or the older one.
    fn make_room(&mut self, now: Duration) {
        if self.refusal().is_some() || self.vacancy().is_some() {
            return;
        }
        let rank = |side: &Side| {
            let line = &self.lines[*side as usize];
            (line.phase, line.hold_at)
        };
        if let Some(side) = Side::BOTH.into_iter().min_by_key(rank) {
            self.end(side, &Reason::Ours(Notification::new(Fault::COLLISION)), now);
        }
    }

    fn accepted(&mut self, side: Side, local: IpAddr, now: Duration) {
        if self.refusal().is_none() && !self.line(side).is_present() {
            self.greet(side, local, now);
        }
    }

    fn greet(&mut self, side: Side, local: IpAddr, now: Duration) {
        *self.line(side) = Line::connected(local, now);
        let open = self.settings.open(self.had_session);
        self.send(side, now, |out| open.encode(out));
    }

    fn send(&mut self, side: Side, now: Duration, write: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        write(&mut bytes);
        self.line(side).sending(now);
        self.outputs.push(Output::Send(side, bytes));
    }

    /// Takes octets in, message by message, until the line ends or more octets must come.
    fn bytes(&mut self, side: Side, bytes: &[u8], now: Duration) {
        if !self.line(side).is_present() {
            return;
        }
        self.line(side).receive(bytes);
        while self.line(side).is_present() {
            match self.line(side).next() {
                Ok(None) => return,
                Ok(Some(message)) => self.message(side, message, now),
                Err(notification) => self.event(side, Event::Malformed, &Reason::Ours(notification), now),
            }
        }
    }

    fn message(&mut self, side: Side, message: Message, now: Duration) {
        let reason = Reason::Text(String::new());
        match message {
            Message::Open(open) if self.line(side).phase.step(Event::Open) == Step::Confirm => {
                self.confirm(side, open, now);
            }
            Message::Open(_) => self.event(side, Event::Open, &reason, now),
            Message::Update(_) => self.event(side, Event::Update, &reason, now),
            Message::Keepalive => self.event(side, Event::Keepalive, &reason, now),
            Message::Notification(theirs) => self.event(side, Event::Notification, &Reason::Theirs(theirs), now),
            Message::RouteRefresh(refresh) => {
                if self.line(side).phase.step(Event::RouteRefresh) == Step::Resend {
                    self.resend(side, refresh);
                } else {
                    self.event(side, Event::RouteRefresh, &reason, now);
                }
            }
        }
    }

    /// Carries out what an event means to a line. `reason` counts if the line ends by it.
    fn event(&mut self, side: Side, event: Event, reason: &Reason, now: Duration) {
        match self.line(side).phase.step(event) {
            // Greeting, confirming and answering need what came with the event: see there.
            Step::Nothing | Step::Greet | Step::Confirm | Step::Resend => {}
            Step::Establish => self.establish(side, now),
            Step::Alive => self.line(side).alive(now),
            Step::Drop | Step::Tell => self.end(side, reason, now),
            Step::TellFault(fault) => self.end(side, &Reason::Ours(Notification::new(fault)), now),
        }
    }

    fn confirm(&mut self, side: Side, open: Open, now: Duration) {
        let session = match self.settings.agree(&open) {
            Ok(session) => session,
            Err(notification) => return self.end(side, &Reason::Ours(notification), now),
        };
        self.take_over(side, now);
        let pace = session.hold_time.map(|_| jitter(&mut self.rng, session.pace));
        let line = self.line(side);
        line.phase = Phase::OpenConfirm;
        line.theirs = Some((open, session));
        line.alive(now);
        line.keepalive_at = pace.map(|pace| now + pace);
        self.send(side, now, wire::keepalive);
    }

    /// The neighbor opened this connection after the other one, which it must have lost: a session that is established ends
    /// without a NOTIFICATION, so that its prefixes are kept by graceful restart (RFC 4724, section 4.2).
    fn take_over(&mut self, side: Side, now: Duration) {
        let reason = match self.other(side).phase {
            Phase::Absent => return,
            Phase::Established => Reason::Text("the neighbor connected again".into()),
            Phase::Dialing | Phase::OpenSent | Phase::OpenConfirm => Reason::Ours(Notification::new(Fault::COLLISION)),
        };
        self.end(side.other(), &reason, now);
    }

    fn establish(&mut self, side: Side, now: Duration) {
        let line = self.line(side);
        line.phase = Phase::Established;
        line.alive(now);
        let (Some(local), Some(session)) = (line.local, line.session().cloned()) else { return };
        self.retry_at = None;
        self.up_since = Some(now);
        self.had_session = true;
        self.rib.begin(&session.families);
        self.outputs.push(Output::Up);
        for family in self.settings.without_next_hop(&session, local) {
            let text = format!("no {family} prefixes are announced: there is no next hop for them; set it");
            self.outputs.push(Output::Log(text));
        }
    }

    /// Sends all of a family again, if it is one that was agreed on. What only marks the neighbour's own answers says
    /// nothing to us, who asked for nothing.
    fn resend(&mut self, side: Side, RouteRefresh { family, boundary }: RouteRefresh) {
        let (Some(family), Some(Boundary::Request)) = (family, boundary) else { return };
        if self.line(side).session().is_some_and(|session| session.families.contains(&family)) {
            self.rib.refresh(family);
        }
    }

    /// Ends a line: tells the neighbour, if it is for us to tell, and what it means for the session.
    fn end(&mut self, side: Side, reason: &Reason, now: Duration) {
        let line = std::mem::take(self.line(side));
        if let (Reason::Ours(notification), true) = (reason, line.phase > Phase::Dialing) {
            let mut bytes = Vec::new();
            notification.encode(&mut bytes);
            self.outputs.push(Output::Send(side, bytes));
        }
        self.outputs.push(Output::Close(side));
        if line.phase == Phase::Established {
            self.rib.end();
            if self.up_since.take().is_some_and(|since| now >= since + GOOD) {
                self.backoff.reset();
            }
        }
        // As long as the other line lives, an attempt goes on.
        if line.phase < Phase::Established && self.other(side).is_present() {
            return;
        }
        self.outputs.push(Output::Down(Cause { text: reason.to_string(), notified: reason.is_notification() }));
        if self.running && self.settings.dial {
            let wait = self.backoff.next(&mut self.rng);
            self.retry_at = Some(now + wait);
        }
    }

    fn tick(&mut self, now: Duration) {
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        if due(self.retry_at) {
            self.dial(now);
        }
        for side in Side::BOTH {
            let line = self.line(side);
            if due(line.hold_at) {
                let reason = Reason::Text("no answer within 10 s".into());
                self.event(side, Event::HoldExpired, &reason, now);
            } else if due(line.send_hold_at) {
                self.event(side, Event::SendHoldExpired, &Reason::Text(String::new()), now);
            } else if due(line.keepalive_at) {
                self.keep_alive(side, now);
            }
        }
    }

    fn keep_alive(&mut self, side: Side, now: Duration) {
        let Some(pace) = self.line(side).session().map(|session| session.pace) else { return };
        let at = now + jitter(&mut self.rng, pace);
        // What is still being sent tells the neighbour as much; once it is out, a sign of life is owed.
        let flushed = self.line(side).is_flushed();
        self.line(side).keepalive_at = flushed.then_some(at);
        if flushed {
            self.send(side, now, wire::keepalive);
        }
    }

    /// Says what is pending, once the neighbour has taken what was said before.
    fn pump(&mut self, now: Duration) {
        for side in Side::BOTH {
            let line = &self.lines[side as usize];
            if line.phase != Phase::Established || !line.is_flushed() {
                continue;
            }
            let (Some(local), Some(session)) = (line.local, line.session()) else { continue };
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

impl Reason {
    const fn is_notification(&self) -> bool {
        matches!(self, Self::Ours(_) | Self::Theirs(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(notification) => write!(f, "we ended it: {notification}"),
            Self::Theirs(notification) => write!(f, "the neighbour ended it: {notification}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Connect => "connect",
            Self::OpenSent => "open-sent",
            Self::OpenConfirm => "open-confirm",
            Self::Established => "established",
        })
    }
}
