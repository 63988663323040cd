//! The pauses between attempts at an operation that keeps failing: 100 ms, doubled up to 30 s. Pure; it must not know the
//! operation.

use std::time::Duration;

/// The first pause, and the longest.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// An operation that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    reason: String,
    pause: Duration,
    next: Duration,
}

impl Backoff {
    /// It failed at this time, again if it failed before.
    pub fn failed(before: Option<Self>, reason: String, now: Duration) -> Self {
        let pause = before.map_or(FIRST, |before| (before.pause * 2).min(LONGEST));
        Self { reason, pause, next: now + pause }
    }

    /// Why it failed last.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// When the next attempt is due.
    pub const fn next(&self) -> Duration {
        self.next
    }

    /// How long after the failure that is.
    pub const fn pause(&self) -> Duration {
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_thirty_seconds() {
        let mut now = Duration::ZERO;
        let mut failing = None;
        let mut pauses = Vec::new();
        for _ in 0..11 {
            let failed = Backoff::failed(failing, "no memory".to_owned(), now);
            pauses.push((failed.next() - now).as_millis());
            now = failed.next();
            failing = Some(failed);
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
    }
}
