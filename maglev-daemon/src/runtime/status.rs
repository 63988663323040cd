//! From what the reconciler and the data plane know, by number, to what the API answers, by name. It must not know who
//! asks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use maglev_api::{RELEASE, view};
use maglev_common::backend::InterfaceSlot;
use maglev_common::counters::{Counter, Outcome};
use maglev_config::NodeConfig;
use maglev_core::health::{Counts, Last, MemberHealth, Target};
use maglev_core::reconcile::{BackendView, Interfaces, NextHopView, OutOfSync, PoolView, Previewed, View, VipView};
use maglev_dataplane::{Dataplane, Explanation, Interface, Snapshot, Totals};
use maglev_ebpf::env::{Choice, Decision};
use maglev_model::digest::Digest;
use maglev_model::plan::{Preview, Share};
use maglev_model::transition::Progress;
use maglev_model::{AdminState, Change, Name, Percent, PoolHealth, PoolSettings, StateChange, UnixTime};
use maglev_probe::probe::Ended;
use maglev_probe::scheduler::Asked;

use super::clock::Clock;
use super::plane::Refreshed;
use crate::http::Flow;

/// What stays the same while the daemon runs.
#[derive(Debug)]
pub(super) struct Facts {
    services_file: String,
    hash_key_digest: String,
    memory: view::Memory,
    forwarding: view::Forwarding,
    /// When the daemon started, by the clock that the reconciler runs by.
    started: Duration,
    /// Since when the data plane forwards, by that clock.
    since: Duration,
}

impl Facts {
    pub(super) fn new(node: &NodeConfig, dataplane: &Dataplane, clock: &Clock, since: Duration) -> Self {
        let map = |(name, bytes): (&str, u64)| view::MapMemory { name: name.to_owned(), bytes };
        let maps: Vec<_> = dataplane.memory().into_iter().map(map).collect();
        Self {
            services_file: absolute(&node.services).display().to_string(),
            hash_key_digest: Digest::of_key(node.hash_key).to_string(),
            memory: view::Memory { total_bytes: maps.iter().map(|map| map.bytes).sum(), maps },
            forwarding: view::Forwarding {
                pin: dataplane.set().map(|(folder, _)| folder.display().to_string()),
                adopted: dataplane.is_adopted(),
                since: 0,
            },
            started: clock.started().1,
            since,
        }
    }

    /// The node's status, but for the time it is up and the flow tables.
    pub(super) fn status(
        &self,
        view: &View,
        interfaces: &Refreshed,
        last_reload: Option<&view::LastReload>,
        node: view::Node,
        now: Duration,
    ) -> view::Status {
        let Self { services_file, hash_key_digest, memory, forwarding, started, since } = self;
        // The wall clock may have stepped since the last time.
        let since = maglev_api::now().0.saturating_sub(now.saturating_sub(*since).as_secs());
        let serving = view.pools.iter().map(|pool| (&pool.name, serving(pool))).collect();
        let View { services, vips, pools, busy, common_failure, not_published, not_cleared } = view;
        view::Status {
            version: RELEASE.to_owned(),
            object: maglev_dataplane::sha256().to_owned(),
            uptime_seconds: 0,
            services_file: services_file.clone(),
            services_digest: services.to_string(),
            hash_key_digest: hash_key_digest.clone(),
            publishing: *busy,
            out_of_sync: out_of_sync(not_published.as_ref(), not_cleared.as_deref(), *started),
            state_not_saved: None,
            last_reload: last_reload.cloned(),
            memory: memory.clone(),
            common_failure: *common_failure,
            check_shortage: None,
            node,
            forwarding: view::Forwarding { since, ..forwarding.clone() },
            flow_table: view::FlowTable::default(),
            bgp: None,
            interfaces: interfaces.interfaces.iter().map(|found| interface(found, interfaces)).collect(),
            vips: vips.iter().map(|found| vip(found, &serving)).collect(),
            pools: pools.iter().map(|found| pool(found, *started)).collect(),
            backends: pools
                .iter()
                .flat_map(|pool| pool.backends.iter().map(|found| backend(pool, found, *started)))
                .collect(),
        }
    }
}

/// `started` is when the daemon did.
fn out_of_sync(failed: Option<&OutOfSync>, not_cleared: Option<&str>, started: Duration) -> Option<view::OutOfSync> {
    let out_of_sync = |reason, next: Option<Duration>| view::OutOfSync {
        reason,
        next_try_milliseconds: None,
        next: next.map(|next| next.saturating_sub(started)),
    };
    let failed = failed.map(|OutOfSync { reason, next }| out_of_sync(reason.clone(), *next));
    let not_cleared = not_cleared.map(|why| out_of_sync(format!("removed backends are not cleared: {why}"), None));
    failed.or(not_cleared)
}

