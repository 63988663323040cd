//! The benchmark: the program that ships, against floors that ship with it, in interleaved rounds.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use maglev_dataplane::sha256;
use nix::unistd::geteuid;

mod against;
mod chart;
mod compare;
mod control;
mod live;
mod machine;
mod measure;
mod prepare;
mod report;
mod scenario;
mod stats;
mod targets;

use machine::Machine;
use measure::{Capture, Mode, Program};
use report::Report;
use scenario::Scenario;
use targets::Outcome;

/// Rounds, unless others are asked for or another revision is.
const ROUNDS: u16 = 9;
/// Rounds of a comparison by instructions, whose figures differ by nothing.
const COUNTED: u16 = 3;
/// The candidate without a flow table.
const TABLE: &str = "table only";
/// The candidate that consults the flow table for every packet.
const ALWAYS: &str = "always";
/// The candidate that consults it for slots in transition, of which there are none.
const EXCEPTION: &str = "by exception";
/// The same, of a hundred slots five in transition.
const MOVING_5: &str = "5 % moving";
/// The same, and all are.
const MOVING_ALL: &str = "all moving";
/// By exception, while a capture by port runs that takes no packet.
const CAPTURE_PORT: &str = "capture by port";
/// The same of a capture by reason.
const CAPTURE_REASON: &str = "capture by reason";

/// Measure the packet path and the control plane. Figures depend on the machine; ratios within one run less so.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench", args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<What>,
    #[command(flatten)]
    packets: Packets,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Show what changed between two runs, beyond noise
    Compare(compare::Arguments),
    /// Load the program that ships and print how many instructions the verifier walks
    Verify,
    /// Measure the control plane: table build, start, changes, memory
    Control(control::Arguments),
    /// Load the load balancer with a scenario's services, print its program's number, and hold it until input ends
    #[command(hide = true)]
    Prepare(prepare::Arguments),
}

#[derive(clap::Args, Debug)]
struct Packets {
    /// Measure only these scenarios
    #[arg(long = "scenario", value_name = "NAME", value_parser = scenario_names())]
    scenarios: Vec<String>,
    /// Rounds: in each, every program takes its turn [default: 9; 31 with --against, 3 with --instructions]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(3..=999))]
    rounds: Option<u16>,
    /// Measure how much slower the plain rows are than those of another object, or of a revision, which is built first:
    /// the median paired difference of the rounds, with its interval
    #[arg(long, value_name = "OBJECT|REVISION", conflicts_with_all = ["svg", "objects", "assert"])]
    against: Option<PathBuf>,
    /// With --against: exit with 1 if a row's median difference is more than this many nanoseconds, or instructions
    #[arg(long, value_name = "N", requires = "against")]
    within: Option<f64>,
    /// With --against: count executed instructions instead of time, in an emulated machine: exact whatever else runs
    #[arg(long, requires = "against", conflicts_with = "json")]
    instructions: bool,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the main comparison
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Measure another object too, if it takes our maps
    #[arg(long = "object", value_name = "NAME=FILE", value_parser = named_file)]
    objects: Vec<(String, PathBuf)>,
    /// Slow every candidate by one call of a helper: `compare` is to see it
    #[arg(long)]
    slowed: bool,
    /// Exit with 1 if a target is missed, naming each
    #[arg(long)]
    assert: bool,
}

fn scenario_names() -> clap::builder::PossibleValuesParser {
    scenario::ALL.map(|scenario| scenario.name).into()
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("expected NAME=FILE".to_owned()),
    }
}

/// Does what was asked for.
///
/// # Errors
/// One line: no root, an object that does not load, a packet that was not encapsulated, a missed target.
pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Some(What::Compare(arguments)) => compare::run(arguments),
        Some(What::Control(arguments)) => control::run(arguments),
        Some(What::Verify) => verify(),
        Some(What::Prepare(arguments)) => prepare::run(arguments),
        None => packets(&arguments.packets),
    }
}

fn packets(wanted: &Packets) -> Result<()> {
    ensure!(geteuid().is_root(), "the benchmark needs root: it loads programs into the kernel; try with sudo");
    // Before the minutes of measuring, not after.
    for file in wanted.json.iter().chain(&wanted.svg) {
        fs::write(file, "").with_context(|| format!("cannot write {}", file.display()))?;
    }
    check_digest()?;
    // Older revisions have only the plain ones.
    let is_default = |scenario: &Scenario| wanted.against.is_none() || scenario.kind == scenario::Kind::Plain;
    let is_chosen = |scenario: &&Scenario| match wanted.scenarios.as_slice() {
        [] => is_default(scenario),
        names => names.iter().any(|name| name == scenario.name),
    };
    let chosen: Vec<&'static Scenario> = scenario::ALL.iter().filter(is_chosen).collect();
    match &wanted.against {
        Some(against) => against::run(
            wanted,
            against,
            &chosen,
            wanted.rounds.unwrap_or(if wanted.instructions { COUNTED } else { against::ROUNDS }),
        ),
        None => floors(wanted, &chosen, wanted.rounds.unwrap_or(ROUNDS)),
    }
}

