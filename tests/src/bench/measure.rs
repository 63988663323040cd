//! Measuring: programs take turns within each round, and every batch proves what became of its packets.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use maglev_common::counters::Counter;
use maglev_dataplane::rig::{Batch, Candidate, CandidateSettings, Floor, Measured, Rig, TX, Turn};
use maglev_dataplane::{CaptureFilter, CaptureTarget};
use maglev_model::Limits;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::scenario::Scenario;
use super::stats;

/// Runs of a turn that are timed: about two milliseconds, less than the scheduler's slice.
const TIMED: u32 = 30_000;
/// Turns that a program's figure in a round is the median of; fewer where they are long.
const TURNS: [u32; 2] = [15, 5];
/// Runs before a turn's time begins that make it long.
const LONG: u32 = 1 << 18;
/// The interface's MAC address.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A program to measure beside the floors.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// Its name in the table.
    pub(super) name: String,
    /// An object that takes our maps; `None` for the one that ships.
    pub(super) object: Option<Vec<u8>>,
    /// Its decision rule.
    pub(super) mode: Mode,
    /// Whether each packet costs one call of a helper more than it has to.
    pub(super) slowed: bool,
}

/// The decision rule of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The table alone: a load-time mode for measurement.
    TableOnly,
    /// The table, and the flow table by exception: of a hundred slots so many are in transition, and learning.
    Exception(u32),
    /// The flow table for every packet.
    Always,
    /// By exception, while a capture runs that takes none of the packets.
    Capturing(Capture),
}

/// What a capture takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capture {
    /// Packets from or to a port.
    Port,
    /// Packets that were dropped for a reason.
    Reason,
}

impl Capture {
    fn filter(self) -> CaptureFilter {
        let (counters, port) = match self {
            Self::Port => (u64::MAX, Some(1)),
            Self::Reason => (1 << Counter::TooBig as u64, None),
        };
        CaptureFilter {
            target: Some(CaptureTarget::default()),
            counters,
            client: None,
            port,
            tcp_flags: (0, 0),
            one_in: 1,
            kept: 128,
            rate: 10_000,
            lasts: Duration::MAX,
        }
    }
}

impl Mode {
    /// How many of so many flows the flow table holds.
    pub(super) const fn holds(self, flows: u64) -> u64 {
        match self {
            Self::TableOnly | Self::Capturing(_) => 0,
            Self::Exception(moving) => flows * moving as u64 / 100,
            Self::Always => flows,
        }
    }
}

/// One program's times in each round.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// Its name.
    pub(super) name: String,
    /// Nanoseconds per packet in each round, the harness's own included.
    pub(super) rounds: Vec<f64>,
    /// Packets measured, each of them shown to have been treated as it should.
    pub(super) packets: u64,
    /// Instructions the verifier walked; of candidates.
    pub(super) instructions: Option<u32>,
}

/// One program and what is expected of it.
pub(super) struct Entry {
    name: String,
    kind: Kind,
}

enum Kind {
    Floor(Floor),
    /// And the bytes it adds to each packet.
    Candidate(Box<Candidate>, u64),
}

/// The floor with one random line of 8 MB.
pub(super) const LINE: &str = "headers+line";
/// The floor with one random line of as many bytes as the scenario's flow table has.
pub(super) const FLOW_LINE: &str = "headers+flow line";

/// The name of a floor in tables and files.
pub(super) const fn floor_name(floor: Floor) -> &'static str {
    match floor {
        Floor::Empty => "empty",
        Floor::Transmit => "transmit",
        Floor::Headers => "headers",
        Floor::HeadersLine => LINE,
        Floor::HeadersFlowLine => FLOW_LINE,
    }
}

/// Keeps this thread on one CPU: test runs happen on the caller's CPU. Returns which.
///
/// # Errors
/// The kernel refuses it.
pub(super) fn stay_on_one_cpu() -> Result<usize> {
    let own = Pid::from_raw(0);
    let allowed = sched_getaffinity(own).context("sched_getaffinity")?;
    // Interrupts tend to be served by the first ones.
    let last = (0..CpuSet::count()).rev().find(|&cpu| allowed.is_set(cpu) == Ok(true)).context("no CPU is allowed")?;
    let mut one = CpuSet::new();
    one.set(last).context("sched_setaffinity")?;
    sched_setaffinity(own, &one).context("sched_setaffinity")?;
    Ok(last)
}

/// Measures one scenario. `progress` is called at the start of each round.
///
/// Everything is loaded anew for each round: where the kernel happens to put a program's code is worth a nanosecond, and
/// the median is to be of many such places.
///
/// # Errors
/// A program cannot be loaded or run, or a packet was not treated as it should.
pub(super) fn scenario(
    scenario: &Scenario,
    programs: &[Program],
    rounds: usize,
    mut progress: impl FnMut(usize),
) -> Result<Vec<Series>> {
    let frame = scenario.frame();
    let batch = batch(scenario, &frame);
    let mut all: Vec<Series> = Vec::new();
    for round in 0..rounds {
        progress(round);
        let mut rig = Rig::load()?;
        let mut entries = entries(scenario, programs)?;
        settle(&mut rig, &Batch { warming: scenario.settling(), timed: 1, rounds: 1, ..batch.clone() }, &mut entries)?;
        let measured = run(&mut rig, &batch, &mut entries)?;
        if all.is_empty() {
            all.extend(entries.iter_mut().map(Entry::series));
        }
        for (series, turns) in all.iter_mut().zip(measured.nanoseconds) {
            series.rounds.extend(stats::median(turns));
            series.packets += measured.runs_each;
        }
    }
    Ok(all)
}

