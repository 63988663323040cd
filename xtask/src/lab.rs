//! Builds the release binaries and starts one of the lab's programs in this process's place. It must not know what they do.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::program;

/// Sets up, builds the release binaries, and replaces this process by `maglev-lab NAME`, with its output and exit code.
///
/// The process is replaced so that Ctrl-C reaches the program alone, and the shell waits until it has cleaned up.
///
/// # Errors
/// Without root; or if something does not build.
pub(crate) fn start(name: &str, arguments: &[OsString]) -> Result<()> {
    if !program::is_root() {
        bail!("the {name} needs root: it makes network namespaces and loads programs into the kernel; try with sudo");
    }
    // The output of setup goes to standard error: standard output is the program's, which may be JSON.
    let own = program::own()?;
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
    let lab = program::workspace().join("target/release/maglev-lab");
    Err(Command::new(&lab).arg(name).args(arguments).exec()).with_context(|| format!("cannot start {}", lab.display()))
}
