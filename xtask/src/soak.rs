//! `cargo xtask soak`: builds and starts the soak.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::program;

/// Everything after `soak` is for the soak itself; `cargo xtask soak --help` shows its options.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

/// Sets up, builds the release binaries, and replaces this process by the soak, with its output and exit code.
///
/// The process is replaced so that Ctrl-C reaches the soak alone, and the shell waits until it has cleaned up.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !program::is_root() {
        bail!("the soak needs root: it makes network namespaces and loads programs into the kernel; try with sudo");
    }
    // The output of setup goes to standard error: standard output is the soak's.
    let own = std::env::current_exe().context("cannot find this program")?;
    program::run(program::command(own).arg("setup").stdout(std::io::stderr()))?;
    program::run(program::command(program::cargo()).args([
        "build",
        "--release",
        "--locked",
        "--bins",
        "--package",
        "maglev-daemon",
        "--package",
        "maglev-cli",
        "--package",
        "maglev-e2e",
    ]))?;
    let soak = program::workspace().join("target/release/maglev-lab");
    Err(Command::new(&soak).arg("soak").args(&arguments.rest).exec())
        .with_context(|| format!("cannot start {}", soak.display()))
}
