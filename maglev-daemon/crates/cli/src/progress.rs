//! A line of progress of a waiting command. It must not know the operation.

use std::io::Write;
use std::time::Duration;

/// The interval between lines on an output that is no terminal.
const LINE: Duration = Duration::from_secs(5);

/// A line of progress: overwritten on a terminal, else written again at intervals if it changed.
pub(super) struct Progress<W> {
    out: W,
    terminal: bool,
    shown: Option<(String, Duration)>,
}

impl<W: Write> Progress<W> {
    pub(super) fn new(out: W, terminal: bool) -> Self {
        Self { out, terminal, shown: None }
    }

    /// Shows a line; `now` is the time since a fixed start. Write errors are ignored: the wait goes on.
    pub(super) fn show(&mut self, line: &str, now: Duration) {
        let due = match &self.shown {
            None => true,
            Some((shown, at)) => shown != line && (self.terminal || now.saturating_sub(*at) >= LINE),
        };
        if !due {
            return;
        }
        let _ = match self.terminal {
            // To the begin of the line; erases the rest of a longer one.
            true => write!(self.out, "\r{line}\x1b[K"),
            false => writeln!(self.out, "{line}"),
        };
        let _ = self.out.flush();
        self.shown = Some((line.to_owned(), now));
    }

    /// Erases the line on a terminal, before the result is printed.
    pub(super) fn clear(&mut self) {
        if self.terminal && self.shown.is_some() {
            let _ = write!(self.out, "\r\x1b[K");
            let _ = self.out.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output for these lines, each shown at a second.
    fn written(terminal: bool, lines: &[(&str, u64)]) -> String {
        let mut progress = Progress::new(Vec::new(), terminal);
        lines.iter().for_each(|(line, second)| progress.show(line, Duration::from_secs(*second)));
        progress.clear();
        String::from_utf8(progress.out).unwrap()
    }

    #[test]
    fn progress_is_one_line_on_a_terminal_and_a_line_now_and_then_elsewhere() {
        let lines = [("a", 0), ("a", 1), ("b", 2), ("c", 5), ("c", 11), ("d", 12)];
        assert_eq!(written(true, &lines), "\ra\x1b[K\rb\x1b[K\rc\x1b[K\rd\x1b[K\r\x1b[K");
        assert_eq!(written(false, &lines), "a\nc\nd\n");
        assert_eq!(written(true, &[]), "");
    }
}
