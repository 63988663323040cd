//! `maglev doctor`: what the daemon finds wrong on its node. It must not know what is examined.

use maglev_api::view::Findings;

use super::output::{Printer, Text};
use super::{Client, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Exit with 1 for warnings too
    #[arg(long)]
    strict: bool,
}

/// Prints the findings. An error if one of them is, or with `--strict` a warning.
pub(super) fn run(args: &Args, client: &Client, printer: &Printer) -> Result<(), Failure> {
    let findings: Findings = client.get("/v1/doctor")?;
    printer.answer(&findings)?;
    findings.verdict(args.strict).map_err(Failure::Bad)
}

impl Text for Findings {
    fn text(&self) -> String {
        self.to_string()
    }
}
