//! Times that differ from speaker to speaker: jitter from a seed, and retries that grow apart.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(60);

/// Numbers that look random and follow from a seed (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Three quarters of a time to all of it (RFC 4271, section 10).
    pub(super) fn jitter(&mut self, time: Duration) -> Duration {
        let part = 0.75 + 0.25 * (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        time.mul_f64(part)
    }
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
    pub(super) fn next(&mut self, chance: &mut Chance) -> Duration {
        let time = FIRST.saturating_mul(1 << self.failures.min(6)).min(LAST);
        self.failures = self.failures.saturating_add(1);
        chance.jitter(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_double_up_to_a_minute() {
        let (mut backoff, mut chance) = (Backoff::default(), Chance::new(7));
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let (time, most) = (backoff.next(&mut chance), Duration::from_secs(seconds));
            assert!(time <= most && time >= most * 3 / 4, "{time:?} for {seconds} s");
        }
        backoff.reset();
        assert!(backoff.next(&mut chance) <= FIRST);
    }

    #[test]
    fn seeds_differ() {
        let first = |seed| Chance::new(seed).jitter(LAST);
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }
}
