//! The measuring rig: runs a program many times over one packet whose flow the harness object varies, and reads from
//! the harness how long that took and what happened to the packets. It must not know scenarios or statistics.
//!
//! Nothing is attached and no interface is made: test runs come in by the loopback device of the calling thread's
//! network namespace, so a run that dies leaves nothing behind.

use aya::maps::{Map, MapError, ProgramArray};
use aya::programs::{Program, ProgramFd, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use maglev_common::pod::Word;
use maglev_harness as names;
pub use maglev_harness::Fault;

use super::error::DataplaneError;
use super::shared::{Mapped, Shared};

mod backend;
mod candidate;
mod held;
mod single;
mod veth;

pub use backend::Backend;
pub use candidate::{Candidate, CandidateSettings};
pub use held::{Held, Size};
pub use single::{Balancer, Departed};
pub use veth::{Live, VethRig};

/// A program's verdict: `XDP_TX`.
pub const TX: u32 = 3;

/// The index of every namespace's loopback device.
pub const LOOPBACK: u32 = 1;

// SAFETY: made of words alone.
unsafe impl Shared for names::Rig {}

/// The programs that ship with the rig, by which others are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// Returns at once.
    Empty,
    /// Swaps the MAC addresses and sends.
    Transmit,
    /// Makes room, writes a constant outer IPv4 header and sends.
    Headers,
    /// The same, and reads one random cache line of 8 MB.
    HeadersLine,
    /// The same, of as many lines as the batch says.
    HeadersFlowLine,
}

impl Floor {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Empty, Self::Transmit, Self::Headers, Self::HeadersLine, Self::HeadersFlowLine];

    /// Bytes it adds to each packet.
    const fn overhead(self) -> u64 {
        match self {
            Self::Empty | Self::Transmit => 0,
            Self::Headers | Self::HeadersLine | Self::HeadersFlowLine => 20,
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Empty => names::EMPTY,
            Self::Transmit => names::TRANSMIT,
            Self::Headers => names::HEADERS,
            Self::HeadersLine => names::HEADERS_LINE,
            Self::HeadersFlowLine => names::HEADERS_FLOW_LINE,
        }
    }
}

/// The work of a batch: `rounds` times, every program takes its turn.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// The frame that flow number 0 sends to VIP number 0.
    pub frame: &'a [u8],
    /// Bytes of its VLAN tags: 0, 4 or 8.
    pub tags: usize,
    /// Bytes between its IP header and what is written as its ports: at most 63.
    pub gap: usize,
    /// Which flows: a random number under this mask plus one that grows by `flow_step` with each run.
    pub flow_mask: u64,
    /// See `flow_mask`.
    pub flow_step: u64,
    /// VIP numbers under this mask.
    pub vip_mask: u64,
    /// Lines of which [`Floor::HeadersFlowLine`] reads: a power of two.
    pub flow_lines: u32,
    /// Runs in a turn before its time begins: caches fill.
    pub warming: u32,
    /// Runs in a turn that are timed.
    pub timed: u32,
    /// Turns of each program: at most [`most_rounds`].
    pub rounds: u32,
}

/// A program in its turn.
#[derive(Debug)]
pub enum Turn<'a> {
    /// One that ships with the rig.
    Floor(Floor),
    /// One that is judged, and the bytes it adds to each packet.
    Candidate(&'a mut Candidate, u64),
    /// One that another process holds, likewise.
    Held(&'a Held, u64),
}

/// The most rounds of a batch with this many programs: the harness keeps two readings of the clock for each turn.
pub const fn most_rounds(programs: usize) -> u32 {
    (names::READINGS / 2 / programs) as u32
}

/// The result of a batch.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Nanoseconds per run in each turn of each program, in their order.
    pub nanoseconds: Vec<Vec<f64>>,
    /// Runs in all.
    pub runs: u64,
    /// Runs of each program.
    pub runs_each: u64,
    /// Packets that had grown by exactly the bytes their program adds: `runs`, or something is wrong.
    pub grown: u64,
    /// The first program's verdict for the last packet, which was its.
    pub action: u32,
}

/// The harness, loaded.
#[derive(Debug)]
pub struct Rig {
    words: Mapped<names::Rig>,
    /// Held for the program that reads it.
    _lines: Mapped<[Word; names::LINE_WORDS]>,
    harness: Ebpf,
}

