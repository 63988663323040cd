//! One TCP connection to the neighbor: its phase, its timers, and the octets of a message that is not complete. It must
//! not know the other connection, nor prefixes.

use std::net::IpAddr;
use std::time::Duration;

use super::session::Session;
use super::table::Phase;
use crate::wire::{self, Message, Notification, Open};

/// How long a neighbor may take to accept a connection, and then to send its OPEN. RFC 4271 suggests four minutes for the
/// latter; a node that waits so long serves no traffic meanwhile.
const DIAL: Duration = Duration::from_secs(10);
const OPEN: Duration = Duration::from_secs(60);

/// How long a neighbor may read nothing from us: eight minutes, or twice the hold time if that is longer (RFC 9687).
const SEND_HOLD: Duration = Duration::from_secs(480);

/// A connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    pub(super) phase: Phase,
    received: Vec<u8>,
    /// Octets of it that were messages: dropped together, once no complete one is left.
    done: usize,
    pub(super) hold_at: Option<Duration>,
    pub(super) keepalive_at: Option<Duration>,
    pub(super) send_hold_at: Option<Duration>,
    /// Our address.
    pub(super) local: Option<IpAddr>,
    pub(super) theirs: Option<(Open, Session)>,
}

impl Connection {
    pub(super) fn dialing(now: Duration) -> Self {
        Self { phase: Phase::Dialing, hold_at: Some(now + DIAL), ..Self::default() }
    }

    pub(super) fn connected(local: IpAddr, now: Duration) -> Self {
        Self { phase: Phase::OpenSent, hold_at: Some(now + OPEN), local: Some(local), ..Self::default() }
    }

    pub(super) fn is_present(&self) -> bool {
        self.phase != Phase::Absent
    }

    /// The result of the negotiation.
    pub(super) fn session(&self) -> Option<&Session> {
        self.theirs.as_ref().map(|(_, session)| session)
    }

    /// Whether all messages are sent.
    pub(super) const fn is_flushed(&self) -> bool {
        self.send_hold_at.is_none()
    }

    /// Something is being sent.
    pub(super) fn sending(&mut self, now: Duration) {
        let hold_time = self.session().and_then(|session| session.hold_time).unwrap_or_default();
        self.send_hold_at.get_or_insert(now + SEND_HOLD.max(hold_time * 2));
    }

    /// All messages are sent. If a KEEPALIVE was due meanwhile, it is due now.
    pub(super) fn flushed(&mut self, now: Duration) {
        self.send_hold_at = None;
        if self.phase > Phase::OpenSent && self.session().is_some_and(|session| session.hold_time.is_some()) {
            self.keepalive_at.get_or_insert(now);
        }
    }

    /// The neighbor is alive.
    pub(super) fn alive(&mut self, now: Duration) {
        let hold_time = self.session().and_then(|session| session.hold_time);
        self.hold_at = hold_time.map(|time| now + time);
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        [self.hold_at, self.keepalive_at, self.send_hold_at].into_iter().flatten().min()
    }

    /// Processes received octets.
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// Octets of a message that is not complete.
    #[cfg(test)]
    pub(super) const fn kept(&self) -> usize {
        self.received.len()
    }

    /// The next complete message, or the error in the received octets.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Notification> {
        let Some((message, length)) = wire::decode(&self.received[self.done..])? else {
            self.received.drain(..self.done);
            self.done = 0;
            return Ok(None);
        };
        self.done += length;
        Ok(Some(message))
    }
}
