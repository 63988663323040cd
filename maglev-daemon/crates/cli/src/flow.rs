//! `maglev flow explain`: the VIP, slot and backend of a flow, with the reason.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use clap::Subcommand;
use maglev_api::view::Explanation;
use maglev_model::{BadValue, Protocol, parse_endpoint};

use super::output::{Printer, Text};
use super::{Client, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum FlowCommand {
    /// The VIP, slot and backend of a flow, with the reason
    Explain {
        /// The client's address and port, such as 198.51.100.7:40000 or [2001:db8::7]:40000; of esp and gre the address
        #[arg(value_parser = end)]
        client: SocketAddr,
        /// The destination address and port; of esp and gre the address
        #[arg(value_parser = end)]
        service: SocketAddr,
        /// tcp, udp, sctp, udplite, esp or gre
        #[arg(default_value_t = Protocol::Tcp)]
        protocol: Protocol,
    },
}

pub(super) fn run(command: &FlowCommand, client: &Client, printer: &Printer) -> Result<(), Failure> {
    let &FlowCommand::Explain { client: source, service, protocol } = command;
    let path = format!("/v1/flow?client={}&service={}&protocol={protocol}", encoded(source), encoded(service));
    printer.answer(&client.get::<Explanation>(&path)?)
}

/// One end of a flow; an address without a port has port 0.
fn end(text: &str) -> Result<SocketAddr, BadValue> {
    text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 0)).or_else(|_| parse_endpoint(text))
}

/// An address in a query: only brackets and a zone's percent sign need to be encoded.
fn encoded(address: SocketAddr) -> String {
    address.to_string().replace('%', "%25").replace('[', "%5B").replace(']', "%5D")
}

/// One end of a flow; without the port if it has none.
fn shown(end: &SocketAddr) -> String {
    if end.port() == 0 { end.ip().to_string() } else { end.to_string() }
}

impl Text for Explanation {
    fn text(&self) -> String {
        let Self { client, service, protocol, outcome, vip, pool, slot, backend, reason } = self;
        let slot = slot.map(|slot| slot.to_string());
        let rows = [
            ("flow", Some(format!("{} → {}/{protocol}", shown(client), shown(service)))),
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
