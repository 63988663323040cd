//! `cargo xtask demo`: builds and starts the demo.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::program;

/// Everything after `demo` is for the demo itself; `cargo xtask demo --help` shows its options.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

/// Sets up, builds the release binaries, and replaces this process by the demo, with its output and exit code.
///
/// The process is replaced so that Ctrl-C reaches the demo alone, and the shell waits until it has cleaned up.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !program::is_root() {
        bail!("the demo needs root: it makes network namespaces and loads programs into the kernel; try with sudo");
    }
    // The output of setup goes to standard error: standard output is the demo's, which may be JSON.
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
    let demo = program::workspace().join("target/release/maglev-lab");
    Err(Command::new(&demo).arg("demo").args(&arguments.rest).exec())
        .with_context(|| format!("cannot start {}", demo.display()))
}
