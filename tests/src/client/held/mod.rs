//! Connections that are held for a long while, and the steady stream of short ones beside them: each on a schedule of its
//! own, every byte of each checked, and each break attributed to the backend's own end or to no cause.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::sync::watch;

use super::Client;

mod keep;
mod ledger;
mod orders;
mod talk;

pub use ledger::{Break, Counts, Kind, Report, Seen};
use ledger::{Cut, Ledger};
use orders::Orders;

/// How often the ledger is polled while a test waits for it.
const LOOK: Duration = Duration::from_millis(20);
/// How long opening all of them may take.
const OPENED_WITHIN: Duration = Duration::from_secs(30);

/// The connections to hold, and those to begin beside them.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The talk service's addresses, in turn.
    pub targets: Vec<SocketAddr>,
    /// Connections that are open at a time.
    pub held: usize,
    /// Further ones that begin in a second: most end at once, one in twenty stays for a while.
    pub arrivals: u32,
    /// How often a connection speaks, give or take a half.
    pub pace: Duration,
    /// How long every fifth connection is silent at a time instead.
    pub silence: Duration,
    /// The same seed gives the same schedule.
    pub seed: u64,
}

/// Connections that are being held.
#[derive(Debug)]
pub struct Held {
    plan: Plan,
    ledger: Arc<Mutex<Ledger>>,
    orders: watch::Sender<Orders>,
    cuts: Vec<Cut>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Held {
    /// Begins to open them.
    pub(super) fn start(client: &Client, plan: Plan) -> Self {
        let ledger = Ledger { places: vec![ledger::Place::default(); plan.held], ..Ledger::default() };
        let ledger = Arc::new(Mutex::new(ledger));
        let (orders, stopped) = watch::channel(Orders::default());
        let shared = keep::Shared::new(plan.clone(), client.sources.clone(), ledger.clone(), stopped.clone());
        let client = client.clone();
        let thread = thread::spawn(move || {
            client.block_on(async {
                tokio::select! {
                    () = keep::all(Arc::new(shared)) => {}
                    // A test that fails drops all of it: nothing waits for an end then.
                    () = dropped(stopped) => {}
                }
                Ok(())
            })
        });
        Self { plan, ledger, orders, cuts: Vec::new(), thread }
    }

    /// Waits until every place is filled; returns for how long.
    ///
    /// # Errors
    /// If that takes longer than half a minute.
    pub fn await_open(&self) -> Result<Duration> {
        self.until("every connection is open", OPENED_WITHIN, |place| place.home.is_some())
    }

    /// Waits until every held connection has had an answer to something it said after `since`.
    ///
    /// # Errors
    /// If one has not after the longest silence and all patience.
    pub fn await_spoken(&self, since: Instant) -> Result<Duration> {
        let longest = self.plan.silence.max(self.plan.pace * 3 / 2) + talk::PATIENCE;
        self.until("every connection has spoken", longest, |place| place.spoke.is_some_and(|spoke| spoke >= since))
    }

    /// The connections so far.
    pub fn so_far(&self) -> Seen {
        self.ledger().so_far()
    }

    /// The connections that have broken so far, those included that ended with a server.
    pub fn breaks(&self) -> Vec<Break> {
        self.ledger().breaks.clone()
    }

    /// How many held connections live on each backend.
    pub fn homes(&self) -> BTreeMap<String, usize> {
        self.ledger().homes()
    }

    /// Every second held connection says nothing from now on, until some moment in the last tenth of `time`.
    pub fn hush(&self, time: Duration) {
        let until = Instant::now() + time;
        self.orders.send_modify(|orders| orders.hushed = Some([until - time / 10, until]));
    }

    /// Within a second, the connections on this backend send a last message and open a new connection in their place.
    pub fn leave(&self, home: &str) {
        self.orders.send_modify(|orders| {
            orders.leaving.insert(home.into(), Instant::now());
        });
    }

    /// Notes that a backend's server was ended, between these two moments, and started again or not: its connections then
    /// was expected to break.
    pub fn was_cut(&mut self, home: &str, time: [Instant; 2]) {
        self.cuts.push(Cut { home: home.to_owned(), time });
    }

    /// Lets every connection say a last word and end; returns what became of all.
    ///
    /// # Errors
    /// If the client could not run.
    pub fn finish(self) -> Result<Report> {
        let Self { plan: _, ledger, orders, cuts, thread } = self;
        orders.send_modify(|orders| orders.over = true);
        match thread.join() {
            Ok(ended) => ended?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(ledger.lock().unwrap_or_else(PoisonError::into_inner).report(&cuts))
    }

    fn until(&self, what: &str, longest: Duration, holds: impl Fn(&ledger::Place) -> bool) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let missing = self.ledger().places.iter().filter(|place| !holds(place)).count();
            if missing == 0 {
                return Ok(began.elapsed());
            }
            if began.elapsed() > longest || self.thread.is_finished() {
                let breaks: Vec<String> = self.ledger().breaks.iter().take(5).map(ToString::to_string).collect();
                bail!("not {what} after {longest:?}: {missing} are missing; broken: {}", breaks.join("; "));
            }
            thread::sleep(LOOK);
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until no more orders can come.
async fn dropped(mut orders: watch::Receiver<Orders>) {
    while orders.changed().await.is_ok() {}
}
