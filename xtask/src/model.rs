//! `cargo xtask model`: builds and starts the model.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

use crate::program;

/// Everything after `model` is for the model itself; `cargo xtask model --help` shows its options.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

/// Sets up, builds the model, and replaces this process by it, with its output and exit code.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let own = program::own()?;
    // Progress goes to standard error: standard output is the model's.
    program::run(program::command(own).arg("setup").stdout(std::io::stderr()))?;
    let build = ["build", "--release", "--locked", "--package", "maglev-e2e"];
    let model = ["--bin", "maglev-model", "--features", "model"];
    program::run(program::command(program::cargo()).args(build).args(model))?;
    let model = program::workspace().join("target/release/maglev-model");
    Err(Command::new(&model).args(&arguments.rest).exec()).with_context(|| format!("cannot start {}", model.display()))
}
