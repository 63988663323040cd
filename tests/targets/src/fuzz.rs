//! The loop: which input is changed next, and which are kept. It must not know what a target does.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::change::changed;
use crate::coverage;

/// The counters are the program's: one loop at a time may read them.
static COUNTERS: Mutex<()> = Mutex::new(());

/// Runs that shrinking a failure may take.
const SHRINKING: u32 = 2_000;

/// Code that runs on any bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words that inputs have in them.
    pub words: &'static [&'static [u8]],
    /// Runs on an input; an error is a property that does not hold. It panics at its own peril: a panic is a failure.
    pub run: fn(&[u8]) -> Result<(), String>,
}

/// How long a run may be, and how it chooses.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Executions, seeds included.
    pub executions: u64,
    /// The time after which no further input is tried.
    pub time: Option<Duration>,
    /// The seed of all choices.
    pub seed: u64,
    /// Whether inputs with new coverage are kept.
    pub guided: bool,
}

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Executions.
    pub executions: u64,
    /// Inputs to begin with that were run.
    pub seeds: usize,
    /// Inputs that were kept beside them, since they reached new code.
    pub kept: usize,
    /// Different edges that were taken.
    pub edges: usize,
    /// The failure that ended the run.
    pub failure: Option<Failure>,
}

/// An input that a target fails on.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The input, shrunk.
    pub input: Vec<u8>,
    /// The property that does not hold, or the panic.
    pub message: String,
    /// After so many executions.
    pub execution: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "execution {}: {}", self.execution, self.message)?;
        write!(f, "input: \"{}\"", self.input.escape_ascii())
    }
}

/// Runs a target until a limit, or a failure.
pub fn run(target: &Target, limits: Limits) -> Report {
    let _turn = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner);
    let began = Instant::now();
    let mut rng = Rng::with_seed(limits.seed);
    let mut reached = Reached::default();
    let (mut corpus, mut executions) = (Vec::new(), 0);
    let (mut seeds, mut begun) = ((target.seeds)().into_iter(), 0);
    let failure = loop {
        if executions >= limits.executions || limits.time.is_some_and(|time| began.elapsed() >= time) {
            break None;
        }
        let seed = seeds.next();
        let is_seed = seed.is_some();
        let input = seed.unwrap_or_else(|| next(&mut rng, &corpus, target.words));
        executions += 1;
        coverage::reset();
        let outcome = attempt(target, &input);
        let is_new = reached.add();
        if let Err(message) = outcome {
            let input = shrink(target, input);
            let message = attempt(target, &input).err().unwrap_or(message);
            break Some(Failure { input, message, execution: executions });
        }
        if is_seed || (limits.guided && is_new) {
            begun += usize::from(is_seed);
            corpus.push(input);
        }
    };
    Report { executions, seeds: begun, kept: corpus.len() - begun, edges: reached.edges(), failure }
}

/// The next input: half of them from the tenth of the corpus that was found last.
fn next(rng: &mut Rng, corpus: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
    let recent = corpus.len() - corpus.len().div_ceil(10);
    let from = if rng.bool() { recent } else { 0 };
    let of = |rng: &mut Rng, from: usize| corpus.get(rng.usize(from..corpus.len().max(from + 1)));
    let (input, other) = (of(rng, from), of(rng, 0));
    let [input, other] = [input, other].map(|input| input.map_or(&[][..], Vec::as_slice));
    changed(rng, input, other, words)
}

/// Runs a target; a panic is an error.
fn attempt(target: &Target, input: &[u8]) -> Result<(), String> {
    panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", text.unwrap_or("without a message")))
    })
}

/// A shorter input that fails too: parts are left out as long as it does.
fn shrink(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    let (mut runs, mut size) = (0, input.len().div_ceil(2));
    while size > 0 && runs < SHRINKING {
        let mut at = 0;
        while at < input.len() && runs < SHRINKING {
            let mut shorter = input.clone();
            shorter.drain(at..input.len().min(at + size));
            runs += 1;
            if attempt(target, &shorter).is_err() { input = shorter } else { at += size }
        }
        size /= 2;
    }
    input
}

/// The counts of edges that were reached, as sets of ranges: 1, 2, 3, 4 to 7, 8 to 15, 16 to 31, 32 to 127, more.
#[derive(Debug, Default)]
struct Reached(Vec<u8>);

impl Reached {
    /// Adds those of the last run; returns whether one of them is new.
    fn add(&mut self) -> bool {
        self.0.resize(coverage::edges(), 0);
        let mut is_new = false;
        coverage::each_taken(|edge, times| {
            let range = match times {
                0..=3 => times.saturating_sub(1),
                4..8 => 3,
                8..16 => 4,
                16..32 => 5,
                32..128 => 6,
                128.. => 7,
            };
            if let Some(known) = self.0.get_mut(edge) {
                is_new |= *known & 1 << range == 0;
                *known |= 1 << range;
            }
        });
        is_new
    }

    fn edges(&self) -> usize {
        self.0.iter().filter(|ranges| **ranges != 0).count()
    }
}
