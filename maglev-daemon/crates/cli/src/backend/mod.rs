//! `maglev backend`: the servers behind a pool.

use std::time::Duration;

use clap::Subcommand;
use maglev_api::view;
use maglev_api::view::StateOrder;
use maglev_model::{Mtu, Name, parse_timeout};

use super::changes::Change;
use super::output::Printer;
use super::{Client, Failure};

mod check;
pub(super) mod drain;

#[derive(Debug, Subcommand)]
pub(super) enum BackendCommand {
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
    /// Send a backend no new connections; it keeps those it has
    Drain {
        /// Its pool
        pool: Name,
        /// Its name
        name: Name,
        /// Wait until it is drained: until no flow is left to it; then it is safe to stop
        #[arg(long)]
        wait: bool,
        /// How long to wait at most, 1s to 24h; without end if not given
        #[arg(long, requires = "wait", value_parser = parse_timeout, value_name = "DURATION")]
        timeout: Option<Duration>,
        /// Even if it is the pool's last available backend
        #[arg(long)]
        force: bool,
    },
    /// Check a backend once, now, with its pool's check, and print the result; its health is not affected
    Check {
        /// Its pool
        pool: Name,
        /// Its name
        name: Name,
    },
    /// Set a backend's differences from its pool's check
    Set {
        /// Its pool
        pool: Name,
        /// Its name
        name: Name,
        /// The differences, as in services.yaml: 'port: 8080'; also path, host
        #[arg(long, value_name = "CHECK", required_unless_present = "no_check")]
        check: Option<String>,
        /// No difference: it is checked like the pool's other backends
        #[arg(long, conflicts_with = "check")]
        no_check: bool,
    },
    #[command(flatten)]
    Change(Change),
}

pub(super) fn run(command: BackendCommand, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match command {
        BackendCommand::List { pool: None } => printer.answer(&client.get::<Vec<view::Backend>>("/v1/backends")?),
        BackendCommand::List { pool: Some(pool) } => {
            printer.answer(&client.get::<view::Pool>(&format!("/v1/pools/{pool}"))?.backends)
        }
        BackendCommand::Show { pool, name } => printer.answer(&client.get::<view::Backend>(&path(&pool, &name))?),
        BackendCommand::Drain { pool, name, wait, timeout, force } => {
            drain::run(client, printer, (&pool, &name), wait.then_some(timeout), force)
        }
        BackendCommand::Check { pool, name } => check::run(client, printer, &pool, &name),
        BackendCommand::Set { pool, name, check, no_check: _ } => {
            let sentence = match &check {
                Some(check) => format!("backend {name} of pool {pool} has a check of its own: {check}"),
                None => format!("backend {name} of pool {pool} is checked like the pool's other backends"),
            };
            let done: view::Done = client.patch(&path(&pool, &name), &view::NewForBackend::Check(check))?;
            printer.done(&done, &sentence)
        }
        BackendCommand::Change(command) => change(command, client, printer),
    }
}

fn change(command: Change, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match command {
        Change::Add { pool, name, address, weight, mtu } => {
            let mtu = mtu.map(Mtu::bytes);
            let backend = view::NewBackend { name: name.to_string(), address, weight: weight.0, mtu };
            let done: view::Done = client.post(&format!("/v1/pools/{pool}/backends"), &backend)?;
            printer.done(&done, &format!("backend {name} added to pool {pool} with weight {weight}"))
        }
        Change::Remove { pool, name, force } => {
            let done = client.delete(&format!("{}?force={force}", path(&pool, &name)))?;
            printer.done(&done, &format!("backend {name} removed from pool {pool}"))
        }
        Change::Undrain { pool, name } => {
            order(client, printer, (&pool, &name), (StateOrder::Undrain, false), "is active again")
        }
        Change::Disable { pool, name, force } => {
            order(client, printer, (&pool, &name), (StateOrder::Disable, force), "is disabled")
        }
        Change::Enable { pool, name } => {
            order(client, printer, (&pool, &name), (StateOrder::Enable, false), "is active again")
        }
        Change::Weight { pool, name, weight, force } => {
            let path = format!("{}?force={force}", path(&pool, &name));
            let done: view::Done = client.patch(&path, &view::NewForBackend::Weight(weight.0))?;
            printer.done(&done, &format!("backend {name} of pool {pool} has weight {weight}"))
        }
    }
}

/// Requests a state, and prints the outcome.
fn order(
    client: &Client,
    printer: &Printer,
    (pool, name): (&Name, &Name),
    (order, force): (StateOrder, bool),
    outcome: &str,
) -> Result<(), Failure> {
    let path = format!("{}/state?force={force}", path(pool, name));
    let done: view::Done = client.post(&path, &view::NewState { order })?;
    printer.done(&done, &format!("backend {name} of pool {pool} {outcome}"))
}

/// A backend's path in the API.
fn path(pool: &Name, name: &Name) -> String {
    format!("/v1/pools/{pool}/backends/{name}")
}
