//! `maglev backend`: the servers behind a pool.

use std::net::IpAddr;

use clap::Subcommand;

use super::output::{Printer, Text, table};
use super::{Client, Failure};
use crate::api::view;
use crate::model::{Name, Weight, parse_address};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// All backends, or those of one pool
    List {
        /// Only this pool's
        pool: Option<Name>,
    },
    /// One backend
    Show {
        /// Its pool
        pool: Name,
        /// Its name
        name: Name,
    },
    /// Add a backend to a pool
    Add {
        /// The pool
        pool: Name,
        /// Its name, unique in the pool
        name: Name,
        /// Where encapsulated packets go, IPv4 or IPv6
        #[arg(long, value_parser = parse_address)]
        address: IpAddr,
        /// Its share relative to the pool's other backends, 0 to 65535; 0 gets no new flows
        #[arg(long, default_value_t = Weight::DEFAULT)]
        weight: Weight,
    },
    /// Remove a backend; its flows go to others at once
    Remove {
        /// Its pool
        pool: Name,
        /// Its name
        name: Name,
    },
    /// Change a backend's weight
    Weight {
        /// Its pool
        pool: Name,
        /// Its name
        name: Name,
        /// The new weight, 0 to 65535; 0 gets no new flows
        weight: Weight,
    },
}

pub(super) fn run(command: Command, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match command {
        Command::List { pool: None } => printer.answer(&client.get::<Vec<view::Backend>>("/v1/backends")?),
        Command::List { pool: Some(pool) } => {
            printer.answer(&client.get::<view::Pool>(&format!("/v1/pools/{pool}"))?.backends)
        }
        Command::Show { pool, name } => printer.answer(&client.get::<view::Backend>(&path(&pool, &name))?),
        Command::Add { pool, name, address, weight } => {
            let backend = view::NewBackend { name: name.to_string(), address, weight: weight.0 };
            let done: view::Done = client.post(&format!("/v1/pools/{pool}/backends"), &backend)?;
            printer.done(&done, &format!("backend {name} added to pool {pool} with weight {weight}"))
        }
        Command::Remove { pool, name } => {
            let done = client.delete(&path(&pool, &name))?;
            printer.done(&done, &format!("backend {name} removed from pool {pool}"))
        }
        Command::Weight { pool, name, weight } => {
            let done: view::Done = client.patch(&path(&pool, &name), &view::NewWeight { weight: weight.0 })?;
            printer.done(&done, &format!("backend {name} of pool {pool} has weight {weight}"))
        }
    }
}

fn path(pool: &Name, name: &Name) -> String {
    format!("/v1/pools/{pool}/backends/{name}")
}

/// Backends as a table.
pub(super) fn list(backends: &[view::Backend]) -> String {
    let row = |backend: &view::Backend| {
        let view::Backend { pool, name, address, weight, state, slots: _, share, next_hop } = backend;
        let share = format!("{:.2} %", share * 100.0);
        let state = state.as_str().to_owned();
        [pool.clone(), name.clone(), address.to_string(), weight.to_string(), share, state, way(next_hop)]
    };
    let header = ["pool", "name", "address", "weight", "share", "state", "next hop"];
    table(header, &["weight", "share"], backends.iter().map(row))
}

fn way(next_hop: &view::NextHop) -> String {
    match next_hop {
        view::NextHop::Resolved { interface, mac, gateway: None } => format!("{mac} on {interface}"),
        view::NextHop::Resolved { interface, mac, gateway: Some(gateway) } => {
            format!("{mac} on {interface} via {gateway}")
        }
        view::NextHop::Unresolved { reason } => format!("unresolved: {reason}"),
    }
}

impl Text for Vec<view::Backend> {
    fn text(&self) -> String {
        list(self)
    }
}

impl Text for view::Backend {
    fn text(&self) -> String {
        list(std::slice::from_ref(self))
    }
}