/// The batch of a scenario.
pub(super) fn batch<'a>(scenario: &Scenario, frame: &'a [u8]) -> Batch<'a> {
    let (flow_mask, flow_step) = scenario.flow_numbers();
    let vip_mask = u64::from(scenario.vips) - 1;
    Batch {
        frame,
        tags: scenario.tags(),
        gap: scenario.gap(),
        flow_mask,
        flow_step,
        vip_mask,
        flow_lines: scenario.flow_sets(Mode::Always),
        warming: scenario.warming(),
        timed: TIMED,
        rounds: TURNS[usize::from(scenario.warming() > LONG)],
    }
}

/// Lets each program see the flows, and checks what it answers.
fn settle(rig: &mut Rig, batch: &Batch<'_>, entries: &mut [Entry]) -> Result<()> {
    for entry in entries {
        let measured = run(rig, batch, std::slice::from_mut(entry))?;
        if entry.sends() && measured.action != TX {
            bail!("{}: answered {} to the last packet, expected {TX} (XDP_TX)", entry.name, measured.action);
        }
    }
    Ok(())
}

/// Runs a batch and checks that every packet of it grew, and that every candidate says it sent all of its packets.
fn run(rig: &mut Rig, batch: &Batch<'_>, entries: &mut [Entry]) -> Result<Measured> {
    let before: Vec<_> = entries.iter().map(Entry::transmitted).collect();
    let mut turns: Vec<_> = entries.iter_mut().map(Entry::turn).collect();
    let measured = rig.run(batch, &mut turns)?;
    let (grown, runs) = (measured.grown, measured.runs);
    ensure!(grown == runs, "{grown} of {runs} packets were encapsulated");
    for (n, (entry, before)) in entries.iter().zip(before).enumerate() {
        let (Some(before), Some(after)) = (before, entry.transmitted()) else { continue };
        // The batch's last run is one more than its turns.
        let expected = measured.runs_each + u64::from(n == 0);
        let (name, sent) = (&entry.name, after - before);
        ensure!(sent == expected, "{name}: {sent} of {expected} packets were transmitted");
    }
    Ok(measured)
}

fn entries(scenario: &Scenario, programs: &[Program]) -> Result<Vec<Entry>> {
    let mut entries: Vec<_> = Floor::ALL.into_iter().map(Entry::floor).collect();
    entries.extend(candidates(scenario, programs)?);
    Ok(entries)
}

/// The programs that are judged, loaded and given their tables.
pub(super) fn candidates(scenario: &Scenario, programs: &[Program]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for program in programs {
        let capture = match program.mode {
            Mode::Capturing(capture) => Some(capture.filter()),
            _ => None,
        };
        let settings = CandidateSettings {
            object: program.object.as_deref(),
            table_only: program.mode == Mode::TableOnly,
            slowed: program.slowed,
            capture: capture.as_ref(),
            flow_sets: scenario.flow_sets(program.mode),
            limits: Limits::default(),
            mac: MAC,
        };
        let candidate =
            Candidate::load(&settings, &scenario.steps(program.mode)?).with_context(|| program.name.clone())?;
        entries.push(Entry {
            name: program.name.clone(),
            kind: Kind::Candidate(Box::new(candidate), scenario.overhead()),
        });
    }
    Ok(entries)
}

impl Entry {
    pub(super) fn floor(floor: Floor) -> Self {
        Self { name: floor_name(floor).to_owned(), kind: Kind::Floor(floor) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is to send every packet back.
    pub(super) fn sends(&self) -> bool {
        !matches!(self.kind, Kind::Floor(Floor::Empty))
    }

    pub(super) fn turn(&mut self) -> Turn<'_> {
        match &mut self.kind {
            Kind::Floor(floor) => Turn::Floor(*floor),
            Kind::Candidate(candidate, overhead) => Turn::Candidate(candidate, *overhead),
        }
    }

    /// The program's own counts.
    fn transmitted(&self) -> Option<u64> {
        match &self.kind {
            Kind::Floor(_) => None,
            Kind::Candidate(candidate, _) => Some(candidate.transmitted()),
        }
    }

    /// Instructions the verifier walked to accept a candidate.
    pub(super) fn instructions(&mut self) -> Option<u32> {
        match &mut self.kind {
            Kind::Floor(_) => None,
            Kind::Candidate(candidate, _) => candidate.verified_instructions(),
        }
    }

    /// The kernel's number of a candidate.
    pub(super) fn id(&mut self) -> Option<u32> {
        match &mut self.kind {
            Kind::Floor(_) => None,
            Kind::Candidate(candidate, _) => candidate.id().ok(),
        }
    }

    /// A series of it without any round yet.
    fn series(&mut self) -> Series {
        Series { name: self.name.clone(), rounds: Vec::new(), packets: 0, instructions: self.instructions() }
    }
}
