//! `cargo xtask demo`: builds and starts the demo.

use std::ffi::OsString;

use anyhow::Result;

use crate::lab;

/// Everything after `demo` is for the demo itself; `cargo xtask demo --help` shows its options.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

/// Replaces this process by the demo.
///
/// # Errors
/// As [`lab::start`].
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    lab::start("demo", &arguments.rest)
}
