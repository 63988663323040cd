//! `maglev rollback`: the services of an older revision are taken over.

use maglev_api::view::{NewRollback, RolledBack};

use super::output::{Printer, Text};
use super::{Client, Failure};

/// Where to go back to.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The revision, as `maglev history` lists it
    revision: u64,
    /// Even if that takes out more than 30 % of a pool's available backends, or the last one, or more than 10 % of the VIPs
    #[arg(long)]
    force: bool,
}

pub(super) fn run(Args { revision, force }: Args, client: &Client, printer: &Printer) -> Result<(), Failure> {
    printer.answer(&client.post::<RolledBack>("/v1/rollback", &NewRollback { revision, force })?)
}

impl Text for RolledBack {
    fn text(&self) -> String {
        let Self { to, revision, changes } = self;
        match revision {
            Some(revision) => format!("rolled back to revision {to} as revision {revision}: {changes}\n"),
            None => format!("nothing changed: the services are as they were at revision {to}\n"),
        }
    }
}
