//! The text of `maglev status`.

use std::fmt::Write as _;

use maglev_api::view::{self, Status};
use maglev_model::{ShownDuration, UnixTime};

use super::{backend, bgp, node, pool, vip};
use crate::output::{Text, bytes, table};

impl Text for Status {
    fn text(&self) -> String {
        let mut text = facts(self);
        section(&mut text, "Interfaces", &interfaces(&self.interfaces));
        section(&mut text, "Pools", &pool::summaries(&self.pools));
        section(&mut text, "VIPs", &vip::list(&self.vips));
        section(&mut text, "Backends", &backend::list(&self.backends));
        text
    }
}

fn facts(status: &Status) -> String {
    let rows = [
        ("version", status.version.clone()),
        ("object", status.object.clone()),
        ("up", ShownDuration::from_secs(status.uptime_seconds).to_string()),
        ("node", node::in_short(&status.node)),
        ("forwarding", forwarding(&status.forwarding)),
        ("memory", bytes(status.memory.total_bytes)),
        ("services", status.services_file.clone()),
        ("services digest", status.services_digest.clone()),
        ("revision", status.revision.map_or_else(|| "none yet".to_owned(), |revision| revision.to_string())),
        ("hash key digest", status.hash_key_digest.clone()),
        ("last reload", reload(status.last_reload.as_ref())),
        ("unresolved next hops", unresolved_next_hops(&status.backends)),
        ("health", health(status)),
        ("bgp", bgp::in_short(status.bgp.as_ref())),
        ("flow table", flow_table(status)),
        ("sync", sync(status.out_of_sync.as_ref(), status.publishing)),
    ];
    let not_saved =
        status.state_not_saved.as_ref().map(|reason| ("state for a restart", format!("NOT SAVED: {reason}; retrying")));
    let mut text = String::new();
    for (name, value) in rows.into_iter().chain(not_saved) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<22}{value}");
    }
    text
}

fn forwarding(view::Forwarding { pin, adopted, continued, rolled_back, since }: &view::Forwarding) -> String {
    let mut adopted = match &continued[..] {
        [] if *adopted => ", adopted from the previous daemon".to_owned(),
        [] => String::new(),
        differences => format!(", continued from the previous daemon ({} changed)", differences.join(", ")),
    };
    if let Some(reason) = rolled_back {
        adopted.push_str(&format!(", ROLLED BACK: {reason}"));
    }
    let pin = pin.as_ref().map_or_else(|| "ends with the daemon".to_owned(), |pin| format!("pinned in {pin}"));
    format!("since {}{adopted}; {pin}", UnixTime(*since))
}

pub(super) fn reload(last: Option<&view::LastReload>) -> String {
    match last {
        None => "none since the start".into(),
        Some(last) if last.successful => format!("successful, at {}", UnixTime(last.unix_seconds)),
        Some(last) => format!("FAILED, at {}: nothing was changed, see the log", UnixTime(last.unix_seconds)),
    }
}

fn sync(failure: Option<&view::OutOfSync>, publishing: bool) -> String {
    let Some(view::OutOfSync { reason, next_try_milliseconds, next: _ }) = failure else {
        return if publishing { "applying" } else { "in sync" }.into();
    };
    match next_try_milliseconds {
        Some(left) => format!("OUT OF SYNC: {reason}, next try in {}", ShownDuration::from_millis(*left)),
        None => format!("OUT OF SYNC: {reason}, retrying"),
    }
}

/// The number of backends without a next hop; disabled backends need none.
fn unresolved_next_hops(backends: &[view::Backend]) -> String {
    let in_use = backends.iter().filter(|backend| backend.state != view::BackendState::Disabled);
    let unresolved = |backend: &&view::Backend| matches!(backend.next_hop, view::NextHop::Unresolved { .. });
    match in_use.clone().filter(unresolved).count() {
        0 => "0".into(),
        count => format!("{count} of {} backends: see NEXT HOP below", in_use.count()),
    }
}

/// Seconds for which `status` shows a shortage after it last occurred.
const RECENT_SHORTAGE: u64 = 60;

/// The line about health: faults first, in capitals.
fn health(status: &Status) -> String {
    let checked = || status.pools.iter().filter_map(|pool| Some((pool, pool.health.as_ref()?)));
    let mut parts = Vec::new();
    if status.common_failure {
        parts.push("EVERY CHECK FAILS AT ONCE: assuming a local fault, keeping backends".to_owned());
    }
    if let Some(view::CheckShortage { checks, reason, seconds_ago }) = &status.check_shortage
        && *seconds_ago <= RECENT_SHORTAGE
    {
        let ago = ShownDuration::from_secs(*seconds_ago);
        parts.push(format!(
            "CHECKS ARE NOT MADE, this node lacks resources: {reason} ({checks} so far, the last {ago} ago): \
             backends keep their state"
        ));
    }
    for (pool, known) in checked().filter(|(_, known)| known.all_dead) {
        let rule = &known.on_all_dead;
        parts.push(format!("NO BACKEND of pool {} has answered anything for 60 s (on_all_dead: {rule})", pool.name));
    }
    for (pool, known) in checked().filter(|(pool, _)| pool.panic) {
        let (name, healthy, all) = (&pool.name, known.healthy, known.all());
        parts.push(format!(
            "PANIC in pool {name}: {healthy} of {all} backends are healthy: fail-open, all active backends are used"
        ));
    }
    for (pool, known) in checked() {
        parts.extend(known.waiting.as_ref().map(|why| format!("pool {} is not checked: {why}", pool.name)));
    }
    let [checking, healthy, unhealthy, unreachable] =
        view::HealthState::ALL.map(|state| checked().map(|(_, known)| known.count(state)).sum::<usize>());
    let all = checking + healthy + unhealthy + unreachable;
    parts.push(match (all, healthy) {
        (0, _) => "no backend is checked".to_owned(),
        (all, healthy) if all == healthy => format!("all {all} backends that are checked are healthy"),
        _ => {
            let states = [(unhealthy, "unhealthy"), (unreachable, "unreachable"), (checking, "checking")];
            let others = states.iter().filter(|(count, _)| *count > 0).map(|(count, state)| format!("{count} {state}"));
            format!("{healthy} of {all} backends are healthy, {}", others.collect::<Vec<_>>().join(", "))
        }
    });
    parts.join("; ")
}

