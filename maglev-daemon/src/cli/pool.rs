//! `maglev pool`: sets of backends that serve the same content.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};

use super::output::{Printer, Text, table};
use super::{Client, Failure, backend};
use crate::api::view;
use crate::model::{Name, Percent, SettingsChange, ShownDuration, Tracking, UdpPolicy, tracking_word, udp_word};
use crate::model::{OnAllDead, parse_on_all_dead, parse_panic, parse_slow_start};
use crate::model::{parse_idle, parse_learning, parse_min_healthy, parse_tracking, parse_udp};

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
        #[command(flatten)]
        checks: Checks,
    },
    /// Change how a pool keeps connections while its backends change, and how they are checked
    #[command(group = ArgGroup::new("setting").args(SETTINGS).required(true).multiple(true))]
    Set {
        /// Its name
        name: Name,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        checks: Checks,
        /// Check its backends no more: they count as healthy; whatever is set of their checks goes
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
    /// Healthy backends that the pool's VIPs need to be announced; 0 announces them whatever happens; 1 by default
    #[arg(long, value_parser = parse_min_healthy, value_name = "NUMBER")]
    min_healthy: Option<u32>,
}

/// How its backends are checked.
#[derive(Debug, Args)]
pub(super) struct Checks {
    /// How its backends are checked, in the words of services.yaml: 'kind: http, path: /healthz, interval: 2s'
    #[arg(long, value_name = "CHECK")]
    check: Option<String>,
    /// The share of healthy backends, in percent, below which all are used; 0 is never; 50 by default
    #[arg(long, value_parser = parse_panic, value_name = "PERCENT")]
    panic: Option<Percent>,
    /// How long a backend that comes back takes to reach its full weight, 0s to 1h; 0s by default
    #[arg(long, value_parser = parse_slow_start, value_name = "DURATION")]
    slow_start: Option<Duration>,
    /// What follows once none of its backends has answered anything for 60 s: withdraw (its VIPs; the default) or keep
    #[arg(long, value_parser = parse_on_all_dead, value_name = "RULE")]
    on_all_dead: Option<OnAllDead>,
}

/// What `set` can set, of which there must be something.
const SETTINGS: [&str; 10] =
    ["tracking", "learning", "idle", "udp", "min_healthy", "check", "no_check", "panic", "slow_start", "on_all_dead"];

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

/// What is set of checks, in words.
fn words(health: &view::NewHealth) -> Vec<String> {
    let view::NewHealth { check, panic_percent, slow_start_milliseconds, on_all_dead } = health;
    let check = check.as_ref().map(|check| match check {
        Some(check) => format!("check {{ {} }}", check.trim_matches(['{', '}', ' '])),
        None => "no check: its backends count as healthy".to_owned(),
    });
    let slow_start = slow_start_milliseconds.map(|time| ShownDuration(Duration::from_millis(time)));
    let panic = panic_percent.map(|percent| format!("panic {percent}"));
    let slow_start = slow_start.map(|time| format!("slow_start {time}"));
    let on_all_dead = on_all_dead.as_ref().map(|rule| format!("on_all_dead {rule}"));
    check.into_iter().chain(panic).chain(slow_start).chain(on_all_dead).collect()
}

impl From<Settings> for SettingsChange {
    fn from(settings: Settings) -> Self {
        let Settings { tracking, learning, idle, udp, min_healthy } = settings;
        Self { tracking, learning, idle, udp, min_healthy }
    }
}

