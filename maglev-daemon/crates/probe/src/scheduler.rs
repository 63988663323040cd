//! When targets are checked: a task for each, bounded sockets for all together. It must not know the consequences of
//! results.
//!
//! ```text
//!  follow ──▶ Scheduler ──┬─▶ a task per target: pause, (wait for a free socket), probe ──┬─▶ Checked
//!                         └─▶ …                                                           ┘
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use maglev_core::health::{Failure, Last, Order, Orders, Target};
use maglev_model::Check;

use super::probe::{Ended, Fault, Trust, probe};
use super::shortages::Shortages;
use super::slots::Slots;

/// Checks under way at once, each with one socket: fewer than the files that a process may usually open. One pool may have two
/// thirds of them.
const SOCKETS: usize = 768;

/// The first checks are spread over no more than this: the start waits for them.
const FIRST: Duration = Duration::from_millis(200);

/// How long a check that an operator asks for waits for a socket.
const SOCKET: Duration = Duration::from_secs(5);

/// How long the first check of a backend waits while its next hop is being resolved. A neighbor that does not answer is known
/// after 3 s.
const NEXT_HOP: Duration = Duration::from_secs(5);

/// How much of a failure's reason is kept, in characters: TLS names every name of a wrong certificate.
const LONGEST_REASON: usize = 200;

/// The target, the check, and its result.
pub type Asked = (Arc<Target>, Arc<Check>, Ended);

/// A check ended.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The target.
    pub target: Arc<Target>,
    /// The result.
    pub last: Last,
}

/// The clock of results.
pub type Now = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The checks, while it lives.
pub struct Scheduler {
    tools: Tools,
    /// Each task has one that is forked from it.
    rng: Rng,
    running: BTreeMap<Arc<Target>, Running>,
}

/// Shared by all tasks.
#[derive(Clone)]
struct Tools {
    /// The zero of times.
    began: Instant,
    sockets: Slots,
    trust: Trust,
    shortages: Shortages,
    now: Now,
    results: mpsc::Sender<Checked>,
}

/// A task, which ends with this.
#[derive(Debug)]
struct Running {
    order: Order,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scheduler {
    /// Nothing is checked yet. Results go to `results`, with times by `now`.
    pub fn new(results: mpsc::Sender<Checked>, trust: Trust, now: Now) -> Self {
        Self::with_rng(results, trust, now, Rng::new())
    }

    /// The same, with times and query ids that follow from a seed.
    fn with_rng(results: mpsc::Sender<Checked>, trust: Trust, now: Now, rng: Rng) -> Self {
        let (sockets, shortages) = (Slots::new(SOCKETS), Shortages::default());
        let tools = Tools { began: Instant::now(), sockets, trust, shortages, now, results };
        Self { tools, rng, running: BTreeMap::new() }
    }

    /// Checks that were not made, for lack of a resource of this node.
    pub fn shortages(&self) -> Shortages {
        self.tools.shortages.clone()
    }

    /// The system's certificate authorities may have changed.
    pub fn reload_authorities(&self) {
        self.tools.trust.reload();
    }

    /// Checks exactly these from now on. Targets with the same path as before continue.
    pub fn follow(&mut self, orders: Orders) {
        self.running.retain(|target, running| orders.get(target) == Some(&running.order));
        for (target, order) in orders {
            let (tools, rng, to) = (&self.tools, &mut self.rng, Arc::clone(&target));
            self.running.entry(target).or_insert_with(|| {
                let task = tokio::spawn(again_and_again(tools.clone(), rng.fork(), to, order.clone()));
                Running { order, task }
            });
        }
    }

    /// Checks these once and now, beside the regular checks: the results do not count. Ends with it if it is dropped.
    pub fn once(&mut self, orders: Orders) -> impl Future<Output = Vec<Asked>> + Send + use<> {
        let (tools, mut rng) = (self.tools.clone(), self.rng.fork());
        async move {
            let mut asked: JoinSet<Asked> = JoinSet::new();
            for (target, order) in orders {
                let (tools, mut rng) = (tools.clone(), rng.fork());
                asked.spawn(async move {
                    let ended = tools.ask_soon(&mut rng, &target, &order).await;
                    (target, order.check, ended)
                });
            }
            let mut all = asked.join_all().await;
            all.sort_by(|(one, ..), (other, ..)| one.cmp(other));
            all
        }
    }
}

impl Tools {
    /// Asks once, with one of the sockets; `None`: there are no sockets any more. Without a path, no check is sent.
    async fn ask(&self, rng: &mut Rng, target: &Target, Order { check, path }: &Order) -> Option<Ended> {
        match path {
            Ok(path) => {
                let _socket = self.sockets.take(&target.pool).await?;
                Some(probe(target.destination, path, check, &self.trust, rng).await)
            }
            Err(none) => Some(Ended { outcome: Err(Fault::Dead(none.to_string())), latency: Duration::ZERO }),
        }
    }

