//! Slow start: a recovered backend gets its share step by step. It must not know weights.

use std::time::Duration;

/// The parts of its weight that a backend has one after the other, in percent: no more than half as much again each time,
/// so that each is near the straight line; and few, because each is a change of the table.
const STEPS: [u8; 10] = [10, 14, 20, 29, 40, 52, 64, 76, 88, 100];

/// The ramp of one backend from little to its full weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ramp {
    began: Duration,
    lasts: Duration,
}

impl Ramp {
    /// The full weight, in percent.
    pub const FULL: u8 = 100;

    /// Begins now; a duration of zero is no ramp.
    pub fn begin(now: Duration, lasts: Duration) -> Option<Self> {
        (!lasts.is_zero()).then_some(Self { began: now, lasts })
    }

    /// The part of the weight, in percent.
    pub fn percent(&self, now: Duration) -> u8 {
        let step = (1..STEPS.len()).rev().find(|&step| self.at(step) <= now).unwrap_or(0);
        STEPS[step]
    }

    /// When the step after this one is or was due; none after the last.
    pub fn next(&self, percent: u8) -> Option<Duration> {
        (1..STEPS.len()).find(|&step| STEPS[step] > percent).map(|step| self.at(step))
    }

    /// When a step is taken: half way between its value and the one before.
    fn at(&self, step: usize) -> Duration {
        let middle = u32::from(STEPS[step - 1]) + u32::from(STEPS[step]);
        self.began + self.lasts * middle / 200
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_keep_to_the_straight_line_within_a_fifth() {
        let lasts = Duration::from_secs(30);
        let begin = Duration::from_secs(1_000);
        let ramp = Ramp::begin(begin, lasts).unwrap();
        for millisecond in 0..=30_000 {
            let line = (f64::from(millisecond) / 300.0).max(f64::from(STEPS[0]));
            let percent = f64::from(ramp.percent(begin + Duration::from_millis(millisecond as u64)));
            assert!((percent - line).abs() <= 0.2 * line, "after {millisecond} ms: {percent} of {line}");
        }
        assert_eq!(ramp.percent(begin + lasts), Ramp::FULL);
    }

    #[test]
    fn each_step_is_named_before_it_is_due_and_there_is_an_end() {
        let ramp = Ramp::begin(Duration::ZERO, Duration::from_secs(30)).unwrap();
        let mut seen = vec![ramp.percent(Duration::ZERO)];
        while let Some(next) = ramp.next(*seen.last().unwrap()) {
            assert_eq!(ramp.percent(next - Duration::from_nanos(1)), *seen.last().unwrap(), "not before it is due");
            seen.push(ramp.percent(next));
        }
        assert_eq!(seen, STEPS);
        assert_eq!(Ramp::begin(Duration::ZERO, Duration::ZERO), None);
    }
}
