//! Durations as an operator writes them, with a unit, and as they are shown. It must not know what they measure.

use std::fmt;
use std::time::Duration;

use super::{BadValue, shown};

/// Units from the largest, in milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const TIMEOUT: Range =
    Range { what: "a time to wait", least: Duration::from_secs(1), most: Duration::from_secs(24 * 3_600) };

/// Reads how long to wait for something, 1 s to 24 h.
///
/// # Errors
/// The text is not a duration in that range.
pub fn parse_timeout(text: &str) -> Result<Duration, BadValue> {
    TIMEOUT.parse(text)
}

/// Reads a whole number with a unit: `500ms`, `120s`, `15m`, `1h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, milliseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(*milliseconds)?))
}

/// What a duration may be.
pub(super) struct Range {
    /// The duration, with its article.
    pub(super) what: &'static str,
    pub(super) least: Duration,
    pub(super) most: Duration,
}

/// A duration shown with the largest unit that tells it exactly, to the millisecond; [`parse_duration`] reads it back.
pub struct Shown(pub Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        let exact = |&&(_, unit): &&(&str, u64)| milliseconds != 0 && milliseconds.is_multiple_of(u128::from(unit));
        let (name, unit) = UNITS.iter().find(exact).unwrap_or(&("s", 1_000));
        f.pad(&format!("{}{name}", milliseconds / u128::from(*unit)))
    }
}

impl Range {
    pub(super) fn parse(&self, text: &str) -> Result<Duration, BadValue> {
        let found = parse_duration(text).filter(|&duration| self.holds(duration));
        found.ok_or_else(|| self.refuse(&shown(text)))
    }

    pub(super) fn check(&self, duration: Duration) -> Result<(), BadValue> {
        if self.holds(duration) { Ok(()) } else { Err(self.refuse(&Shown(duration).to_string())) }
    }

    fn holds(&self, duration: Duration) -> bool {
        (self.least..=self.most).contains(&duration) && duration.subsec_nanos() == 0
    }

    fn refuse(&self, value: &str) -> BadValue {
        let Self { what, least, most } = self;
        let (least, most) = (Shown(*least), Shown(*most));
        BadValue(format!(
            "{value} is not {what}; allowed: {least} to {most}, whole seconds with a unit such as 90s or 5m"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_duration_is_a_whole_number_with_a_unit() {
        let seconds = |text| parse_duration(text).map(|duration| duration.as_secs_f64());
        assert_eq!(["500ms", "120s", "15m", "1h", "0s"].map(seconds), [0.5, 120.0, 900.0, 3_600.0, 0.0].map(Some));
        for bad in
            ["", "120", "s", "1.5s", "-1s", "+1s", "1 s", "1s ", "1m30s", "1d", "1S", "1é", "99999999999999999999s"]
        {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        assert_eq!(parse_duration(&format!("{}h", u64::MAX)), None, "beyond what can be counted");
    }

    #[test]
    fn durations_are_shown_with_the_largest_unit_that_fits() {
        let shown = |seconds| Shown(Duration::from_secs(seconds)).to_string();
        assert_eq!([0, 90, 120, 3_600, 5_400].map(shown), ["0s", "90s", "2m", "1h", "90m"]);
        assert_eq!(Shown(Duration::from_millis(1_500)).to_string(), "1500ms");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(milliseconds in prop_oneof![any::<u32>(), (0_u32..100_000).prop_map(|s| s * 1_000)]) {
            let duration = Duration::from_millis(u64::from(milliseconds));
            prop_assert_eq!(parse_duration(&Shown(duration).to_string()), Some(duration));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,40}") {
            let _ = parse_duration(&text);
        }
    }
}
