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
    /// Of any number of values, at least one.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
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

/// A quantile of sorted values, between two of them in proportion.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let position = share * (sorted.len().checked_sub(1)?) as f64;
    let below = sorted.get(position.floor() as usize)?;
    let above = sorted.get(position.ceil() as usize)?;
    Some(below + (above - below) * position.fract())
}

/// The median of a few values.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    Spread::of(values).map(|spread| spread.median)
}

/// What a program took beyond *empty*, round by round.
pub(super) fn beyond<'a>(program: &'a [f64], empty: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    program.iter().zip(empty).map(|(program, empty)| program - empty)
}

/// What a program took beyond *empty* as a multiple of what a floor took beyond *empty*, round by round.
pub(super) fn ratios<'a>(program: &'a [f64], floor: &'a [f64], empty: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    beyond(program, empty).zip(beyond(floor, empty)).map(|(program, floor)| program / floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_the_sorted_values() {
        let spread = Spread::of([9.0, 1.0, 5.0, 3.0, 7.0, 11.0, 2.0, 4.0, 6.0, 8.0, 10.0]).unwrap();
        assert_eq!(spread, Spread { p10: 2.0, median: 6.0, p90: 10.0 });
        assert_eq!(Spread::of([3.0]), Some(Spread { p10: 3.0, median: 3.0, p90: 3.0 }));
        assert_eq!(Spread::of([]), None);
        assert_eq!(median([1.0, 2.0]), Some(1.5));
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
        let spread = Spread::of(calm.into_iter().chain([500.0])).unwrap();
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
