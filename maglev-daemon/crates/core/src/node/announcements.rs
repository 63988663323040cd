//! The prefixes wanted by the node, sent to neighbors, and held by them. It must not know sessions, nor plans.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use maglev_model::bgp::{NeighborStatus, Wanted};

use crate::announce::{self, HoldDown, NodeState, Prefix};
use crate::announced::{Known, News};
use crate::reconcile::Serving;

/// Announcements of the node.
#[derive(Debug)]
pub(super) struct Announcements {
    /// The prefixes to announce.
    wanted: Arc<Wanted>,
    /// Every prefix, and why it is withheld if it is.
    prefixes: Arc<Vec<Prefix>>,
    /// For how long a prefix withdrawn for lack of healthy backends is held down.
    hold_down: Duration,
    /// The neighbors' sessions, once there are any.
    sessions: Option<Vec<NeighborStatus>>,
    /// The prefixes that neighbors hold, as last found.
    known: Known,
}

/// The result of an update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Updated {
    /// The wanted prefixes, or why a prefix is withheld.
    pub(super) changed: bool,
    /// Prefixes that are no longer announced.
    pub(super) withdrawn: Vec<IpNet>,
}

impl Announcements {
    pub(super) fn new(hold_down: Duration) -> Self {
        Self { wanted: Arc::default(), prefixes: Arc::default(), hold_down, sessions: None, known: Known::default() }
    }

    pub(super) fn wanted(&self) -> Arc<Wanted> {
        Arc::clone(&self.wanted)
    }

    pub(super) fn prefixes(&self) -> Arc<Vec<Prefix>> {
        Arc::clone(&self.prefixes)
    }

    /// Whether there are neighbors.
    pub(super) const fn has_neighbors(&self) -> bool {
        self.sessions.is_some()
    }

    /// Whether this version was sent to every neighbor, as far as anything can be sent.
    pub(super) fn is_sent(&self, version: u64) -> bool {
        self.sessions.as_ref().is_some_and(|all| all.iter().all(|session| session.sent >= version))
    }

    /// Whether every neighbor has a session and was sent this version in it. One without a session may keep its prefixes (graceful
    /// restart).
    pub(super) fn is_known(&self, version: u64) -> bool {
        let is_known = |session: &NeighborStatus| session.is_established() && session.sent >= version;
        self.sessions.as_ref().is_some_and(|all| all.iter().all(is_known))
    }

    /// Whether every neighbor is back after a restart, and was sent all wanted prefixes: it drops all others that it kept.
    pub(super) fn is_complete(&self) -> bool {
        self.wanted.complete && self.is_known(self.wanted.version)
    }

    /// Records the sessions. Returns the prefixes that are announced to a first neighbor now, or no longer to any.
    pub(super) fn follow(&mut self, sessions: Vec<NeighborStatus>) -> Vec<News> {
        let news = self.known.update(&self.prefixes, &sessions);
        self.sessions = Some(sessions);
        news
    }

    /// When [`Self::update`] is due by time alone.
    pub(super) fn deadline(&self) -> Option<Duration> {
        announce::deadline(&self.prefixes, self.hold_down)
    }

    /// Applies the services that the node can serve now.
    pub(super) fn update(&mut self, serving: &Serving, state: &NodeState, now: Duration) -> Updated {
        let hold = HoldDown { lasts: self.hold_down, now };
        let prefixes = announce::prefixes(serving, state, &self.prefixes, hold);
        let routes = announce::routes(&prefixes);
        // A drained node waits for nothing: neighbors must not keep prefixes of a daemon before.
        let complete = self.wanted.complete || serving.is_complete() || *state == NodeState::Drained;
        let mut updated = Updated::default();
        if self.wanted.complete != complete || self.wanted.routes != routes {
            updated.changed = true;
            let before = self.wanted.routes.keys();
            updated.withdrawn = before.filter(|prefix| !routes.contains_key(*prefix)).copied().collect();
            self.wanted = Arc::new(Wanted { routes, complete, version: self.wanted.version + 1 });
        }
        if *self.prefixes != prefixes {
            updated.changed = true;
            self.prefixes = Arc::new(prefixes);
        }
        updated
    }
}