    /// The result for a target. A check that was not made has none.
    fn judge(&self, Ended { outcome, latency }: Ended) -> Option<Last> {
        let outcome = match outcome {
            Ok(()) => Ok(()),
            Err(Fault::Unready(reason)) => Err(Failure::Unready(short(reason))),
            Err(Fault::Dead(reason)) => Err(Failure::Dead(short(reason))),
            Err(Fault::Shortage(reason)) => {
                self.shortages.report(&reason);
                return None;
            }
        };
        Some(Last { at: (self.now)(), latency, outcome })
    }

    /// The same, and does not wait long for a socket.
    async fn ask_soon(&self, rng: &mut Rng, target: &Target, order: &Order) -> Ended {
        let time = order.check.timeout + SOCKET;
        let ended = tokio::time::timeout(time, self.ask(rng, target, order)).await.ok().flatten();
        let none =
            || Ended { outcome: Err(Fault::Shortage("all sockets for checks are in use".to_owned())), latency: time };
        ended.unwrap_or_else(none)
    }
}

async fn again_and_again(tools: Tools, mut rng: Rng, target: Arc<Target>, order: Order) {
    let check = &order.check;
    let mut due = Instant::now() + part_of(&mut rng, FIRST.min(check.interval));
    // The first are nearly at once, the others spread over the whole interval.
    let mut pause = part_of(&mut rng, check.interval);
    loop {
        sleep_until(due).await;
        if let Err(none) = &order.path {
            // That is a failure only once there was none for as long as a check may take: routes and neighbors need a moment
            // to be found. Once they are, the order is another.
            tokio::time::sleep(if none.pending { NEXT_HOP.max(check.timeout) } else { check.timeout }).await;
        }
        let Some(ended) = tools.ask(&mut rng, &target, &order).await else { return };
        if let Some(last) = tools.judge(ended)
            && tools.results.send(Checked { target: Arc::clone(&target), last }).await.is_err()
        {
            return;
        }
        // Counted from the due time: a late check does not delay the next ones, and missed checks are not made up for.
        due = together(tools.began, due + pause, check.interval).max(Instant::now());
        pause = check.interval - part_of(&mut rng, check.jitter);
    }
}

/// A reason cut to the length that is kept for every backend; a single check returns all of it.
fn short(reason: String) -> Arc<str> {
    match reason.char_indices().nth(LONGEST_REASON) {
        None => reason.into(),
        Some(_) => {
            let end = reason.char_indices().nth(LONGEST_REASON - 1).map_or(0, |(end, _)| end);
            format!("{}…", &reason[..end]).into()
        }
    }
}

/// When something is due that would be at this time: a little earlier, with all that is due within a fiftieth of the interval.
/// To be woken for each check alone costs more than the checks do.
fn together(began: Instant, due: Instant, interval: Duration) -> Instant {
    let (since, grid) = ((due - began).as_nanos(), (interval / 50).as_nanos().max(1));
    due - Duration::from_nanos(u64::try_from(since % grid).unwrap_or(0))
}

/// Any part of a time.
fn part_of(rng: &mut Rng, time: Duration) -> Duration {
    time.mul_f64(rng.f64())
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
