//! Measuring: programs take turns within each round, and every batch proves what became of its packets.

use anyhow::{Context, Result, bail, ensure};
use maglev_common::settings::Tracking;
use maglev_daemon::dataplane::rig::{Batch, Candidate, CandidateSettings, Floor, Rig, TX};
use maglev_daemon::model::Limits;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::scenario::Scenario;
use super::stats;

/// Runs in a stretch: less than the scheduler's slice, so that on a busy machine most stretches are not interrupted.
const STRETCH: u32 = 10_000;
/// Stretches a program's figure in a round is the median of.
const STRETCHES: u32 = 51;
/// Runs before them, in which the caches fill with what this program uses.
const WARMING: u32 = 100_000;
/// The interface's MAC address.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A program to measure beside the floors.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// Its name in the table.
    pub(super) name: String,
    /// An object that takes our maps; `None` for the one that ships.
    pub(super) object: Option<Vec<u8>>,
    /// When it consults the flow table.
    pub(super) tracking: Tracking,
}

/// What one program took in each round.
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
struct Entry {
    name: String,
    kind: Kind,
    overhead: u64,
    rounds: Vec<f64>,
    packets: u64,
}

enum Kind {
    Floor(Floor),
    Candidate(Box<Candidate>),
}

/// The name of a floor in tables and files.
pub(super) const fn floor_name(floor: Floor) -> &'static str {
    match floor {
        Floor::Empty => "empty",
        Floor::Transmit => "transmit",
        Floor::Headers => "headers",
        Floor::HeadersLine => "headers+line",
    }
}

/// Keeps this thread on one CPU: test runs happen on the CPU of whoever asks for them. Tells which.
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

/// Measures one scenario. `progress` is told of each round as it begins.
///
/// # Errors
/// A program cannot be loaded or run, or a packet was not treated as it should.
pub(super) fn scenario(
    rig: &mut Rig,
    scenario: &Scenario,
    programs: &[Program],
    rounds: usize,
    mut progress: impl FnMut(usize),
) -> Result<Vec<Series>> {
    let frame = scenario.frame();
    let (flow_mask, flow_step) = scenario.flow_numbers();
    let batch = Batch {
        frame: &frame,
        flow_mask,
        flow_step,
        vip_mask: u64::from(scenario.vips) - 1,
        overhead: 0,
        warming: WARMING.max(scenario.settling() / 8),
        stretches: STRETCHES,
        stretch: STRETCH,
    };
    let mut entries = entries(scenario, programs)?;
    let count = entries.len();
    for entry in &mut entries {
        entry.choose(rig)?;
        entry.run(rig, &Batch { warming: scenario.settling(), ..batch.clone() })?;
    }
    for round in 0..rounds {
        progress(round);
        for turn in 0..count {
            let entry = &mut entries[(round + turn) % count];
            entry.choose(rig)?;
            let stretches = entry.run(rig, &batch)?;
            entry.rounds.extend(stats::median(stretches));
            entry.packets += u64::from(batch.runs());
        }
    }
    Ok(entries.into_iter().map(Entry::series).collect())
}

fn entries(scenario: &Scenario, programs: &[Program]) -> Result<Vec<Entry>> {
    let mut entries: Vec<_> = Floor::ALL.into_iter().map(Entry::floor).collect();
    let steps = scenario.steps()?;
    for program in programs {
        let settings = CandidateSettings {
            object: program.object.as_deref(),
            tracking: program.tracking,
            flow_sets: scenario.flow_sets(),
            limits: Limits::default(),
            mac: MAC,
        };
        let candidate = Candidate::load(&settings, &steps).with_context(|| program.name.clone())?;
        entries.push(Entry {
            name: program.name.clone(),
            kind: Kind::Candidate(Box::new(candidate)),
            overhead: scenario.overhead(),
            rounds: Vec::new(),
            packets: 0,
        });
    }
    Ok(entries)
}

impl Entry {
    fn floor(floor: Floor) -> Self {
        let overhead = match floor {
            Floor::Empty | Floor::Transmit => 0,
            Floor::Headers | Floor::HeadersLine => 20,
        };
        let name = floor_name(floor).to_owned();
        Self { name, kind: Kind::Floor(floor), overhead, rounds: Vec::new(), packets: 0 }
    }

    fn choose(&mut self, rig: &mut Rig) -> Result<()> {
        match &mut self.kind {
            Kind::Floor(floor) => rig.choose_floor(*floor)?,
            Kind::Candidate(candidate) => rig.choose(candidate)?,
        }
        Ok(())
    }

    /// Runs a batch and checks that every packet of it grew and was sent. Nanoseconds per packet.
    fn run(&mut self, rig: &mut Rig, batch: &Batch<'_>) -> Result<Vec<f64>> {
        let before = self.transmitted();
        let measured = rig.run(&Batch { overhead: self.overhead, ..batch.clone() })?;
        let (name, runs) = (&self.name, u64::from(batch.runs()));
        ensure!(measured.grown == runs, "{name}: {} of {runs} packets were encapsulated", measured.grown);
        let sends = !matches!(self.kind, Kind::Floor(Floor::Empty));
        if sends && measured.action != TX {
            bail!("{name}: answered {} to the last packet, expected {TX} (XDP_TX)", measured.action);
        }
        if let (Some(before), Some(after)) = (before, self.transmitted()) {
            ensure!(after - before == runs, "{name}: {} of {runs} packets were transmitted", after - before);
        }
        Ok(measured.nanoseconds)
    }

    /// What the program itself counted.
    fn transmitted(&self) -> Option<u64> {
        match &self.kind {
            Kind::Floor(_) => None,
            Kind::Candidate(candidate) => Some(candidate.transmitted()),
        }
    }

    fn series(self) -> Series {
        let Self { name, kind, overhead: _, rounds, packets } = self;
        let instructions = match kind {
            Kind::Floor(_) => None,
            Kind::Candidate(mut candidate) => candidate.verified_instructions(),
        };
        Series { name, rounds, packets, instructions }
    }
}
