//! One job: packet after packet through one program in one world.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;

use super::shrink::shrink;
use super::subject::Subject;
use super::{Case, Disagreement, Done, Job, Program, Signature, backend, balancer};
use crate::oracle::{Balanced, Origin, Verdict};
use crate::packets::{self, Generator, Purpose};
use crate::world::{World, decap_worlds, worlds};

/// Packets between which fragments are forgotten and all counts are compared: their datagrams fill no line of the fragment table.
const BATCH: u64 = 8_192;
/// First fragments of which one may matter to a disagreement.
const REMEMBERED: usize = 256;

/// Runs a job on this thread's CPU.
pub(super) fn run(job: &Job, cpu: usize) -> Result<Done> {
    match job.program {
        Program::Balancer => {
            let world = &worlds()[job.world];
            let mut generator = Generator::new(world, Purpose::Balance, job.seed);
            let subject = balancer::Subject::load(world, job.program, cpu, job.fault)?;
            let next = || Case { frame: generator.next_frame(), origin: Origin::default() };
            Runner::new(job.program, Subject::Balancer(Box::new(subject))).run(job, next)
        }
        Program::Egress => {
            let world = &worlds()[job.world];
            let mut generator = Generator::new(world, Purpose::Check, job.seed);
            let mut marks = Rng::with_seed(!job.seed);
            let subject = balancer::Subject::load(world, job.program, cpu, job.fault)?;
            let next = || Case { frame: generator.next_frame(), origin: origin(&mut marks, world) };
            Runner::new(job.program, Subject::Balancer(Box::new(subject))).run(job, next)
        }
        Program::Decap => {
            let world = &decap_worlds()[job.world];
            let mut rng = Rng::with_seed(job.seed);
            let subject = backend::Subject::load(world)?;
            let next = || Case { frame: packets::decap::frame(&mut rng, world), origin: Origin::default() };
            Runner::new(job.program, Subject::Backend(Box::new(subject))).run(job, next)
        }
    }
}

/// The mark of a health check's socket, mostly.
fn origin(rng: &mut Rng, world: &World) -> Origin {
    let backends: usize = world.pools.iter().map(|pool| pool.backends.len()).sum();
    let mark = match rng.u8(..16) {
        0 => 0,
        1 => rng.u32(..),
        2 => 0x4d41_0000 | rng.u32(..0x1_0000),
        _ => 0x4d41_0000 | rng.u32(..=backends as u32 + 1),
    };
    Origin { mark, forwarded: rng.u8(..16) == 0 }
}

struct Runner<'a> {
    program: Program,
    subject: Subject<'a>,
    done: Done,
    kinds: BTreeMap<Signature, (Disagreement, u64)>,
    /// The last packets that began datagrams.
    begun: VecDeque<Case>,
    answers: Answers,
}

/// Where answers are limited: how many there were, and how often there was none.
#[derive(Debug, Default)]
struct Answers {
    given: u64,
    refused: u64,
}

impl<'a> Runner<'a> {
    fn new(program: Program, subject: Subject<'a>) -> Self {
        let (done, kinds, begun, answers) = <_>::default();
        Self { program, subject, done, kinds, begun, answers }
    }

    fn run(mut self, job: &Job, mut next: impl FnMut() -> Case) -> Result<Done> {
        let (began, mut wasted) = (Instant::now(), Duration::ZERO);
        for n in 0..job.packets {
            if job.stops && !self.kinds.is_empty() {
                break;
            }
            self.done.packets = n + 1;
            if n % BATCH == 0 || self.subject.is_stale() {
                self.begin_batch()?;
            }
            wasted += self.step(next())?;
        }
        self.begin_batch()?;
        self.judge_answers(began.elapsed());
        self.done.took = began.elapsed().saturating_sub(wasted);
        self.done.disagreements = self.kinds.into_values().collect();
        Ok(self.done)
    }

    /// Compares all counts, and has both sides forget fragments.
    fn begin_batch(&mut self) -> Result<()> {
        let wrong = self.subject.audit()?;
        if !wrong.is_empty() {
            self.add_without_packet(format!("counts of {} are not those of the packets", wrong.join(", ")));
        }
        self.subject.forget();
        self.begun.clear();
        Ok(())
    }

