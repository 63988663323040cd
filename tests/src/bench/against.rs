//! Two revisions of the load balancer in one run: each is loaded by its own user space, both take turns under one harness, and
//! what counts is the paired difference of each round.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use maglev_dataplane::rig::{Batch, Held, Rig, Size, TX, Turn};
use serde::Serialize;

use super::machine::Machine;
use super::prepare::Prepared;
use super::scenario::Scenario;
use super::stats::{self, Interval, Spread};
use super::{Progress, measure};

/// Rounds, unless others are asked for.
pub(super) const ROUNDS: u16 = 31;

/// One of the two.
#[derive(Clone, Debug)]
struct Side {
    /// The benchmark that loads it.
    program: PathBuf,
    /// An object instead of the one that ships with that.
    object: Option<PathBuf>,
    slowed: bool,
}

/// A loaded side: it goes with the process that holds it, which ends with its input.
struct Loaded {
    child: Child,
    /// Dropped first.
    input: Option<ChildStdin>,
    held: Held,
    object_sha256: String,
}

/// A comparison, as `--json` writes it.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    rounds: u16,
    old: Described,
    new: Described,
    rows: Vec<Row>,
}

/// One side of a comparison.
#[derive(Clone, Debug, Default, Serialize)]
struct Described {
    /// The SHA-256 of the object that ships with its user space.
    object_sha256: String,
    /// Instructions as the kernel's verifier left them, in all functions.
    translated_instructions: u32,
    /// Bytes of machine code, of all functions.
    jited_bytes: u32,
}

/// New less old in one scenario, in nanoseconds per packet.
#[derive(Debug, Serialize)]
struct Row {
    scenario: &'static str,
    title: &'static str,
    /// The median with its interval.
    difference: Interval,
    /// Where the rounds lie.
    spread: Spread,
    /// Each round's.
    raw: Vec<f64>,
}

/// Compares the object that ships with what `against` is: an object, or the benchmark of another revision.
///
/// # Errors
/// A side cannot be loaded or does not encapsulate every packet; or a row's median difference is beyond `within`.
pub(super) fn run(wanted: &super::Packets, against: &Path, chosen: &[&'static Scenario], rounds: u16) -> Result<()> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let (old, new) = sides(&own, against, wanted.slowed)?;
    let machine = Machine::this();
    let cpu = measure::stay_on_one_cpu()?;
    eprintln!("bench: on CPU {cpu}, {rounds} rounds");
    let mut report = Report { machine, rounds, old: Described::default(), new: Described::default(), rows: Vec::new() };
    for (n, scenario) in (1..).zip(chosen) {
        let screen = Progress { label: format!("bench: {n}/{} {}", chosen.len(), scenario.name), rounds };
        report.measure(scenario, [&old, &new], &screen).with_context(|| scenario.name)?;
        screen.end();
    }
    let unit = if wanted.instructions { "instructions" } else { "nanoseconds" };
    print!("{}", report.text(unit));
    super::write(wanted.json.as_deref(), || Ok(serde_json::to_string_pretty(&report)?))?;
    wanted.within.map_or(Ok(()), |most| report.judge(most, unit))
}

/// The old side and the new one. Only the new one is slowed.
fn sides(own: &Path, against: &Path, slowed: bool) -> Result<(Side, Side)> {
    let new = Side { program: own.to_owned(), object: None, slowed };
    let old = if is_object(against)? {
        Side { program: own.to_owned(), object: Some(against.to_owned()), slowed: false }
    } else {
        Side { program: against.to_owned(), object: None, slowed: false }
    };
    Ok((old, new))
}

/// Whether an ELF file is for BPF.
fn is_object(file: &Path) -> Result<bool> {
    const BPF: [u8; 2] = 247_u16.to_le_bytes();
    let mut header = [0; 20];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut header));
    read.with_context(|| format!("{}: neither an eBPF object nor a revision's benchmark", file.display()))?;
    ensure!(header.starts_with(b"\x7fELF"), "{}: not an ELF file", file.display());
    Ok(header[18..20] == BPF)
}

