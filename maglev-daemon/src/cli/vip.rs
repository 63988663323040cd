//! `maglev vip`: what clients connect to.

use std::net::IpAddr;

use clap::Subcommand;

use super::output::{Printer, Text, table};
use super::{Client, Failure};
use crate::api::view;
use crate::model::{Name, Protocol, parse_address, parse_port};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
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
        /// The address that clients connect to, IPv4 or IPv6
        #[arg(long, value_parser = parse_address)]
        address: IpAddr,
        /// The port, 1 to 65535, or any
        #[arg(long, value_parser = port)]
        port: view::Port,
        /// tcp or udp
        #[arg(long)]
        protocol: Protocol,
        /// The pool that serves it
        #[arg(long)]
        pool: Name,
    },
    /// Remove a VIP; its packets are no longer taken
    Remove {
        /// Its name
        name: Name,
    },
}

fn port(text: &str) -> Result<view::Port, crate::model::BadValue> {
    parse_port(text).map(view::Port)
}

pub(super) fn run(command: Command, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match command {
        Command::List => printer.answer(&client.get::<Vec<view::Vip>>("/v1/vips")?),
        Command::Show { name } => printer.answer(&client.get::<view::Vip>(&format!("/v1/vips/{name}"))?),
        Command::Add { name, address, port, protocol, pool } => {
            let vip =
                view::Vip { name: name.to_string(), address, port, protocol: protocol.into(), pool: pool.to_string() };
            let done: view::Done = client.post("/v1/vips", &vip)?;
            printer.done(&done, &format!("VIP {name} added"))
        }
        Command::Remove { name } => {
            let done = client.delete(&format!("/v1/vips/{name}"))?;
            printer.done(&done, &format!("VIP {name} removed"))
        }
    }
}

/// VIPs as a table.
pub(super) fn list(vips: &[view::Vip]) -> String {
    let row = |vip: &view::Vip| {
        let view::Vip { name, address, port, protocol, pool } = vip;
        [name.clone(), address.to_string(), port.to_string(), protocol.to_string(), pool.clone()]
    };
    table(["name", "address", "port", "protocol", "pool"], &["port"], vips.iter().map(row))
}

impl Text for Vec<view::Vip> {
    fn text(&self) -> String {
        list(self)
    }
}

impl Text for view::Vip {
    fn text(&self) -> String {
        list(std::slice::from_ref(self))
    }
}
