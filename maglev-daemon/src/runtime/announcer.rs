//! Orders what is to be announced from the speaker, whenever that changes, and finds out what is. It must not know why it
//! changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use maglev_bgp::speaker::{Handle, Wanted};
use maglev_core::announce::{self, HoldDown, Node, Prefix};
use maglev_core::announced::{Known, News};
use maglev_core::reconcile::View;

/// The way to the speaker, and to those who ask what is announced.
#[derive(Debug)]
pub(super) struct Announcer {
    wanted: watch::Sender<Arc<Wanted>>,
    prefixes: watch::Sender<Arc<Vec<Prefix>>>,
    /// The neighbours' tasks, once they run.
    neighbors: Option<Handle>,
    /// For how long what was withdrawn for want of healthy backends is held down.
    hold_down: Duration,
    /// What neighbors hold, as last found.
    known: Known,
}

impl Announcer {
    pub(super) fn new(hold_down: Duration) -> Self {
        let (wanted, prefixes) = (watch::Sender::default(), watch::Sender::default());
        Self { wanted, prefixes, neighbors: None, hold_down, known: Known::default() }
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

    /// What is wanted now, by its number.
    pub(super) fn version(&self) -> u64 {
        self.wanted.borrow().version
    }

    /// Whether neighbors are there to be told.
    pub(super) const fn has_neighbors(&self) -> bool {
        self.neighbors.is_some()
    }

    /// Whether every neighbor was told this version.
    pub(super) fn is_told(&self, version: u64) -> bool {
        self.neighbors.as_ref().is_some_and(|neighbors| neighbors.is_told(version))
    }

    /// What is announced, as neighbors hold it, that was not yet when this was last asked, and what is so no more.
    pub(super) fn news(&mut self) -> Vec<News> {
        let Some(neighbors) = &self.neighbors else { return Vec::new() };
        self.known.update(&self.prefixes.borrow(), &neighbors.neighbors())
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
