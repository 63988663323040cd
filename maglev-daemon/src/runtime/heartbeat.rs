//! When the packet path is shown that the daemon lives: `dataplane.watchdog`. It must not know how.

use std::time::{Duration, Instant};

/// Signs of life in the time that a watchdog allows: three of them may fail to come.
const SIGNS: u32 = 4;

/// The owner's signs of life, given at the end of its turns: a blocked owner gives none.
#[derive(Debug)]
pub(super) struct Heartbeat {
    every: Option<Duration>,
    at: Instant,
}

impl Heartbeat {
    /// One for this watchdog, if there is one.
    pub(super) fn new(watchdog: Option<Duration>) -> Self {
        Self { every: watchdog.map(|watchdog| watchdog / SIGNS), at: Instant::now() }
    }

    /// The next turn must come by then.
    pub(super) fn deadline(&self) -> Option<Instant> {
        Some(self.at + self.every?)
    }

    /// Whether a sign of life is due, which is given then.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.deadline().is_some_and(|deadline| now >= deadline);
        self.at = if due { now } else { self.at };
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_due_four_times_in_the_watchdogs_time() {
        let mut heartbeat = Heartbeat::new(Some(Duration::from_secs(20)));
        let (began, second) = (heartbeat.at, Duration::from_secs(1));
        let due: Vec<_> = (0..20).filter(|n| heartbeat.is_due(began + second * *n)).collect();
        assert_eq!(due, [5, 10, 15]);
        assert_eq!(heartbeat.deadline(), Some(began + second * 20));
        assert_eq!(Heartbeat::new(None).deadline(), None);
        assert!(!Heartbeat::new(None).is_due(began + second));
    }
}
