//! `maglev rollback`: restores the services of an older revision.

use maglev_api::view::{NewRollback, RolledBack};

use super::output::{Printer, Text};
use super::{Client, Failure};

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

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_api::view::{ChangeCounts, Changes};

    #[test]
    fn a_rollback_names_the_revision_it_made_or_says_that_nothing_differed() {
        let backends = ChangeCounts { added: 0, changed: 1, removed: 0 };
        let done = RolledBack { to: 41, revision: Some(57), changes: Changes { backends, ..Changes::default() } };
        assert_eq!(done.text(), "rolled back to revision 41 as revision 57: backends 1 changed\n");
        let none = RolledBack { revision: None, changes: Changes::default(), ..done };
        assert_eq!(none.text(), "nothing changed: the services are as they were at revision 41\n");
    }
}
