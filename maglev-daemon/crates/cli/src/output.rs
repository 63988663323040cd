//! The printer of answers, as text or JSON, and aligned tables. It must not know the answers.

use std::io::{self, Write};
use std::ops::ControlFlow;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::Failure;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Tables and sentences.
    Text,
    /// One JSON document.
    Json,
}

/// An answer that people can read.
pub(super) trait Text {
    /// The text, each line ended.
    fn text(&self) -> String;
}

/// Prints answers in one form.
#[derive(Debug)]
pub(super) struct Printer(Format);

impl Printer {
    pub(super) const fn new(format: Format) -> Self {
        Self(format)
    }

    /// The form that it prints.
    pub(super) const fn format(&self) -> Format {
        self.0
    }

    /// Prints an answer.
    pub(super) fn answer<T: Serialize + Text>(&self, answer: &T) -> Result<(), Failure> {
        match self.0 {
            Format::Text => print(&answer.text()),
            Format::Json => self.json(answer),
        }
    }

    /// Prints the result of a change: a sentence, or the daemon's answer as JSON.
    pub(super) fn done<T: Serialize>(&self, answer: &T, sentence: &str) -> Result<(), Failure> {
        match self.0 {
            Format::Text => print(&format!("{sentence}\n")),
            Format::Json => self.json(answer),
        }
    }

    #[expect(clippy::unused_self, reason = "only a printer of JSON prints it")]
    fn json<T: Serialize>(&self, answer: &T) -> Result<(), Failure> {
        let json = serde_json::to_string_pretty(answer).map_err(|error| Failure::Io("write JSON", error.into()))?;
        print(&format!("{json}\n"))
    }
}

/// Writes to standard output. A closed pipe (`maglev status | head -1`) is no error.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(|_| ())
}

/// Writes to standard output; breaks once the pipe is closed.
pub(super) fn print_on(text: &str) -> Result<ControlFlow<()>, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(Failure::Io("write to standard output", error)),
    }
}

/// Rows under a header, without borders. Columns named in `numbers` are aligned to the right.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    numbers: &[&str],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.map(str::to_uppercase));
    table.add_rows(rows);
    for (column, name) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        if numbers.contains(&name) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

/// A number of bytes with a unit of 1024.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut scaled = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if scaled < 1024.0 {
            break;
        }
        scaled /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{count} B") } else { format!("{scaled:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up_and_end_without_blanks() {
        let rows = [["web1", "5"], ["a", "100"]].map(|row| row.map(str::to_owned));
        let text = table(["name", "weight"], &["weight"], rows.into_iter());
        assert_eq!(text, "NAME  WEIGHT\nweb1       5\na        100\n");
    }

    #[test]
    fn bytes_keep_a_readable_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }
}
