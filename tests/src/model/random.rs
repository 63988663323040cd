//! Chance that can be repeated: numbers that are a function of a seed alone.

use super::Millis;

/// Spreads a number over all 64 bits (SplitMix64's finaliser).
pub(super) const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A sequence of numbers.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The sequence with this number, of those that a seed has.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        Self(mix(seed.wrapping_add(1)) ^ mix(number ^ 0x6d61_676c_6576))
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below a limit that is not zero.
    pub(super) fn below(&mut self, limit: u32) -> u32 {
        scale(self.next(), limit)
    }

    /// A number from a range, both ends included.
    pub(super) fn between(&mut self, least: u32, most: u32) -> u32 {
        least + self.below(most - least + 1)
    }

    /// True once in `times`.
    pub(super) fn once_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }

    /// A wait, as between events that know nothing of each other, cut off at `most`.
    pub(super) fn wait(&mut self, mean: Millis, most: Millis) -> Millis {
        // Never the logarithm of zero.
        let uniform = (1.0 + (self.next() >> 11) as f64) / (1_u64 << 53) as f64;
        ((-uniform.ln() * f64::from(mean)) as Millis).min(most)
    }
}

/// The high half of a number, scaled to a range from zero.
pub(super) const fn scale(number: u64, limit: u32) -> u32 {
    (((number >> 32) * limit as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_its_sequences_differ() {
        let five = |seed, number| {
            let mut random = Random::new(seed, number);
            [(); 5].map(|()| random.next())
        };
        assert_eq!(five(1, 1), five(1, 1));
        assert_ne!(five(1, 1), five(1, 2));
        assert_ne!(five(1, 1), five(2, 1));
    }

    #[test]
    fn numbers_fill_their_ranges() {
        let mut random = Random::new(7, 7);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[random.between(3, 7) as usize - 3] = true;
        }
        assert_eq!(seen, [true; 5]);
        let mean = (0..10_000).map(|_| u64::from(random.wait(1_000, 60_000))).sum::<u64>() / 10_000;
        assert!((950..1_050).contains(&mean), "{mean}");
    }
}
