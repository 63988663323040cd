//! Snapshots of the node for readers: taken on request, and shared while nothing changes. It must not know the views that are
//! computed from them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use maglev_core::reconcile::View;

use crate::http::Shown;

/// The largest age of a snapshot when only results of checks changed.
const CHECKS_MAY_LAG: Duration = Duration::from_millis(500);

/// The last snapshot.
#[derive(Debug)]
pub(super) struct Snapshots {
    generation: Arc<AtomicU64>,
    last: Option<Snapshot>,
    /// The number of changes outside the node.
    beside: u64,
}

/// The node at one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// The services.
    pub(super) view: Arc<View>,
    /// The views that readers compute from it.
    pub(super) shown: Arc<Shown>,
    generation: u64,
    taken: Instant,
}

impl Snapshot {
    pub(super) fn new(view: Arc<View>, shown: Shown, generation: u64) -> Self {
        Self { view, shown: Arc::new(shown), generation, taken: Instant::now() }
    }
}

impl Snapshots {
    /// Readers find the required generation of a snapshot in `generation`.
    pub(super) const fn new(generation: Arc<AtomicU64>) -> Self {
        Self { generation, last: None, beside: 0 }
    }

    /// From this call on, readers receive this generation of the node, or a later one.
    pub(super) fn outdate(&mut self, generation: u64) {
        self.generation.store(generation + self.beside, Ordering::Release);
        self.last.take_if(|last| last.generation != generation);
    }

    /// Notes a change outside the node.
    pub(super) fn outdate_beside(&mut self) {
        self.beside += 1;
        self.generation.fetch_add(1, Ordering::Release);
        self.last = None;
    }

    /// The last snapshot, if it is of the present generation and recent; else the one that is taken now.
    pub(super) fn get(&mut self, take: impl FnOnce() -> Snapshot) -> Snapshot {
        match self.last.as_ref().filter(|last| last.taken.elapsed() <= CHECKS_MAY_LAG) {
            Some(last) => last.clone(),
            None => self.last.insert(take()).clone(),
        }
    }
}
