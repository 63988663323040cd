//! Jitter, and the pauses between attempts to connect.

use std::time::Duration;

use fastrand::Rng;

const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(60);

/// Three quarters of a time to all of it (RFC 4271, section 10).
pub(super) fn jitter(rng: &mut Rng, time: Duration) -> Duration {
    time.mul_f64(0.75 + 0.25 * rng.f64())
}

/// How long to wait before the next attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The attempts so far were good.
    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// After one more failure: 1 s, 2 s, 4 s … 60 s, jittered.
    pub(super) fn next(&mut self, rng: &mut Rng) -> Duration {
        let time = FIRST.saturating_mul(1 << self.failures.min(6)).min(LAST);
        self.failures = self.failures.saturating_add(1);
        jitter(rng, time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_double_up_to_a_minute() {
        let (mut backoff, mut rng) = (Backoff::default(), Rng::with_seed(7));
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let (time, most) = (backoff.next(&mut rng), Duration::from_secs(seconds));
            assert!(time <= most && time >= most * 3 / 4, "{time:?} for {seconds} s");
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= FIRST);
    }

    #[test]
    fn seeds_differ() {
        let first = |seed| jitter(&mut Rng::with_seed(seed), LAST);
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }
}
