//! The probation of a new release: for some time after it is ready, packets, interfaces, pools and BGP sessions must be no worse than
//! under the release before it. It must not know what follows from the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::time::{Duration, Instant};

use maglev_api::view::{self, DataPlaneStage, What};
use maglev_common::counters::{Counter, Outcome};
use maglev_dataplane::Snapshot;

use tokio::sync::watch;

use super::dataplane::Orders;
use super::start::Before;
use super::trial::{Instead, Trial};
use crate::http::{Handle, Reading};

/// For how long packets are counted under the programs of the daemon before.
const MEASURED: Duration = Duration::from_secs(1);

/// Drops in a second that are no worse than none: single packets.
const SLACK: f64 = 10.0;
/// And this share of the packets for VIPs.
const SHARE: f64 = 0.01;
/// How many times more drops for a reason are still as before.
const FACTOR: f64 = 2.0;
/// Packets in a second from which on there is traffic whose end would be noticed.
const TRAFFIC: f64 = 100.0;

/// Packets counted at a moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    at: Instant,
    forwarded: u64,
    drops: BTreeMap<&'static str, u64>,
}

impl Sample {
    /// What is counted now; `None` if the daemon is stopping.
    async fn now(orders: &Orders) -> Option<Self> {
        orders.snapshot().await.ok().map(|snapshot| Self::take(&snapshot, Instant::now()))
    }

    /// What is counted now.
    pub(super) fn take(snapshot: &Snapshot, at: Instant) -> Self {
        let counted = |counter: &Counter| (counter.name(), snapshot.counter(*counter));
        Self {
            at,
            forwarded: snapshot.counter(Counter::Transmitted) + snapshot.counter(Counter::Redirected),
            drops: Counter::ALL.iter().filter(|counter| counter.outcome() == Outcome::Dropped).map(counted).collect(),
        }
    }

    /// What was counted in a second since another one. A counter that began anew counted nothing.
    pub(super) fn since(&self, before: &Self) -> Rates {
        let seconds = self.at.saturating_duration_since(before.at).max(Duration::from_millis(1)).as_secs_f64();
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let then = |reason| before.drops.get(reason).copied().unwrap_or(0);
        Rates {
            forwarded: rate(self.forwarded, before.forwarded),
            drops: self.drops.iter().map(|(reason, now)| (*reason, rate(*now, then(reason)))).collect(),
        }
    }
}

/// Packets in a second.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    forwarded: f64,
    drops: BTreeMap<&'static str, f64>,
}

/// What the node is like.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// Interfaces that the program is not attached to.
    pub(super) detached: Vec<String>,
    /// Pools without an owner that had one before.
    pub(super) emptied: Vec<String>,
    /// BGP sessions that are established; `None` without BGP.
    pub(super) established: Option<usize>,
}

impl State {
    /// The state of a node whose pools `owners` had owners before.
    fn new(status: &view::Status, owners: &BTreeSet<String>) -> Self {
        let detached = status.interfaces.iter().filter(|interface| !interface.attached && interface.link != "absent");
        let emptied = status.pools.iter().filter(|pool| pool.usable == 0 && owners.contains(&pool.name));
        Self {
            detached: detached.map(|interface| interface.name.clone()).collect(),
            emptied: emptied.map(|pool| pool.name.clone()).collect(),
            established: status.bgp.as_ref().map(|bgp| bgp.established),
        }
    }
}

/// What is worse than before, if anything is. Without `counts` it is not known how many packets there were.
fn judge(before: &Rates, now: &Rates, counts: bool, established_before: usize, state: &State) -> Result<(), String> {
    if let Some(interface) = state.detached.first() {
        return Err(format!("the program is not attached to {interface}"));
    }
    if before.forwarded >= TRAFFIC && now.forwarded < 1.0 {
        return Err(format!("no packet is forwarded; {:.0} in a second were, before", before.forwarded));
    }
    let worst = |(reason, rate): (&&'static str, &f64)| {
        let before = before.drops.get(reason).copied().unwrap_or(0.0);
        (*rate > FACTOR * before + SLACK + SHARE * now.forwarded).then_some((*reason, *rate, before))
    };
    if counts && let Some((reason, rate, before)) = now.drops.iter().find_map(worst) {
        return Err(format!("{rate:.0} packets in a second are dropped as {reason}; {before:.0} were, before"));
    }
    if let Some(pool) = state.emptied.first() {
        return Err(format!("pool {pool} has no backend that is used; it had one before"));
    }
    if established_before > 0 && state.established == Some(0) {
        return Err(format!("no BGP session is established; {established_before} were, before"));
    }
    Ok(())
}

/// The probation of the running binary; of one that is proven there is none.
pub(super) struct Probation {
    trial: Option<Trial>,
    before: Before,
    /// Under the programs of the daemon before, if they counted where this one counts.
    rates: Rates,
    /// For how long it is watched.
    length: Duration,
    /// Whether it is judged, another binary would run in its place, and the verdict is not known.
    under_way: watch::Sender<bool>,
}

