//! One side of a comparison: a load balancer that is loaded and given its tables by its own user space, and held for another
//! process that measures it. It goes with this process, however that ends.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context, Result};
use maglev_dataplane::sha256;
use serde::{Deserialize, Serialize};

use super::measure::{Entry, Mode, Program, candidates};
use super::scenario;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The scenario whose services it gets
    #[arg(long, value_name = "NAME", value_parser = super::scenario_names())]
    scenario: String,
    /// An object that takes our maps, instead of the one that ships
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
    /// Slow it by one call of a helper
    #[arg(long)]
    slowed: bool,
}

/// Its description, as one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Prepared {
    /// The kernel's number of the program.
    pub(super) program: u32,
    /// The SHA-256 of the object that ships with this user space.
    pub(super) object_sha256: String,
}

/// Loads it, says which program it is, and holds it until standard input ends.
///
/// # Errors
/// It cannot be loaded.
pub(super) fn run(wanted: &Arguments) -> Result<()> {
    let scenario =
        scenario::ALL.iter().find(|scenario| scenario.name == wanted.scenario).context("no such scenario")?;
    let object = wanted.object.as_ref().map(std::fs::read).transpose().context("cannot read the object")?;
    let program = Program { name: wanted.scenario.clone(), object, mode: Mode::Exception(0), slowed: wanted.slowed };
    let mut held = candidates(scenario, &[program])?;
    let program = held.first_mut().and_then(Entry::id).context("the kernel does not number the program")?;
    let line = serde_json::to_string(&Prepared { program, object_sha256: sha256().to_owned() })?;
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("standard output")?;
    std::io::stdin().read_to_end(&mut Vec::new()).context("standard input")?;
    Ok(())
}
