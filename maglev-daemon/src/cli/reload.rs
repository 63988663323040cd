//! `maglev reload`: the daemon reads its files again.

use super::output::{Printer, Text};
use super::{Client, Failure};
use crate::api::view::Reloaded;

pub(super) fn run(client: &Client, printer: &Printer) -> Result<(), Failure> {
    printer.answer(&client.post::<Reloaded>("/v1/reload", &())?)
}

impl Text for Reloaded {
    fn text(&self) -> String {
        let Self { restart_needed } = self;
        let mut text = "reloaded\n".to_owned();
        if !restart_needed.is_empty() {
            text += &format!("changed in the node file, takes effect after a restart: {}\n", restart_needed.join(", "));
        }
        text
    }
}