    /// Gives both sides a packet. Returns the time that was spent on a disagreement.
    fn step(&mut self, case: Case) -> Result<Duration> {
        let found = attempt(&mut self.subject, self.program, &case, &mut self.answers)?;
        let predicted = match &found {
            Ok(predicted) => predicted,
            Err(disagreement) => &disagreement.predicted,
        };
        for name in &predicted.predicted.counted {
            *self.done.counted.entry(name).or_default() += 1;
        }
        if predicted.noted.is_some() {
            self.begun.push_front(case);
            self.begun.truncate(REMEMBERED);
        }
        match found {
            Ok(_) => Ok(Duration::ZERO),
            Err(disagreement) => self.add(*disagreement),
        }
    }

    fn add(&mut self, disagreement: Disagreement) -> Result<Duration> {
        let began = Instant::now();
        let signature = disagreement.signature();
        if let Some((_, times)) = self.kinds.get_mut(&signature) {
            *times += 1;
            return Ok(Duration::ZERO);
        }
        let (program, begun) = (self.program, self.begun.make_contiguous());
        let smaller = shrink(&mut self.subject, program, disagreement, begun)?;
        self.kinds.insert(signature, (smaller, 1));
        // The program's fragment table was emptied meanwhile.
        self.subject.forget();
        Ok(began.elapsed())
    }

    fn add_without_packet(&mut self, what: String) {
        let case = Case { frame: Vec::new(), origin: Origin::default() };
        let predicted = Balanced::nothing();
        let verdict = Ok(Verdict::Pass);
        let got = super::Got { verdict, bytes: Vec::new(), mark: 0, counted: BTreeMap::new(), miscounted: vec![what] };
        let (program, world) = (self.program, self.subject.world());
        let disagreement = Disagreement { program, world, before: None, case, predicted, got };
        self.kinds.entry(disagreement.signature()).or_insert((disagreement, 0)).1 += 1;
    }

    /// Whether there were as many answers as the limit allows: within a second that began before and one that ended after.
    fn judge_answers(&mut self, took: Duration) {
        let (Some(limit), Answers { given, refused }) = (self.subject.answers(), &self.answers) else { return };
        let (limit, seconds, given) = (u64::from(limit), took.as_secs(), *given);
        let too_many = given > limit * (seconds + 2);
        let too_few = *refused > 0 && given < limit;
        if too_many || too_few {
            self.add_without_packet(format!("{given} answers in {seconds} s with a limit of {limit} a second"));
        }
    }
}

/// Gives both sides a packet.
fn attempt(
    subject: &mut Subject<'_>,
    program: Program,
    case: &Case,
    answers: &mut Answers,
) -> Result<Result<Balanced, Box<Disagreement>>> {
    let (predicted, mark) = subject.predict(case, true);
    let mut got = subject.run(case)?;
    if subject.judge(&mut got, case, &predicted, mark) {
        answers.given += u64::from(predicted.asked);
        subject.note(&predicted);
        return Ok(Ok(predicted));
    }
    if let Some(other) = predicted.or.clone()
        && subject.judge(&mut got, case, &other, mark)
    {
        subject.note(&other);
        return Ok(Ok(*other));
    }
    if predicted.asked && subject.answers().is_some() {
        let (other, mark) = subject.predict(case, false);
        if subject.judge(&mut got, case, &other, mark) {
            answers.refused += 1;
            subject.note(&other);
            return Ok(Ok(other));
        }
    }
    subject.note(&predicted);
    // What it counted by other VIPs and backends is taken over, or later packets would be blamed for it.
    subject.audit()?;
    let case = case.clone();
    Ok(Err(Box::new(Disagreement { program, world: subject.world(), before: None, case, predicted, got })))
}

/// Gives both sides a packet anew, after another one if that matters.
pub(super) fn again(
    subject: &mut Subject<'_>,
    program: Program,
    before: Option<&Case>,
    case: &Case,
) -> Result<Option<Disagreement>> {
    subject.forget();
    let mut answers = Answers::default();
    if let Some(before) = before {
        let _ = attempt(subject, program, before, &mut answers)?;
    }
    let found = attempt(subject, program, case, &mut answers)?.err();
    Ok(found.map(|found| Disagreement { before: before.cloned(), ..*found }))
}
