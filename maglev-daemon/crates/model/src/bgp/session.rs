//! The status of a neighbor's session. It must not know how the session comes about.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use crate::{Community, UnixTime};

/// The state of a session that exchanges prefixes.
const ESTABLISHED: &str = "established";

/// A neighbor's session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NeighborStatus {
    /// Its name.
    pub name: String,
    /// Its AS number.
    pub remote_as: u32,
    /// The state, in the RFC's words.
    pub state: String,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// Prefixes that are announced to it in this session (the Adj-RIB-Out); none without one.
    pub announced: Arc<BTreeSet<IpNet>>,
    /// Whether IPv4 prefixes are sent, or why not.
    pub ipv4: Carried,
    /// Whether IPv6 prefixes are sent, or why not.
    pub ipv6: Carried,
    /// The version of the wanted prefixes that was sent to the neighbor, as far as anything can be sent.
    pub sent: u64,
    /// How often a session came up.
    pub sessions: u64,
    /// Why the last session, or attempt at one, ended.
    pub errors: Errors,
}

/// Why a session, or an attempt at one, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// In words.
    pub text: String,
    /// A NOTIFICATION, ours or theirs, gives the cause: it explains the error that TCP reports afterwards.
    pub notified: bool,
}

/// Whether a family's prefixes are sent to a neighbor, or why not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carried {
    /// The neighbor is not configured for the family.
    #[default]
    No,
    /// They are sent as soon as there is a session.
    Yes,
    /// The neighbor's OPEN does not list the family.
    NotTaken,
    /// There is no next hop for them.
    NoNextHop,
}

/// The attributes of a prefix beside those of the neighbor's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Its communities. With [`Community::GRACEFUL_SHUTDOWN`] among them the prefix is about to be withdrawn, and is least preferred.
    pub communities: BTreeSet<Community>,
}

/// Why sessions, or attempts at them, ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// The last one; the last NOTIFICATION if only errors of TCP followed it without a session.
    pub last: Option<Failure>,
    /// The error of TCP that followed.
    pub later: Option<Failure>,
    /// `last` is a NOTIFICATION, and no session came up since.
    explains: bool,
}

/// One end of a session, or of an attempt at one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub text: String,
    /// When.
    pub at: UnixTime,
}

impl NeighborStatus {
    /// Whether prefixes are exchanged.
    pub fn is_established(&self) -> bool {
        self.state == ESTABLISHED
    }

    /// Whether prefixes of this one's family are configured to be announced to it.
    pub fn is_for(&self, prefix: &IpNet) -> bool {
        self.carried(prefix) != Carried::No
    }

    /// Why a prefix that is wanted is not announced to it; `None` if it is.
    pub fn reason(&self, prefix: &IpNet) -> Option<String> {
        if self.announced.contains(prefix) {
            return None;
        }
        let family = if matches!(prefix, IpNet::V4(_)) { "IPv4" } else { "IPv6" };
        Some(match self.carried(prefix) {
            _ if !self.is_established() => format!("no session ({})", self.state),
            Carried::No | Carried::NotTaken => format!("takes no {family} prefixes"),
            Carried::NoNextHop => format!("no next hop for {family} prefixes"),
            Carried::Yes => "not sent yet".to_owned(),
        })
    }

    const fn carried(&self, prefix: &IpNet) -> Carried {
        match prefix {
            IpNet::V4(_) => self.ipv4,
            IpNet::V6(_) => self.ipv6,
        }
    }
}

impl Errors {
    /// A session came up: the next error has a cause of its own.
    pub fn established(&mut self) {
        (self.later, self.explains) = (None, false);
    }

    /// A session, or an attempt at one, ended. An error of TCP that follows a NOTIFICATION does not take its place.
    pub fn add(&mut self, cause: &Cause, at: UnixTime) {
        let failure = Some(Failure { text: cause.text.clone(), at });
        if self.explains && !cause.notified {
            self.later = failure;
        } else {
            *self = Self { last: failure, later: None, explains: cause.notified };
        }
    }

    /// Whether this is what ended the last attempt too.
    pub fn is_known(&self, text: &str) -> bool {
        self.later.as_ref().or(self.last.as_ref()).is_some_and(|failure| failure.text == text)
    }
}

#[cfg(test)]
mod faults {
    use super::*;
    use maglev_testing::matrix::Row;

    fn cause(text: &str, notified: bool) -> Cause {
        Cause { text: text.to_owned(), notified }
    }

    /// The last error and the later one.
    fn shown(errors: &Errors) -> [Option<&str>; 2] {
        [&errors.last, &errors.later].map(|failure| failure.as_ref().map(|failure| failure.text.as_str()))
    }

    #[test]
    fn a_notification_is_kept_beside_errors_of_tcp() {
        let at = UnixTime(1_700_000_000);
        let (bad_as, reset) = (cause("bad peer AS", true), cause("Connection reset by peer", false));
        let refused = cause("Connection refused", false);
        let mut errors = Errors::default();
        {
            let _row = Row::fault("C12", "a NOTIFICATION, then resets: both are kept");
            errors.add(&refused, at);
            assert_eq!(shown(&errors), [Some("Connection refused"), None]);
            errors.add(&bad_as, at);
            errors.add(&reset, at);
            errors.add(&refused, at);
            assert_eq!(shown(&errors), [Some("bad peer AS"), Some("Connection refused")]);
            assert!(errors.is_known("Connection refused") && !errors.is_known("bad peer AS"));
        }
        {
            let _row = Row::fault("C12", "a second NOTIFICATION takes the place of the first");
            errors.add(&cause("cease", true), at);
            assert_eq!(shown(&errors), [Some("cease"), None]);
        }
        let _row = Row::fault("C12", "after a session, an error of TCP stands for itself");
        errors.add(&reset, at);
        errors.established();
        assert_eq!(shown(&errors), [Some("cease"), None]);
        errors.add(&reset, at);
        assert_eq!(shown(&errors), [Some("Connection reset by peer"), None]);
    }
}
