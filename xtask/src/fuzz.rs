//! `cargo xtask fuzz`: builds and starts the fuzzer of the loaded programs.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

use crate::program;

pub(crate) mod coverage;

/// Everything after `fuzz` is for the fuzzer itself; `cargo xtask fuzz --help` shows its options.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

/// Sets up, builds the fuzzer, and replaces this process by it, with its output and exit code.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let [first, rest @ ..] = &arguments.rest[..]
        && first == "coverage"
    {
        return coverage::run(rest);
    }
    let own = program::own()?;
    // Progress goes to standard error: standard output is the fuzzer's.
    program::run(program::command(own).arg("setup").stdout(std::io::stderr()))?;
    let build = ["build", "--release", "--locked", "--package", "maglev-fuzz"];
    let fuzzer = ["--bin", "maglev-fuzz", "--features", "loaded"];
    program::run(program::command(program::cargo()).args(build).args(fuzzer))?;
    let fuzzer = program::workspace().join("target/release/maglev-fuzz");
    Err(Command::new(&fuzzer).args(&arguments.rest).exec())
        .with_context(|| format!("cannot start {}", fuzzer.display()))
}
