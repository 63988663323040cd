//! Limits log lines of a kind: the first are written, the others are counted until no more come. Pure: it must not know the text of
//! a line.

use std::time::Duration;

/// How long lines are counted together; twice as long each time while a flood goes on.
const WINDOW: Duration = Duration::from_secs(1);
const LONGEST_WINDOW: Duration = Duration::from_secs(8);

/// Lines of a kind that are written in that time.
const WRITTEN: u32 = 8;

/// The kinds of lines of which there may be one for each backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The next hop of an address is resolved.
    Resolved,
    /// The next hop of an address is no longer resolved.
    Unresolved,
    /// Checks found a backend healthy.
    Healthy,
    /// Checks found a backend unhealthy.
    Unhealthy,
}

const KINDS: [Kind; 4] = [Kind::Resolved, Kind::Unresolved, Kind::Healthy, Kind::Unhealthy];

/// Lines in the present window.
#[derive(Debug)]
pub(super) struct Flood {
    /// While the daemon starts, all lines of a kind become one.
    starting: bool,
    ends: Option<Duration>,
    window: Duration,
    /// The end of a flood, unless another line comes.
    calm_at: Duration,
    written: [u32; KINDS.len()],
    held: [u32; KINDS.len()],
    /// Kinds that were held back in the last window: their lines are not written until they stop.
    flooded: [bool; KINDS.len()],
}

impl Flood {
    /// The state while the daemon starts.
    pub(super) const fn starting() -> Self {
        Self {
            starting: true,
            ends: None,
            window: WINDOW,
            calm_at: Duration::ZERO,
            written: [0; KINDS.len()],
            held: [0; KINDS.len()],
            flooded: [false; KINDS.len()],
        }
    }

    /// Whether a line is written now; it is counted if not.
    pub(super) fn admits(&mut self, kind: Kind, now: Duration) -> bool {
        if self.ends.is_none() {
            if self.calm_at <= now {
                (self.window, self.flooded) = (WINDOW, [false; KINDS.len()]);
            }
            self.ends = Some(now + self.window);
        }
        let most = if self.starting || self.flooded[kind as usize] { 0 } else { WRITTEN };
        let written = &mut self.written[kind as usize];
        if *written < most {
            *written += 1;
            return true;
        }
        self.held[kind as usize] += 1;
        false
    }

    /// When [`Self::pass`] has something to return.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.ends.filter(|_| !self.starting)
    }

    /// The lines that were counted and not written, once their window is over.
    pub(super) fn pass(&mut self, now: Duration) -> Vec<(Kind, u32)> {
        if self.deadline().is_none_or(|ends| now < ends) {
            return Vec::new();
        }
        self.end(now)
    }

    /// Ends the start, and returns the lines that were counted until now.
    pub(super) fn started(&mut self, now: Duration) -> Vec<(Kind, u32)> {
        self.starting = false;
        self.end(now)
    }

    fn end(&mut self, now: Duration) -> Vec<(Kind, u32)> {
        (self.ends, self.written) = (None, [0; KINDS.len()]);
        let held = std::mem::take(&mut self.held);
        self.flooded = held.map(|count| count > 0);
        self.window = if self.flooded.contains(&true) { (self.window * 2).min(LONGEST_WINDOW) } else { WINDOW };
        self.calm_at = now + WINDOW;
        KINDS.into_iter().zip(held).filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod faults {
    use super::*;
    use maglev_testing::matrix::Row;

    /// The number of written lines.
    fn written(flood: &mut Flood, kind: Kind, lines: u32, now: Duration) -> usize {
        (0..lines).filter(|_| flood.admits(kind, now)).count()
    }

    #[test]
    fn a_start_with_all_backends_is_one_line() {
        let _row = Row::fault("C14", "32767 next hops at the start: one line");
        let mut flood = Flood::starting();
        assert_eq!(written(&mut flood, Kind::Resolved, 32_767, Duration::ZERO), 0);
        assert_eq!((flood.deadline(), flood.pass(WINDOW * 5)), (None, vec![]), "the start may take long");
        assert_eq!(flood.started(WINDOW * 6), [(Kind::Resolved, 32_767)]);
        assert_eq!(written(&mut flood, Kind::Resolved, 3, WINDOW * 6), 0, "they are late ones of the start");
        assert!(flood.admits(Kind::Unresolved, WINDOW * 6), "each kind on its own");
        assert_eq!((flood.deadline(), flood.pass(WINDOW * 8)), (Some(WINDOW * 8), vec![(Kind::Resolved, 3)]));
        assert_eq!(written(&mut flood, Kind::Resolved, 3, WINDOW * 9), 3, "few lines are written as they come");
    }

    #[test]
    fn a_mass_of_failures_is_a_few_lines_and_a_count() {
        let _row = Row::fault("C14", "20000 backends fall in a second: 8 lines and a count");
        let mut flood = Flood::starting();
        flood.started(Duration::ZERO);
        assert_eq!(written(&mut flood, Kind::Unhealthy, 20_000, Duration::ZERO), 8);
        assert!(flood.admits(Kind::Healthy, Duration::ZERO), "each kind on its own");
        assert_eq!(flood.pass(WINDOW / 2), []);
        assert_eq!((flood.deadline(), flood.pass(WINDOW)), (Some(WINDOW), vec![(Kind::Unhealthy, 19_992)]));
        assert_eq!((flood.deadline(), flood.pass(WINDOW * 9)), (None, vec![]));
    }

    #[test]
    fn a_flapping_route_is_a_few_lines_a_second() {
        let mut row = Row::fault("C14", "a route that flaps beneath 500 backends for a minute");
        let (mut flood, mut lines) = (Flood::starting(), 0);
        flood.started(Duration::ZERO);
        for tenth in 0..600 {
            let now = Duration::from_millis(tenth * 100);
            lines += flood.pass(now).len();
            let kind = if tenth % 2 == 0 { Kind::Resolved } else { Kind::Unresolved };
            lines += written(&mut flood, kind, 500, now);
        }
        assert!(lines <= 40, "{lines} lines");
        row.says(format!("{lines} lines for 300000 changes"));
    }
}
