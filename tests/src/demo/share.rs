//! Whether a backend's part of the requests is the part its weight promises. Pure arithmetic.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// One backend's part of a step's requests.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Share {
    pub(super) backend: String,
    /// 0 if it was removed, or never there.
    pub(super) weight: u64,
    /// Requests it answered.
    pub(super) requests: u64,
    /// The same as a fraction of all.
    pub(super) fraction: f64,
    /// Requests its weight promises.
    pub(super) expected: f64,
    /// How far off chance may lead: four standard deviations of the binomial distribution, 4·√(n·p·(1−p)).
    pub(super) tolerance: f64,
    /// Whether it is no further off than that.
    pub(super) within: bool,
}

/// Compares what each backend answered with the weights. A backend that answered but has no weight is off by any count.
pub(super) fn compare(weights: &BTreeMap<String, u64>, answered: &BTreeMap<&str, u64>) -> Vec<Share> {
    let all_weights: u64 = weights.values().sum();
    let n = answered.values().sum::<u64>() as f64;
    let names: BTreeSet<&str> = weights.keys().map(String::as_str).chain(answered.keys().copied()).collect();
    let share = |backend: &str| {
        let weight = weights.get(backend).copied().unwrap_or(0);
        let requests = answered.get(backend).copied().unwrap_or(0);
        let p = weight as f64 / all_weights.max(1) as f64;
        let (expected, tolerance) = (n * p, 4.0 * (n * p * (1.0 - p)).sqrt());
        let within = (requests as f64 - expected).abs() <= tolerance;
        Share {
            backend: backend.to_owned(),
            weight,
            requests,
            fraction: requests as f64 / n.max(1.0),
            expected,
            tolerance,
            within,
        }
    };
    names.into_iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(weights: &[(&str, u64)], answered: &[(&str, u64)]) -> Vec<bool> {
        let weights = weights.iter().map(|&(name, weight)| (name.to_owned(), weight)).collect();
        compare(&weights, &answered.iter().copied().collect()).iter().map(|share| share.within).collect()
    }

    #[test]
    fn four_deviations_are_within_and_more_are_not() {
        // n = 10,000 and p = 1/2: the deviation is 50, so 200 may be off.
        assert_eq!(within(&[("a", 7), ("b", 7)], &[("a", 5_200), ("b", 4_800)]), [true, true]);
        assert_eq!(within(&[("a", 7), ("b", 7)], &[("a", 5_201), ("b", 4_799)]), [false, false]);
    }

    #[test]
    fn a_backend_without_weight_may_answer_nothing() {
        assert_eq!(within(&[("a", 1), ("gone", 0)], &[("a", 100)]), [true, true]);
        assert_eq!(within(&[("a", 1)], &[("a", 99), ("gone", 1)]), [false, false]);
    }

    #[test]
    fn a_backend_that_answers_nothing_is_missed() {
        assert_eq!(within(&[("a", 1), ("b", 1)], &[("a", 100)]), [false, false]);
    }
}
