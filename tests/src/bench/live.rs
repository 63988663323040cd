//! Live frames: the programs run natively on a veth, on packets that are sent into it and counted as they come back.

use std::fmt::Write as _;
use std::thread;

use anyhow::{Context, Result, ensure};
use maglev_dataplane::rig::{Batch, Floor, Live, VethRig};
use serde::{Deserialize, Serialize};

use super::measure::{self, Entry, Program};
use super::scenario::Scenario;
use super::stats::{self, Spread};

/// Packets a program's figure in a round is made of.
const PACKETS: u32 = 200_000;
/// The scenarios worth showing: the rig's own noise hides what sets the others apart.
const SCENARIOS: [&str; 4] = ["flows-1k", "flows-64k", "ipv6", "bytes-1400"];
/// The floors that make sense here.
const FLOORS: [Floor; 2] = [Floor::Empty, Floor::Headers];

/// One program in one scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    /// The scenario's name.
    pub(super) scenario: String,
    /// The same for people.
    pub(super) title: String,
    /// The program's name.
    pub(super) program: String,
    /// Packets sent, all rounds together.
    pub(super) sent: u64,
    /// Packets that came back, encapsulated; all of them, if the program is to send them.
    pub(super) returned: u64,
    /// Nanoseconds in the program for a packet, beyond *empty*; of *empty* itself, what the kernel's statistics add.
    pub(super) nanoseconds: Spread,
    /// Million packets per second from end to end, generator and sink included.
    pub(super) million_per_second: Spread,
}

/// One program's results in each round.
struct Series {
    name: String,
    rounds: Vec<Live>,
}

/// Measures the scenarios of a list that are worth it.
///
/// # Errors
/// The kernel sends no live frames, or a packet was lost or not encapsulated.
pub(super) fn rows(
    scenarios: &[&Scenario],
    programs: &[Program],
    rounds: u16,
    mut progress: impl FnMut(&str, u16),
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for scenario in scenarios.iter().filter(|scenario| SCENARIOS.contains(&scenario.name)) {
        let mut all: Vec<Series> = Vec::new();
        for round in 0..rounds {
            progress(scenario.name, round);
            // A thread of its own, whose network namespace ends with it.
            let measured = thread::scope(|scope| match scope.spawn(|| self::round(scenario, programs)).join() {
                Ok(measured) => measured,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            for (n, (name, live)) in measured.with_context(|| scenario.name)?.into_iter().enumerate() {
                if round == 0 {
                    all.push(Series { name, rounds: Vec::new() });
                }
                all[n].rounds.push(live);
            }
        }
        rows.extend(summary(scenario, &all));
    }
    Ok(rows)
}

fn round(scenario: &Scenario, programs: &[Program]) -> Result<Vec<(String, Live)>> {
    let frame = scenario.frame();
    let batch = measure::batch(scenario, &frame);
    let mut rig = VethRig::new()?;
    let mut entries: Vec<Entry> = FLOORS.into_iter().map(Entry::floor).collect();
    entries.extend(measure::candidates(scenario, programs)?);
    entries.iter_mut().map(|entry| one(&mut rig, &batch, scenario, entry)).collect()
}

fn one(rig: &mut VethRig, batch: &Batch<'_>, scenario: &Scenario, entry: &mut Entry) -> Result<(String, Live)> {
    rig.run(batch, &mut entry.turn(), scenario.settling())?;
    let live = rig.run(batch, &mut entry.turn(), PACKETS)?;
    let Live { sent, returned, grown, .. } = live;
    let name = entry.name().to_owned();
    if entry.sends() {
        ensure!(
            returned == sent && grown == sent,
            "{name}: of {sent} packets {returned} came back, {grown} encapsulated"
        );
    }
    Ok((name, live))
}

fn summary(scenario: &Scenario, all: &[Series]) -> Vec<Row> {
    let nanoseconds = |series: &Series| series.rounds.iter().map(|live| live.nanoseconds).collect::<Vec<_>>();
    let empty = all.first().map(nanoseconds).unwrap_or_default();
    let row = |(n, series): (usize, &Series)| {
        let own = nanoseconds(series);
        let spread = if n == 0 { Spread::from_values(own) } else { Spread::from_values(stats::beyond(&own, &empty)) };
        let rate = |live: &Live| live.sent as f64 / live.duration.as_secs_f64() / 1e6;
        Some(Row {
            scenario: scenario.name.to_owned(),
            title: scenario.title.to_owned(),
            program: series.name.clone(),
            sent: series.rounds.iter().map(|live| live.sent).sum(),
            returned: series.rounds.iter().map(|live| live.returned).sum(),
            nanoseconds: spread?,
            million_per_second: Spread::from_values(series.rounds.iter().map(rate))?,
        })
    };
    all.iter().enumerate().filter_map(row).collect()
}

/// The rows for people.
pub(super) fn text(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut last = "";
    for row in rows {
        if row.scenario != last {
            last = &row.scenario;
            let columns = ("ns", "Mpps end to end", "came back");
            let _ = writeln!(text, "{} on a veth [{}]", row.title, row.scenario);
            let _ = writeln!(text, "  {:16} {:>24} {:>22} {:>22}", "", columns.0, columns.1, columns.2);
        }
        let (ns, rate) = (super::report::figure(row.nanoseconds, 1), super::report::figure(row.million_per_second, 2));
        let back = format!("{} of {}", row.returned, row.sent);
        let _ = writeln!(text, "  {:16} {ns:>24} {rate:>22} {back:>22}", row.program);
    }
    text
}
