//! `maglev flow explain`: the VIP, slot and backend of a flow, with the reason.

use std::fmt::Write as _;
use std::net::SocketAddr;

use clap::Subcommand;
use maglev_api::view::Explanation;
use maglev_model::{Protocol, parse_endpoint};

use super::output::{Printer, Text};
use super::{Client, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum FlowCommand {
    /// The VIP, slot and backend of a flow, with the reason
    Explain {
        /// The client's address and port, such as 198.51.100.7:40000 or [2001:db8::7]:40000
        #[arg(value_parser = parse_endpoint)]
        client: SocketAddr,
        /// The destination address and port
        #[arg(value_parser = parse_endpoint)]
        service: SocketAddr,
        /// tcp or udp
        #[arg(default_value_t = Protocol::Tcp)]
        protocol: Protocol,
    },
}

pub(super) fn run(command: &FlowCommand, client: &Client, printer: &Printer) -> Result<(), Failure> {
    let &FlowCommand::Explain { client: source, service, protocol } = command;
    let path = format!("/v1/flow?client={}&service={}&protocol={protocol}", encoded(source), encoded(service));
    printer.answer(&client.get::<Explanation>(&path)?)
}

/// An address in a query: only brackets and a zone's percent sign need to be encoded.
fn encoded(address: SocketAddr) -> String {
    address.to_string().replace('%', "%25").replace('[', "%5B").replace(']', "%5D")
}

impl Text for Explanation {
    fn text(&self) -> String {
        let Self { client, service, protocol, outcome, vip, pool, slot, backend, reason } = self;
        let slot = slot.map(|slot| slot.to_string());
        let rows = [
            ("flow", Some(format!("{client} → {service}/{protocol}"))),
            ("outcome", Some(outcome.clone())),
            ("VIP", vip.clone()),
            ("pool", pool.clone()),
            ("slot", slot),
            ("backend", backend.clone()),
            ("reason", Some(reason.clone())),
        ];
        let mut text = String::new();
        for (name, value) in rows {
            let _ = writeln!(text, "{name:<9}{}", value.as_deref().unwrap_or("-"));
        }
        text
    }
}
