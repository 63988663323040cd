//! Checks that were not made, for lack of a resource of this node: counted, and logged as a warning now and then. It must not
//! know the kind of check.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A lasting shortage is logged once in this time.
const WARN_AGAIN: Duration = Duration::from_secs(60);

/// The record, shared by checks and status.
#[derive(Clone, Debug, Default)]
pub struct Shortages(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    checks: u64,
    last: Option<(Instant, String)>,
    warned: Option<Instant>,
}

/// The summary of shortages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Checks that were not made since the start.
    pub checks: u64,
    /// The resource that the last one lacked.
    pub reason: String,
    /// How long ago that was.
    pub ago: Duration,
}

impl Shortages {
    /// A check was not made, for this reason. Returns whether to log a warning.
    fn count(&self, reason: &str, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.checks += 1;
        state.last = Some((now, reason.to_owned()));
        let due = state.warned.is_none_or(|warned| now.duration_since(warned) >= WARN_AGAIN);
        due.then(|| {
            state.warned = Some(now);
            state.checks
        })
    }

    /// A check was not made, for this reason.
    pub(super) fn report(&self, reason: &str) {
        if let Some(checks) = self.count(reason, Instant::now()) {
            tracing::warn!(
                reason,
                checks,
                "health checks: not made, by this node's own shortage: backends keep their state"
            );
        }
    }

    /// All so far, if there were any.
    pub fn latest(&self) -> Option<Shortage> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, reason) = state.last.clone()?;
        Some(Shortage { checks: state.checks, reason, ago: at.elapsed() })
    }
}

#[cfg(test)]
mod faults {
    use super::*;
    use maglev_testing::matrix::Row;

    #[test]
    fn a_shortage_is_always_counted_and_logged_once_a_minute() {
        let _row = Row::fault("C8", "a shortage that lasts is warned of once a minute");
        let (shortages, began) = (Shortages::default(), Instant::now());
        assert_eq!(shortages.latest(), None);
        let warned: Vec<_> =
            (0..=120).filter_map(|n| shortages.count("socket", began + Duration::from_secs(n))).collect();
        assert_eq!(warned, [1, 61, 121]);
        assert_eq!(shortages.latest().map(|shortage| (shortage.checks, shortage.reason)), Some((121, "socket".into())));
    }
}
