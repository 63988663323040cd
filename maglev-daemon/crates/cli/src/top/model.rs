//! The node as it was last read, with the rates since the reading before. It must not know the screen, the clock and the daemon.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use maglev_api::view::{
    BgpNeighbors, Counter, Counters, Event, Events, InterfaceCounter, Node, Pool, PoolSummary, Vip, What,
};

use super::meter::{Meter, Rates, Trend};
use super::reading::{Facts, Reading};

/// The number of events that are kept.
const EVENTS: usize = 500;

/// How much later than usual a reading may be.
const LATE: Duration = Duration::from_secs(2);

/// The present time: since a fixed start, and in seconds since 1970.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Now {
    pub(super) since_start: Duration,
    pub(super) unix_seconds: u64,
}

/// A lost daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Away {
    /// Why there is no answer.
    pub(super) reason: String,
    /// The time since the last answer.
    pub(super) silent: Duration,
}

/// Everything that was read. Absent views were not read yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// The time of the last answer.
    read_at: Option<Duration>,
    /// The time of the last counters.
    counted_at: Option<Duration>,
    /// The present time.
    now: Now,
    lost: Option<String>,
    facts: Option<(Duration, Facts)>,
    pub(super) node: Option<Node>,
    pub(super) vips: Option<Vec<Vip>>,
    pub(super) pools: Option<Vec<PoolSummary>>,
    pub(super) pool: Option<(String, Result<Pool, String>)>,
    pub(super) neighbors: Option<BgpNeighbors>,
    /// The oldest first.
    pub(super) events: Option<VecDeque<Event>>,
    pub(super) counters: Vec<Counter>,
    pub(super) interfaces: Vec<InterfaceCounter>,
    by_counter: HashMap<String, Meter>,
    by_interface: HashMap<(String, String, String), Meter>,
    by_vip: HashMap<String, Meter>,
    by_backend: HashMap<(String, String), Meter>,
    by_pool: HashMap<String, (Option<Rates>, Trend)>,
    forwarded: (Option<f64>, Trend),
    dropped: (Option<f64>, Trend),
}

impl Model {
    /// Takes a reading.
    pub(super) fn read(&mut self, reading: Reading, now: Now) {
        let Reading { counters, facts, node, pools, events, vips, neighbors, pool } = reading;
        (self.read_at, self.now, self.lost) = (Some(now.since_start), now, None);
        let restarted = events.is_some_and(|events| self.add(events));
        if let Some((at, counters)) = counters {
            self.count(at, counters, restarted);
        }
        // What was not read stays as it was.
        self.facts = facts.or(self.facts.take());
        self.node = node.or(self.node.take());
        self.pools = pools.or(self.pools.take());
        self.vips = vips.or(self.vips.take());
        self.neighbors = neighbors.or(self.neighbors.take());
        self.pool = pool.or(self.pool.take());
    }

    /// Takes the error in the place of a reading. All figures stay.
    pub(super) fn lose(&mut self, reason: String, now: Now) {
        (self.lost, self.now) = (Some(reason), now);
    }

    /// Time passes without a reading; readings are this far apart. A daemon that is silent for several of them is lost.
    pub(super) fn pass(&mut self, now: Now, interval: Duration) {
        self.now = now;
        let silent = now.since_start.saturating_sub(self.read_at.unwrap_or_default());
        if silent > interval * 3 + LATE {
            self.lost.get_or_insert_with(|| "maglevd is silent".to_owned());
        }
    }

    /// The lost daemon, if the last answer was an error.
    pub(super) fn away(&self) -> Option<Away> {
        let reason = self.lost.clone()?;
        Some(Away { reason, silent: self.now.since_start.saturating_sub(self.read_at.unwrap_or_default()) })
    }

    /// The present time at the last answer or error.
    pub(super) const fn unix_seconds(&self) -> u64 {
        self.now.unix_seconds
    }