impl Rig {
    /// Loads the harness and its floors.
    ///
    /// # Errors
    /// One line: not root, or the kernel refuses the object; or the floor *headers* is not what it was.
    pub fn load() -> Result<Self, DataplaneError> {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries(names::LINES, names::MOST_LINES);
        let mut harness =
            loader.load(names::HARNESS).map_err(|error| DataplaneError::loading("the harness", &error))?;
        for name in [names::VARY4, names::VARY6].into_iter().chain(Floor::ALL.map(Floor::program)) {
            program(&mut harness, name)?.load().map_err(|error| DataplaneError::program(name, &error))?;
        }
        let words: Mapped<names::Rig> = Mapped::open(names::RIG, array(&harness, names::RIG)?, 1)?;
        let lines: Mapped<[Word; names::LINE_WORDS]> =
            Mapped::open(names::LINES, array(&harness, names::LINES)?, names::MOST_LINES)?;
        // The kernel maps memory to a map when it makes the map; this touches every line as real use would.
        lines.values().iter().for_each(|line| line[0].set(0));
        words.first().random.set(0x9e37_79b9_7f4a_7c15);
        let mut loaded = Self { words, _lines: lines, harness };
        loaded.check_headers()?;
        Ok(loaded)
    }

    fn check_headers(&mut self) -> Result<(), DataplaneError> {
        let name = Floor::Headers.program();
        let info = program(&mut self.harness, name)?.info().map_err(|error| DataplaneError::program(name, &error))?;
        let (found, expected) = (info.verified_instruction_count(), names::HEADERS_INSTRUCTIONS);
        if found.is_some_and(|found| found != expected) {
            let found = found.unwrap_or_default();
            let message = format!("the floor '{name}' has {found} instructions, expected {expected}: it is no floor");
            return Err(DataplaneError::Load(message));
        }
        Ok(())
    }

