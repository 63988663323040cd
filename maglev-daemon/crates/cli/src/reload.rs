//! `maglev reload`: reloads the configuration.

use maglev_api::view::Reloaded;

use super::output::{Printer, Text};
use super::{Client, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Even if that takes out more than 30 % of a pool's available backends, or the last one, or more than 10 % of the VIPs
    #[arg(long)]
    force: bool,
}

pub(super) fn run(Args { force }: &Args, client: &Client, printer: &Printer) -> Result<(), Failure> {
    printer.answer(&client.post::<Reloaded>(&format!("/v1/reload?force={force}"), &())?)
}

impl Text for Reloaded {
    fn text(&self) -> String {
        let Self { restart_needed, changes, neighbors, data_plane } = self;
        let mut text = format!("reloaded: {changes}\n");
        neighbors.iter().for_each(|neighbor| text += &format!("{neighbor}\n"));
        if !data_plane.is_empty() {
            text += &format!("data plane: {} changed, connections go on\n", data_plane.join(", "));
        }
        if !restart_needed.is_empty() {
            text += &format!("these maglev.yaml changes need a restart: {}\n", restart_needed.join(", "));
        }
        text
    }
}
