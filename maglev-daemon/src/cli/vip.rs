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
            let vip = view::NewVip {
                name: name.to_string(),
                address,
                port,
                protocol: protocol.into(),
                pool: pool.to_string(),
            };
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
        let view::Vip { name, address, port, protocol, pool, error, health } = vip;
        let view::VipHealth { serving, backends, panic, announced, withheld } = health;
        let panic = if *panic { "PANIC: " } else { "" };
        let serving = match error {
            Some(error) => format!("ERROR, not served: {error}"),
            None => format!("{panic}{serving} of {backends}"),
        };
        let announced = match (announced, withheld) {
            (None, _) => "-".to_owned(),
            (Some(true), _) => "yes".to_owned(),
            (Some(false), None) => "no".to_owned(),
            (Some(false), Some(why)) => format!("no: {why}"),
        };
        let [address, port, protocol] = [address.to_string(), port.to_string(), protocol.to_string()];
        [name.clone(), address, port, protocol, pool.clone(), serving, announced]
    };
    let header = ["name", "address", "port", "protocol", "pool", "serving", "announced"];
    table(header, &["port"], vips.iter().map(row))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_is_told_with_who_serves_it_and_whether_it_is_announced() {
        let vip = |health| view::Vip {
            name: "www".into(),
            address: [203, 0, 113, 10].into(),
            port: view::Port(None),
            protocol: Protocol::Tcp.into(),
            pool: "web".into(),
            error: None,
            health,
        };
        let well = view::VipHealth { serving: 2, backends: 3, announced: Some(true), ..view::VipHealth::default() };
        let withheld = Some("the node is drained".to_owned());
        let ill = view::VipHealth { panic: true, announced: Some(false), withheld, ..well.clone() };
        let text = vec![vip(well), vip(ill), vip(view::VipHealth::default())].text();
        let ends = [
            "SERVING        ANNOUNCED",
            "2 of 3         yes",
            "PANIC: 2 of 3  no: the node is drained",
            "0 of 0         -",
        ];
        for (line, end) in text.lines().zip(ends) {
            assert!(line.ends_with(end), "{text}");
        }
    }
}
