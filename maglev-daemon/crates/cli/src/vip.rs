//! `maglev vip`: the addresses that clients connect to.

use std::collections::BTreeSet;

use clap::{ArgGroup, Args, Subcommand};
use maglev_api::view;
use maglev_model::{
    Affinity, AnnounceBy, AnnounceChange, Community, Name, Protocol, Unserved, VipChange, parse_unserved,
};

use super::output::Printer;
use super::{Client, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum VipCommand {
    /// All VIPs
    List,
    /// One VIP
    Show {
        /// Its name
        name: Name,
    },
    /// Add a VIP served by a pool
    Add {
        /// Its name
        name: Name,
        /// The address that clients connect to, IPv4 or IPv6, or a prefix such as 203.0.113.0/28
        #[arg(long)]
        address: view::Address,
        /// The port, 1 to 65535, a range such as 8000-8100, or any
        #[arg(long)]
        port: view::Port,
        /// tcp, udp, sctp, udplite, esp, gre or any; the last three with --port any
        #[arg(long)]
        protocol: Protocol,
        /// The pool that serves it
        #[arg(long)]
        pool: Name,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change the settings of a VIP
    #[command(group = ArgGroup::new("setting").args(["announce", "community", "no_communities", "when_empty", "affinity"]).required(true).multiple(true))]
    Set {
        /// Its name
        name: Name,
        #[command(flatten)]
        settings: Settings,
        /// Remove the communities of its prefix
        #[arg(long, conflicts_with = "community")]
        no_communities: bool,
    },
    /// Remove a VIP; its packets are no longer balanced
    Remove {
        /// Its name
        name: Name,
    },
}

/// The settings of a VIP.
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// true (its address as a prefix), false, or a prefix that contains its address, such as 203.0.113.0/24; true by default
    #[arg(long, value_name = "PREFIX|BOOL")]
    announce: Option<AnnounceBy>,
    /// A community of its prefix, such as 65010:100; repeat for more; replaces the old ones
    #[arg(long, value_name = "COMMUNITY")]
    community: Vec<Community>,
    /// The handling of its packets while its pool has no backend: drop, or reset (TCP is answered with a RST, UDP with an ICMP port
    /// unreachable); drop by default
    #[arg(long, value_parser = parse_unserved, value_name = "drop|reset")]
    when_empty: Option<Unserved>,
    /// By what its flows find their backend: 5-tuple (addresses, ports and protocol), source (all connections of a client to one
    /// backend), or source/24 and the like; 5-tuple by default. A change moves flows to other backends, which ends connections
    #[arg(long, value_name = "5-tuple|source|source/LENGTH")]
    affinity: Option<Affinity>,
}

impl From<Settings> for VipChange {
    fn from(Settings { announce, community, when_empty, affinity }: Settings) -> Self {
        let communities = community.into_iter().collect::<BTreeSet<_>>();
        let communities = Some(communities).filter(|all| !all.is_empty());
        Self { announce: AnnounceChange { by: announce, communities }, when_empty, affinity }
    }
}

/// The request body.
fn body(change: &VipChange) -> view::NewForVip {
    let VipChange { announce: AnnounceChange { by, communities }, when_empty, affinity } = change;
    let communities = communities.as_ref().map(|all| all.iter().map(ToString::to_string).collect());
    let (announce, affinity) = (by.map(|by| by.to_string()), affinity.map(|affinity| affinity.to_string()));
    view::NewForVip { announce, communities, when_empty: when_empty.map(Into::into), affinity }
}

pub(super) fn run(command: VipCommand, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match command {
        VipCommand::List => printer.answer(&client.get::<Vec<view::Vip>>("/v1/vips")?),
        VipCommand::Show { name } => printer.answer(&client.get::<view::Vip>(&format!("/v1/vips/{name}"))?),
        VipCommand::Set { name, settings, no_communities } => {
            let mut change = VipChange::from(settings);
            if no_communities {
                change.announce.communities = Some(BTreeSet::new());
            }
            let done: view::Done = client.patch(&format!("/v1/vips/{name}"), &body(&change))?;
            printer.done(&done, &format!("VIP {name} has {change}"))
        }
        VipCommand::Add { name, address, port, protocol, pool, settings } => {
            let view::NewForVip { announce, communities, when_empty, affinity } = body(&settings.into());
            let vip = view::NewVip {
                name: name.to_string(),
                address,
                port,
                protocol: protocol.into(),
                pool: pool.to_string(),
                announce,
                communities,
                when_empty,
                affinity,
            };
            let done: view::Done = client.post("/v1/vips", &vip)?;
            printer.done(&done, &format!("VIP {name} added"))
        }
        VipCommand::Remove { name } => {
            let done = client.delete(&format!("/v1/vips/{name}"))?;
            printer.done(&done, &format!("VIP {name} removed"))
        }
    }
}

#[cfg(test)]
mod faults {
    use clap::Parser;

    use super::*;
    use maglev_testing::matrix::Row;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: VipCommand,
    }

    #[test]
    fn settings_are_set_by_the_command_line() {
        let none = view::NewForVip::default;
        let set = |arguments: &[&str]| {
            let line = Line::try_parse_from([&["vip", "set", "www"], arguments].concat())
                .map_err(|error| error.to_string())?;
            let VipCommand::Set { settings, .. } = line.command else { panic!() };
            Ok::<_, String>(body(&settings.into()))
        };
        {
            let _row = Row::fault("R9", "vip set: announce and communities are read, and sent as the API takes them");
            let both = set(&["--announce", "203.0.113.0/24", "--community", "65010:100", "--community", "no-export"]);
            let communities = Some(vec!["65010:100".to_owned(), "65535:65281".to_owned()]);
            assert_eq!(both, Ok(view::NewForVip { announce: Some("203.0.113.0/24".into()), communities, ..none() }));
            let off = set(&["--announce", "false"]);
            assert_eq!(off, Ok(view::NewForVip { announce: Some("false".into()), ..none() }));
            let reset = set(&["--when-empty", "reset"]);
            assert_eq!(reset, Ok(view::NewForVip { when_empty: Some(view::Unserved::Reset), ..none() }));
            let source = set(&["--affinity", "source/24"]);
            assert_eq!(source, Ok(view::NewForVip { affinity: Some("source/24".into()), ..none() }));
            let removed = Line::try_parse_from(["vip", "set", "www", "--no-communities"]).unwrap();
            assert!(matches!(removed.command, VipCommand::Set { no_communities: true, .. }));
        }
        let _row = Row::fault("R9", "vip set: a bad value is refused with its field and what is allowed");
        let refused = set(&["--announce", "203.0.113.1/24"]).unwrap_err();
        assert!(refused.contains("--announce") && refused.contains("write 203.0.113.0/24"), "{refused}");
        let refused = set(&["--community", "1"]).unwrap_err();
        assert!(refused.contains("--community") && refused.contains("1 is not a community"), "{refused}");
        let refused = set(&["--when-empty", "refuse"]).unwrap_err();
        assert!(refused.contains("--when-empty") && refused.contains("refuse is not a rule"), "{refused}");
        let refused = set(&["--affinity", "client"]).unwrap_err();
        assert!(refused.contains("--affinity") && refused.contains("client is not an affinity"), "{refused}");
        assert!(set(&[]).unwrap_err().contains("--announce"), "there must be something to set");
    }
}