    /// The facts of the status.
    pub(super) fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref().map(|(_, facts)| facts)
    }

    /// How long the daemon was up at the last answer.
    pub(super) fn uptime(&self) -> Option<Duration> {
        let (at, facts) = self.facts.as_ref()?;
        Some(Duration::from_secs(facts.uptime_seconds) + self.read_at?.saturating_sub(*at))
    }

    /// Packets a second that were forwarded to backends, and their trend.
    pub(super) const fn forwarded(&self) -> &(Option<f64>, Trend) {
        &self.forwarded
    }

    /// Packets a second that were dropped, and their trend.
    pub(super) const fn dropped(&self) -> &(Option<f64>, Trend) {
        &self.dropped
    }

    pub(super) fn vip(&self, name: &str) -> Option<&Meter> {
        self.by_vip.get(name)
    }

    pub(super) fn backend(&self, pool: &str, name: &str) -> Option<&Meter> {
        self.by_backend.get(&(pool.to_owned(), name.to_owned()))
    }

    /// The rates of a pool's backends together, and the trend.
    pub(super) fn pool_traffic(&self, name: &str) -> Option<&(Option<Rates>, Trend)> {
        self.by_pool.get(name)
    }

    pub(super) fn counter(&self, name: &str) -> Option<&Meter> {
        self.by_counter.get(name)
    }

    pub(super) fn interface(&self, counter: &InterfaceCounter) -> Option<&Meter> {
        self.by_interface.get(&interface_key(counter))
    }

    /// The pool with its backends, if it was read.
    pub(super) fn whole_pool(&self, name: &str) -> Option<Result<&Pool, &str>> {
        let (_, pool) = self.pool.as_ref().filter(|(read, _)| read == name)?;
        Some(pool.as_ref().map_err(String::as_str))
    }

    /// Keeps new events. Whether another daemon started among them.
    fn add(&mut self, Events { missed: _, events }: Events) -> bool {
        let restarted = self.events.is_some() && events.iter().any(|event| matches!(event.what, What::Started { .. }));
        let kept = self.events.get_or_insert_default();
        kept.extend(events);
        kept.drain(..kept.len().saturating_sub(EVENTS));
        restarted
    }

    fn count(&mut self, at: Duration, counters: Counters, restarted: bool) {
        let Counters { counters, vips, backends, interfaces } = counters;
        let smaller = |counter: &Counter| {
            let before = self.counters.iter().find(|before| before.name == counter.name);
            before.is_some_and(|before| before.packets > counter.packets)
        };
        let anew = restarted || counters.iter().any(smaller);
        let passed = self.counted_at.and_then(|before| at.checked_sub(before)).filter(|passed| !passed.is_zero());
        let seconds = passed.filter(|_| !anew).map(|passed| passed.as_secs_f64());
        let each = counters.iter().map(|counter| (counter.name.clone(), [counter.packets, 0]));
        update(&mut self.by_counter, each, seconds);
        update(&mut self.by_vip, vips.into_iter().map(|vip| (vip.name, [vip.packets, vip.bytes])), seconds);
        let each = backends.into_iter().map(|one| ((one.pool, one.backend), [one.packets, one.bytes]));
        update(&mut self.by_backend, each, seconds);
        // An interface counts on while a daemon is restarted.
        let seconds = passed.map(|passed| passed.as_secs_f64());
        let each = interfaces.iter().map(|counter| (interface_key(counter), [counter.packets, 0]));
        update(&mut self.by_interface, each, seconds);
        (self.counted_at, self.counters, self.interfaces) = (Some(at), counters, interfaces);
        self.sum();
    }

    /// The rates of pools and outcomes: sums of those of their parts.
    fn sum(&mut self) {
        let mut pools = HashMap::<String, Option<Rates>>::new();
        for ((pool, _), meter) in &self.by_backend {
            // The name is copied once a pool.
            if !pools.contains_key(pool) {
                pools.insert(pool.clone(), None);
            }
            if let (Some(sum), Some(rates)) = (pools.get_mut(pool), meter.rates) {
                let Rates { packets, bytes } = sum.unwrap_or_default();
                *sum = Some(Rates { packets: packets + rates.packets, bytes: bytes + rates.bytes });
            }
        }
        let mut before = std::mem::take(&mut self.by_pool);
        for (pool, rates) in pools {
            let mut trend = before.remove(&pool).map(|(_, trend)| trend).unwrap_or_default();
            rates.iter().for_each(|rates| trend.push(rates.packets));
            self.by_pool.insert(pool, (rates, trend));
        }
        for (outcome, (rate, trend)) in [("forwarded", &mut self.forwarded), ("dropped", &mut self.dropped)] {
            let of_outcome = self.counters.iter().filter(|counter| counter.outcome == outcome);
            let rates = of_outcome.filter_map(|counter| self.by_counter.get(&counter.name)?.rates);
            *rate = rates.map(|rates| rates.packets).reduce(|sum, rate| sum + rate);
            rate.iter().for_each(|rate| trend.push(*rate));
        }
    }
}

fn interface_key(counter: &InterfaceCounter) -> (String, String, String) {
    (counter.interface.clone(), counter.source.clone(), counter.name.clone())
}

/// Reads all meters; those without a count are gone.
fn update<K: std::hash::Hash + Eq>(
    meters: &mut HashMap<K, Meter>,
    counts: impl Iterator<Item = (K, [u64; 2])>,
    seconds: Option<f64>,
) {
    let mut before = std::mem::take(meters);
    for (key, count) in counts {
        let mut meter = before.remove(&key).unwrap_or_default();
        meter.read(count, seconds);
        meters.insert(key, meter);
    }
}
