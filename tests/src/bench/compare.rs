//! Two runs side by side: what changed beyond noise.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::report::{Report, Row};
use super::stats::Spread;

/// Smaller changes of the median are indistinguishable from the effects of where the kernel put code and maps.
const LEAST: f64 = 0.05;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The earlier run, as --json wrote it
    before: PathBuf,
    /// The later run
    after: PathBuf,
}

/// The change of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Same,
    Faster,
    Slower,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let (before, after) = (read(&arguments.before)?, read(&arguments.after)?);
    if before.machine.kernel != after.machine.kernel || before.machine.cpu != after.machine.cpu {
        println!("the runs were made on different machines: only ratios can be compared");
    }
    let pairs: Vec<_> = after
        .rows
        .iter()
        .filter_map(|row| Some((before.row(&row.scenario, &row.program)?, row)))
        .filter(|(_, row)| row.to_headers.is_some() && row.program != "headers")
        .collect();
    ensure!(!pairs.is_empty(), "the two runs have no row in common");
    let mut changed = 0;
    for (before, after) in &pairs {
        if let Some(line) = describe(before, after) {
            println!("{line}");
            changed += 1;
        }
    }
    println!("{changed} of {} figures changed beyond noise", pairs.len());
    Ok(())
}

/// One line if a figure changed.
fn describe(before: &Row, after: &Row) -> Option<String> {
    let (old, new) = (before.to_headers?, after.to_headers?);
    let word = match change(old, new) {
        Change::Same => return None,
        Change::Faster => "faster",
        Change::Slower => "slower",
    };
    let percent = (new.median / old.median - 1.0) * 100.0;
    let difference = after.nanoseconds.median - before.nanoseconds.median;
    Some(format!(
        "{word}: {} [{}]: {:.2} x headers ({:.2}-{:.2}) became {:.2} ({:.2}-{:.2}): {percent:+.0} %, {difference:+.1} ns",
        after.program, after.scenario, old.median, old.p10, old.p90, new.median, new.p10, new.p90
    ))
}

/// Beyond noise: the ranges from p10 to p90 have nothing in common, and the medians differ by more than layout explains.
fn change(before: Spread, after: Spread) -> Change {
    if before.overlaps(&after) || (after.median / before.median - 1.0).abs() < LEAST {
        Change::Same
    } else if after.median < before.median {
        Change::Faster
    } else {
        Change::Slower
    }
}

fn read(file: &Path) -> Result<Report> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no run written by --json", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn spread(p10: f64, median: f64, p90: f64) -> Spread {
        Spread { p10, median, p90 }
    }

    #[test]
    fn a_change_is_beyond_both_ranges_and_not_tiny() {
        let before = spread(1.5, 1.6, 1.7);
        assert_eq!(change(before, before), Change::Same);
        assert_eq!(change(before, spread(1.6, 1.8, 2.0)), Change::Same);
        assert_eq!(change(before, spread(2.0, 2.1, 2.2)), Change::Slower);
        assert_eq!(change(spread(2.0, 2.1, 2.2), before), Change::Faster);
        assert_eq!(change(spread(1.60, 1.60, 1.60), spread(1.63, 1.63, 1.63)), Change::Same);
    }
}
