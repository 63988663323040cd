//! `maglev backend`: the servers behind a pool.

use std::net::IpAddr;
use std::time::Duration;

use clap::Subcommand;

use super::check::latency;
use super::output::{Printer, Text, table};
use super::{Client, Failure, check, drain};
use crate::api::view;
use crate::api::view::StateOrder;
use crate::model::{Name, ShownDuration, Weight, parse_address, parse_timeout};

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
    /// Check a backend once, now, as its pool says, and print what happened; it counts for nothing
    Check {
        /// Its pool
        pool: Name,
        /// Its name
        name: Name,
    },
    /// Change what of its pool's check is different for a backend
    Set {
        /// Its pool
        pool: Name,
        /// Its name
        name: Name,
        /// What is different, in the words of services.yaml: 'port: 8080'; also path, host
        #[arg(long, value_name = "CHECK", required_unless_present = "no_check")]
        check: Option<String>,
        /// Nothing: it is checked like the others
        #[arg(long, conflicts_with = "check")]
        no_check: bool,
    },
    #[command(flatten)]
    Change(Change),
}

/// The changes to a backend that take no time.
#[derive(Debug, Subcommand)]
pub(super) enum Change {
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
        /// Even if connections are dropped, or it is the pool's last available backend
        #[arg(long)]
        force: bool,
    },
    /// Send a draining backend new connections again
    Undrain {
        /// Its pool
        pool: Name,
        /// Its name
        name: Name,
    },
    /// Stop all traffic to a backend; its connections are dropped
    Disable {
        /// Its pool
        pool: Name,
        /// Its name
        name: Name,
        /// Even if it is the pool's last available backend
        #[arg(long)]
        force: bool,
    },
    /// Send a disabled backend connections again
    Enable {
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
        /// Even if that leaves the pool without an available backend
        #[arg(long)]
        force: bool,
    },
}

pub(super) fn run(command: Command, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match command {
        Command::List { pool: None } => printer.answer(&client.get::<Vec<view::Backend>>("/v1/backends")?),
        Command::List { pool: Some(pool) } => {
            printer.answer(&client.get::<view::Pool>(&format!("/v1/pools/{pool}"))?.backends)
        }
        Command::Show { pool, name } => printer.answer(&client.get::<view::Backend>(&path(&pool, &name))?),
        Command::Drain { pool, name, wait, timeout, force } => {
            drain::run(client, printer, (&pool, &name), wait.then_some(timeout), force)
        }
        Command::Check { pool, name } => check::run(client, printer, &pool, &name),
        Command::Set { pool, name, check, no_check: _ } => {
            let sentence = match &check {
                Some(check) => format!("backend {name} of pool {pool} has a check of its own: {check}"),
                None => format!("backend {name} of pool {pool} is checked like the others"),
            };
            let done: view::Done = client.patch(&path(&pool, &name), &view::NewForBackend::Check(check))?;
            printer.done(&done, &sentence)
        }
        Command::Change(command) => change(command, client, printer),
    }
}

