//! `maglevd preflight`: what a start of this release would do with what forwards now. It must not change anything.

use std::path::PathBuf;

use maglev_daemon::runtime::{Failure, preflight};

use crate::DEFAULT_CONFIG;

/// The arguments of `maglevd preflight`.
#[derive(Debug, clap::Args)]
pub(super) struct PreflightArgs {
    /// The node file
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    config: PathBuf,

    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the findings. An error if a start would be refused, or would lose flow entries.
pub(super) fn run(args: &PreflightArgs) -> Result<(), Failure> {
    let findings = preflight::examine(&args.config)?;
    match args.json {
        true => crate::say(&serde_json::to_string(&findings).map_err(anyhow::Error::from)?)?,
        false => crate::say(findings.to_string().trim_end())?,
    }
    match findings.verdict() {
        Ok(()) => Ok(()),
        Err(reason) => Err(anyhow::anyhow!(reason).into()),
    }
}