impl Probation {
    /// Measures what is to be expected, while the programs of the daemon before still forward.
    pub(super) async fn begin(trial: Option<Trial>, before: Before, length: Duration) -> Self {
        let is_judged = trial.as_ref().is_some_and(|trial| !trial.is_proven());
        let under_way = is_judged && trial.as_ref().is_some_and(|trial| trial.instead("").is_some());
        let mut rates = Rates::default();
        if is_judged
            && before.counts
            && let Some(first) = Sample::now(&before.orders).await
        {
            tokio::time::sleep(MEASURED).await;
            if let Some(second) = Sample::now(&before.orders).await {
                rates = second.since(&first);
            }
        }
        Self { trial, before, rates, length, under_way: watch::Sender::new(under_way) }
    }

    /// Whether another release may run in the place of this one, until the verdict is known.
    pub(super) fn under_way(&self) -> watch::Receiver<bool> {
        self.under_way.subscribe()
    }

    /// Watches the release. Ends if it failed, and another one is to run in its place; never otherwise.
    pub(super) async fn pass(&mut self, handle: &Handle) -> Instead {
        let first = Sample::now(&self.before.orders).await;
        tokio::time::sleep(self.length).await;
        let last = Sample::now(&self.before.orders).await;
        let state = handle.compute(Reading::status).await.map(|status| State::new(&status, &self.before.owners));
        self.under_way.send_replace(false);
        let Some(trial) = &mut self.trial else { return pending().await };
        let (Ok(state), Some((first, last))) = (state, first.zip(last)) else { return pending().await };
        let established = state.established.unwrap_or(0);
        let verdict = match trial.is_proven() {
            true => Ok(()),
            false => judge(&self.rates, &last.since(&first), self.before.counts, trial.established_before(), &state),
        };
        match verdict {
            Ok(()) => {
                let news = !trial.is_proven() && trial.runs_instead().is_none();
                trial.pass(established).await;
                if news {
                    record(handle, DataPlaneStage::Proven, None);
                }
                self.before.orders.release();
            }
            Err(reason) => {
                tracing::error!(reason, "this release failed its probation");
                record(handle, DataPlaneStage::Failed, Some(reason.clone()));
                if let Some(instead) = trial.instead(&reason) {
                    trial.fail();
                    return instead;
                }
                tracing::warn!("no binary of another release is kept: this one goes on");
            }
        }
        pending().await
    }

    /// The daemon stops in order.
    pub(super) fn stop(&mut self) {
        if let Some(trial) = &mut self.trial {
            trial.stop();
        }
    }
}

fn record(handle: &Handle, stage: DataPlaneStage, reason: Option<String>) {
    handle.journal.record(What::DataPlane { stage, reason });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(forwarded: f64, dropped: f64) -> Rates {
        Rates { forwarded, drops: [("malformed", dropped), ("no_backend", 0.0)].into() }
    }

    #[test]
    fn traffic_that_goes_on_passes() {
        let state = State { established: Some(2), ..State::default() };
        for (before, now) in [
            (rates(1e6, 0.0), rates(9e5, 5_000.0)),
            (rates(1e6, 90_000.0), rates(1e6, 170_000.0)),
            (rates(0.0, 0.0), rates(0.0, 0.0)),
            (rates(0.0, 0.0), rates(0.0, 9.0)),
            (rates(50.0, 0.0), rates(0.0, 0.0)),
        ] {
            assert_eq!(judge(&before, &now, true, 2, &state), Ok(()), "{before:?} {now:?}");
        }
    }

    #[test]
    fn what_is_worse_is_named_with_both_figures() {
        let good = State { established: Some(1), ..State::default() };
        let bad = |before, now, state: &State| judge(&before, &now, true, 1, state).unwrap_err();
        assert_eq!(
            bad(rates(1e6, 100.0), rates(1e6, 20_000.0), &good),
            "20000 packets in a second are dropped as malformed; 100 were, before"
        );
        assert_eq!(
            bad(rates(5_000.0, 0.0), rates(0.0, 0.0), &good),
            "no packet is forwarded; 5000 in a second were, before"
        );
        let calm = || rates(10.0, 0.0);
        let detached = State { detached: vec!["eth1".into()], ..good.clone() };
        assert_eq!(bad(calm(), calm(), &detached), "the program is not attached to eth1");
        let emptied = State { emptied: vec!["web".into()], ..good.clone() };
        assert_eq!(bad(calm(), calm(), &emptied), "pool web has no backend that is used; it had one before");
        let silent = State { established: Some(0), ..good };
        assert_eq!(bad(calm(), calm(), &silent), "no BGP session is established; 1 were, before");
        // The section `bgp` was removed.
        let without_bgp = State { established: None, ..silent };
        assert_eq!(judge(&calm(), &calm(), true, 1, &without_bgp), Ok(()));
    }
}
