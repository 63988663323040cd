//! The verdicts over the samples of a run: what may grow, and by how much. Pure.

use std::{collections::BTreeMap, time::Duration};

use super::usage::Usage;

/// Resident memory may grow by so many bytes in this time.
const GROWTH: f64 = 1e6;
const GROWTH_TIME: Duration = Duration::from_secs(15 * 60);
/// With fewer points the slope is shown alone: the first changes fill buffers of a fixed size.
const POINTS: usize = 8;

/// One daemon at the same point of a cycle.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// Since the run began.
    pub(super) at: Duration,
    /// The name of the load balancer.
    pub(super) node: String,
    /// What its daemon holds.
    pub(super) usage: Usage,
}

/// One line of the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whether it is as it must be.
    pub(super) holds: bool,
    /// What was judged.
    pub(super) subject: String,
    /// What was found.
    pub(super) found: String,
}

impl Verdict {
    pub(super) fn new(holds: bool, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { holds, subject: subject.into(), found: found.into() }
    }
}

/// The verdicts over the last three quarters of a run that took `length`.
pub(super) fn judge(samples: &[Sample], length: Duration) -> Vec<Verdict> {
    let mut nodes = BTreeMap::<&str, Vec<&Sample>>::new();
    for sample in samples.iter().filter(|sample| sample.at >= length / 4) {
        nodes.entry(&sample.node).or_default().push(sample);
    }
    nodes.into_iter().flat_map(|(node, samples)| of_node(node, &samples)).collect()
}

fn of_node(node: &str, samples: &[&Sample]) -> Vec<Verdict> {
    let mut verdicts = vec![memory(node, samples)];
    let first = samples[0].usage.counts.named();
    for (n, (kind, _)) in first.into_iter().enumerate() {
        let mut found: Vec<usize> = samples.iter().map(|sample| sample.usage.counts.named()[n].1).collect();
        let points = found.len();
        found.sort_unstable();
        found.dedup();
        let shown = found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        verdicts.push(Verdict::new(found.len() == 1, format!("{node}: {kind}"), format!("{shown} at {points} points")));
    }
    verdicts
}

/// The slope of the resident memory: over the whole time in which it may grow, or over a run that is shorter than this.
fn memory(node: &str, samples: &[&Sample]) -> Verdict {
    let points: Vec<(f64, f64)> =
        samples.iter().map(|sample| (sample.at.as_secs_f64(), sample.usage.resident as f64)).collect();
    let span = samples[samples.len() - 1].at - samples[0].at;
    let slope = slope(&points);
    let growth = slope * span.min(GROWTH_TIME).as_secs_f64();
    let sizes = points.iter().map(|point| point.1);
    let (least, most) = (sizes.clone().fold(f64::INFINITY, f64::min), sizes.fold(0.0, f64::max));
    let found = format!(
        "{:+.2} MB in 15 minutes by {} points over {:.1} minutes, {:.1} to {:.1} MB; {}",
        slope * GROWTH_TIME.as_secs_f64() / 1e6,
        points.len(),
        span.as_secs_f64() / 60.0,
        least / 1e6,
        most / 1e6,
        if points.len() < POINTS { "too few points to judge" } else { "at most +1" }
    );
    Verdict::new(points.len() < POINTS || growth <= GROWTH, format!("{node}: resident memory"), found)
}

/// The slope of the line with the least squares; 0 for less than two moments.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let square: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let product: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    if square > 0.0 { product / square } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::{super::usage::Counts, *};

    fn sample(second: u64, resident: u64, descriptors: usize) -> Sample {
        let usage = Usage { resident, own: resident, counts: Counts { descriptors, ..Counts::default() } };
        Sample { at: Duration::from_secs(second), node: "lb1".to_owned(), usage }
    }

    fn failed(samples: &[Sample]) -> Vec<String> {
        let verdicts = judge(samples, Duration::from_secs(1_200));
        verdicts.into_iter().filter(|verdict| !verdict.holds).map(|verdict| verdict.subject).collect()
    }

    #[test]
    fn a_slope_is_that_of_the_line() {
        assert!((slope(&[(0.0, 5.0), (1.0, 7.0), (2.0, 9.0)]) - 2.0).abs() < 1e-9);
        assert!((slope(&[(0.0, 1.0), (1.0, 0.0), (2.0, 1.0)])).abs() < 1e-9);
        assert_eq!(slope(&[(3.0, 1.0)]), 0.0);
    }

    #[test]
    fn what_grows_or_differs_fails_and_the_first_quarter_does_not_count() {
        let flat: Vec<_> = (1..20).map(|n| sample(n * 60, 20_000_000, if n < 5 { 9 } else { 10 })).collect();
        assert_eq!(failed(&flat), Vec::<String>::new());
        let grows: Vec<_> = (1..20).map(|n| sample(n * 60, 20_000_000 + n * 80_000, 10)).collect();
        assert_eq!(failed(&grows), ["lb1: resident memory"]);
        let leaks: Vec<_> = (1..20).map(|n| sample(n * 60, 20_000_000, 10 + n as usize)).collect();
        assert_eq!(failed(&leaks), ["lb1: descriptors"]);
    }
}
