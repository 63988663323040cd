//! The sum of the test binaries' results.

use std::ops::AddAssign;

/// The sum of the test binaries' results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        let Self { passed, failed, skipped } = other;
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
    }
}

/// Adds one line to the totals: a test binary ends with
/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`.
pub(crate) fn result_line(line: &str) -> Totals {
    let mut totals = Totals::default();
    let Some(counts) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
        return totals;
    };
    for count in counts.1.split("; ") {
        let Some((number, what)) = count.split_once(' ') else {
            continue;
        };
        let number = number.parse().unwrap_or(0);
        match what {
            "passed" => totals.passed = number,
            "failed" => totals.failed = number,
            "ignored" => totals.skipped = number,
            _ => {}
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed_and_others_are_not() {
        let output = "\
running 3 tests
test a ... ok
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s
test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s
";
        let mut totals = Totals::default();
        for line in output.lines() {
            totals += result_line(line);
        }
        assert_eq!(totals, Totals { passed: 13, failed: 2, skipped: 1 });
    }
}