fn change(command: Change, client: &Client, printer: &Printer) -> Result<(), Failure> {
    match command {
        Change::Add { pool, name, address, weight } => {
            let backend = view::NewBackend { name: name.to_string(), address, weight: weight.0 };
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

/// Orders a state, and says what the backend is now.
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

/// Where a backend lies in the API.
pub(super) fn path(pool: &Name, name: &Name) -> String {
    format!("/v1/pools/{pool}/backends/{name}")
}

/// Backends as a table.
pub(super) fn list(backends: &[view::Backend]) -> String {
    let row = |backend: &view::Backend| {
        let view::Backend { pool, name, address, weight, state, since: _, slots: _, share, .. } = backend;
        let view::Backend { learning_slots, pinned_flows, next_hop, .. } = backend;
        let [weight, learning] = [weight.to_string(), learning_slots.to_string()];
        let (share, state) = (format!("{:.2} %", share * 100.0), state.as_str().to_owned());
        let (address, pinned) = (address.to_string(), count(*pinned_flows));
        let [health, last] = health(backend.health.as_deref());
        [pool.clone(), name.clone(), address, weight, share, state, learning, pinned, health, last, way(next_hop)]
    };
    let header = [
        "pool",
        "name",
        "address",
        "weight",
        "share",
        "state",
        "learning",
        "pinned",
        "health",
        "last check",
        "next hop",
    ];
    table(header, &["weight", "share", "learning", "pinned"], backends.iter().map(row))
}

/// Since when a backend is what its checks say, and how the last one ended.
fn health(health: Option<&view::Health>) -> [String; 2] {
    let Some(view::Health { state, age_seconds, weight_percent, last, waiting, held_back_seconds, .. }) = health else {
        return ["not checked".to_owned(), String::new()];
    };
    let lasts = ShownDuration(Duration::from_secs(*age_seconds));
    let held = held_back_seconds.map(|left| format!(", held back for {left}s by flap damping")).unwrap_or_default();
    let ramp = if *weight_percent < 100 { format!(", {weight_percent} % of its weight") } else { String::new() };
    let last = match (last, waiting) {
        (_, Some(why)) => why.clone(),
        (None, None) => "none yet".to_owned(),
        (Some(view::LastCheck { microseconds, error: None, .. }), _) => format!("ok in {}", latency(*microseconds)),
        (Some(view::LastCheck { microseconds, error: Some(error), .. }), _) => {
            format!("{error} ({})", latency(*microseconds))
        }
    };
    [format!("{} for {lasts}{ramp}{held}", state.as_str()), last]
}

/// A count that may not be known yet.
pub(super) fn count(count: Option<u32>) -> String {
    count.map_or_else(|| "?".to_owned(), |count| count.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{self, testing};
    use crate::model::UnixTime;

    #[test]
    fn health_is_told_with_since_when_and_how_the_last_check_ended() {
        let UnixTime(now) = api::now();
        let known = |state, error: Option<&str>| view::Health {
            state,
            since: now - 120,
            age_seconds: 120,
            weight_percent: 100,
            last: Some(view::LastCheck { at: now, microseconds: 12_400, error: error.map(str::to_owned) }),
            waiting: None,
            held_back_seconds: None,
            checks: view::CheckCounts::default(),
            clock: view::HealthClock::default(),
        };
        let (healthy, bad) =
            (known(view::HealthState::Healthy, None), known(view::HealthState::Unhealthy, Some("HTTP 503")));
        let ramping = view::Health { weight_percent: 29, ..healthy.clone() };
        let first = view::Health { last: None, ..known(view::HealthState::Checking, None) };
        let waiting = view::Health { waiting: Some("no VIP uses pool web".into()), ..first.clone() };
        let damped = view::Health { held_back_seconds: Some(18), ..bad.clone() };
        let of = |health: Option<&view::Health>| self::health(health);
        assert_eq!(of(None), ["not checked", ""]);
        assert_eq!(of(Some(&healthy)), ["healthy for 2m", "ok in 12 ms"]);
        assert_eq!(of(Some(&bad)), ["unhealthy for 2m", "HTTP 503 (12 ms)"]);
        assert_eq!(of(Some(&damped))[0], "unhealthy for 2m, held back for 18s by flap damping");
        assert_eq!(of(Some(&ramping)), ["healthy for 2m, 29 % of its weight", "ok in 12 ms"]);
        assert_eq!(of(Some(&first)), ["checking for 2m", "none yet"]);
        assert_eq!(of(Some(&waiting)), ["checking for 2m", "no VIP uses pool web"]);
        let text = view::Backend { health: Some(Box::new(bad)), ..testing::backend("web1") }.text();
        assert!(text.contains("HEALTH") && text.contains("HTTP 503 (12 ms)"), "{text}");
    }
}
