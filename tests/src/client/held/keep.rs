//! The tasks: one for each held connection, which puts another in its place when it ends, and one for each arrival.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Error, Result};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{interval, sleep, sleep_until},
};

use super::{
    Plan,
    ledger::{Break, Kind, Ledger, Place},
    orders::{Orders, Rhythm},
    talk::Talk,
};
use crate::client::sources::Sources;

/// Connections that are being opened at once.
const OPENING: usize = 64;
/// How long one that could not be opened waits before it tries again.
const AGAIN: Duration = Duration::from_secs(1);
/// One arrival in so many stays for a while.
const STAYS: u64 = 20;
/// Exchanges of an arrival that stays, each after a pause.
const STAY: u32 = 4;

/// The state that all tasks share.
pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) sources: Arc<Sources>,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) orders: watch::Receiver<Orders>,
    opening: Semaphore,
}

/// The end of a silence.
enum Next {
    Speak,
    Leave,
    Over,
}

/// ```text
///  orders ──► keeper of place 1 … N ──┐
///         └─► arrivals ──► arrival … ─┴─► ledger
/// ```
pub(super) async fn all(shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    for place in 0..shared.plan.held {
        tasks.spawn(keep(shared.clone(), place));
    }
    if shared.plan.arrivals > 0 {
        tasks.spawn(arrivals(shared));
    }
    tasks.join_all().await;
}

/// Keeps a place filled until all is over.
async fn keep(shared: Arc<Shared>, place: usize) {
    let mut rhythm = Rhythm::new(&shared.plan, place);
    let mut kind = Kind::Held;
    while !shared.is_over() {
        let mut one = One::new(&shared, kind, place);
        let ended = one.hold(&mut rhythm).await;
        let failed = ended.is_err() && one.home.is_none();
        one.note(ended);
        kind = Kind::Successor;
        if failed {
            sleep(AGAIN).await;
        }
    }
}

/// Begins so many a second, until all is over, and waits for them to end.
async fn arrivals(shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    let mut clock = interval(Duration::from_secs(1) / shared.plan.arrivals);
    for n in 0.. {
        let due = clock.tick().await;
        if shared.is_over() {
            break;
        }
        shared.note_delay(due.elapsed());
        tasks.spawn(arrival(shared.clone(), n));
        while tasks.try_join_next().is_some() {}
    }
    tasks.join_all().await;
}

/// Opens, talks, closes: most at once, some after a while.
async fn arrival(shared: Arc<Shared>, n: u64) {
    let mut rhythm = Rhythm::new(&shared.plan, shared.plan.held + n as usize);
    let mut one = One::new(&shared, Kind::Arrival, n as usize);
    let ended = one.visit(&mut rhythm, n.is_multiple_of(STAYS)).await;
    one.note(ended);
}

/// One connection from its opening to its end.
struct One<'a> {
    shared: &'a Shared,
    kind: Kind,
    /// Its place among the held, or its number among the arrivals.
    n: usize,
    target: SocketAddr,
    born: Instant,
    source: Option<SocketAddr>,
    home: Option<Arc<str>>,
}

impl<'a> One<'a> {
    fn new(shared: &'a Shared, kind: Kind, n: usize) -> Self {
        let targets = &shared.plan.targets;
        let (target, born) = (targets[n % targets.len()], Instant::now());
        let mut ledger = shared.ledger();
        match kind {
            Kind::Held => {}
            Kind::Successor => ledger.counts.successors += 1,
            Kind::Arrival => ledger.counts.arrivals += 1,
        }
        Self { shared, kind, n, target, born, source: None, home: None }
    }

    /// Talks by its rhythm until it is ordered to leave, or all is over.
    async fn hold(&mut self, rhythm: &mut Rhythm) -> Result<()> {
        let mut talk = self.open().await?;
        let mut gap = rhythm.first_gap();
        let next = loop {
            self.exchange(&mut talk, rhythm.length()).await?;
            match self.rest(&mut talk, rhythm, gap).await? {
                Next::Speak => gap = rhythm.gap(),
                next => break next,
            }
        };
        if let Next::Leave = next {
            self.shared.ledger().counts.left += 1;
        }
        self.close(talk, rhythm.length()).await
    }

