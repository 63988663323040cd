//! The text of pools.

use std::time::Duration;

use maglev_api::view;
use maglev_model::{ShownDuration, WrittenDuration, encap_word, tracking_word, udp_word};

use super::backend;
use super::count;
use crate::output::{Text, table};

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
pub(crate) fn in_short(panic: bool, health: &view::PoolHealth) -> String {
    let (panic, healthy, all) = (if panic { "PANIC: " } else { "" }, health.healthy, health.all());
    let waiting = health.waiting.as_ref().map(|why| format!(", waiting: {why}")).unwrap_or_default();
    format!("{panic}{healthy} of {all}{waiting}")
}

/// The lines about health and checks.
fn checks(panic: bool, health: Option<&view::PoolHealth>) -> String {
    let Some(health) = health else { return "check          none: its backends count as healthy\n".to_owned() };
    let view::PoolHealth { check, panic_percent, slow_start_milliseconds, on_all_dead, waiting, .. } = health;
    let states = view::HealthState::ALL.map(|state| (health.count(state), state.as_str()));
    let states = states.into_iter().filter(|(count, _)| *count > 0).map(|(count, state)| format!("{count} {state}"));
    let mut states = states.collect::<Vec<_>>().join(", ");
    if states.is_empty() {
        "no backend is checked".clone_into(&mut states);
    }
    let waiting = waiting.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let slow_start = WrittenDuration(Duration::from_millis(*slow_start_milliseconds));
    let panic = if panic {
        format!("PANIC          fewer than {panic_percent} % are healthy: fail-open, all active backends are used\n")
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
    let duration = |seconds: &u64| WrittenDuration(Duration::from_secs(*seconds)).to_string();
    let (tracking, udp) = (tracking_word(tracking.into()), udp_word((*udp).into()));
    [tracking.to_owned(), duration(learning_seconds), duration(idle_seconds), udp.to_owned()]
}

/// The slots in transition by phase, and the flows that are pinned.
pub(crate) fn moving(in_transition: &view::InTransition) -> String {
    let view::InTransition { learning_slots, tracked_slots, learning_seconds_left, pinned_flows, learning_until: _ } =
        in_transition;
    let pinned = count(*pinned_flows);
    if (*learning_slots, *tracked_slots) == (0, 0) {
        return format!("no slot; {pinned} flows pinned");
    }
    let left = learning_seconds_left.map(ShownDuration::from_secs);
    let left = left.map(|left| format!(" for {left} more")).unwrap_or_default();
    format!("{learning_slots} slots learning{left}, {tracked_slots} slots tracked; {pinned} flows pinned")
}

impl Text for Vec<view::PoolSummary> {
    fn text(&self) -> String {
        summaries(self)
    }
}

impl Text for view::Pool {
    fn text(&self) -> String {
        let Self {
            name,
            tracking,
            encap,
            transition,
            in_transition,
            panic,
            health,
            table_digest,
            vips,
            usable,
            backends,
        } = self;
        let all = backends.len();
        let vips = if vips.is_empty() { "none".to_owned() } else { vips.join(", ") };
        let [tracking, learning, idle, udp] = settings(*tracking, transition);
        let (checks, encap) = (checks(*panic, health.as_ref()), encap_word((*encap).into()));
        format!(
            "pool           {name}\nusable         {usable} of {all}\n{checks}encap          {encap}\ntracking       {tracking}\ntransition     learning {learning}, idle {idle}, udp {udp}\n\
             in transition  {}\ntable digest   {table_digest}\nVIPs           {vips}\n\n{}",
            moving(in_transition),
            backend::list(backends)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_api::testing;

    #[test]
    fn a_pool_shows_the_health_of_its_backends() {
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
            let lines = text.lines().skip(2).take_while(|line| !line.starts_with("encap"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let lines = [
            "health         1 healthy, 2 unhealthy, 1 unreachable",
            "check          { kind: tcp, via: direct }",
            "panic          below 50 % healthy, slow start 30s",
            "on all dead    withdraw",
        ];
        assert_eq!(of(false, &health), lines);
        let panic = "PANIC          fewer than 50 % are healthy: fail-open, all active backends are used";
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
    fn slots_in_transition_are_shown_by_phase_and_backend() {
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
        assert!(
            text.contains("in transition  6554 slots learning for 1m 37s more, 37 slots tracked; ? flows pinned\n")
        );
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
