//! VIPs, pools and backends as the API shows them. It must not know the clients.

use std::collections::BTreeMap;
use std::time::Duration;

use maglev_api::view;
use maglev_common::encap::Encap;
use maglev_core::health::{Counts, Last, MemberHealth};
use maglev_core::reconcile::{BackendView, NextHopView, PoolView, VipView};
use maglev_model::transition::Progress;
use maglev_model::{Name, Percent, PoolHealth, PoolSettings, UnixTime};

use super::microseconds;

/// The health of VIPs, by their pool. Their announcement is added later.
pub(super) fn serving(pool: &PoolView) -> view::VipHealth {
    view::VipHealth {
        serving: pool.usable(),
        backends: pool.backends.len(),
        panic: pool.panic,
        ..view::VipHealth::default()
    }
}

pub(super) fn vip(vip: &VipView, serving: &BTreeMap<&Name, view::VipHealth>) -> view::Vip {
    let VipView { name, service, pool, when_empty, affinity, id: _, conflict, prefix: _, communities: _ } = vip;
    let health = serving.get(pool).cloned().unwrap_or_default();
    view::Vip {
        name: name.to_string(),
        address: view::Address(service.network),
        port: view::Port(service.ports),
        protocol: service.protocol.into(),
        pool: pool.to_string(),
        when_empty: (*when_empty).into(),
        affinity: affinity.to_string(),
        error: conflict.clone(),
        health,
    }
}

pub(super) fn pool(pool: &PoolView, started: Duration) -> view::PoolSummary {
    let (health, usable) = (pool_health(pool), pool.usable());
    let PoolView {
        name,
        settings: PoolSettings { tracking, transition, min_healthy: _, encap },
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
        encap: (*encap).into(),
        transition: (*transition).into(),
        in_transition,
        panic: *panic,
        health,
        table_digest: digest.map(|digest| digest.to_string()).unwrap_or_default(),
        backends: backends.len(),
        usable,
    }
}

/// The health of a pool's backends in numbers.
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

pub(super) fn backend(pool: &PoolView, backend: &BackendView, started: Duration) -> view::Backend {
    let BackendView { name, address, weight, state, id: _, learning, pinned, slots, share, .. } = backend;
    let BackendView { health, serves: _, next_hop, is_reached: _, .. } = backend;
    view::Backend {
        pool: pool.name.to_string(),
        name: name.to_string(),
        address: *address,
        weight: weight.0,
        state: view::BackendState::new(*state, *weight),
        since: state.since().map(|UnixTime(since)| since),
        slots: *slots,
        share: *share,
        learning_slots: *learning,
        pinned_flows: *pinned,
        health: health.as_ref().map(|known| Box::new(self::health(known, next_hop, started))),
        next_hop: next_hop_text(next_hop, Encap::new(pool.settings.encap, address.is_ipv6())),
    }
}

/// A backend without a next hop is unreachable, regardless of its checks.
fn health_state(known: &MemberHealth, next_hop: &NextHopView) -> view::HealthState {
    match next_hop {
        NextHopView::Unresolved(_) => view::HealthState::Unreachable,
        NextHopView::Resolved { .. } => known.health.into(),
    }
}

/// The health of a backend; its times are derived when it is read.
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

fn next_hop_text(next_hop: &NextHopView, encap: Encap) -> view::NextHop {
    match next_hop {
        NextHopView::Unresolved(reason) => view::NextHop::Unresolved { reason: reason.clone() },
        NextHopView::Resolved { interface, name, vlan, mac: [a, b, c, d, e, f], gateway, mtu } => {
            view::NextHop::Resolved {
                interface: name.clone().unwrap_or_else(|| interface.to_string()),
                vlan: vlan.as_ref().map(|(id, on)| view::Vlan { id: *id, on: on.clone() }),
                mac: format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
                gateway: *gateway,
                longest_packet: mtu.map(|mtu| mtu.saturating_sub(encap.overhead() as u32)),
            }
        }
    }
}