    async fn visit(&mut self, rhythm: &mut Rhythm, stays: bool) -> Result<()> {
        let mut talk = self.open().await?;
        self.exchange(&mut talk, rhythm.length()).await?;
        for _ in 0..if stays { STAY } else { 0 } {
            let gap = rhythm.gap();
            if let Next::Leave | Next::Over = self.rest(&mut talk, rhythm, gap).await? {
                break;
            }
            self.exchange(&mut talk, rhythm.length()).await?;
        }
        self.close(talk, rhythm.length()).await
    }

    async fn open(&mut self) -> Result<Talk> {
        let asked = Instant::now();
        let turn = self.shared.opening.acquire().await?;
        self.shared.note_delay(asked.elapsed());
        self.born = Instant::now();
        let talk = Talk::open(&self.shared.sources, self.target, &mut self.source).await?;
        drop(turn);
        self.home = Some(talk.home.clone());
        if let Some(place) = self.place(&mut self.shared.ledger()) {
            place.home.clone_from(&self.home);
        }
        Ok(talk)
    }

    async fn exchange(&self, talk: &mut Talk, length: usize) -> Result<()> {
        let began = Instant::now();
        talk.exchange(length).await?;
        self.answered(length, began);
        Ok(())
    }

    async fn close(&self, talk: Talk, length: usize) -> Result<()> {
        let began = Instant::now();
        talk.close(length).await?;
        self.answered(length, began);
        Ok(())
    }

    fn answered(&self, length: usize, began: Instant) {
        let mut ledger = self.shared.ledger();
        ledger.counts.exchanges += 1;
        ledger.counts.bytes += length as u64;
        if let Some(place) = self.place(&mut ledger) {
            place.spoke = Some(began);
        }
    }

    /// Its place in the ledger, if it is held.
    fn place<'l>(&self, ledger: &'l mut Ledger) -> Option<&'l mut Place> {
        match self.kind {
            Kind::Held | Kind::Successor => ledger.places.get_mut(self.n),
            Kind::Arrival => None,
        }
    }

    /// Says nothing until the rhythm or the orders say so; what comes meanwhile breaks the connection.
    async fn rest(&self, talk: &mut Talk, rhythm: &mut Rhythm, gap: Duration) -> Result<Next> {
        let mut orders = self.shared.orders.clone();
        let due = Instant::now() + gap;
        let part = rhythm.fraction();
        loop {
            let (speaks, leaves) = {
                let orders = orders.borrow_and_update();
                if orders.over {
                    return Ok(Next::Over);
                }
                (rhythm.speaks(due, part, &orders), orders.leaves(&talk.home, self.born, part))
            };
            let until = leaves.map_or(speaks, |leaves| leaves.min(speaks));
            tokio::select! {
                error = talk.disturbance() => return Err(error),
                () = sleep_until(until.into()) => {
                    return Ok(if leaves.is_some_and(|leaves| leaves <= until) { Next::Leave } else { Next::Speak });
                }
                changed = orders.changed() => if changed.is_err() { return Ok(Next::Over) },
            }
        }
    }

    /// Records how it ended.
    fn note(self, ended: Result<()>) {
        let mut ledger = self.shared.ledger();
        if let Some(place) = self.place(&mut ledger) {
            place.home = None;
        }
        if let Err(error) = ended {
            ledger.breaks.push(self.lost(&error));
        }
    }

    fn lost(self, error: &Error) -> Break {
        let Self { shared: _, kind, n: _, target, born, source, home } = self;
        let reason = format!("{error:#}");
        Break { kind, source, target, home, born, ended: Instant::now(), reason }
    }
}

impl Shared {
    pub(super) fn new(
        plan: Plan,
        sources: Arc<Sources>,
        ledger: Arc<Mutex<Ledger>>,
        orders: watch::Receiver<Orders>,
    ) -> Self {
        Self { plan, sources, ledger, orders, opening: Semaphore::new(OPENING) }
    }

    fn is_over(&self) -> bool {
        self.orders.borrow().over
    }

    fn note_delay(&self, delay: Duration) {
        let mut ledger = self.ledger();
        ledger.counts.late = ledger.counts.late.max(delay);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Its content is valid at every moment: no statement leaves it half written.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