/// A path as whoever asks can use it, wherever the daemon was started.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// What the reconciler knows of the node's interfaces.
pub(super) fn known_interfaces(refreshed: &Refreshed) -> Interfaces {
    let Refreshed { interfaces, refresh, links } = refreshed;
    let present = interfaces.iter().filter(|interface| !refresh.detached.contains(&interface.name));
    let open = interfaces.iter().filter(|interface| refresh.unguarded.contains(&interface.name));
    Interfaces {
        unguarded: open.map(|interface| interface.index).collect(),
        slots: present.map(|interface| (interface.index, InterfaceSlot(interface.slot))).collect(),
        names: links.iter().map(|(index, link)| (*index, link.name.clone())).collect(),
    }
}

fn interface(interface: &Interface, refreshed: &Refreshed) -> view::Interface {
    let Interface { name, index, slot: _, mode, mac: _, also: _, mtu } = interface;
    let link = refreshed.links.get(index);
    view::Interface {
        name: name.clone(),
        renamed_to: link.filter(|link| link.name != *name).map(|link| link.name.clone()),
        mode: mode.to_string(),
        attached: !refreshed.refresh.detached.contains(name),
        link: link.map_or("absent", |link| link.state.as_str()).to_owned(),
        index: *index,
        mtu: *mtu,
    }
}

/// What a pool can do for its VIPs. Whether they are announced is known to others.
fn serving(pool: &PoolView) -> view::VipHealth {
    view::VipHealth {
        serving: pool.usable(),
        backends: pool.backends.len(),
        panic: pool.panic,
        ..view::VipHealth::default()
    }
}

fn vip(vip: &VipView, serving: &BTreeMap<&Name, view::VipHealth>) -> view::Vip {
    let VipView { name, service, pool, id: _, conflict, prefix: _, communities: _ } = vip;
    let health = serving.get(pool).cloned().unwrap_or_default();
    view::Vip {
        name: name.to_string(),
        address: service.address,
        port: view::Port(service.port),
        protocol: service.protocol.into(),
        pool: pool.to_string(),
        error: conflict.clone(),
        health,
    }
}

fn pool(pool: &PoolView, started: Duration) -> view::PoolSummary {
    let (health, usable) = (pool_health(pool), pool.usable());
    let PoolView {
        name,
        settings: PoolSettings { tracking, transition, min_healthy: _ },
        index: _,
        digest,
        vips: _,
        progress: Progress { learning, tracked, until, learning_for: _ },
        pinned,
        panic,
        dead: _,
        long_dead: _,
        awaited: _,
        health: _,
        backends,
    } = pool;
    let in_transition = view::InTransition {
        learning_slots: *learning,
        tracked_slots: *tracked,
        learning_seconds_left: None,
        pinned_flows: *pinned,
        learning_until: until.map(|until| until.saturating_sub(started)),
    };
    view::PoolSummary {
        name: name.to_string(),
        tracking: (*tracking).into(),
        transition: (*transition).into(),
        in_transition,
        panic: *panic,
        health,
        table_digest: digest.map(|digest| digest.to_string()).unwrap_or_default(),
        backends: backends.len(),
        usable,
    }
}

/// What checks tell of a pool's backends together.
fn pool_health(pool: &PoolView) -> Option<view::PoolHealth> {
    let PoolHealth { check, overrides: _, panic: Percent(panic_percent), slow_start, on_all_dead } = &pool.health;
    let milliseconds = slow_start.as_millis();
    let mut health = view::PoolHealth {
        check: maglev_config::check_text(check.as_deref()?),
        panic_percent: *panic_percent,
        slow_start_milliseconds: u64::try_from(milliseconds).unwrap_or(u64::MAX),
        on_all_dead: on_all_dead.as_str().to_owned(),
        all_dead: pool.long_dead,
        ..view::PoolHealth::default()
    };
    let checked = pool.backends.iter().filter_map(|backend| Some((backend.health.as_ref()?, &backend.next_hop)));
    for (known, next_hop) in checked {
        let count = match health_state(known, next_hop) {
            view::HealthState::Checking => &mut health.checking,
            view::HealthState::Healthy => &mut health.healthy,
            view::HealthState::Unhealthy => &mut health.unhealthy,
            view::HealthState::Unreachable => &mut health.unreachable,
        };
        *count += 1;
        health.waiting = health.waiting.or_else(|| known.waiting.as_ref().map(ToString::to_string));
    }
    Some(health)
}

