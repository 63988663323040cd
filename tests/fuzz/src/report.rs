//! What is printed of a run: rates, a histogram of outcomes, and each kind of disagreement once with a packet that shows it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::oracle::{Balanced, Predicted};
use crate::run::{Case, Disagreement, Done, Program, Results, Signature};

/// The results of all jobs.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    took: Duration,
    programs: BTreeMap<Program, (u64, Duration)>,
    counted: BTreeMap<(&'static str, Program), u64>,
    kinds: BTreeMap<Signature, (Disagreement, u64)>,
}

impl Report {
    /// Of all jobs of a run with this seed.
    pub fn new(seed: u64, Results { took, jobs }: Results) -> Self {
        let (programs, counted, kinds) = <_>::default();
        let mut report = Self { seed, took, programs, counted, kinds };
        jobs.into_iter().for_each(|(program, done)| report.add(program, done));
        report
    }

    fn add(&mut self, program: Program, done: Done) {
        let (packets, took) = self.programs.entry(program).or_default();
        *packets += done.packets;
        *took += done.took;
        for (name, times) in done.counted {
            *self.counted.entry((name, program)).or_default() += times;
        }
        for (disagreement, times) in done.disagreements {
            self.kinds.entry(disagreement.signature()).or_insert((disagreement, 0)).1 += times;
        }
    }

    /// How many packets were judged differently.
    pub fn disagreements(&self) -> u64 {
        self.kinds.values().map(|(_, times)| times).sum()
    }

    /// How often a counter was predicted, over all programs.
    pub fn counted(&self, name: &str) -> u64 {
        self.counted.iter().filter(|((counted, _), _)| *counted == name).map(|(_, times)| times).sum()
    }

    /// How many packets a program was given.
    pub fn packets(&self, program: Program) -> u64 {
        self.programs.get(&program).map_or(0, |(packets, _)| *packets)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        for (disagreement, times) in self.kinds.values() {
            writeln!(f, "\n{times} times:\n{}", shown(disagreement))?;
        }
        writeln!(f, "\n{:24}{:>12}{:>12}{:>12}", "outcome", "balancer", "egress", "decap")?;
        let names: std::collections::BTreeSet<_> = self.counted.keys().map(|(name, _)| *name).collect();
        for name in names {
            let times = Program::ALL.map(|program| self.counted.get(&(name, program)).copied().unwrap_or(0));
            writeln!(f, "{name:24}{:>12}{:>12}{:>12}", times[0], times[1], times[2])?;
        }
        writeln!(f)?;
        let mut all = 0;
        for (program, (packets, took)) in &self.programs {
            all += packets;
            let rate = *packets as f64 / took.as_secs_f64().max(1e-9);
            writeln!(f, "{:12}{packets:>12} packets{rate:>12.0} packets/s on one CPU", program.name())?;
        }
        let rate = all as f64 / self.took.as_secs_f64().max(1e-9);
        writeln!(f, "{:12}{all:>12} packets{rate:>12.0} packets/s, {:.1} s", "in all", self.took.as_secs_f64())?;
        write!(f, "{} disagreements", self.disagreements())
    }
}

/// A disagreement as a fixture.
fn shown(disagreement: &Disagreement) -> String {
    let Disagreement { program, world, before, case, predicted, got } = disagreement;
    let mut text = format!("{} in world {world:?}\n", program.name());
    if let Some(before) = before {
        let _ = writeln!(text, "  before it:{}", dump(&before.frame));
    }
    let Case { frame, origin } = case;
    let _ = writeln!(
        text,
        "  packet, {} bytes, mark {:#x}, forwarded {}:{}",
        frame.len(),
        origin.mark,
        origin.forwarded,
        dump(frame)
    );
    let Balanced { predicted: Predicted { verdict, bytes, counted }, vip, backend, .. } = predicted;
    let _ = writeln!(text, "  predicted {verdict:?}, counted {}, VIP {vip:?}, backend {backend:?}", counted.join(" "));
    if let Some(bytes) = bytes.as_ref().filter(|bytes| **bytes != got.bytes) {
        let _ = writeln!(text, "  predicted frame:{}", dump(bytes));
    }
    let moved: Vec<_> = got.counted.iter().map(|(name, times)| format!("{name} {times}")).collect();
    let verdict = match &got.verdict {
        Ok(verdict) => format!("{verdict:?}"),
        Err(other) => other.clone(),
    };
    let _ = writeln!(
        text,
        "  got {verdict}, mark {:#x}, counted {}; {}",
        got.mark,
        moved.join(" "),
        got.miscounted.join("; ")
    );
    if bytes.as_ref().is_some_and(|bytes| *bytes != got.bytes) {
        let _ = writeln!(text, "  got frame:{}", dump(&got.bytes));
    }
    text
}

/// Bytes in hexadecimal, sixteen in a row.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (n, row) in bytes.chunks(16).enumerate() {
        let row: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = write!(text, "\n    {:04x}  {}", n * 16, row.join(" "));
    }
    text
}
