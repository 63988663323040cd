//! The runs: each job gives a loaded program the packets of one world, on a CPU of its own, and holds what it did against what the
//! oracle predicts. It must not know how results are shown.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use maglev_dataplane::rig::Fault;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::oracle::Origin;
use crate::world;

mod backend;
mod balancer;
mod disagreement;
mod job;
mod shrink;
mod subject;

pub use disagreement::{Disagreement, Got, Signature};

/// The programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Program {
    /// The load balancer's XDP program.
    Balancer,
    /// Its program at the interfaces' egress.
    Egress,
    /// The backend's XDP program.
    Decap,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Balancer, Self::Egress, Self::Decap];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Balancer => "balancer",
            Self::Egress => "egress",
            Self::Decap => "decap",
        }
    }

    /// Its part of all packets, in sixteenths.
    const fn part(self) -> u64 {
        match self {
            Self::Balancer => 9,
            Self::Egress => 3,
            Self::Decap => 4,
        }
    }
}

/// What a program is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The frame.
    pub frame: Vec<u8>,
    /// Where an outgoing packet comes from.
    pub origin: Origin,
}

/// The settings of a run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Packets over all programs.
    pub packets: u64,
    /// The same seed makes the same packets.
    pub seed: u64,
    /// One program alone.
    pub only: Option<Program>,
    /// The fault of the programs: in tests of the fuzzer.
    pub fault: Option<Fault>,
    /// Whether the first disagreement ends the run.
    pub stops: bool,
}

/// The packets of one program in one world.
#[derive(Clone, Copy, Debug)]
struct Job {
    program: Program,
    /// The place of the world.
    world: usize,
    packets: u64,
    seed: u64,
    fault: Option<Fault>,
    stops: bool,
}

/// The packets of a job at most: those of a longer one are several jobs.
const MOST_OF_JOB: u64 = 500_000;

/// Runs all jobs, one on each CPU at a time.
///
/// # Errors
/// A program does not load, or a CPU cannot be had.
pub fn run(settings: &Settings) -> Result<Results> {
    let began = Instant::now();
    let jobs = Mutex::new(jobs(settings));
    let results = Mutex::new(Results::default());
    let cpus = own_cpus()?;
    let failed = thread::scope(|scope| {
        let workers: Vec<_> = cpus.iter().map(|cpu| scope.spawn(|| work(*cpu, &jobs, &results))).collect();
        workers
            .into_iter()
            .filter_map(|worker| worker.join().unwrap_or_else(|_| Err(anyhow!("a worker panicked"))).err())
            .next()
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let mut results = results.into_inner().map_err(|_| anyhow!("a worker panicked"))?;
    results.took = began.elapsed();
    Ok(results)
}

fn jobs(settings: &Settings) -> VecDeque<Job> {
    let programs: Vec<_> =
        Program::ALL.into_iter().filter(|program| settings.only.is_none_or(|only| only == *program)).collect();
    let parts: u64 = programs.iter().map(|program| program.part()).sum();
    let mut jobs = VecDeque::new();
    for program in programs {
        let worlds = match program {
            Program::Balancer | Program::Egress => world::worlds().len(),
            Program::Decap => world::decap_worlds().len(),
        };
        let packets = settings.packets * program.part() / parts.max(1);
        for world in 0..worlds {
            let (mut left, mut n) = (packets.div_ceil(worlds as u64), 0);
            while left > 0 {
                let packets = left.min(MOST_OF_JOB);
                let mut rng = fastrand::Rng::with_seed(settings.seed);
                let seed = rng.u64(..)
                    ^ ((program as u64) << 48 | (world as u64) << 32 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                jobs.push_back(Job { program, world, packets, seed, fault: settings.fault, stops: settings.stops });
                (left, n) = (left - packets, n + 1);
            }
        }
    }
    jobs
}

fn work(cpu: usize, jobs: &Mutex<VecDeque<Job>>, results: &Mutex<Results>) -> Result<()> {
    let mut one = CpuSet::new();
    one.set(cpu).context("no such CPU")?;
    sched_setaffinity(Pid::from_raw(0), &one).context("cannot stay on one CPU")?;
    loop {
        let Some(job) = jobs.lock().map_err(|_| anyhow!("a worker panicked"))?.pop_front() else { return Ok(()) };
        let done = job::run(&job, cpu)?;
        if job.stops && !done.disagreements.is_empty() {
            jobs.lock().map_err(|_| anyhow!("a worker panicked"))?.clear();
        }
        results.lock().map_err(|_| anyhow!("a worker panicked"))?.jobs.push((job.program, done));
    }
}

/// The CPUs that this process may use.
fn own_cpus() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("cannot read this process's CPUs")?;
    let cpus: Vec<_> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
    if cpus.is_empty() { bail!("this process may use no CPU") } else { Ok(cpus) }
}

/// What all jobs did.
#[derive(Debug, Default)]
pub struct Results {
    /// From the first job's start to the last one's end.
    pub took: Duration,
    /// Each job's program, and what it did.
    pub jobs: Vec<(Program, Done)>,
}

/// What a job did.
#[derive(Debug, Default)]
pub struct Done {
    /// Packets.
    pub packets: u64,
    /// The time that they took, without that of loading.
    pub took: Duration,
    /// How often each counter was predicted.
    pub counted: std::collections::BTreeMap<&'static str, u64>,
    /// The disagreements, each kind once, and how often it was met.
    pub disagreements: Vec<(Disagreement, u64)>,
}