fn backend(pool: &PoolView, backend: &BackendView, started: Duration) -> view::Backend {
    let BackendView { name, address, weight, state, id: _, learning, pinned, slots, share, .. } = backend;
    let BackendView { health, serves: _, next_hop, is_reached: _, .. } = backend;
    view::Backend {
        pool: pool.name.to_string(),
        name: name.to_string(),
        address: *address,
        weight: weight.0,
        state: view::BackendState::of(*state, *weight),
        since: state.since().map(|UnixTime(since)| since),
        slots: *slots,
        share: *share,
        learning_slots: *learning,
        pinned_flows: *pinned,
        health: health.as_ref().map(|known| Box::new(self::health(known, next_hop, started))),
        next_hop: way(next_hop),
    }
}

/// Who has no next hop cannot be reached, whatever checks said of it.
fn health_state(known: &MemberHealth, next_hop: &NextHopView) -> view::HealthState {
    match next_hop {
        NextHopView::Unresolved(_) => view::HealthState::Unreachable,
        NextHopView::Resolved { .. } => known.health.into(),
    }
}

/// What is known of a backend; its times are derived when it is read.
fn health(known: &MemberHealth, next_hop: &NextHopView, started: Duration) -> view::Health {
    let MemberHealth { health: _, since, last, waiting, held_until, percent, counts } = known;
    let up = |time: &Duration| time.saturating_sub(started);
    let clock = view::HealthClock {
        since: up(since),
        last: last.as_ref().map(|last| up(&last.at)).unwrap_or_default(),
        held_until: held_until.as_ref().map(up),
    };
    let last = last.as_ref().map(|Last { at: _, latency, outcome }| view::LastCheck {
        at: 0,
        microseconds: microseconds(*latency),
        error: outcome.as_ref().err().map(|failure| failure.reason().to_string()),
    });
    let Counts { passed, failed, changes } = *counts;
    view::Health {
        state: health_state(known, next_hop),
        since: 0,
        age_seconds: 0,
        weight_percent: *percent,
        last,
        waiting: waiting.as_ref().map(ToString::to_string),
        held_back_seconds: None,
        checks: view::CheckCounts { passed, failed, changes },
        clock,
    }
}

