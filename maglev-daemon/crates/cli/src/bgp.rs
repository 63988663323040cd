//! `maglev bgp`: sessions with routers, and the prefixes that are announced to them.

use clap::Subcommand;
use maglev_api::view::{BgpNeighbors, BgpRoutes, Done};

use super::output::Printer;
use super::{Client, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum BgpCommand {
    /// The session with each neighbour, and why the last one ended
    Neighbors,
    /// The prefixes of the VIPs: which are announced, and why the others are not
    Routes,
    /// End the session with a neighbor and begin another: it drops the prefixes of this node for a moment
    Reset {
        /// Its name, or its address if it has none
        name: String,
    },
}

pub(super) fn run(command: &BgpCommand, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match command {
        BgpCommand::Neighbors => printer.answer(&client.get::<BgpNeighbors>("/v1/bgp/neighbors")?),
        BgpCommand::Routes => printer.answer(&client.get::<BgpRoutes>("/v1/bgp/routes")?),
        BgpCommand::Reset { name } => {
            // A name is of letters, digits, dots and colons; whatever else is given is no neighbour's.
            let path = format!("/v1/bgp/neighbors/{}/reset", name.replace(['/', '?', '#', '%', ' '], "_"));
            printer.done(&client.post::<Done>(&path, &())?, &format!("the session with {name} is being reset"))
        }
    }
}