    /// Runs programs in turns.
    ///
    /// # Errors
    /// The kernel refuses a program or the run, or a signal ended it.
    pub fn run(&mut self, batch: &Batch<'_>, turns: &mut [Turn<'_>]) -> Result<Measured, DataplaneError> {
        let ipv6 = self.describe(batch, turns)?;
        for (slot, turn) in (0..).zip(&mut *turns) {
            self.put(slot, turn)?;
        }
        let per_turn = u64::from(batch.warming) + u64::from(batch.timed);
        let runs_each = per_turn * u64::from(batch.rounds);
        let runs = runs_each * turns.len() as u64;
        let too_long = || DataplaneError::Load("a batch of so many runs is too long".to_owned());
        let mut out = vec![0; batch.frame.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(batch.frame);
        options.data_out = Some(&mut out);
        // One more: the last turn's time ends as the first program begins again.
        options.repeat = u32::try_from(runs + 1).map_err(|_| too_long())?;
        let name = if ipv6 { names::VARY6 } else { names::VARY4 };
        let vary = program(&mut self.harness, name)?;
        let result = vary.test_run(options).map_err(|error| DataplaneError::program(name, &error))?;
        let rig = self.words.first();
        if rig.run.get() != runs + 1 {
            let (ran, wanted) = (rig.run.get(), runs + 1);
            return Err(DataplaneError::Load(format!("the harness ran {ran} of {wanted} times")));
        }
        let clock: Vec<u64> = rig.clock.iter().take(2 * turns.len() * batch.rounds as usize).map(Word::get).collect();
        let mut nanoseconds = vec![Vec::new(); turns.len()];
        for (n, pair) in clock.chunks_exact(2).enumerate() {
            nanoseconds[n % turns.len()].push((pair[1] - pair[0]) as f64 / f64::from(batch.timed));
        }
        // The first run meets the packet as it was handed in; the kernel hands back the last one.
        let overhead = rig.overheads[0].get();
        let first_as_grown = overhead == 0;
        let last_grew = u64::from(result.data_size_out) == batch.frame.len() as u64 + overhead;
        let grown = rig.grown.get() - u64::from(first_as_grown) + u64::from(last_grew) - 1;
        Ok(Measured { nanoseconds, runs, runs_each, grown, action: result.return_value })
    }

    fn fd<'a>(&'a mut self, turn: &'a mut Turn<'_>) -> Result<&'a ProgramFd, DataplaneError> {
        match turn {
            Turn::Candidate(candidate, _) => candidate.fd(),
            Turn::Held(held, _) => Ok(held.fd()),
            Turn::Floor(floor) => {
                let name = floor.program();
                program(&mut self.harness, name)?.fd().map_err(|error| DataplaneError::program(name, &error))
            }
        }
    }

    /// Gives a program its slot.
    fn put(&mut self, slot: u32, turn: &mut Turn<'_>) -> Result<(), DataplaneError> {
        let fd = clone(self.fd(turn)?)?;
        let map = self.harness.map_mut(names::UNDER_TEST).ok_or_else(|| DataplaneError::no_map(names::UNDER_TEST))?;
        let failed = |error: MapError| DataplaneError::map(names::UNDER_TEST, "update", &error);
        let mut programs = ProgramArray::try_from(map).map_err(failed)?;
        programs.set(slot, &fd, 0).map_err(failed)
    }

    /// Writes the batch's words; returns whether the packet is IPv6.
    fn describe(&self, batch: &Batch<'_>, turns: &[Turn<'_>]) -> Result<bool, DataplaneError> {
        let refused = || DataplaneError::Load("a batch needs an IP packet, and turns to time".to_owned());
        let fits = (1..=names::MOST_PROGRAMS).contains(&turns.len());
        if !fits || !(1..=most_rounds(turns.len())).contains(&batch.rounds) || batch.timed == 0 || batch.warming == 0 {
            return Err(refused());
        }
        let word = |offset: usize| {
            let bytes = batch.frame.get(offset..)?.first_chunk::<8>()?;
            Some(u64::from_le_bytes(*bytes))
        };
        let rig = self.words.first();
        let (tags, gap) = (batch.tags, batch.gap);
        let ipv6 = batch.frame.get(12 + tags..14 + tags) == Some(&[0x86, 0xdd]);
        let ports = |end: usize| word(tags + end - 4 + gap).map(|word| word >> 32);
        let (source, destination, ports) = if ipv6 {
            (word(tags + 30), word(tags + 46), ports(54))
        } else {
            let addresses = word(tags + 26);
            let low = 0xffff_ffff;
            (addresses.map(|word| word & low), addresses.map(|word| word >> 32), ports(34))
        };
        for (to, from) in [
            (&rig.head[0], word(tags)),
            (&rig.head[1], word(tags + 8)),
            (&rig.start, word(0)),
            (&rig.source, source),
            (&rig.destination, destination),
            (&rig.ports, ports),
        ] {
            to.set(from.ok_or_else(refused)?);
        }
        for (to, value) in [
            (&rig.length, batch.frame.len() as u64),
            (&rig.tags, tags as u64),
            (&rig.gap, gap as u64),
            (&rig.programs, turns.len() as u64),
            (&rig.flow_mask, batch.flow_mask),
            (&rig.flow_step, batch.flow_step),
            (&rig.vip_mask, batch.vip_mask),
            (&rig.flow_line_mask, u64::from(batch.flow_lines) - 1),
            (&rig.run, 0),
            (&rig.turn, 0),
            (&rig.due, batch.warming.into()),
            (&rig.warming, batch.warming.into()),
            (&rig.timed, batch.timed.into()),
            (&rig.readings, 0),
            (&rig.grown, 0),
        ] {
            to.set(value);
        }
        for (to, turn) in rig.overheads.iter().zip(turns) {
            to.set(match turn {
                Turn::Floor(floor) => floor.overhead(),
                Turn::Candidate(_, overhead) | Turn::Held(_, overhead) => *overhead,
            });
        }
        Ok(ipv6)
    }
}

fn program<'a>(harness: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, DataplaneError> {
    match harness.program_mut(name) {
        Some(Program::Xdp(program)) => Ok(program),
        _ => Err(DataplaneError::Load(format!("the harness has no XDP program '{name}'"))),
    }
}

fn clone(fd: &ProgramFd) -> Result<ProgramFd, DataplaneError> {
    fd.try_clone().map_err(|error| DataplaneError::Load(format!("cannot duplicate a file descriptor: {error}")))
}

fn array<'a>(harness: &'a Ebpf, name: &'static str) -> Result<&'a aya::maps::MapData, DataplaneError> {
    match harness.map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(DataplaneError::no_map(name)),
    }
}
