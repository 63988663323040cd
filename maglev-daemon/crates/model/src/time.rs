//! Times and durations as text: as an operator writes them, and as people read them. It must not know their use.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::{BadValue, shown};

/// A moment, in whole seconds since 1970. It is shown as RFC 3339 in UTC, such as `2026-01-01T00:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// The last second of the year 9999: a larger number is not seconds, but milliseconds.
    pub const MAX: Self = Self(253_402_300_799);

    /// Reads seconds since 1970, as files hold them.
    ///
    /// # Errors
    /// The text is not such a number, or one beyond [`Self::MAX`].
    pub fn parse_seconds(text: &str) -> Result<Self, BadValue> {
        let time = text.parse().map(Self).ok().filter(|time| (Self(1)..=Self::MAX).contains(time));
        let time = time.filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let Self(most) = Self::MAX;
        time.ok_or_else(|| BadValue(format!("{} is not a time; allowed: seconds since 1970, 1 to {most}", shown(text))))
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = i64::try_from(self.0).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        write!(f, "{}", time.unwrap_or(Timestamp::MAX))
    }
}

/// A moment given in milliseconds since 1970, as RFC 3339 in UTC: `2026-11-24T20:43:26.123Z`.
pub fn utc_with_milliseconds(unix_milliseconds: u64) -> String {
    let time = i64::try_from(unix_milliseconds).ok().and_then(|time| Timestamp::from_millisecond(time).ok());
    format!("{:.3}", time.unwrap_or(Timestamp::MAX))
}

/// Reads a moment as RFC 3339 with an offset (`2026-11-24T20:43:26Z`), in milliseconds since 1970; `None`: it is not one.
pub fn parse_utc(text: &str) -> Option<u64> {
    let time: Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

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

/// The range of a duration.
pub(super) struct Range {
    /// The duration, with its article.
    pub(super) what: &'static str,
    pub(super) least: Duration,
    pub(super) most: Duration,
}

/// A duration as files and options hold it: one unit, the largest that is exact to the millisecond, such as `90m`.
/// [`parse_duration`] reads it back.
pub struct WrittenDuration(pub Duration);

impl fmt::Display for WrittenDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        let exact = |&&(_, unit): &&(&str, u64)| milliseconds != 0 && milliseconds.is_multiple_of(u128::from(unit));
        let (name, unit) = UNITS.iter().find(exact).unwrap_or(&("s", 1_000));
        f.pad(&format!("{}{name}", milliseconds / u128::from(*unit)))
    }
}

/// A duration as people read it, rounded down: `3d 4h`, `1h 5m`, `6s`, `1.2s`, `250 ms`, `0.4 ms`.
pub struct ShownDuration(pub Duration);

impl ShownDuration {
    /// Whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Whole milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// Whole microseconds.
    pub const fn from_micros(microseconds: u64) -> Self {
        Self(Duration::from_micros(microseconds))
    }
}

impl fmt::Display for ShownDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, microseconds) = (self.0.as_secs(), self.0.subsec_micros());
        match (seconds, microseconds / 1_000) {
            (0, _) if self.0.is_zero() => f.pad("0s"),
            (0, 0..10) => f.pad(&format!("{}.{} ms", microseconds / 1_000, microseconds % 1_000 / 100)),
            (0, milliseconds) => f.pad(&format!("{milliseconds} ms")),
            (1..10, milliseconds @ 100..) => f.pad(&format!("{seconds}.{}s", milliseconds / 100)),
            _ => f.pad(&two_units(seconds)),
        }
    }
}

/// The largest unit that is not zero, and the next one if that is not zero.
fn two_units(seconds: u64) -> String {
    let units = [(seconds / 86_400, 'd'), (seconds / 3_600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let first = units.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let (largest, next) = (units[first], units.get(first + 1).filter(|(count, _)| *count > 0));
    let mut text = format!("{}{}", largest.0, largest.1);
    if let Some((count, unit)) = next {
        text += &format!(" {count}{unit}");
    }
    text
}

impl Range {
    pub(super) fn parse(&self, text: &str) -> Result<Duration, BadValue> {
        let found = parse_duration(text).filter(|&duration| self.holds(duration));
        found.ok_or_else(|| self.refuse(&shown(text)))
    }

    pub(super) fn check(&self, duration: Duration) -> Result<(), BadValue> {
        if self.holds(duration) { Ok(()) } else { Err(self.refuse(&WrittenDuration(duration).to_string())) }
    }

    fn holds(&self, duration: Duration) -> bool {
        (self.least..=self.most).contains(&duration) && duration.subsec_nanos() == 0
    }

    fn refuse(&self, value: &str) -> BadValue {
        let Self { what, least, most } = self;
        let (least, most) = (WrittenDuration(*least), WrittenDuration(*most));
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
    fn times_are_shown_as_rfc_3339_in_utc() {
        for (milliseconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (1_709_164_799_999, "2024-02-28T23:59:59.999Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc_with_milliseconds(milliseconds), text);
            assert_eq!(UnixTime(milliseconds / 1_000).to_string(), format!("{}Z", &text[..19]));
        }
        assert_eq!(UnixTime(u64::MAX).to_string()[..10], *"9999-12-30", "later than any calendar goes");
        assert_eq!(utc_with_milliseconds(u64::MAX)[..10], *"9999-12-30");
    }

    #[test]
    fn files_hold_seconds() {
        assert_eq!(UnixTime::parse_seconds("1700000000"), Ok(UnixTime(1_700_000_000)));
        for bad in ["0", "-1", "+1", "1.5", "", "soon", "1700000000000", "99999999999999999999"] {
            let line = UnixTime::parse_seconds(bad).unwrap_err().to_string();
            assert!(line.ends_with("is not a time; allowed: seconds since 1970, 1 to 253402300799"), "{line}");
        }
    }

    #[test]
    fn people_read_two_units_at_most() {
        let shown = [0, 6, 61, 90, 3_600, 3_900, 3_601, 3 * 86_400 + 4 * 3_600 + 59].map(ShownDuration::from_secs);
        let texts = ["0s", "6s", "1m 1s", "1m 30s", "1h", "1h 5m", "1h", "3d 4h"];
        assert_eq!(shown.map(|duration| duration.to_string()), texts);
        let shown = [49, 400, 9_949, 10_000, 999_999, 1_000_400, 1_250_000, 12_400_000].map(ShownDuration::from_micros);
        let texts = ["0.0 ms", "0.4 ms", "9.9 ms", "10 ms", "999 ms", "1s", "1.2s", "12s"];
        assert_eq!(shown.map(|duration| duration.to_string()), texts);
        assert_eq!(ShownDuration(Duration::from_millis(1_500)).to_string(), "1.5s");
        assert_eq!(format!("{:>6}", ShownDuration::from_millis(250)), "250 ms");
    }

    #[test]
    fn durations_are_written_with_the_largest_unit_that_fits() {
        let shown = |seconds| WrittenDuration(Duration::from_secs(seconds)).to_string();
        assert_eq!([0, 90, 120, 3_600, 5_400].map(shown), ["0s", "90s", "2m", "1h", "90m"]);
        assert_eq!(WrittenDuration(Duration::from_millis(1_500)).to_string(), "1500ms");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(milliseconds in prop_oneof![any::<u32>(), (0_u32..100_000).prop_map(|s| s * 1_000)]) {
            let duration = Duration::from_millis(u64::from(milliseconds));
            prop_assert_eq!(parse_duration(&WrittenDuration(duration).to_string()), Some(duration));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,40}") {
            let _ = parse_duration(&text);
        }
    }
}
