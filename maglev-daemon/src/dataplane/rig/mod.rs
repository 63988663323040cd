//! The measuring rig: runs a program many times over one packet whose flow the harness object varies, and reads from
//! the harness how long that took and what became of the packets. It must not know scenarios or statistics.
//!
//! Nothing is attached and no interface is made: test runs come in by the loopback device of the calling thread's
//! network namespace, so a run that dies leaves nothing behind.

use aya::maps::{Map, MapError, ProgramArray};
use aya::programs::{Program, ProgramFd, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use maglev_common::pod::Word;
use maglev_common::rig as names;

use super::error::DataplaneError;
use super::shared::{Mapped, Shared};

mod candidate;

pub use candidate::{Candidate, CandidateSettings};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/maglev-harness"));

/// What a program answers: `XDP_TX`.
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
}

impl Floor {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Empty, Self::Transmit, Self::Headers, Self::HeadersLine];

    const fn program(self) -> &'static str {
        match self {
            Self::Empty => names::EMPTY,
            Self::Transmit => names::TRANSMIT,
            Self::Headers => names::HEADERS,
            Self::HeadersLine => names::HEADERS_LINE,
        }
    }
}

/// What a batch does.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// The frame that flow number 0 sends to VIP number 0.
    pub frame: &'a [u8],
    /// Which flows: a random number under this mask plus one that grows by `flow_step` with each run.
    pub flow_mask: u64,
    /// See `flow_mask`.
    pub flow_step: u64,
    /// VIP numbers under this mask.
    pub vip_mask: u64,
    /// Bytes the program adds to each packet.
    pub overhead: u64,
    /// Runs before the clock is read for the first time: caches fill.
    pub warming: u32,
    /// Stretches that are timed, each for itself: at most [`MOST_STRETCHES`].
    pub stretches: u32,
    /// Runs in a stretch.
    pub stretch: u32,
}

/// The most stretches in a batch: one less than readings of the clock.
pub const MOST_STRETCHES: u32 = names::READINGS as u32 - 1;

impl Batch<'_> {
    /// Runs in all: the clock is read as the program under test is entered, so the last stretch ends with one more.
    pub const fn runs(&self) -> u32 {
        self.warming + self.stretches * self.stretch + 1
    }
}

