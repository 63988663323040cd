//! `maglev pool`: sets of backends that serve the same content.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};

use super::output::{Printer, Text, table};
use super::{Client, Failure, backend};
use crate::api::view;
use crate::model::{Name, SettingsChange, ShownDuration, Tracking, UdpPolicy, tracking_word, udp_word};
use crate::model::{parse_idle, parse_learning, parse_tracking, parse_udp};

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
        #[command(flatten)]
        settings: Settings,
    },
    /// Change how a pool keeps connections while its backends change
    #[command(group = ArgGroup::new("setting").args(["tracking", "learning", "idle", "udp"]).required(true).multiple(true))]
    Set {
        /// Its name
        name: Name,
        #[command(flatten)]
        settings: Settings,
    },
    /// Remove a pool that serves no VIP, and its backends
    Remove {
        /// Its name
        name: Name,
    },
}

/// How a pool keeps connections while its backends change.
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// Which packets the flow table is consulted for: exception (where a slot's owner changed while the old one is
    /// alive; the default) or always (every packet, and every flow is recorded)
    #[arg(long, value_parser = parse_tracking)]
    tracking: Option<Tracking>,
    /// How long connections have to show themselves once their slot's owner changed, 1s to 1h, not beyond the idle
    /// time; 120s by default
    #[arg(long, value_parser = parse_learning, value_name = "DURATION")]
    learning: Option<Duration>,
    /// How long a silent connection is remembered, 10s to 4h; 15m by default
    #[arg(long, value_parser = parse_idle, value_name = "DURATION")]
    idle: Option<Duration>,
    /// Whom an unknown flow that is not TCP belongs to while a slot learns: new (its new owner; the default) or keep
    /// (its previous owner: QUIC)
    #[arg(long, value_parser = parse_udp)]
    udp: Option<UdpPolicy>,
}

impl From<Settings> for SettingsChange {
    fn from(settings: Settings) -> Self {
        let Settings { tracking, learning, idle, udp } = settings;
        Self { tracking, learning, idle, udp }
    }
}

pub(super) fn run(command: Command, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match command {
        Command::List => printer.answer(&client.get::<Vec<view::PoolSummary>>("/v1/pools")?),
        Command::Show { name } => printer.answer(&client.get::<view::Pool>(&format!("/v1/pools/{name}"))?),
        Command::Add { name, settings } => {
            let view::NewSettings { tracking, transition } = SettingsChange::from(settings).into();
            let pool = view::NewPool { name: name.to_string(), tracking, transition };
            let done: view::Done = client.post("/v1/pools", &pool)?;
            printer.done(&done, &format!("pool {name} added"))
        }
        Command::Set { name, settings } => {
            let change = SettingsChange::from(settings);
            let done: view::Done = client.patch(&format!("/v1/pools/{name}"), &view::NewSettings::from(change))?;
            printer.done(&done, &format!("pool {name} has {change}"))
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
        let view::PoolSummary { name, tracking, transition, in_transition: _, panic: _, table_digest, backends } = pool;
        let [tracking, learning, idle, udp] = settings(*tracking, transition);
        [name.clone(), tracking, learning, idle, udp, backends.to_string(), table_digest.clone()]
    };
    let header = ["name", "tracking", "learning", "idle", "udp", "backends", "table digest"];
    table(header, &["learning", "idle", "backends"], pools.iter().map(row))
}

/// Tracking, learning time, idle time and policy for UDP.
fn settings(tracking: view::Tracking, transition: &view::Transition) -> [String; 4] {
    let view::Transition { learning_seconds, idle_seconds, udp } = transition;
    let duration = |seconds: &u64| ShownDuration(Duration::from_secs(*seconds)).to_string();
    let (tracking, udp) = (tracking_word(tracking.into()), udp_word((*udp).into()));
    [tracking.to_owned(), duration(learning_seconds), duration(idle_seconds), udp.to_owned()]
}

/// The slots in transition by phase, and the flows that are pinned.
fn moving(in_transition: &view::InTransition) -> String {
    let view::InTransition { learning_slots, tracked_slots, learning_seconds_left, pinned_flows, learning_until: _ } =
        in_transition;
    let pinned = backend::count(*pinned_flows);
    if (*learning_slots, *tracked_slots) == (0, 0) {
        return format!("no slot; {pinned} flows pinned");
    }
    let left = learning_seconds_left.map(|left| format!(" for {left} s yet")).unwrap_or_default();
    format!("{learning_slots} slots learning{left}, {tracked_slots} slots tracked; {pinned} flows pinned")
}

impl Text for Vec<view::PoolSummary> {
    fn text(&self) -> String {
        summaries(self)
    }
}

impl Text for view::Pool {
    fn text(&self) -> String {
        let Self { name, tracking, transition, in_transition, panic, table_digest, vips, backends } = self;
        let vips = if vips.is_empty() { "none".to_owned() } else { vips.join(", ") };
        let [tracking, learning, idle, udp] = settings(*tracking, transition);
        let panic =
            if *panic { "PANIC          too few backends are healthy: all that are active are used\n" } else { "" };
        format!(
            "pool           {name}\n{panic}tracking       {tracking}\ntransition     learning {learning}, idle {idle}, udp {udp}\n\
             in transition  {}\ntable digest   {table_digest}\nVIPs           {vips}\n\n{}",
            moving(in_transition),
            backend::list(backends)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing;

    #[test]
    fn what_is_in_transition_is_told_by_phase_and_backend() {
        let in_transition = view::InTransition {
            learning_slots: 6_554,
            tracked_slots: 37,
            learning_seconds_left: Some(97),
            pinned_flows: None,
            learning_until: None,
        };
        let state = view::BackendState::Draining;
        let web2 = view::Backend { state, learning_slots: 6_554, pinned_flows: None, ..testing::backend("web2") };
        let web3 = view::Backend { pinned_flows: Some(120), ..testing::backend("web3") };
        let text = view::Pool { in_transition, backends: vec![web2, web3], ..testing::pool() }.text();
        assert!(text.contains("in transition  6554 slots learning for 97 s yet, 37 slots tracked; ? flows pinned\n"));
        let cells = |name: &str| -> Vec<_> {
            let line = text.lines().find(|line| line.contains(name)).unwrap();
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
        };
        assert_eq!(cells("NAME")[5..8], ["STATE", "LEARNING", "PINNED"]);
        assert_eq!(cells("web2")[5..8], ["draining", "6554", "?"]);
        assert_eq!(cells("web3")[5..8], ["active", "0", "120"]);
        let settled = testing::pool().text();
        assert!(settled.contains("in transition  no slot; 0 flows pinned\n"), "{settled}");
    }
}
