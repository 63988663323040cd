//! The targets a run is held against.

use std::fmt::Write as _;

use super::report::{Report, Row};
use super::{ALWAYS, TABLE};

/// A target: a ratio, or a few nanoseconds above the floor where retpolines inflate the floor itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    scenario: &'static str,
    program: &'static str,
    floor: Floor,
    most: f64,
    or_beyond: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Floor {
    Headers,
    Line,
}

const fn to_headers(scenario: &'static str, program: &'static str, most: f64, or_beyond: Option<f64>) -> Target {
    Target { scenario, program, floor: Floor::Headers, most, or_beyond }
}

const fn to_line(scenario: &'static str, program: &'static str, most: f64) -> Target {
    Target { scenario, program, floor: Floor::Line, most, or_beyond: None }
}

/// All of them.
const TARGETS: [Target; 9] = [
    to_headers("flows-1k", TABLE, 1.8, Some(12.0)),
    to_headers("flows-64k", TABLE, 2.5, Some(20.0)),
    to_headers("flows-1m", TABLE, 2.5, Some(20.0)),
    to_headers("syn-flood", TABLE, 1.8, Some(12.0)),
    to_headers("vips-64-pool-1", TABLE, 2.6, Some(20.0)),
    to_headers("flows-1k", ALWAYS, 2.2, None),
    to_line("flows-64k", ALWAYS, 1.6),
    to_line("flows-1m", ALWAYS, 1.6),
    to_line("syn-flood", ALWAYS, 1.3),
];

/// A target and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    /// Whether it was reached.
    pub(super) met: bool,
    /// One line: what was found, and what was wanted.
    pub(super) line: String,
}

/// Holds a run against every target whose scenario it measured.
pub(super) fn judge(report: &Report) -> Vec<Judged> {
    TARGETS.iter().filter_map(|target| target.judge(report)).collect()
}

/// The judgements for people.
pub(super) fn text(judged: &[Judged]) -> String {
    let mut text = String::new();
    for Judged { met, line } in judged {
        let _ = writeln!(text, "{} {line}", if *met { "met   " } else { "MISSED" });
    }
    text
}

impl Target {
    fn judge(&self, report: &Report) -> Option<Judged> {
        let row = report.row(self.scenario, self.program)?;
        let floor = report.row(self.scenario, if self.floor == Floor::Headers { "headers" } else { "headers+line" })?;
        let ratio = match self.floor {
            Floor::Headers => row.to_headers,
            Floor::Line => row.to_line,
        }?;
        let beyond = median(row) - median(floor);
        let met = ratio.median <= self.most || self.or_beyond.is_some_and(|most| beyond <= most);
        let or = self.or_beyond.map_or_else(String::new, |most| format!(", or {most:.0} ns beyond it"));
        let line = format!(
            "{} [{}]: {:.2} x {}, {beyond:.1} ns beyond it; target {} x{or}",
            self.program, self.scenario, ratio.median, floor.program, self.most
        );
        Some(Judged { met, line })
    }
}

fn median(row: &Row) -> f64 {
    row.nanoseconds.median
}