impl Side {
    fn load(&self, scenario: &Scenario) -> Result<Loaded> {
        let mut command = Command::new(&self.program);
        command.args(["prepare", "--scenario", scenario.name]).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(object) = &self.object {
            command.arg("--object").arg(object);
        }
        if self.slowed {
            command.arg("--slowed");
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let (input, output) = (child.stdin.take(), child.stdout.take().context("no output")?);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("cannot read what `prepare` says")?;
        let Ok(Prepared { program, object_sha256 }) = serde_json::from_str(&line) else {
            child.wait().context("prepare")?;
            match &self.object {
                Some(object) => bail!("{} does not take our maps: name its revision instead", object.display()),
                None => bail!("{} cannot prepare a load balancer", self.program.display()),
            }
        };
        Ok(Loaded { held: Held::open(program)?, child, input, object_sha256 })
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        drop(self.input.take());
        if let Err(error) = self.child.wait() {
            eprintln!("bench: the process that held a program: {error}");
        }
    }
}

impl Loaded {
    fn described(&self) -> Described {
        let Size { translated, jited } = self.held.size();
        Described { object_sha256: self.object_sha256.clone(), translated_instructions: translated, jited_bytes: jited }
    }
}

impl Report {
    /// Measures one scenario. Both are loaded anew in each round, the first one of which takes its turns first every other
    /// round.
    fn measure(&mut self, scenario: &'static Scenario, sides: [&Side; 2], screen: &Progress) -> Result<()> {
        let frame = scenario.frame();
        let batch = measure::batch(scenario, &frame);
        let mut raw = Vec::new();
        for round in 0..self.rounds {
            screen.round(round.into());
            let new_first = round % 2 == 1;
            let [first, second] = if new_first { [sides[1], sides[0]] } else { sides };
            let pair = [first.load(scenario)?, second.load(scenario)?];
            let [first, second] = one_round(scenario, &batch, &pair)?;
            raw.push(if new_first { first - second } else { second - first });
            let described = pair.each_ref().map(Loaded::described);
            let [first, second] = described;
            (self.old, self.new) = if new_first { (second, first) } else { (first, second) };
        }
        let missing = || anyhow::anyhow!("no round was measured");
        self.rows.push(Row {
            scenario: scenario.name,
            title: scenario.title,
            difference: Interval::from_values(&raw).ok_or_else(missing)?,
            spread: Spread::from_values(raw.iter().copied()).ok_or_else(missing)?,
            raw,
        });
        Ok(())
    }

    fn text(&self, unit: &str) -> String {
        let Self { machine, rounds, old, new, rows } = self;
        let mut text = machine.text();
        for (side, described) in [("old", old), ("new", new)] {
            let Described { object_sha256, translated_instructions, jited_bytes } = described;
            text += &format!(
                "{side:11} {translated_instructions} translated instructions, {jited_bytes} JIT-ed bytes in all functions; \
                 object {object_sha256}\n"
            );
        }
        text += &format!(
            "\nnew less old, {unit} a packet, {rounds} rounds: median paired difference [its interval of 95 %] (p10-p90)\n\n"
        );
        for Row { scenario, title, difference, spread, raw: _ } in rows {
            let Interval { low, median, high } = difference;
            let name = format!("{title} [{scenario}]");
            text +=
                &format!("  {name:56} {median:+6.2} [{low:+.2} {high:+.2}] ({:+.2}-{:+.2})\n", spread.p10, spread.p90);
        }
        text
    }

    /// The medians are judged, not the ends of their intervals.
    fn judge(&self, most: f64, unit: &str) -> Result<()> {
        let beyond: Vec<_> = self.rows.iter().filter(|row| row.difference.median > most).collect();
        if beyond.is_empty() {
            println!("\nno row's median difference exceeds {most:+} {unit}");
            return Ok(());
        }
        let names: Vec<_> =
            beyond.iter().map(|row| format!("{} {:+.2}", row.scenario, row.difference.median)).collect();
        bail!("the median difference exceeds {most:+} {unit}: {}", names.join(", "))
    }
}

/// Lets both see the flows, then lets them take turns: nanoseconds per run of each, in their order.
fn one_round(scenario: &Scenario, batch: &Batch<'_>, pair: &[Loaded; 2]) -> Result<[f64; 2]> {
    let mut rig = Rig::load()?;
    let overhead = scenario.overhead();
    let settling = Batch { warming: scenario.settling(), timed: 1, rounds: 1, ..batch.clone() };
    for loaded in pair {
        let settled = rig.run(&settling, &mut [Turn::Held(&loaded.held, overhead)])?;
        ensure!(settled.action == TX, "the last packet was answered by {}, expected {TX} (XDP_TX)", settled.action);
    }
    let mut turns = pair.each_ref().map(|loaded| Turn::Held(&loaded.held, overhead));
    let measured = rig.run(batch, &mut turns)?;
    ensure!(measured.grown == measured.runs, "{} of {} packets were encapsulated", measured.grown, measured.runs);
    let medians: Vec<f64> = measured.nanoseconds.into_iter().filter_map(stats::median).collect();
    medians.try_into().map_err(|_| anyhow::anyhow!("a program took no turn"))
}
