//! The panic threshold: a pool with too few healthy backends uses all of them (fail-open), since its checks may be wrong. It must
//! not know which backends.

use std::time::Duration;

use maglev_model::Percent;

/// By how much the share of healthy backends must be above the threshold for panic to end at once, in percent of all.
const MARGIN: usize = 10;

/// How long it must be at the threshold or above for panic to end in any case: a small pool has no share in between.
const SETTLED: Duration = Duration::from_secs(10);

/// Whether a pool is in panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Panic {
    on: bool,
    /// Since when enough are healthy again.
    enough: Option<Duration>,
}

impl Panic {
    /// Whether it is.
    pub const fn is_on(&self) -> bool {
        self.on
    }

    /// Records how many are healthy, of how many that are known. Returns whether panic began or ended.
    pub fn update(&mut self, threshold: Percent, healthy: usize, known: usize, now: Duration) -> bool {
        let below = |percent: usize| healthy * 100 < percent.min(100) * known;
        let threshold = usize::from(threshold.0);
        let was = self.on;
        if below(threshold) {
            *self = Self { on: true, enough: None };
        } else if self.on {
            let since = *self.enough.get_or_insert(now);
            if !below(threshold + MARGIN) || since + SETTLED <= now {
                *self = Self::default();
            }
        }
        was != self.on
    }

    /// When time alone ends it.
    pub fn deadline(&self) -> Option<Duration> {
        Some(self.enough? + SETTLED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Percent = Percent(50);

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn it_begins_below_the_threshold_and_ends_clearly_above() {
        let mut panic = Panic::default();
        let rows = [
            (0, 10, false),
            (1, 5, false),
            (2, 4, true),
            (3, 0, true),
            (4, 5, true),
            (5, 4, true),
            (6, 5, true),
            (7, 6, false),
            (8, 5, false),
        ];
        for (second, healthy, on) in rows {
            panic.update(HALF, healthy, 10, at(second));
            assert_eq!(panic.is_on(), on, "at second {second}");
        }
    }

    #[test]
    fn at_the_threshold_it_ends_after_a_while() {
        let mut panic = Panic::default();
        assert!(panic.update(HALF, 0, 2, at(0)));
        assert!(!panic.update(HALF, 1, 2, at(1)));
        assert_eq!(panic.deadline(), Some(at(11)));
        assert!(!panic.update(HALF, 1, 2, at(10)));
        assert!(panic.update(HALF, 1, 2, at(11)));
        assert_eq!((panic.is_on(), panic.deadline()), (false, None));
    }

    #[test]
    fn thresholds_at_either_end() {
        let mut never = Panic::default();
        assert!(!never.update(Percent(0), 0, 5, at(0)), "0 is never");
        let mut whole = Panic::default();
        assert!(whole.update(Percent(100), 4, 5, at(0)));
        assert!(whole.update(Percent(100), 5, 5, at(1)), "all is clearly enough");
        assert!(!Panic::default().update(HALF, 0, 0, at(0)), "an empty pool does not panic");
    }
}
