//! The statistics: medians of paired differences and ratios over interleaved rounds. Pure; it must not know what was
//! measured.

use serde::{Deserialize, Serialize};

/// Where the values of all rounds lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Spread {
    /// The tenth percentile.
    pub(super) p10: f64,
    /// The median.
    pub(super) median: f64,
    /// The ninetieth percentile.
    pub(super) p90: f64,
}

impl Spread {
    /// The spread of any number of values, at least one.
    pub(super) fn from_values(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |share| quantile(&sorted, share);
        Some(Self { p10: at(0.1)?, median: at(0.5)?, p90: at(0.9)? })
    }

    /// Whether the two ranges from p10 to p90 have a value in common.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.p10 <= other.p90 && other.p10 <= self.p90
    }
}

/// A median and the range in which that of all rounds there could be lies in 95 of 100 runs, whatever their distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Interval {
    /// The lower end.
    pub(super) low: f64,
    /// The median.
    pub(super) median: f64,
    /// The upper end.
    pub(super) high: f64,
}

impl Interval {
    /// The interval of the median of any number of values, at least one; of fewer than six, it is their range, which holds less
    /// than it says.
    ///
    /// A value is below the median or above it as a coin falls: the ends are the values of the highest rank with which at most
    /// one run in forty falls beyond either (the sign test's interval).
    pub(super) fn from_values(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let median = quantile(&sorted, 0.5)?;
        let rank = rank(sorted.len());
        Some(Self { low: *sorted.get(rank)?, median, high: *sorted.get(sorted.len() - 1 - rank)? })
    }
}

/// How many values lie outside either end of the interval of a median of so many.
fn rank(count: usize) -> usize {
    let mut chance = 0.5_f64.powi(count as i32);
    let (mut beyond, mut rank) = (chance, 0);
    while beyond <= 0.025 && rank < count / 2 {
        rank += 1;
        chance *= (count + 1 - rank) as f64 / rank as f64;
        beyond += chance;
    }
    rank.saturating_sub(usize::from(beyond > 0.025))
}

/// A quantile of sorted values, between two of them in proportion.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let position = share * (sorted.len().checked_sub(1)?) as f64;
    let below = sorted.get(position.floor() as usize)?;
    let above = sorted.get(position.ceil() as usize)?;
    Some(below + (above - below) * position.fract())
}

/// The median of a few values.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    Spread::from_values(values).map(|spread| spread.median)
}

/// A program's time beyond *empty*, round by round.
pub(super) fn beyond<'a>(program: &'a [f64], empty: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    program.iter().zip(empty).map(|(program, empty)| program - empty)
}

/// A program's time beyond *empty* as a multiple of a floor's, round by round.
pub(super) fn ratios<'a>(program: &'a [f64], floor: &'a [f64], empty: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    beyond(program, empty).zip(beyond(floor, empty)).map(|(program, floor)| program / floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_the_sorted_values() {
        let spread = Spread::from_values([9.0, 1.0, 5.0, 3.0, 7.0, 11.0, 2.0, 4.0, 6.0, 8.0, 10.0]).unwrap();
        assert_eq!(spread, Spread { p10: 2.0, median: 6.0, p90: 10.0 });
        assert_eq!(Spread::from_values([3.0]), Some(Spread { p10: 3.0, median: 3.0, p90: 3.0 }));
        assert_eq!(Spread::from_values([]), None);
        assert_eq!(median([1.0, 2.0]), Some(1.5));
    }

    /// The ranks that tables of the sign test give for 95 %.
    #[test]
    fn the_interval_of_a_median_has_the_ranks_of_the_sign_test() {
        assert_eq!([6, 9, 15, 20, 31, 50, 101].map(rank), [0, 1, 3, 5, 9, 17, 40]);
        assert_eq!([1, 2, 5].map(rank), [0; 3]);
        let values: Vec<f64> = (0..31).rev().map(f64::from).collect();
        assert_eq!(Interval::from_values(&values), Some(Interval { low: 9.0, median: 15.0, high: 21.0 }));
        assert_eq!(Interval::from_values(&[]), None);
        assert_eq!(Interval::from_values(&[2.0]), Some(Interval { low: 2.0, median: 2.0, high: 2.0 }));
    }

    /// Of rounds without a difference, however uneven their noise, the interval holds 0 in at least 95 of 100 runs.
    #[test]
    fn the_interval_holds_the_median_as_often_as_it_says() {
        let mut state = 1_u64;
        let mut coin = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / f64::from(1 << 24) - 0.5
        };
        let runs = 2_000;
        let held = (0..runs).filter(|_| {
            let values: Vec<f64> = (0..31).map(|_| coin().powi(3) * 40.0 + coin().powi(7)).collect();
            Interval::from_values(&values).is_some_and(|interval| interval.low <= 0.0 && 0.0 <= interval.high)
        });
        let held = held.count();
        assert!(held * 100 >= runs * 95, "{held} of {runs}");
    }

    #[test]
    fn what_slows_a_whole_round_cancels_out() {
        let (empty, floor, program) = ([10.0, 20.0, 11.0], [20.0, 40.0, 21.0], [40.0, 80.0, 41.0]);
        assert_eq!(beyond(&program, &empty).collect::<Vec<_>>(), [30.0, 60.0, 30.0]);
        assert_eq!(ratios(&program, &floor, &empty).collect::<Vec<_>>(), [3.0; 3]);
    }

    #[test]
    fn one_slow_round_in_nine_moves_neither_median_nor_p90_by_much() {
        let calm = [10.0, 10.1, 9.9, 10.0, 10.2, 9.8, 10.0, 10.1];
        let spread = Spread::from_values(calm.into_iter().chain([500.0])).unwrap();
        assert!(spread.median < 10.2 && spread.p10 > 9.7, "{spread:?}");
    }

    #[test]
    fn ranges_that_touch_overlap() {
        let spread = |p10, p90| Spread { p10, median: f64::midpoint(p10, p90), p90 };
        assert!(spread(1.0, 2.0).overlaps(&spread(2.0, 3.0)));
        assert!(spread(1.0, 4.0).overlaps(&spread(2.0, 3.0)));
        assert!(!spread(1.0, 2.0).overlaps(&spread(2.1, 3.0)));
        assert!(!spread(2.1, 3.0).overlaps(&spread(1.0, 2.0)));
    }
}
