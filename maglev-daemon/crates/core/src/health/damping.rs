//! Flap damping: how long a backend that fails again and again has to pass before it counts as healthy. It must not know
//! the kind of failure.

use std::time::Duration;

/// How long the second fall in a row makes a backend wait. Each further one doubles it.
const FIRST: Duration = Duration::from_secs(10);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(300);

/// A fall is forgiven for each such time without any failure.
const FORGIVEN: Duration = Duration::from_secs(300);

/// Falls beyond this many lengthen nothing.
const MOST: u32 = 7;

/// The record of falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Damping {
    falls: u32,
    last_failure: Duration,
}

impl Damping {
    /// A check failed: nothing is forgiven while checks do.
    pub(super) fn failed(&mut self, now: Duration) {
        *self = Self { falls: self.remembered(now), last_failure: now };
    }

    /// The backend fell, by a failure that was recorded before.
    pub(super) fn fell(&mut self) {
        self.falls = (self.falls + 1).min(MOST);
    }

    /// How long it has to pass before it counts as healthy: the first fall costs nothing.
    pub(super) fn hold(&self, now: Duration) -> Duration {
        match self.remembered(now) {
            0 | 1 => Duration::ZERO,
            falls => LONGEST.min(FIRST * 2_u32.pow(falls - 2)),
        }
    }

    fn remembered(&self, now: Duration) -> u32 {
        let forgiven = now.saturating_sub(self.last_failure).as_secs() / FORGIVEN.as_secs();
        self.falls.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fallen(times: u32) -> Damping {
        let mut damping = Damping::default();
        for n in 0..times {
            damping.failed(SECOND * n);
            damping.fell();
        }
        damping
    }

    #[test]
    fn each_fall_doubles_the_wait_up_to_a_limit() {
        let holds = [0, 1, 2, 3, 4, 7, 50].map(|times| fallen(times).hold(SECOND * 60).as_secs());
        assert_eq!(holds, [0, 0, 10, 20, 40, 300, 300]);
    }

    #[test]
    fn falls_are_forgiven_by_time_without_failure() {
        let holds = [0, 299, 300, 600, 900].map(|later| fallen(4).hold(SECOND * (3 + later)).as_secs());
        assert_eq!(holds, [40, 40, 20, 10, 0]);
        let mut failing = fallen(4);
        (4..4_000).for_each(|second| failing.failed(SECOND * second));
        assert_eq!(failing.hold(SECOND * 4_000), SECOND * 40, "while checks fail nothing is forgiven");
    }
}
