//! `maglev pool`: sets of backends that serve the same content.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use maglev_api::view;
use maglev_model::{
    EncapKind, Name, OnAllDead, Percent, SettingsChange, Tracking, UdpPolicy, WrittenDuration, parse_encap, parse_idle,
    parse_learning, parse_min_healthy, parse_on_all_dead, parse_panic, parse_slow_start, parse_tracking, parse_udp,
};

use super::output::Printer;
use super::{Client, Failure};

#[derive(Debug, Subcommand)]
pub(super) enum PoolCommand {
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
        #[command(flatten)]
        checks: Checks,
    },
    /// Change how a pool keeps connections while its backends change, how packets are sent to them, and how they are checked
    #[command(group = ArgGroup::new("setting").args(SETTINGS).required(true).multiple(true))]
    Set {
        /// Its name
        name: Name,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        checks: Checks,
        /// Stop checking its backends: they count as healthy; the settings of their checks are removed
        #[arg(long, conflicts_with = "check")]
        no_check: bool,
    },
    /// Remove a pool that serves no VIP, and its backends
    Remove {
        /// Its name
        name: Name,
        /// Even if it has available backends
        #[arg(long)]
        force: bool,
    },
}

/// The settings of transitions and of encapsulation.
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// The packets for which the flow table is consulted: exception (on slots whose owner changed while the previous owner is
    /// alive; the default) or always (all packets, and every flow is recorded)
    #[arg(long, value_parser = parse_tracking)]
    tracking: Option<Tracking>,
    /// The learning time: how long the connections of a slot are recorded after its owner changed, 1s to 1h, not longer than the
    /// idle time; 120s by default
    #[arg(long, value_parser = parse_learning, value_name = "DURATION")]
    learning: Option<Duration>,
    /// How long the flow entry of a silent connection is kept, 10s to 4h; 15m by default
    #[arg(long, value_parser = parse_idle, value_name = "DURATION")]
    idle: Option<Duration>,
    /// The backend of an unknown flow that is not TCP while its slot is learning: new (the new owner; the default) or keep
    /// (the previous owner: for QUIC)
    #[arg(long, value_parser = parse_udp)]
    udp: Option<UdpPolicy>,
    /// The number of usable backends below which the pool's VIPs are withdrawn; 0 always announces them; 1 by default
    #[arg(long, value_parser = parse_min_healthy, value_name = "NUMBER")]
    min_healthy: Option<u32>,
    /// How packets for its backends are encapsulated: ipip (IP in IP; the default) or gue (UDP to port 6080, whose source port
    /// differs by flow)
    #[arg(long, value_parser = parse_encap)]
    encap: Option<EncapKind>,
}

/// The settings of checks.
#[derive(Debug, Args)]
pub(super) struct Checks {
    /// The check of its backends, as in services.yaml: 'kind: http, path: /healthz, interval: 2s'
    #[arg(long, value_name = "CHECK")]
    check: Option<String>,
    /// The percentage of healthy backends below which all active backends are used (fail-open); 0 turns this off; 50 by default
    #[arg(long, value_parser = parse_panic, value_name = "PERCENT")]
    panic: Option<Percent>,
    /// How long a recovered backend takes to reach its full weight, 0s to 1h; 0s by default
    #[arg(long, value_parser = parse_slow_start, value_name = "DURATION")]
    slow_start: Option<Duration>,
    /// The action once no backend has answered a check for 60 s: withdraw (its VIPs; the default) or keep (them announced)
    #[arg(long, value_parser = parse_on_all_dead, value_name = "RULE")]
    on_all_dead: Option<OnAllDead>,
}

/// The options of `set`, of which one is required.
const SETTINGS: [&str; 11] = [
    "tracking",
    "learning",
    "idle",
    "udp",
    "min_healthy",
    "encap",
    "check",
    "no_check",
    "panic",
    "slow_start",
    "on_all_dead",
];