pub(super) fn run(command: Command, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match command {
        Command::List => printer.answer(&client.get::<Vec<view::PoolSummary>>("/v1/pools")?),
        Command::Show { name } => printer.answer(&client.get::<view::Pool>(&format!("/v1/pools/{name}"))?),
        Command::Add { name, settings, checks } => {
            let view::NewSettings { tracking, transition, min_healthy, .. } = SettingsChange::from(settings).into();
            let (name_text, health) = (name.to_string(), checks.into());
            let pool = view::NewPool { name: name_text, tracking, transition, min_healthy, health };
            let done: view::Done = client.post("/v1/pools", &pool)?;
            printer.done(&done, &format!("pool {name} added"))
        }
        Command::Set { name, settings, checks, no_check } => {
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
        Command::Remove { name, force } => {
            let done = client.delete(&format!("/v1/pools/{name}?force={force}"))?;
            printer.done(&done, &format!("pool {name} removed"))
        }
    }
}

/// Pools as a table.
pub(super) fn summaries(pools: &[view::PoolSummary]) -> String {
    let row = |pool: &view::PoolSummary| {
        let view::PoolSummary { name, tracking, transition, panic, health, table_digest, backends, .. } = pool;
        let [tracking, learning, idle, udp] = settings(*tracking, transition);
        let health = health.as_ref().map_or_else(|| "not checked".to_owned(), |health| in_short(*panic, health));
        [name.clone(), tracking, learning, idle, udp, backends.to_string(), health, table_digest.clone()]
    };
    let header = ["name", "tracking", "learning", "idle", "udp", "backends", "healthy", "table digest"];
    table(header, &["learning", "idle", "backends"], pools.iter().map(row))
}

/// How many of a pool's backends are healthy: `2 of 3`.
pub(super) fn in_short(panic: bool, health: &view::PoolHealth) -> String {
    let (panic, healthy, all) = (if panic { "PANIC: " } else { "" }, health.healthy, health.all());
    let waiting = health.waiting.as_ref().map(|why| format!(", waiting: {why}")).unwrap_or_default();
    format!("{panic}{healthy} of {all}{waiting}")
}

/// The lines of what checks tell.
fn checks(panic: bool, health: Option<&view::PoolHealth>) -> String {
    let Some(health) = health else { return "check          none: its backends count as healthy\n".to_owned() };
    let view::PoolHealth { check, panic_percent, slow_start_milliseconds, on_all_dead, waiting, .. } = health;
    let states = view::HealthState::ALL.map(|state| (health.count(state), state.as_str()));
    let states = states.into_iter().filter(|(count, _)| *count > 0).map(|(count, state)| format!("{count} {state}"));
    let mut states = states.collect::<Vec<_>>().join(", ");
    if states.is_empty() {
        "nobody is checked".clone_into(&mut states);
    }
    let waiting = waiting.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let slow_start = ShownDuration(Duration::from_millis(*slow_start_milliseconds));
    let panic = if panic {
        format!("PANIC          fewer than {panic_percent} % are healthy: all that are active are used\n")
    } else {
        String::new()
    };
    let dead = if health.all_dead { "ALL DEAD       no backend has answered anything for 60 s\n" } else { "" };
    format!(
        "{dead}{panic}health         {states}{waiting}\ncheck          {{ {check} }}\n\
         panic          below {panic_percent} % healthy, slow start {slow_start}\non all dead    {on_all_dead}\n"
    )
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
        let Self { name, tracking, transition, in_transition, panic, health, table_digest, vips, usable, backends } =
            self;
        let all = backends.len();
        let vips = if vips.is_empty() { "none".to_owned() } else { vips.join(", ") };
        let [tracking, learning, idle, udp] = settings(*tracking, transition);
        let checks = checks(*panic, health.as_ref());
        format!(
            "pool           {name}\nusable         {usable} of {all}\n{checks}tracking       {tracking}\ntransition     learning {learning}, idle {idle}, udp {udp}\n\
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
    fn what_checks_tell_of_a_pool_is_told() {
        let health = view::PoolHealth {
            check: "kind: tcp, via: direct".into(),
            panic_percent: 50,
            slow_start_milliseconds: 30_000,
            on_all_dead: "withdraw".into(),
            healthy: 1,
            unhealthy: 2,
            unreachable: 1,
            ..view::PoolHealth::default()
        };
        let of = |panic, health: &view::PoolHealth| {
            let text = view::Pool { panic, health: Some(health.clone()), ..testing::pool() }.text();
            let lines = text.lines().skip(2).take_while(|line| !line.starts_with("tracking"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let lines = [
            "health         1 healthy, 2 unhealthy, 1 unreachable",
            "check          { kind: tcp, via: direct }",
            "panic          below 50 % healthy, slow start 30s",
            "on all dead    withdraw",
        ];
        assert_eq!(of(false, &health), lines);
        let panic = "PANIC          fewer than 50 % are healthy: all that are active are used";
        assert_eq!(of(true, &health)[0], panic);
        let dead = view::PoolHealth { all_dead: true, ..health.clone() };
        assert_eq!(of(true, &dead)[0], "ALL DEAD       no backend has answered anything for 60 s");
        let none = view::Pool { ..testing::pool() }.text();
        assert!(none.contains("check          none: its backends count as healthy\n"), "{none}");
        let waiting =
            view::PoolHealth { checking: 4, waiting: Some("no VIP uses pool web".into()), ..Default::default() };
        assert_eq!(of(false, &waiting)[0], "health         4 checking: no VIP uses pool web");
        let short = |panic, health: Option<&view::PoolHealth>| {
            let pool = view::PoolSummary { panic, health: health.cloned(), ..testing::summary() };
            let text = summaries(&[pool]);
            let line = text.lines().nth(1).unwrap_or_default();
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).nth(6).unwrap().to_owned()
        };
        assert_eq!([short(false, Some(&health)), short(true, Some(&health))], ["1 of 4", "PANIC: 1 of 4"]);
        assert_eq!(short(false, Some(&waiting)), "0 of 4, waiting: no VIP uses pool web");
        assert_eq!(short(false, None), "not checked");
    }

    #[test]
    fn what_is_set_of_checks_is_sent_and_said() {
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
