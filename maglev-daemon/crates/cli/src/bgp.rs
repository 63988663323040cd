//! `maglev bgp`: sessions with routers, and the prefixes that are announced to them.

use clap::Subcommand;
use maglev_api::view::{BgpNeighbors, BgpRoutes, Done};

use super::output::Printer;
use super::{Client, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum BgpCommand {
    /// The session with each neighbor, and its last error
    Neighbors,
    /// The prefixes of the VIPs: announced, or the reason why not
    Routes,
    /// Reset the session with a neighbor; it drops this node's prefixes until the session is established again
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
            // A neighbor's name has letters, digits, dots and colons; other characters match no neighbor.
            let path = format!("/v1/bgp/neighbors/{}/reset", name.replace(['/', '?', '#', '%', ' '], "_"));
            printer.done(&client.post::<Done>(&path, &())?, &format!("the session with {name} is being reset"))
        }
    }
}
