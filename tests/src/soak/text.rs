//! The soak for people: a line for each cycle, and one for each verdict.

use std::time::{Duration, Instant};

use super::{
    Absence, LEARNING, SILENCE,
    cycle::Counts,
    usage::{self, Usage},
    verdict::Verdict,
};
use crate::client::held::{Break, Kind, Report, Seen};

/// The columns. Those of a load balancer: resident memory and of it the process's own, in MB; descriptors, threads, pinned objects,
/// BPF maps, their mappings, programs, links.
pub(super) fn head() -> String {
    let node = |name: &str| {
        format!(
            " | {:>3} {:>5} {:>5} {:>3} {:>3} {:>4} {:>4} {:>4} {:>4} {:>4}",
            name, "MB", "own", "fds", "thr", "pins", "maps", "mmap", "prog", "link"
        )
    };
    format!(
        "{:>6} {:>5} {:>7} {:>8} {:>8} {:>6} {:>6} {:>7}{}{}\n",
        "time",
        "cycle",
        "changes",
        "restarts",
        "begun",
        "broken",
        "failed",
        "late ms",
        node("lb1"),
        node("lb2")
    )
}

/// A connection that broke, and the steps of the cycle, in seconds since the run began.
pub(super) fn broken(lost: &Break, began: Instant, steps: &[(Instant, String)]) -> String {
    let at = |moment: Instant| moment.saturating_duration_since(began).as_secs_f64();
    let steps: String = steps.iter().map(|(moment, step)| format!("    {:8.3}  {step}\n", at(*moment))).collect();
    format!("    {:8.3} to {:.3}  BROKEN: {lost}\n{steps}", at(lost.born), at(lost.ended))
}

/// A cycle.
pub(super) fn line(at: Duration, cycle: usize, counts: Counts, seen: Seen, usages: &[Option<Usage>]) -> String {
    let node = |usage: &Option<Usage>| match usage {
        Some(Usage { resident, own, counts }) => {
            let usage::Counts { descriptors, threads, pins, maps, mappings, programs, links } = counts;
            let [resident, own] = [resident, own].map(|bytes| *bytes as f64 / 1e6);
            format!(
                " | {:>3} {resident:>5.1} {own:>5.1} {descriptors:>3} {threads:>3} {pins:>4} {maps:>4} {mappings:>4} \
                 {programs:>4} {links:>4}",
                ""
            )
        }
        None => format!(" | {:>3} {:<44}", "", "no daemon"),
    };
    let Seen { open: _, arrivals, broken, failed, late } = seen;
    let Counts { changes, killed, ended, upgraded, scrapes: _ } = counts;
    let at = at.as_secs();
    format!(
        "{:>3}:{:02} {cycle:>5} {changes:>7} {:>8} {arrivals:>8} {broken:>6} {failed:>6} {:>7}{}\n",
        at / 60,
        at % 60,
        killed + ended + upgraded,
        late.as_millis(),
        usages.iter().map(node).collect::<String>()
    )
}

/// One verdict.
pub(super) fn verdict(verdict: &Verdict) -> String {
    let Verdict { holds, subject, found } = verdict;
    format!("{:<6} {subject}: {found}\n", if *holds { "ok" } else { "FAILED" })
}

/// The verdict over the time without a daemon.
pub(super) fn absence(absence: &Absence) -> Verdict {
    let Absence { lasted, before, after } = absence;
    let [broken, failed] = [after.broken - before.broken, after.failed - before.failed];
    let begun = after.arrivals - before.arrivals;
    let found = format!("{} s, {begun} new connections: {broken} broken, {failed} failed", lasted.as_secs());
    Verdict::new(begun > 0 && broken == 0 && failed == 0, "lb1: no daemon", found)
}

/// The verdict over all connections, each of which has come to its end.
pub(super) fn connections(reports: &[Report], cycles: usize) -> Verdict {
    let lost: Vec<_> = reports.iter().flat_map(|report| &report.broken).collect();
    let failed = lost.iter().filter(|lost| lost.home.is_none()).count();
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let mut found = format!(
        "{} held and {} new ones over {cycles} cycles: {} broken, {failed} failed",
        sum(|report| report.held as u64),
        sum(|report| report.counts.arrivals),
        lost.len() - failed
    );
    for report in reports.iter().filter(|report| !report.broken.is_empty()) {
        found = format!("{found}: {}", report.summary(&Kind::ALL));
    }
    let late = reports.iter().map(|report| report.counts.late).max().unwrap_or_default();
    found = format!("{found}; the client was late by at most {} ms", late.as_millis());
    if late > LEARNING - SILENCE {
        found = format!(
            "{found}: a connection may have been silent for longer than its slot learned, this machine is too busy"
        );
    }
    Verdict::new(lost.is_empty(), "connections", found)
}

/// What was done: a run that did nothing proves nothing.
pub(super) fn done(counts: Counts) -> Verdict {
    let Counts { changes, killed, ended, upgraded, scrapes } = counts;
    let holds = [changes, killed, ended, upgraded, scrapes].iter().all(|count| *count > 0);
    let found = format!("{changes} changes, {killed} kills, {ended} restarts, {upgraded} upgrades, {scrapes} scrapes");
    Verdict::new(holds, "done", found)
}
