//! Requests in numbers: so many at a time, until there are enough or they are stopped.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::Result;
use tokio::task::JoinSet;

use super::{
    Client, Outcome, Outcomes,
    http::{Connection, attempt, insist},
    sources::Sources,
};

/// Requests that go on until they are stopped.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    outcomes: mpsc::Receiver<Outcome>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Traffic {
    /// Begins requests that end after `count`, or when stopped.
    pub(super) fn start(client: &Client, targets: &[SocketAddr], count: u64, concurrency: usize) -> Self {
        let plan =
            Plan { targets: targets.to_vec(), count, insists: false, next: AtomicU64::new(0), stop: Arc::default() };
        Self::follow(client, plan, concurrency)
    }

    /// Begins requests that end when stopped. Where a connection is refused, another one is tried.
    pub(super) fn insist(client: &Client, targets: &[SocketAddr], concurrency: usize) -> Self {
        let (targets, count) = (targets.to_vec(), u64::MAX);
        let plan = Plan { targets, count, insists: true, next: AtomicU64::new(0), stop: Arc::default() };
        Self::follow(client, plan, concurrency)
    }

    fn follow(client: &Client, plan: Plan, concurrency: usize) -> Self {
        let (sender, outcomes) = mpsc::channel();
        let stop = plan.stop.clone();
        let plan = Arc::new(plan);
        let client = client.clone();
        let sources = client.sources.clone();
        let thread = thread::spawn(move || client.block_on(work(plan, sources, concurrency, sender)));
        Self { stop, outcomes, thread }
    }

    /// The next outcome, as soon as there is one; none if the requests have ended.
    pub fn next_outcome(&self) -> Option<Outcome> {
        self.outcomes.recv().ok()
    }

    /// Begins no further request, waits for those in flight, and returns what has not been fetched yet.
    ///
    /// # Errors
    /// If the client could not run.
    pub fn stop(self) -> Result<Outcomes> {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits for the last request and returns what has not been fetched yet.
    pub(super) fn finish(self) -> Result<Outcomes> {
        let outcomes = self.outcomes.iter().collect();
        match self.thread.join() {
            Ok(ended) => ended.map(|()| Outcomes(outcomes)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// The state that the workers of a run share.
struct Plan {
    targets: Vec<SocketAddr>,
    count: u64,
    /// Whether a connection that is refused is tried again.
    insists: bool,
    next: AtomicU64,
    stop: Arc<AtomicBool>,
}

impl Plan {
    /// The next request's target, until there are enough or the run was stopped.
    fn next_target(&self) -> Option<SocketAddr> {
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        (n < self.count).then(|| self.targets[n as usize % self.targets.len()])
    }
}

/// ```text
///  plan ──► worker 1 … worker N ──► outcomes
/// ```
async fn work(
    plan: Arc<Plan>,
    sources: Arc<Sources>,
    concurrency: usize,
    outcomes: mpsc::Sender<Outcome>,
) -> Result<()> {
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        let (plan, sources, outcomes) = (plan.clone(), sources.clone(), outcomes.clone());
        workers.spawn(async move {
            while let Some(target) = plan.next_target() {
                let done = if plan.insists {
                    insist(&sources, target).await
                } else {
                    attempt(&sources, target, async |connection: &mut Connection| connection.name(true).await).await
                };
                // The receiver is gone: the run is over.
                if outcomes.send(done).is_err() {
                    return;
                }
            }
        });
    }
    workers.join_all().await;
    Ok(())
}