/// What came of a batch.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Nanoseconds per run in each stretch, from entering the program under test to entering it.
    pub nanoseconds: Vec<f64>,
    /// Packets that had grown by exactly the bytes asked for. The clock of the harness cannot see the last packet; the
    /// kernel hands it back.
    pub grown: u64,
    /// What the program answered to the last packet.
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
        loader.map_max_entries(names::LINES, names::LINE_COUNT);
        let mut harness = loader.load(OBJECT).map_err(|error| DataplaneError::loading("the harness", &error))?;
        for name in [names::VARY4, names::VARY6].into_iter().chain(Floor::ALL.map(Floor::program)) {
            program(&mut harness, name)?.load().map_err(|error| DataplaneError::program(name, &error))?;
        }
        let words: Mapped<names::Rig> = Mapped::open(names::RIG, array(&harness, names::RIG)?, 1)?;
        let lines: Mapped<[Word; names::LINE_WORDS]> =
            Mapped::open(names::LINES, array(&harness, names::LINES)?, names::LINE_COUNT)?;
        // The kernel maps memory to a map when it makes the map; this touches every line as real use would.
        lines.values().iter().for_each(|line| line[0].set(0));
        let rig = words.get(0).ok_or_else(|| DataplaneError::no_map(names::RIG))?;
        rig.random.set(0x9e37_79b9_7f4a_7c15);
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

    /// Puts a floor under test.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn choose_floor(&mut self, floor: Floor) -> Result<(), DataplaneError> {
        let name = floor.program();
        let fd = program(&mut self.harness, name)?.fd().map_err(|error| DataplaneError::program(name, &error))?;
        let fd = fd.try_clone().map_err(|error| DataplaneError::program(name, &error.into()))?;
        self.put(&fd)
    }

    /// Puts a candidate under test.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn choose(&mut self, candidate: &mut Candidate) -> Result<(), DataplaneError> {
        self.put(candidate.fd()?)
    }

    fn put(&mut self, fd: &ProgramFd) -> Result<(), DataplaneError> {
        let map = self.harness.map_mut(names::UNDER_TEST).ok_or_else(|| DataplaneError::no_map(names::UNDER_TEST))?;
        let failed = |error: MapError| DataplaneError::map(names::UNDER_TEST, "update", &error);
        let mut programs = ProgramArray::try_from(map).map_err(failed)?;
        programs.set(0, fd, 0).map_err(failed)
    }

    /// Runs the program under test.
    ///
    /// # Errors
    /// The kernel refuses the run, or a signal ended it.
    pub fn run(&mut self, batch: &Batch<'_>) -> Result<Measured, DataplaneError> {
        let length = batch.frame.len() as u64;
        let ipv6 = self.describe(batch)?;
        let mut out = vec![0; batch.frame.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(batch.frame);
        options.data_out = Some(&mut out);
        options.repeat = batch.runs();
        let name = if ipv6 { names::VARY6 } else { names::VARY4 };
        let vary = program(&mut self.harness, name)?;
        let result = vary.test_run(options).map_err(|error| DataplaneError::program(name, &error))?;
        let rig = self.words.get(0).ok_or_else(|| DataplaneError::no_map(names::RIG))?;
        if rig.run.get() != u64::from(batch.runs()) {
            let (ran, wanted) = (rig.run.get(), batch.runs());
            return Err(DataplaneError::Load(format!("the harness ran {ran} of {wanted} times")));
        }
        let clock: Vec<u64> = rig.clock.iter().take(batch.stretches as usize + 1).map(Word::get).collect();
        let stretches = clock.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / f64::from(batch.stretch));
        let last_grew = u64::from(result.data_size_out) == length + batch.overhead;
        Ok(Measured {
            nanoseconds: stretches.collect(),
            // The first run meets the packet as it was handed in.
            grown: rig.grown.get() - u64::from(batch.overhead == 0) + u64::from(last_grew),
            action: result.return_value,
        })
    }

    /// Writes the batch's words; tells whether the packet is IPv6.
    fn describe(&self, batch: &Batch<'_>) -> Result<bool, DataplaneError> {
        let refused = || DataplaneError::Load("a batch needs a TCP or UDP packet, and stretches to time".to_owned());
        if !(1..=MOST_STRETCHES).contains(&batch.stretches) || batch.stretch == 0 {
            return Err(refused());
        }
        let word = |offset: usize| {
            let bytes = batch.frame.get(offset..)?.first_chunk::<8>()?;
            Some(u64::from_le_bytes(*bytes))
        };
        let rig = self.words.get(0).ok_or_else(|| DataplaneError::no_map(names::RIG))?;
        let ipv6 = batch.frame.get(12..14) == Some(&[0x86, 0xdd]);
        let (source, destination, ports) = if ipv6 {
            (word(30), word(46), word(50).map(|word| word >> 32))
        } else {
            let addresses = word(26);
            let low = 0xffff_ffff;
            (addresses.map(|word| word & low), addresses.map(|word| word >> 32), word(30).map(|word| word >> 32))
        };
        for (to, from) in [
            (&rig.head[0], word(0)),
            (&rig.head[1], word(8)),
            (&rig.source, source),
            (&rig.destination, destination),
            (&rig.ports, ports),
        ] {
            to.set(from.ok_or_else(refused)?);
        }
        for (to, value) in [
            (&rig.length, batch.frame.len() as u64),
            (&rig.overhead, batch.overhead),
            (&rig.flow_mask, batch.flow_mask),
            (&rig.flow_step, batch.flow_step),
            (&rig.vip_mask, batch.vip_mask),
            (&rig.run, 0),
            (&rig.due, batch.warming.into()),
            (&rig.stride, batch.stretch.into()),
            (&rig.readings, 0),
            (&rig.grown, 0),
        ] {
            to.set(value);
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

fn array<'a>(harness: &'a Ebpf, name: &'static str) -> Result<&'a aya::maps::MapData, DataplaneError> {
    match harness.map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(DataplaneError::no_map(name)),
    }
}
