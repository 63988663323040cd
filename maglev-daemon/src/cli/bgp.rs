//! `maglev bgp`: sessions with routers, and what they are told.

use clap::Subcommand;

use super::output::{Printer, Text, table};
use super::{Client, Failure};
use crate::api::view::{BgpNeighbor, BgpNeighbors, BgpRoute, BgpRoutes, Done};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The session with each neighbour, and why the last one ended
    Neighbors,
    /// The prefixes of the VIPs: which are announced, and why the others are not
    Routes,
    /// One neighbour
    Neighbor {
        /// Its name, or its address if it has none
        name: String,
        #[command(subcommand)]
        order: Order,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum Order {
    /// End its session and begin another: it drops what it knows of this node for a moment
    Reset,
}

pub(super) fn run(command: &Command, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match command {
        Command::Neighbors => printer.answer(&client.get::<BgpNeighbors>("/v1/bgp/neighbors")?),
        Command::Routes => printer.answer(&client.get::<BgpRoutes>("/v1/bgp/routes")?),
        Command::Neighbor { name, order: Order::Reset } => {
            // A name is of letters, digits, dots and colons; whatever else is given is no neighbour's.
            let path = format!("/v1/bgp/neighbors/{}/reset", name.replace(['/', '?', '#', '%', ' '], "_"));
            printer.done(&client.post::<Done>(&path, &())?, &format!("the session with {name} is being reset"))
        }
    }
}

impl Text for BgpNeighbors {
    fn text(&self) -> String {
        let now = crate::api::now().0;
        let row = |neighbor: &BgpNeighbor| {
            let BgpNeighbor { name, remote_as, state, since, prefixes_sent, sessions: _, last_error, last_error_at } =
                neighbor;
            let ago = |at: u64| super::status::duration(now.saturating_sub(at));
            let error = last_error.as_ref().map(|error| match last_error_at {
                Some(at) => format!("{error}, {} ago", ago(*at)),
                None => error.clone(),
            });
            let [remote_as, sent] = [remote_as.to_string(), prefixes_sent.to_string()];
            [name.clone(), remote_as, state.clone(), ago(*since), sent, error.unwrap_or_else(|| "-".into())]
        };
        let columns = ["neighbor", "as", "state", "since", "prefixes sent", "last error"];
        table(columns, &["as", "prefixes sent"], self.0.iter().map(row))
    }
}

impl Text for BgpRoutes {
    fn text(&self) -> String {
        let row = |route: &BgpRoute| {
            let BgpRoute { prefix, announced, reason, vips, communities } = route;
            let state = match (announced, reason) {
                (true, _) => "yes".to_owned(),
                (false, Some(reason)) => format!("no: {reason}"),
                (false, None) => "no".to_owned(),
            };
            let communities = if communities.is_empty() { "-".to_owned() } else { communities.join(" ") };
            [prefix.to_string(), state, vips.join(" "), communities]
        };
        table(["prefix", "announced", "vips", "communities"], &[], self.0.iter().map(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_tells_states_and_reasons() {
        let error = "the neighbour ended it: cease, administrative shutdown (6/2): \"new line card\"";
        let neighbor = BgpNeighbor {
            name: "tor1".into(),
            remote_as: 65_000,
            state: "active".into(),
            last_error: Some(error.into()),
            ..BgpNeighbor::default()
        };
        let text = BgpNeighbors(vec![neighbor]).text();
        assert!(text.contains("tor1") && text.contains("active") && text.contains(error), "{text}");
        let route = BgpRoute {
            prefix: "203.0.113.10/32".parse().unwrap(),
            announced: false,
            reason: Some("the node is drained".into()),
            vips: vec!["www".into(), "www6".into()],
            communities: vec!["65010:1".into()],
        };
        let text = BgpRoutes(vec![route]).text();
        assert!(text.contains("203.0.113.10/32") && text.contains("no: the node is drained"), "{text}");
        assert!(text.contains("www www6") && text.contains("65010:1"), "{text}");
    }
}
