//! `maglev decap`: the service that decapsulates on a backend. It must not know a node's daemon.

use clap::Subcommand;
use maglev_api::view::{DecapCounters, DecapReloaded, DecapStatus};
use maglev_model::runbook::{Entry, parse_backend};

use super::output::Printer;
use super::{Client, Failure};

/// The service's socket by default.
pub(super) const DEFAULT_SOCKET: &str = "/run/maglev-decap/maglev-decap.sock";

/// The remedy if no service answers.
const REMEDY: &str = "does `maglevd decap --config` run? systemctl status maglev-decap";

#[derive(Debug, Subcommand)]
pub(super) enum DecapCommand {
    /// Interfaces, sources, VIPs and MSS that are in force, and what is pinned
    Status,
    /// Packets of all interfaces by outcome
    Counters {
        /// Explain one counter, without the service: its packets, the checks to make, and the remedy
        #[arg(id = "counter", long = "why", value_name = "COUNTER", value_parser = parse_backend)]
        counter: Option<Entry>,
    },
    /// Reload decap.yaml; a file with errors changes nothing
    Reload,
}

pub(super) fn run(command: &DecapCommand, client: Client, printer: &Printer) -> Result<(), Failure> {
    let client = client.with_remedy(REMEDY);
    match command {
        DecapCommand::Status => printer.answer(&client.get::<DecapStatus>("/v1/decap/status")?),
        DecapCommand::Counters { counter: Some(entry) } => printer.answer(entry),
        DecapCommand::Counters { counter: None } => printer.answer(&client.get::<DecapCounters>("/v1/decap/counters")?),
        DecapCommand::Reload => printer.answer(&client.post::<DecapReloaded>("/v1/decap/reload", &())?),
    }
}
