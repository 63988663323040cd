//! Tells the speaker what is to be announced, whenever that changes. It must not know why it does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::announce::{self, HoldDown, Node, Prefix};
use crate::bgp::speaker::{Handle, Wanted};
use crate::reconcile::View;

/// The way to the speaker, and to those who ask what is announced.
#[derive(Debug)]
pub(super) struct Announcer {
    wanted: watch::Sender<Arc<Wanted>>,
    prefixes: watch::Sender<Arc<Vec<Prefix>>>,
    /// The neighbours' tasks, once they run.
    neighbors: Option<Handle>,
    /// For how long what was withdrawn for want of healthy backends is held down.
    hold_down: Duration,
}

impl Announcer {
    pub(super) fn new(hold_down: Duration) -> Self {
        Self { wanted: watch::Sender::default(), prefixes: watch::Sender::default(), neighbors: None, hold_down }
    }

    /// From here on neighbours are told.
    pub(super) fn follow(&mut self, neighbors: Handle) {
        self.neighbors = Some(neighbors);
    }

    /// What neighbours are to know, as it changes.
    pub(super) fn wanted(&self) -> watch::Receiver<Arc<Wanted>> {
        self.wanted.subscribe()
    }

    /// Every prefix, and why it is withheld if it is.
    pub(super) fn prefixes(&self) -> watch::Receiver<Arc<Vec<Prefix>>> {
        self.prefixes.subscribe()
    }

    /// Waits until neighbours were told what is wanted now; `None` if nobody is to be told.
    pub(super) fn told(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let version = self.wanted.borrow().version;
        self.neighbors.clone().map(|neighbors| neighbors.told(version))
    }

    /// When [`Self::update`] is due by time alone.
    pub(super) fn deadline(&self) -> Option<Duration> {
        announce::deadline(&self.prefixes.borrow(), self.hold_down)
    }

    /// Takes the node's state in. Tells whether a prefix is withdrawn because no VIP is on it any more.
    pub(super) fn update(&self, view: &View, node: &Node, now: Duration) -> bool {
        let hold = HoldDown { lasts: self.hold_down, now };
        let prefixes = announce::prefixes(view, node, &self.prefixes.borrow(), hold);
        let removed = removed(&self.prefixes.borrow(), &prefixes);
        let settled = !view.busy && view.not_published.is_none() && view.is_checked();
        let routes = announce::routes(&prefixes);
        self.wanted.send_if_modified(|wanted| {
            let complete = wanted.complete || settled;
            if wanted.complete == complete && wanted.routes == routes {
                return false;
            }
            let new = Wanted { routes, complete, version: wanted.version + 1 };
            log_changes(wanted, &new, &prefixes);
            *wanted = Arc::new(new);
            true
        });
        self.prefixes.send_if_modified(|known| {
            let changed = **known != prefixes;
            if changed {
                *known = Arc::new(prefixes);
            }
            changed
        });
        removed
    }
}

/// Whether a prefix that was announced is none of a VIP's any more. Both are in order.
fn removed(before: &[Prefix], after: &[Prefix]) -> bool {
    let is_there = |prefix| after.binary_search_by_key(prefix, |found| found.prefix).is_ok();
    before.iter().any(|found| found.withheld.is_none() && !is_there(&found.prefix))
}

/// Each prefix that comes, or goes and why.
fn log_changes(before: &Wanted, after: &Wanted, prefixes: &[Prefix]) {
    for prefix in after.routes.keys().filter(|prefix| !before.routes.contains_key(prefix)) {
        tracing::info!(%prefix, "announced");
    }
    for prefix in before.routes.keys().filter(|prefix| !after.routes.contains_key(prefix)) {
        let found = prefixes.iter().find(|found| found.prefix == *prefix);
        let why = found.and_then(|found| found.withheld.as_deref()).unwrap_or("no VIP asks for it any more");
        tracing::info!(%prefix, "withdrawn: {why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str, withheld: bool) -> Prefix {
        let withheld = withheld.then(|| "drained".to_owned());
        Prefix { prefix: text.parse().unwrap(), vips: Vec::new(), communities: [].into(), withheld, shortage: None }
    }

    #[test]
    fn removed_is_what_was_announced_and_has_no_vip_any_more() {
        let (one, two) = (prefix("203.0.113.10/32", false), prefix("203.0.113.20/32", false));
        let withheld = prefix("203.0.113.10/32", true);
        let both = [one.clone(), two.clone()];
        assert!(removed(&both, std::slice::from_ref(&two)) && removed(&both, &[]));
        assert!(!removed(&both, &both) && !removed(&[], &both));
        assert!(!removed(&both, &[withheld.clone(), two.clone()]), "it is there, and not announced");
        assert!(!removed(&[withheld, two.clone()], &[two]), "nobody knew of it");
    }
}
