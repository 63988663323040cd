//! The time from the end of a check to the tables that result. It must not know the tables.

use std::time::Duration;

/// The checks whose results the next plan applies, and those of the present one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TableLatency {
    checked: Option<Duration>,
    planned: Option<Duration>,
}

impl TableLatency {
    /// A check ended at this time and changed the used backends.
    pub(super) fn checked(&mut self, at: Duration) {
        self.checked.get_or_insert(at);
    }

    /// A plan is made of the present state.
    pub(super) fn planned(&mut self) {
        self.planned = self.planned.or(self.checked.take());
    }

    /// It is published. Returns how long ago the first of its checks ended, if it applies any.
    pub(super) fn published(&mut self, now: Duration) -> Option<Duration> {
        Some(now.saturating_sub(self.planned.take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn each_plan_is_measured_from_the_first_of_its_own_checks() {
        let mut latency = TableLatency::default();
        latency.planned();
        latency.checked(at(10));
        latency.checked(at(11));
        assert_eq!(latency.published(at(12)), None, "the plan was made before");
        latency.planned();
        latency.checked(at(13));
        assert_eq!(latency.published(at(15)), Some(at(5)));
        assert_eq!(latency.published(at(16)), None);
        latency.planned();
        assert_eq!(latency.published(at(16)), Some(at(3)));
    }
}