/// What came of a check that an operator asked for.
pub(super) fn checked((target, check, ended): &Asked) -> view::CheckedTarget {
    let Target { pool: _, backend: _, address: _, vip, destination } = &**target;
    let Ended { outcome, latency } = ended;
    view::CheckedTarget {
        destination: *destination,
        vip: vip.as_ref().map(ToString::to_string),
        kind: check.probe.kind().to_owned(),
        passed: outcome.is_ok(),
        microseconds: microseconds(*latency),
        error: outcome.as_ref().err().map(ToString::to_string),
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn way(next_hop: &NextHopView) -> view::NextHop {
    match next_hop {
        NextHopView::Unresolved(reason) => view::NextHop::Unresolved { reason: reason.clone() },
        NextHopView::Resolved { interface, name, mac: [a, b, c, d, e, f], gateway } => view::NextHop::Resolved {
            interface: name.clone().unwrap_or_else(|| interface.to_string()),
            mac: format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
            gateway: *gateway,
        },
    }
}

/// All counters by name.
pub(super) fn counters(view: &View, snapshot: &Snapshot) -> view::Counters {
    let counter = |counter: &Counter| view::Counter {
        name: counter.name().to_owned(),
        outcome: outcome(counter.outcome()).to_owned(),
        packets: snapshot.counter(*counter),
        help: counter.help().to_owned(),
    };
    let vip = |vip: &VipView| {
        let Totals { packets, bytes } = vip.id.map(|id| snapshot.vip(id)).unwrap_or_default();
        view::VipTraffic { name: vip.name.to_string(), packets, bytes }
    };
    let backend = |pool: &PoolView, backend: &BackendView| {
        let Totals { packets, bytes } = backend.id.map(|id| snapshot.member(id)).unwrap_or_default();
        view::BackendTraffic { pool: pool.name.to_string(), backend: backend.name.to_string(), packets, bytes }
    };
    let backends = view.pools.iter().flat_map(|pool| pool.backends.iter().map(move |found| backend(pool, found)));
    view::Counters {
        counters: Counter::ALL.iter().map(counter).collect(),
        vips: view.vips.iter().map(vip).collect(),
        backends: backends.collect(),
    }
}

/// What a change to a backend would move.
pub(super) fn plan(view: &View, previewed: &Previewed, active_flows: u64) -> view::Plan {
    let Previewed { change, index: _, settings, preview: Preview { disruption, moved, shares } } = previewed;
    let (pool, name) = change.backend().map_or(("", ""), |(pool, name)| (pool.as_str(), name.as_str()));
    let share = |Share { name, before, after }: &Share| view::PlanShare {
        name: name.to_string(),
        slots_before: *before,
        slots_after: *after,
    };
    view::Plan {
        change: change.to_string(),
        pool: pool.to_owned(),
        backend: name.to_owned(),
        slots: moved.len() as u32,
        moved_slots: disruption.moved,
        collateral_slots: disruption.collateral,
        active_flows,
        tracking: settings.tracking.into(),
        cuts: cuts(view, change),
        backends: shares.iter().map(share).collect(),
    }
}

/// Whether a change ends a backend that may have connections.
fn cuts(view: &View, change: &Change) -> bool {
    let ends =
        matches!(change, Change::RemoveBackend { .. } | Change::SetState { change: StateChange::Disable { .. }, .. });
    let named = |(pool, name): (&Name, &Name)| {
        let pool = view.pools.iter().find(|found| found.name == *pool)?;
        pool.backends.iter().find(|found| found.name == *name)
    };
    let has_some = |found: &BackendView| {
        let disabled = matches!(found.state, AdminState::Disabled { .. });
        !disabled && (found.slots > 0 || found.learning > 0 || found.pinned != Some(0))
    };
    ends && change.backend().and_then(named).is_some_and(has_some)
}

/// Where a flow goes, in words.
pub(super) fn explanation(view: &View, flow: Flow, explanation: &Explanation) -> view::Explanation {
    let Flow { client, service, protocol } = flow;
    let vip = explanation.vip.and_then(|id| view.vip(id));
    let (outcome, reason) = outcome_and_reason(view, explanation);
    let decision = explanation.outcome.as_ref().ok();
    let member = decision.and_then(|decision| view.member(decision.member));
    view::Explanation {
        client,
        service,
        protocol: protocol.into(),
        outcome: outcome.to_owned(),
        vip: vip.map(|vip| vip.name.to_string()),
        pool: vip.map(|vip| vip.pool.to_string()),
        slot: decision.and_then(|decision| u32::try_from(decision.slot().index()).ok()),
        backend: member.map(|(_, backend)| backend.name.to_string()),
        reason,
    }
}

fn outcome_and_reason(view: &View, explanation: &Explanation) -> (&'static str, String) {
    let decision = match &explanation.outcome {
        Ok(decision) => decision,
        Err(counter) => return (outcome(counter.outcome()), format!("{}: {}", counter.name(), counter.help())),
    };
    let reason = choice(view, decision, explanation);
    match view.member(decision.member).map(|(_, backend)| &backend.next_hop) {
        Some(NextHopView::Unresolved(awaited)) => {
            let counter = Counter::NextHopUnresolved;
            (outcome(counter.outcome()), format!("{}: {awaited}; {reason}", counter.name()))
        }
        Some(NextHopView::Resolved { .. }) | None => (outcome(Outcome::Forwarded), reason),
    }
}

fn choice(view: &View, decision: &Decision, explanation: &Explanation) -> String {
    match (decision.choice, explanation.remembered.first()) {
        (Choice::Table, _) => "the backend owns the flow's slot; no flow table knows the flow".to_owned(),
        (Choice::Previous, _) => format!(
            "no flow table knows the flow; the backend owned its slot until lately, and the slot is learning; \
             it belongs to {}",
            owner(view, explanation)
        ),
        (Choice::FlowTable, None) => "the flow table knows the flow".to_owned(),
        (Choice::FlowTable, Some(entry)) => {
            let owner = owner(view, explanation);
            let (cpu, idle) = (entry.cpu, entry.idle);
            format!("CPU {cpu}'s flow table knows the flow, last seen {idle} s ago; its slot belongs to {owner}")
        }
    }
}

/// Who owns the flow's slot.
fn owner<'a>(view: &'a View, explanation: &Explanation) -> &'a str {
    view.member(explanation.owner).map_or("nobody", |(_, owner)| owner.name.as_str())
}

const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Forwarded => "forwarded",
        Outcome::Passed => "passed",
        Outcome::Dropped => "dropped",
        Outcome::Noted => "noted",
    }
}

#[cfg(test)]
impl Facts {
    /// Those of a daemon that started when its clock did, with no data plane.
    pub(super) fn testing(clock: &Clock) -> Self {
        Self {
            services_file: String::new(),
            hash_key_digest: String::new(),
            memory: view::Memory::default(),
            forwarding: view::Forwarding::default(),
            started: clock.started().1,
            since: Duration::ZERO,
        }
    }
}
