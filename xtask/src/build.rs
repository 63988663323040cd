//! `cargo xtask build`: the release binaries.

use anyhow::Result;

use crate::{program, setup};

/// Sets up, and builds the release binaries.
pub(crate) fn run() -> Result<()> {
    setup::run()?;
    program::run(program::command(program::cargo()).args([
        "build",
        "--release",
        "--locked",
        "--package",
        "maglev-daemon",
        "--package",
        "maglev-cli",
    ]))?;
    println!("build: target/release/maglevd and target/release/maglev are built");
    Ok(())
}

/// Builds the release binaries for the end-to-end tests.
///
/// # Errors
/// If it does not build.
pub(crate) fn for_tests() -> Result<()> {
    println!("building the release binaries for the end-to-end tests");
    let mut release = program::command(program::cargo());
    let packages = ["-p", "maglev-daemon", "-p", "maglev-cli", "-p", "maglev-e2e"];
    program::run(release.args(["build", "--release", "--locked", "--bins"]).args(packages))
}
