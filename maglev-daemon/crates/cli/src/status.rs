//! `maglev status`: the node at a glance.

use maglev_api::view::Status;

use super::output::Printer;
use super::{Client, Failure};

pub(super) fn run(client: &Client, printer: &Printer) -> Result<(), Failure> {
    printer.answer(&client.get::<Status>("/v1/status")?)
}
