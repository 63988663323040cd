//! `cargo xtask bench`: builds and starts the benchmark.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{against, kernels::instructions, program};

/// Everything after `bench` is for the benchmark itself; `cargo xtask bench --help` shows its options.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

/// Sets up, builds the release binaries and the benchmark, and replaces this process by the benchmark, with its output and
/// exit code.
///
/// The released binaries are built separately, without the benchmark's features.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let own = program::own()?;
    // Progress goes to standard error: standard output is the benchmark's.
    program::run(program::command(own).arg("setup").stdout(std::io::stderr()))?;
    let build = ["build", "--release", "--locked", "--package"];
    program::run(program::command(program::cargo()).args(build).args([
        "maglev-daemon",
        "--package",
        "maglev-cli",
        "--bins",
    ]))?;
    let features = ["maglev-e2e", "--bins", "--features", "bench"];
    program::run(program::command(program::cargo()).args(build).args(features))?;
    let rest = against::built(&arguments.rest)?;
    let folder = program::workspace().join("target/release");
    if rest.iter().any(|argument| argument == instructions::OPTION) {
        if !instructions::compare(&folder, &rest)? {
            bail!("the comparison failed");
        }
        return Ok(());
    }
    let bench = folder.join("maglev-bench");
    Err(Command::new(&bench).args(rest).exec()).with_context(|| format!("cannot start {}", bench.display()))
}
