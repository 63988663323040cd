//! Keeps lines that come by thousands from flooding the log: the first of a kind in a second are written, the others are counted. Pure: it must not
//! know what a line says.

use std::time::Duration;

/// How long lines of a kind are counted together.
const WINDOW: Duration = Duration::from_secs(1);

/// Lines of a kind that are written in that time.
const WRITTEN: u32 = 8;

/// What there can be a line of per backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The next hop of an address is resolved.
    Resolved,
    /// It is not any more.
    Unresolved,
    /// Checks found a backend healthy.
    Healthy,
    /// Checks found a backend unhealthy.
    Unhealthy,
}

const KINDS: [Kind; 4] = [Kind::Resolved, Kind::Unresolved, Kind::Healthy, Kind::Unhealthy];

/// Lines in the present second.
#[derive(Debug)]
pub(super) struct Flood {
    /// While the daemon starts, all lines of a kind become one.
    starting: bool,
    ends: Option<Duration>,
    written: [u32; KINDS.len()],
    held: [u32; KINDS.len()],
}

impl Flood {
    /// The daemon starts.
    pub(super) const fn starting() -> Self {
        Self { starting: true, ends: None, written: [0; KINDS.len()], held: [0; KINDS.len()] }
    }

    /// Whether a line is written now; it is counted if not.
    pub(super) fn admits(&mut self, kind: Kind, now: Duration) -> bool {
        self.ends.get_or_insert(now + WINDOW);
        let most = if self.starting { 0 } else { WRITTEN };
        let written = &mut self.written[kind as usize];
        if *written < most {
            *written += 1;
            return true;
        }
        self.held[kind as usize] += 1;
        false
    }

    /// When [`Self::pass`] has something to tell.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.ends.filter(|_| !self.starting)
    }

    /// The lines that were counted and not written, once their second is over.
    pub(super) fn pass(&mut self, now: Duration) -> Vec<(Kind, u32)> {
        if self.deadline().is_none_or(|ends| now < ends) {
            return Vec::new();
        }
        self.end()
    }

    /// The daemon has started: the lines that were counted until now.
    pub(super) fn started(&mut self) -> Vec<(Kind, u32)> {
        self.starting = false;
        self.end()
    }

    fn end(&mut self) -> Vec<(Kind, u32)> {
        let Self { ends, written, held, starting: _ } = self;
        (*ends, *written) = (None, [0; KINDS.len()]);
        let held = std::mem::take(held);
        KINDS.into_iter().zip(held).filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod faults {
    use super::*;
    use crate::matrix::Row;

    /// How many of so many lines are written.
    fn written(flood: &mut Flood, kind: Kind, lines: u32, now: Duration) -> usize {
        (0..lines).filter(|_| flood.admits(kind, now)).count()
    }

    #[test]
    fn a_start_with_all_backends_is_one_line() {
        let _row = Row::fault("C14", "32767 next hops at the start: one line");
        let mut flood = Flood::starting();
        assert_eq!(written(&mut flood, Kind::Resolved, 32_767, Duration::ZERO), 0);
        assert_eq!((flood.deadline(), flood.pass(WINDOW * 5)), (None, vec![]), "the start may take long");
        assert_eq!(flood.started(), [(Kind::Resolved, 32_767)]);
        assert_eq!(written(&mut flood, Kind::Resolved, 3, WINDOW * 5), 3, "few lines are written as they come");
    }

    #[test]
    fn a_mass_of_failures_is_a_few_lines_and_a_count() {
        let _row = Row::fault("C14", "20000 backends fall in a second: 8 lines and a count");
        let mut flood = Flood::starting();
        flood.started();
        assert_eq!(written(&mut flood, Kind::Unhealthy, 20_000, Duration::ZERO), 8);
        assert!(flood.admits(Kind::Healthy, Duration::ZERO), "each kind by itself");
        assert_eq!(flood.pass(WINDOW / 2), []);
        assert_eq!((flood.deadline(), flood.pass(WINDOW)), (Some(WINDOW), vec![(Kind::Unhealthy, 19_992)]));
        assert_eq!((flood.deadline(), flood.pass(WINDOW * 9)), (None, vec![]));
    }

    #[test]
    fn a_flapping_route_is_a_few_lines_a_second() {
        let mut row = Row::fault("C14", "a route that flaps beneath 500 backends for a minute");
        let (mut flood, mut lines) = (Flood::starting(), 0);
        flood.started();
        for tenth in 0..600 {
            let now = Duration::from_millis(tenth * 100);
            lines += flood.pass(now).len();
            let kind = if tenth % 2 == 0 { Kind::Resolved } else { Kind::Unresolved };
            lines += written(&mut flood, kind, 500, now);
        }
        assert!(lines <= 61 * 18, "{lines} lines");
        row.says(format!("{lines} lines for 300000 changes"));
    }
}
