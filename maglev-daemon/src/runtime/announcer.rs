//! Tells the speaker what is to be announced, whenever that changes. It must not know why it does.

use std::sync::Arc;

use tokio::sync::watch;

use crate::announce::{self, Node, Prefix};
use crate::bgp::speaker::Wanted;
use crate::reconcile::View;

/// The way to the speaker, and to those who ask what is announced.
#[derive(Debug)]
pub(super) struct Announcer {
    wanted: watch::Sender<Arc<Wanted>>,
    prefixes: watch::Sender<Arc<Vec<Prefix>>>,
}

impl Announcer {
    pub(super) fn new() -> Self {
        Self { wanted: watch::Sender::default(), prefixes: watch::Sender::default() }
    }

    /// What neighbours are to know, as it changes.
    pub(super) fn wanted(&self) -> watch::Receiver<Arc<Wanted>> {
        self.wanted.subscribe()
    }

    /// Every prefix, and why it is withheld if it is.
    pub(super) fn prefixes(&self) -> watch::Receiver<Arc<Vec<Prefix>>> {
        self.prefixes.subscribe()
    }

    /// Takes the node's state in.
    pub(super) fn update(&self, view: &View, node: &Node) {
        let prefixes = announce::prefixes(view, node, &self.prefixes.borrow());
        let settled = !view.busy && view.not_published.is_none();
        let routes = announce::routes(&prefixes);
        self.wanted.send_if_modified(|wanted| {
            let new = Wanted { routes, complete: wanted.complete || settled };
            let changed = **wanted != new;
            if changed {
                log_changes(wanted, &new);
                *wanted = Arc::new(new);
            }
            changed
        });
        self.prefixes.send_if_modified(|known| {
            let changed = **known != prefixes;
            if changed {
                *known = Arc::new(prefixes);
            }
            changed
        });
    }
}

/// Each prefix that comes or goes.
fn log_changes(before: &Wanted, after: &Wanted) {
    for prefix in after.routes.keys().filter(|prefix| !before.routes.contains_key(prefix)) {
        tracing::info!(%prefix, "announced");
    }
    for prefix in before.routes.keys().filter(|prefix| !after.routes.contains_key(prefix)) {
        tracing::info!(%prefix, "withdrawn");
    }
}
