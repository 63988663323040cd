//! `cargo xtask soak`: builds and starts the soak.

use std::ffi::OsString;

use anyhow::Result;

use crate::lab;

/// Everything after `soak` is for the soak itself; `cargo xtask soak --help` shows its options.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

/// Replaces this process by the soak.
///
/// # Errors
/// As [`lab::start`].
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    lab::start("soak", &arguments.rest)
}
