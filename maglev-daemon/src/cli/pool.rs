//! `maglev pool`: sets of backends that serve the same content.

use clap::Subcommand;

use super::output::{Printer, Text, table};
use super::{Client, Failure, backend};
use crate::api::view;
use crate::model::Name;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// All pools
    List,
    /// One pool with its VIPs and backends
    Show {
        /// Its name
        name: Name,
    },
    /// Add a pool without backends
    Add {
        /// Its name
        name: Name,
    },
    /// Remove a pool that serves no VIP, and its backends
    Remove {
        /// Its name
        name: Name,
    },
}

pub(super) fn run(command: Command, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match command {
        Command::List => printer.answer(&client.get::<Vec<view::PoolSummary>>("/v1/pools")?),
        Command::Show { name } => printer.answer(&client.get::<view::Pool>(&format!("/v1/pools/{name}"))?),
        Command::Add { name } => {
            let done: view::Done = client.post("/v1/pools", &view::NewPool { name: name.to_string() })?;
            printer.done(&done, &format!("pool {name} added"))
        }
        Command::Remove { name } => {
            let done = client.delete(&format!("/v1/pools/{name}"))?;
            printer.done(&done, &format!("pool {name} removed"))
        }
    }
}

/// Pools as a table.
pub(super) fn summaries(pools: &[view::PoolSummary]) -> String {
    let row = |pool: &view::PoolSummary| {
        let view::PoolSummary { name, table_digest, backends } = pool;
        [name.clone(), backends.to_string(), table_digest.clone()]
    };
    table(["name", "backends", "table digest"], &["backends"], pools.iter().map(row))
}

impl Text for Vec<view::PoolSummary> {
    fn text(&self) -> String {
        summaries(self)
    }
}

impl Text for view::Pool {
    fn text(&self) -> String {
        let Self { name, table_digest, vips, backends } = self;
        let vips = if vips.is_empty() { "none".to_owned() } else { vips.join(", ") };
        format!(
            "pool          {name}\ntable digest  {table_digest}\nVIPs          {vips}\n\n{}",
            backend::list(backends)
        )
    }
}