/// Measures the programs against the floors.
fn floors(wanted: &Packets, chosen: &[&'static Scenario], rounds: u16) -> Result<()> {
    let programs = programs(&wanted.objects, wanted.slowed)?;
    let machine = Machine::this();
    let cpu = measure::stay_on_one_cpu()?;
    eprintln!("bench: on CPU {cpu}, {rounds} rounds");
    let mut rows = Vec::new();
    for (n, scenario) in (1..).zip(chosen) {
        let screen = Progress { label: format!("bench: {n}/{} {}", chosen.len(), scenario.name), rounds };
        let programs = programs_for(&programs, scenario);
        let series = measure::scenario(scenario, &programs, rounds.into(), |round| screen.round(round))
            .with_context(|| scenario.name)?;
        screen.end();
        rows.extend(report::rows(scenario.name, scenario.title, &series));
    }
    let is_live = |program: &Program| !matches!(program.mode, Mode::Exception(100) | Mode::Capturing(_));
    let programs: Vec<_> = programs.into_iter().filter(is_live).collect();
    let live = live::rows(chosen, &programs, rounds, |name, round| {
        Progress { label: format!("bench: live frames, {name}"), rounds }.round(round.into());
    })?;
    let report = Report { machine, object_sha256: sha256().to_owned(), rounds: rounds.into(), rows, live };
    print!("{}", report.text());
    write(wanted.json.as_deref(), || Ok(serde_json::to_string_pretty(&report)?))?;
    write(wanted.svg.as_deref(), || Ok(chart::draw(&report)))?;
    let judged = targets::judge(&report);
    print!("\n{}", targets::text(&judged));
    let missed = judged.iter().filter(|judged| judged.outcome == Outcome::Missed).count();
    if wanted.assert && missed > 0 {
        bail!("{missed} of {} targets missed", judged.len());
    }
    Ok(())
}

fn verify() -> Result<()> {
    let scenario = scenario::ALL[0];
    let program = Program { name: TABLE.to_owned(), object: None, mode: Mode::Exception(0), slowed: false };
    for mut loaded in measure::candidates(&scenario, &[program])? {
        match loaded.instructions() {
            Some(count) => println!("the verifier walks {count} instructions to accept the load balancer"),
            None => println!("this kernel does not say how many instructions its verifier walks"),
        }
    }
    Ok(())
}

/// Transitions are measured where the number of flows is what matters. The program that decides by the table alone has no part for
/// fragments and ICMP.
fn programs_for(programs: &[Program], scenario: &Scenario) -> Vec<Program> {
    const MOVING: [&str; 4] = ["flows-1k", "flows-64k", "flows-1m", "syn-flood"];
    let moves = |program: &&Program| matches!(program.mode, Mode::Exception(1..));
    let is_rare = matches!(scenario.kind, scenario::Kind::Fragments | scenario::Kind::Errors);
    // A capture is measured where nothing else differs.
    let captures = |program: &&Program| matches!(program.mode, Mode::Capturing(_));
    let can = |program: &&Program| !is_rare || program.mode != Mode::TableOnly && !program.slowed;
    programs
        .iter()
        .filter(|program| can(program) && (!moves(program) || MOVING.contains(&scenario.name)))
        .filter(|program| !captures(program) || scenario.name == "flows-1k" && !program.slowed)
        .cloned()
        .collect()
}

fn programs(objects: &[(String, PathBuf)], slowed: bool) -> Result<Vec<Program>> {
    const OWN: [(&str, Mode); 7] = [
        (TABLE, Mode::TableOnly),
        (EXCEPTION, Mode::Exception(0)),
        (MOVING_5, Mode::Exception(5)),
        (MOVING_ALL, Mode::Exception(100)),
        (ALWAYS, Mode::Always),
        (CAPTURE_PORT, Mode::Capturing(Capture::Port)),
        (CAPTURE_REASON, Mode::Capturing(Capture::Reason)),
    ];
    let mut programs = Vec::from(OWN.map(|(name, mode)| Program { name: name.to_owned(), object: None, mode, slowed }));
    for (name, file) in objects {
        let object = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        for (own, mode) in [(TABLE, Mode::TableOnly), (ALWAYS, Mode::Always)] {
            let name = format!("{name}: {own}");
            programs.push(Program { name, object: Some(object.clone()), mode, slowed });
        }
    }
    Ok(programs)
}

/// The measured object is the one in `maglevd` beside this program.
fn check_digest() -> Result<()> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let daemon = own.with_file_name("maglevd");
    let output = Command::new(&daemon).arg("--version").output();
    let output = output.with_context(|| format!("cannot run {} --version", daemon.display()))?;
    let version = String::from_utf8_lossy(&output.stdout);
    let line = version.trim().replace('\n', " | ");
    ensure!(version.contains(sha256()), "maglevd carries another object than the one measured ({}): {line}", sha256());
    Ok(())
}

fn write(file: Option<&Path>, text: impl FnOnce() -> Result<String>) -> Result<()> {
    match file {
        Some(file) => fs::write(file, text()?).with_context(|| format!("cannot write {}", file.display())),
        None => Ok(()),
    }
}

/// One line on the screen that changes; one line a scenario where standard error is no terminal.
struct Progress {
    label: String,
    rounds: u16,
}

impl Progress {
    fn round(&self, round: usize) {
        if std::io::stderr().is_terminal() {
            eprint!("\r{}: round {} of {} ", self.label, round + 1, self.rounds);
            let _ = std::io::stderr().flush();
        } else if round == 0 {
            eprintln!("{}", self.label);
        }
    }

    fn end(&self) {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}
