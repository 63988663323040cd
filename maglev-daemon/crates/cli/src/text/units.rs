//! Times and counts in words. It must not know what they are of.

/// A time that something took: `0.4 ms`, `12 ms`, `1.2 s`.
pub(crate) fn latency(microseconds: u64) -> String {
    match microseconds {
        0..10_000 => format!("{:.1} ms", microseconds as f64 / 1_000.0),
        10_000..1_000_000 => format!("{} ms", microseconds / 1_000),
        _ => format!("{:.1} s", microseconds as f64 / 1_000_000.0),
    }
}

/// `3d 4h`, `4h 5m`, `5m 6s`, `6s`: the two largest units.
pub(crate) fn duration(seconds: u64) -> String {
    let units = [(seconds / 86_400, 'd'), (seconds / 3_600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let first = units.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown = units[first..].iter().take(2).map(|(count, unit)| format!("{count}{unit}"));
    shown.collect::<Vec<_>>().join(" ")
}

/// A count that may not be known yet.
pub(crate) fn count(count: Option<u32>) -> String {
    count.map_or_else(|| "?".to_owned(), |count| count.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_two_units() {
        assert_eq!(duration(0), "0s");
        assert_eq!(duration(61), "1m 1s");
        assert_eq!(duration(3 * 86_400 + 4 * 3_600 + 59), "3d 4h");
    }

    #[test]
    fn times_keep_a_readable_unit() {
        let told = [0, 49, 9_949, 10_000, 999_999, 1_250_000].map(latency);
        assert_eq!(told, ["0.0 ms", "0.0 ms", "9.9 ms", "10 ms", "999 ms", "1.2 s"]);
    }
}
