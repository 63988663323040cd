//! The figures of a run: what `--json` writes and the table for people.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::live;
use super::machine::Machine;
use super::measure::{FLOW_LINE, LINE, Series};
use super::stats::{self, Spread};

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Report {
    /// Where it was made.
    pub(super) machine: Machine,
    /// The SHA-256 of the object that ships, as `maglevd --version` prints it.
    pub(super) object_sha256: String,
    /// Rounds in each row.
    pub(super) rounds: usize,
    /// The rows.
    pub(super) rows: Vec<Row>,
    /// The rows of live frames.
    #[serde(default)]
    pub(super) live: Vec<live::Row>,
}

/// One program in one scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    /// The scenario's name.
    pub(super) scenario: String,
    /// The same for people.
    pub(super) title: String,
    /// The program's name.
    pub(super) program: String,
    /// Packets measured; all were encapsulated and sent, if the program is to do so.
    pub(super) packets: u64,
    /// Instructions the verifier walked; of candidates.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) instructions: Option<u32>,
    /// Nanoseconds per packet beyond *empty*; of *empty* itself, what the harness takes.
    pub(super) nanoseconds: Spread,
    /// The same as a multiple of what *headers* takes beyond *empty*; not of *empty*.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) to_headers: Option<Spread>,
    /// The same as a multiple of what *headers and one random line* takes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) to_line: Option<Spread>,
    /// The same as a multiple of what *headers and one random line of the flow table's size* takes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) to_flow_line: Option<Spread>,
    /// Nanoseconds per packet in each round, the harness's own included.
    pub(super) raw: Vec<f64>,
}

/// The rows of one scenario.
pub(super) fn rows(scenario: &str, title: &str, all: &[Series]) -> Vec<Row> {
    let rounds = |name: &str| all.iter().find(|series| series.name == name).map_or(&[][..], |series| &series.rounds);
    let [empty, headers, line, flow_line] = ["empty", "headers", LINE, FLOW_LINE].map(rounds);
    let row = |series: &Series| {
        let own = &series.rounds;
        let is_empty = series.name == "empty";
        let nanoseconds = if is_empty {
            Spread::from_values(own.iter().copied())
        } else {
            Spread::from_values(stats::beyond(own, empty))
        }?;
        let ratio = |floor| Spread::from_values(stats::ratios(own, floor, empty)).filter(|_| !is_empty);
        Some(Row {
            scenario: scenario.to_owned(),
            title: title.to_owned(),
            program: series.name.clone(),
            packets: series.packets,
            instructions: series.instructions,
            nanoseconds,
            to_headers: ratio(headers),
            to_line: ratio(line),
            to_flow_line: ratio(flow_line),
            raw: own.clone(),
        })
    };
    all.iter().filter_map(row).collect()
}

impl Report {
    /// The row of a program in a scenario.
    pub(super) fn row(&self, scenario: &str, program: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.scenario == scenario && row.program == program)
    }

    /// The run for people.
    pub(super) fn text(&self) -> String {
        let mut text = self.machine.text();
        let _ = writeln!(text, "object      SHA-256 {}", self.object_sha256);
        let mut named: Vec<&str> = Vec::new();
        for row in &self.rows {
            if let (Some(count), false) = (row.instructions, named.contains(&row.program.as_str())) {
                named.push(&row.program);
                let _ = writeln!(text, "            {}: the verifier walks {count} instructions", row.program);
            }
        }
        let _ = writeln!(
            text,
            "\nnanoseconds a packet beyond the empty program; ratios within a round, {} rounds: median (p10-p90)\n",
            self.rounds
        );
        let mut last = "";
        for row in &self.rows {
            if row.scenario != last {
                last = &row.scenario;
                let _ = writeln!(text, "{} [{}]", row.title, row.scenario);
                let columns = ("ns", "x headers", "x headers+line", "x headers+flow line");
                let _ = writeln!(
                    text,
                    "  {:18} {:>22} {:>20} {:>20} {:>20}",
                    "", columns.0, columns.1, columns.2, columns.3
                );
            }
            let ratio = |spread: Option<Spread>| spread.map_or_else(String::new, |spread| figure(spread, 2));
            let nanoseconds = figure(row.nanoseconds, 1);
            let (headers, line, flow_line) = (ratio(row.to_headers), ratio(row.to_line), ratio(row.to_flow_line));
            let _ = writeln!(text, "  {:18} {nanoseconds:>22} {headers:>20} {line:>20} {flow_line:>20}", row.program);
        }
        text.push_str(&live::text(&self.live));
        let packets: u64 = self.rows.iter().map(|row| row.packets).sum();
        let _ = writeln!(text, "\n{packets} packets; every one that was to be was encapsulated and transmitted");
        text
    }
}

pub(super) fn figure(Spread { p10, median, p90 }: Spread, decimals: usize) -> String {
    format!("{median:.decimals$} ({p10:.decimals$}-{p90:.decimals$})")
}
