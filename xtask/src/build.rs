//! `cargo xtask build`: the release binaries.

use anyhow::Result;

use crate::{program, setup};

/// Sets up, and builds everything that ships, optimised.
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
