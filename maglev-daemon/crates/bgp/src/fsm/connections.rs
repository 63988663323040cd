//! How connections begin and end: dialling, accepting, the place for one more, and the pause before the next attempt. It must not
//! know their messages.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use maglev_model::bgp::Cause;

use super::connection::Connection;
use super::table::{Event, Phase, Step};
use super::{End, Output, Peer, Side};
use crate::wire::{Fault, Notification};

/// A session that lasted this long was good: the next attempt follows soon.
const GOOD: Duration = Duration::from_secs(5);

/// Why a connection ends.
pub(super) enum Reason {
    /// Closed by us, with a NOTIFICATION.
    Ours(Notification),
    /// Closed by the peer, with a NOTIFICATION.
    Theirs(Notification),
    /// Closed by the network or the system, or without a cause.
    Text(String),
}

impl Peer {
    /// The NOTIFICATION for an incoming connection that is rejected; `None`: it is accepted.
    pub(crate) fn refusal(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        Notification::new(Fault::REJECTED).encode(&mut bytes);
        (!self.running || !self.settings.listen).then_some(bytes)
    }

    /// The place for a connection that came in; after [`Input::Incoming`] there is one.
    pub(crate) fn vacancy(&self) -> Option<Side> {
        Side::BOTH
            .into_iter()
            .zip(&self.connections)
            .find_map(|(side, connection)| (!connection.is_present()).then_some(side))
    }

    pub(super) fn start(&mut self, now: Duration) {
        if !self.running {
            self.running = true;
            self.backoff.reset();
            self.dial(now);
        }
    }

    pub(super) fn dial(&mut self, now: Duration) {
        self.retry_at = None;
        if self.settings.dial && !self.connection(Side::First).is_present() {
            *self.connection(Side::First) = Connection::dialing(now);
            self.outputs.push(Output::Dial);
        }
    }

    pub(super) fn stop(&mut self, end: &End, now: Duration) {
        self.running = false;
        for side in Side::BOTH {
            match end {
                End::Cease(text) => {
                    let cease = Notification::with_text(Fault::SHUTDOWN, text);
                    self.event(side, Event::Stop, &Reason::Ours(cease), now);
                }
                End::Silent => self.event(side, Event::Closed, &Reason::Text("stopped for a restart".into()), now),
                End::Removed => {
                    let cease = Notification::new(Fault::DE_CONFIGURED);
                    self.event(side, Event::Stop, &Reason::Ours(cease), now);
                }
            }
        }
        self.retry_at = None;
    }

    pub(super) fn reset(&mut self, text: &str, now: Duration) {
        for side in Side::BOTH {
            let cease = Notification::with_text(Fault::RESET, text);
            self.event(side, Event::Stop, &Reason::Ours(cease), now);
        }
        if self.running {
            self.backoff.reset();
            self.dial(now);
        }
    }

    pub(super) fn connected(&mut self, local: IpAddr, now: Duration) {
        if self.connection(Side::First).phase.step(Event::Connected) == Step::Greet {
            self.greet(Side::First, local, now);
        }
    }

    /// Of two connections, the one that is further from a session is closed, or the older one.
    pub(super) fn make_room(&mut self, now: Duration) {
        if self.refusal().is_some() || self.vacancy().is_some() {
            return;
        }
        let rank = |side: &Side| {
            let connection = &self.connections[*side as usize];
            (connection.phase, connection.hold_at)
        };
        if let Some(side) = Side::BOTH.into_iter().min_by_key(rank) {
            self.end(side, &Reason::Ours(Notification::new(Fault::COLLISION)), now);
        }
    }

    pub(super) fn accepted(&mut self, side: Side, local: IpAddr, now: Duration) {
        if self.refusal().is_none() && !self.connection(side).is_present() {
            self.greet(side, local, now);
        }
    }

    fn greet(&mut self, side: Side, local: IpAddr, now: Duration) {
        *self.connection(side) = Connection::connected(local, now);
        let open = self.settings.open(self.had_session);
        self.send(side, now, |out| open.encode(out));
    }

    /// Ends a connection: sends a NOTIFICATION if the reason is ours, and reports the end of the session.
    pub(super) fn end(&mut self, side: Side, reason: &Reason, now: Duration) {
        let connection = std::mem::take(self.connection(side));
        if let (Reason::Ours(notification), true) = (reason, connection.phase > Phase::Dialing) {
            let mut bytes = Vec::new();
            notification.encode(&mut bytes);
            self.outputs.push(Output::Send(side, bytes));
        }
        self.outputs.push(Output::Close(side));
        if connection.phase == Phase::Established {
            self.rib.end();
            if self.up_since.take().is_some_and(|since| now >= since + GOOD) {
                self.backoff.reset();
            }
        }
        // As long as the other connection lives, an attempt goes on.
        if connection.phase < Phase::Established && self.other(side).is_present() {
            return;
        }
        self.outputs.push(Output::Down(Cause { text: reason.to_string(), notified: reason.is_notification() }));
        if self.running && self.settings.dial {
            let wait = self.backoff.next(&mut self.rng);
            self.retry_at = Some(now + wait);
        }
    }

    /// The neighbor opened this connection after the other one, which it must have lost: a session that is established ends
    /// without a NOTIFICATION, so that its prefixes are kept by graceful restart (RFC 4724, section 4.2).
    pub(super) fn take_over(&mut self, side: Side, now: Duration) {
        let reason = match self.other(side).phase {
            Phase::Absent => return,
            Phase::Established => Reason::Text("the neighbor connected again".into()),
            Phase::Dialing | Phase::OpenSent | Phase::OpenConfirm => Reason::Ours(Notification::new(Fault::COLLISION)),
        };
        self.end(side.other(), &reason, now);
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
            Self::Ours(notification) => write!(f, "closed by us: {notification}"),
            Self::Theirs(notification) => write!(f, "closed by the peer: {notification}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}