/// The size of the flow tables, and packets and flows without room.
fn flow_table(status: &Status) -> String {
    let view::FlowTable { entries, room: _, flow_table_full, flow_evicted, since } = &status.flow_table;
    let mut text = format!("{entries} entries");
    if let Some(since) = since {
        text += &format!(
            "; TOO SMALL: {flow_table_full} packets' flows could not be recorded, {flow_evicted} recent flows were evicted, \
             first at {}",
            UnixTime(*since)
        );
    }
    match status.flow_table.warning(status.pinned_flows()) {
        Some(warning) => format!("{text}; {warning}"),
        None => text,
    }
}

fn interfaces(interfaces: &[view::Interface]) -> String {
    let row = |interface: &view::Interface| {
        let view::Interface { name, renamed_to, mode, attached, link, index, mtu } = interface;
        let attached = if *attached { "yes" } else { "NO" };
        let name = match renamed_to {
            Some(now) => format!("{name} (RENAMED to {now}: change maglev.yaml, or rename it back)"),
            None => name.clone(),
        };
        [name, mode.clone(), attached.into(), link.clone(), index.to_string(), mtu.to_string()]
    };
    table(["name", "mode", "attached", "link", "index", "mtu"], &["index", "mtu"], interfaces.iter().map(row))
}

pub(super) fn section(text: &mut String, title: &str, body: &str) {
    text.push('\n');
    text.push_str(title);
    text.push('\n');
    for line in body.lines() {
        let _ = writeln!(text, "  {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_api::testing;

    #[test]
    fn a_flow_table_without_room_is_reported() {
        let line = |flow_table, pinned| {
            let in_transition = view::InTransition { pinned_flows: Some(pinned), ..view::InTransition::default() };
            let pool = view::PoolSummary { in_transition, ..testing::summary() };
            let text = Status { flow_table, pools: vec![pool], ..Status::default() }.text();
            text.lines().find_map(|line| line.strip_prefix("flow table            ")).unwrap().to_owned()
        };
        let roomy = view::FlowTable { entries: 2_000, room: 1_000, ..view::FlowTable::default() };
        assert_eq!(line(roomy, 500), "2000 entries");
        let small = view::FlowTable { flow_table_full: 7, flow_evicted: 3, since: Some(1_700_000_000), ..roomy };
        let trouble = "TOO SMALL: 7 packets' flows could not be recorded, 3 recent flows were evicted";
        assert_eq!(line(small, 0), format!("2000 entries; {trouble}, first at 2023-11-14T22:13:20Z"));
        let crowded = line(roomy, 501);
        let start =
            "2000 entries; 501 flows would take more than half of the flow tables' room for 1000, as packets are ";
        assert!(crowded.starts_with(start) && crowded.ends_with("raise flow_table.flows in maglev.yaml"), "{crowded}");
    }

    #[test]
    fn faults_of_health_come_first_and_in_capitals() {
        let pool = |name: &str, panic, healthy, unhealthy, waiting: Option<&str>| view::PoolSummary {
            name: name.into(),
            panic,
            health: Some(view::PoolHealth {
                healthy,
                unhealthy,
                waiting: waiting.map(str::to_owned),
                ..view::PoolHealth::default()
            }),
            ..testing::summary()
        };
        let line = |pools: Vec<view::PoolSummary>, common_failure| {
            let text = Status { pools, common_failure, ..Status::default() }.text();
            text.lines().find_map(|line| line.strip_prefix("health                ")).unwrap().to_owned()
        };
        assert_eq!(line(vec![testing::summary()], false), "no backend is checked");
        assert_eq!(line(vec![pool("web", false, 3, 0, None)], false), "all 3 backends that are checked are healthy");
        let few = line(vec![pool("web", false, 3, 1, None), pool("dns", false, 2, 1, None)], false);
        assert_eq!(few, "5 of 7 backends are healthy, 2 unhealthy");
        let waits = line(vec![pool("web", false, 0, 0, Some("no VIP uses pool web"))], false);
        assert_eq!(waits, "pool web is not checked: no VIP uses pool web; no backend is checked");
        let bad = "EVERY CHECK FAILS AT ONCE: assuming a local fault, keeping backends; PANIC in pool web: 1 of 4 backends are \
                   healthy: fail-open, all active backends are used; 1 of 4 backends are healthy, 3 unhealthy";
        assert_eq!(line(vec![pool("web", true, 1, 3, None)], true), bad);
    }

    #[test]
    fn an_unresolved_next_hop_is_counted_and_explained() {
        let next_hop = view::NextHop::Unresolved { reason: "no route to 10.0.1.11".into() };
        let backend = view::Backend { next_hop, ..testing::backend("web1") };
        let disabled = view::Backend { state: view::BackendState::Disabled, ..backend.clone() };
        let text = Status { backends: vec![backend, disabled], ..Status::default() }.text();
        assert!(text.contains("unresolved next hops  1 of 1 backends: see NEXT HOP below"), "{text}");
        assert!(text.contains("unresolved: no route to 10.0.1.11"), "{text}");
    }
}