impl From<Checks> for view::NewHealth {
    fn from(Checks { check, panic, slow_start, on_all_dead }: Checks) -> Self {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            check: check.map(Some),
            panic_percent: panic.map(|Percent(percent)| percent),
            slow_start_milliseconds: slow_start.map(milliseconds),
            on_all_dead: on_all_dead.map(|rule| rule.as_str().to_owned()),
        }
    }
}

/// The changed settings of checks, in words.
fn words(health: &view::NewHealth) -> Vec<String> {
    let view::NewHealth { check, panic_percent, slow_start_milliseconds, on_all_dead } = health;
    let check = check.as_ref().map(|check| match check {
        Some(check) => format!("check {{ {} }}", check.trim_matches(['{', '}', ' '])),
        None => "no check: its backends count as healthy".to_owned(),
    });
    let slow_start = slow_start_milliseconds.map(|time| WrittenDuration(Duration::from_millis(time)));
    let panic = panic_percent.map(|percent| format!("panic {percent}"));
    let slow_start = slow_start.map(|time| format!("slow_start {time}"));
    let on_all_dead = on_all_dead.as_ref().map(|rule| format!("on_all_dead {rule}"));
    check.into_iter().chain(panic).chain(slow_start).chain(on_all_dead).collect()
}

impl From<Settings> for SettingsChange {
    fn from(settings: Settings) -> Self {
        let Settings { tracking, learning, idle, udp, min_healthy, encap } = settings;
        Self { tracking, learning, idle, udp, min_healthy, encap }
    }
}

pub(super) fn run(command: PoolCommand, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match command {
        PoolCommand::List => printer.answer(&client.get::<Vec<view::PoolSummary>>("/v1/pools")?),
        PoolCommand::Show { name } => printer.answer(&client.get::<view::Pool>(&format!("/v1/pools/{name}"))?),
        PoolCommand::Add { name, settings, checks } => {
            let view::NewSettings { tracking, transition, min_healthy, encap, .. } =
                SettingsChange::from(settings).into();
            let (name_text, health) = (name.to_string(), checks.into());
            let pool = view::NewPool { name: name_text, tracking, transition, min_healthy, encap, health };
            let done: view::Done = client.post("/v1/pools", &pool)?;
            printer.done(&done, &format!("pool {name} added"))
        }
        PoolCommand::Set { name, settings, checks, no_check } => {
            let change = SettingsChange::from(settings);
            let mut health = view::NewHealth::from(checks);
            if no_check {
                health.check = Some(None);
            }
            let mut set = words(&health);
            if !change.is_empty() {
                set.insert(0, change.to_string());
            }
            let new = view::NewSettings { health, ..change.into() };
            let done: view::Done = client.patch(&format!("/v1/pools/{name}"), &new)?;
            printer.done(&done, &format!("pool {name} has {}", set.join(", ")))
        }
        PoolCommand::Remove { name, force } => {
            let done = client.delete(&format!("/v1/pools/{name}?force={force}"))?;
            printer.done(&done, &format!("pool {name} removed"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_checks_are_sent_and_shown() {
        let checks = |check: Option<&str>, panic, slow_start| {
            let check = check.map(str::to_owned);
            view::NewHealth::from(Checks { check, panic, slow_start, on_all_dead: None })
        };
        assert_eq!(serde_json::to_string(&checks(None, None, None)).unwrap(), "{}");
        let all = checks(Some("{ kind: tcp }"), Some(Percent(0)), Some(Duration::from_millis(1_500)));
        let json = r#"{"check":"{ kind: tcp }","panic_percent":0,"slow_start_milliseconds":1500}"#;
        assert_eq!(serde_json::to_string(&all).unwrap(), json);
        assert_eq!(serde_json::from_str::<view::NewHealth>(json).unwrap(), all);
        assert_eq!(words(&all), ["check { kind: tcp }", "panic 0", "slow_start 1500ms"]);
        let none = view::NewHealth { check: Some(None), ..view::NewHealth::default() };
        assert_eq!(serde_json::to_string(&none).unwrap(), r#"{"check":null}"#);
        assert_eq!(serde_json::from_str::<view::NewHealth>(r#"{"check":null}"#).unwrap(), none);
        assert_eq!(words(&none), ["no check: its backends count as healthy"]);
    }
}
