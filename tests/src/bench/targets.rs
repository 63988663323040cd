//! The targets a run is held against, and what stands in the way of one where it is missed.

use std::fmt::Write as _;

use super::measure::{FLOW_LINE, LINE};
use super::report::{Report, Row};
use super::stats::Spread;
use super::{ALWAYS, CAPTURE_PORT, CAPTURE_REASON, EXCEPTION, MOVING_5, TABLE};

/// A target: a program takes at most so many times what another takes.
#[derive(Clone, Copy, Debug)]
struct Target {
    scenario: &'static str,
    program: &'static str,
    to: &'static str,
    most: f64,
    /// Or so many nanoseconds more: where retpolines inflate what it is held against, or it is small.
    or_beyond: Option<f64>,
    /// A possible obstacle, if the same run shows it.
    obstacle: Option<Obstacle>,
}

/// Why a target cannot be met on a machine.
#[derive(Clone, Copy, Debug)]
enum Obstacle {
    /// A program that does less takes more than the target allows already.
    Less(&'static str),
    /// Held against this floor instead, it is met.
    Against(&'static str),
}

const fn to_headers(scenario: &'static str, program: &'static str, most: f64, or_beyond: Option<f64>) -> Target {
    Target { scenario, program, to: "headers", most, or_beyond, obstacle: None }
}

/// By exception is held against table only: the price of slots in transition, or of there being none.
const fn to_table(scenario: &'static str, program: &'static str, most: f64, or_beyond: Option<f64>) -> Target {
    Target { scenario, program, to: TABLE, most, or_beyond, obstacle: None }
}

/// The flow table of a million flows is larger than the line floor's 8 MB: it exceeds more of the machine's
/// caches, translations above all.
const fn to_line(scenario: &'static str, program: &'static str, most: f64) -> Target {
    let obstacle = Some(Obstacle::Against(FLOW_LINE));
    Target { scenario, program, to: LINE, most, or_beyond: None, obstacle }
}

/// A capture that takes no packet costs at most 15 ns.
const fn capture(program: &'static str) -> Target {
    Target { scenario: "flows-1k", program, to: EXCEPTION, most: 1.0, or_beyond: Some(15.0), obstacle: None }
}

/// All of them.
const TARGETS: [Target; 17] = [
    to_headers("flows-1k", EXCEPTION, 1.8, Some(12.0)),
    to_headers("flows-64k", EXCEPTION, 2.5, Some(20.0)),
    to_headers("flows-1m", EXCEPTION, 2.5, Some(20.0)),
    to_headers("syn-flood", EXCEPTION, 1.8, Some(12.0)),
    to_headers("vips-64-pool-1", EXCEPTION, 2.6, Some(20.0)),
    // Always looks up and records on top of what by exception does.
    Target { obstacle: Some(Obstacle::Less(EXCEPTION)), ..to_headers("flows-1k", ALWAYS, 2.2, None) },
    to_line("flows-64k", ALWAYS, 1.6),
    to_line("flows-1m", ALWAYS, 1.6),
    to_line("syn-flood", ALWAYS, 1.3),
    to_table("flows-1k", EXCEPTION, 1.05, Some(1.5)),
    to_table("flows-64k", EXCEPTION, 1.05, Some(1.5)),
    to_table("flows-1m", EXCEPTION, 1.05, Some(1.5)),
    to_table("flows-1k", MOVING_5, 1.15, None),
    to_table("flows-64k", MOVING_5, 1.4, None),
    to_table("flows-1m", MOVING_5, 1.4, None),
    capture(CAPTURE_PORT),
    capture(CAPTURE_REASON),
];

/// The outcome of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Reached.
    Met,
    /// Not reached, and the run shows what stands in the way.
    Obstructed,
    /// Not reached.
    Missed,
}

/// A target and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    /// Whether it was reached.
    pub(super) outcome: Outcome,
    /// One line: what was found, and what was wanted.
    line: String,
}

/// Holds a run against every target whose scenario it measured.
pub(super) fn judge(report: &Report) -> Vec<Judged> {
    TARGETS.iter().filter_map(|target| target.judge(report)).collect()
}

/// The judgements for people.
pub(super) fn text(judged: &[Judged]) -> String {
    let mut text = String::new();
    for Judged { outcome, line } in judged {
        let word = match outcome {
            Outcome::Met => "met       ",
            Outcome::Obstructed => "obstructed",
            Outcome::Missed => "MISSED    ",
        };
        let _ = writeln!(text, "{word} {line}");
    }
    text
}

impl Target {
    fn judge(&self, report: &Report) -> Option<Judged> {
        let row = report.row(self.scenario, self.program)?;
        let ratio = ratio(report, row, self.to)?;
        let beyond = row.nanoseconds.median - report.row(self.scenario, self.to)?.nanoseconds.median;
        let or = self.or_beyond.map_or_else(String::new, |most| format!(", or {most} ns beyond it"));
        let mut line = format!(
            "{} [{}]: {:.2} x {}, {beyond:.1} ns beyond it; target {} x{or}",
            self.program, self.scenario, ratio.median, self.to, self.most
        );
        let outcome = if ratio.median <= self.most || self.or_beyond.is_some_and(|most| beyond <= most) {
            Outcome::Met
        } else if let Some(why) = self.obstacle.and_then(|obstacle| self.obstructed(obstacle, report, row)) {
            let _ = write!(line, "; {why}");
            Outcome::Obstructed
        } else {
            Outcome::Missed
        };
        Some(Judged { outcome, line })
    }

    /// The obstacle that the run shows.
    fn obstructed(&self, obstacle: Obstacle, report: &Report, row: &Row) -> Option<String> {
        match obstacle {
            Obstacle::Less(program) => {
                let least = ratio(report, report.row(self.scenario, program)?, self.to)?.median;
                (least > self.most).then(|| format!("{program}, which does less, takes {least:.2} x"))
            }
            Obstacle::Against(floor) => {
                let ratio = ratio(report, row, floor)?.median;
                (ratio <= self.most).then(|| format!("{ratio:.2} x {floor}"))
            }
        }
    }
}

/// A row's time as a multiple of another of its scenario, within each round.
fn ratio(report: &Report, row: &Row, to: &str) -> Option<Spread> {
    let (other, empty) = (report.row(&row.scenario, to)?, report.row(&row.scenario, "empty")?);
    Spread::from_values(super::stats::ratios(&row.raw, &other.raw, &empty.raw))
}
