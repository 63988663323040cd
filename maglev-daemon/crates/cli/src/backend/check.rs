//! `maglev backend check`: one check now, and its result. It must not know how a check is made.

use std::time::Duration;

use maglev_api::view::CheckReport;
use maglev_model::Name;

use crate::interrupt::Interrupt;
use crate::output::Printer;
use crate::{Client, Failure};

/// Longer than the longest timeout that a check may have, and a wait for a socket.
const LONGEST: Duration = Duration::from_secs(75);

pub(super) fn run(client: &Client, printer: &Printer, pool: &Name, name: &Name) -> Result<(), Failure> {
    let path = format!("{}/check", super::path(pool, name));
    let _interrupt = Interrupt::says("nothing was changed; the check ends without this command")?;
    let report: CheckReport = client.post_within(&path, &(), LONGEST)?;
    printer.answer(&report)?;
    match (report.failed(), report.targets.len()) {
        (0, _) => Ok(()),
        (1, 1) => Err(Failure::Bad(format!("backend {name} of pool {pool} fails its check"))),
        (failed, all) => Err(Failure::Bad(format!("backend {name} of pool {pool} fails {failed} of {all} checks"))),
    }
}
