//! The model: fleets of load balancers in virtual time, with the packet path, the tables and the rules for transitions
//! that ship, under an oracle that knows where each connection lives. It compares designs, and searches random histories
//! for one that breaks a promise.
//!
//! ```text
//! traffic ─┐                      ┌─ control: news → transition → what is published
//!          ├─▶ simulation ─▶ node ┤
//! fleet ───┘        │             └─ the packet path: affinity over tables and flow tables
//!                   └─▶ oracle: where it should have gone
//! ```

mod compare;
mod control;
mod design;
mod fleet;
mod fresh;
mod history;
mod node;
mod oracle;
mod random;
mod report;
mod router;
mod scenario;
mod shrink;
mod simulation;
mod traffic;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use compare::{Column, Comparison};
use design::Design;
use history::Failure;
use report::{PROMISED, Report};
use router::Ecmp;
use scenario::Bound;

/// Virtual time, in milliseconds.
type Millis = u32;

const SECOND: Millis = 1_000;

/// Later than everything.
const NEVER: Millis = Millis::MAX;

/// Compare designs in simulated fleets, and search random histories for one that breaks a promise. Every figure follows
/// from the seed.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask model", bin_name = "cargo xtask model", args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<What>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Run random histories alone; one that fails is shrunk and shown
    Histories {
        #[command(flatten)]
        chance: Chance,
        /// How many, with this seed and the following ones
        #[arg(default_value_t = 2_000)]
        count: u32,
    },
    /// Compare how a node without history can learn for backends that it finds draining
    Fresh(Chance),
}

#[derive(clap::Args, Clone, Copy, Debug)]
struct Chance {
    /// Seed of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Flows of the comparison
    #[arg(long, value_name = "N", default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    flows: u32,
}

#[derive(clap::Args, Debug)]
struct Run {
    #[command(flatten)]
    chance: Chance,
    /// Run only what is held against a bound, and few histories
    #[arg(long)]
    short: bool,
    /// The fate of flows when a node leaves or returns
    #[arg(long, value_enum, default_value_t = Ecmp::Reshuffle)]
    ecmp: Ecmp,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Does what was asked for.
///
/// # Errors
/// If a bound is missed or a history breaks a promise; if a file cannot be written.
pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Some(What::Histories { chance, count }) => histories(chance.seed, *count),
        Some(What::Fresh(Chance { seed, flows })) => {
            print!("{}", fresh::text(*seed, *flows));
            Ok(())
        }
        None => compare(&arguments.run),
    }
}

fn compare(wanted: &Run) -> Result<()> {
    // Before the minutes of work, not after.
    wanted
        .json
        .iter()
        .try_for_each(|file| fs::write(file, "").with_context(|| format!("cannot write {}", file.display())))?;
    let start = Instant::now();
    let comparison = comparison(wanted);
    let figures = comparison.figures();
    print!("{}", report::table(&comparison, &figures));
    if let Some(file) = &wanted.json {
        let text = serde_json::to_string_pretty(&Report::new(&comparison, &figures))?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    let judged = report::judge(&comparison, &figures);
    println!("\n{}\n{:.0} s", report::judgements(&judged), start.elapsed().as_secs_f32());
    histories(wanted.chance.seed, if wanted.short { 300 } else { 2_000 })?;
    let missed = judged.iter().filter(|judged| !judged.held).count();
    if missed > 0 {
        bail!("{missed} of {} bounds are missed", judged.len());
    }
    Ok(())
}

/// All designs in all scenarios; in short, what a bound is about.
fn comparison(wanted: &Run) -> Comparison {
    let Run { chance: Chance { seed, flows }, short, ecmp, .. } = *wanted;
    let column = |design| Column { design, unlimited: false };
    let mut scenarios = scenario::all();
    let mut columns: Vec<Column> = [Design::Always, PROMISED].map(column).into();
    if short {
        scenarios.retain(|scenario| scenario.bound != Bound::Shown);
    } else {
        let unlimited = Column { design: Design::Always, unlimited: true };
        let exception = [30, 120, 600].map(Design::exception).map(column);
        columns = [Design::Table, Design::Always].map(column).into_iter().chain([unlimited]).chain(exception).collect();
    }
    Comparison { seed, flows, ecmp, scenarios, columns, tails: if short { vec![false] } else { vec![false, true] } }
}

fn histories(seed: u64, count: u32) -> Result<()> {
    let start = Instant::now();
    if let Some(failure) = history::search(seed, count) {
        let Failure { left: (events, packets), text } = failure;
        bail!(
            "of {count} random histories from seed {seed}, one breaks a promise; shrunk to {events} events and {packets} \
             packets:\n\n{text}"
        );
    }
    println!("{count} random histories from seed {seed} keep their promises: {:.0} s", start.elapsed().as_secs_f32());
    Ok(())
}
