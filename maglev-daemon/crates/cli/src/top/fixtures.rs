//! A node for tests and for the manual: its readings, a second apart.

use std::time::Duration;

use maglev_api::testing;
use maglev_api::view::{self, Counter, Counters, Events, PoolSummary, Vip, VipTraffic, What};
use maglev_common::counters::Counter as Name;

use super::model::{Model, Now};
use super::reading::{Facts, Reading};

/// The time of a reading: so many seconds after the start.
pub(super) fn now(second: u64) -> Now {
    Now { since_start: Duration::from_secs(second), unix_seconds: 1_795_552_886 + second }
}

pub(super) fn vip(name: &str, address: &str, announced_to: usize) -> Vip {
    let withheld = (announced_to == 0).then(|| "the node is drained".to_owned());
    let health = view::VipHealth {
        serving: 2,
        backends: 3,
        announced: Some(announced_to > 0),
        announced_to: Some(announced_to),
        neighbors: Some(2),
        withheld,
        ..view::VipHealth::default()
    };
    Vip {
        name: name.into(),
        address: address.parse().unwrap(),
        port: "443".parse().unwrap(),
        protocol: view::Protocol::Tcp,
        pool: "web".into(),
        when_empty: view::Unserved::Drop,
        affinity: "5-tuple".into(),
        error: None,
        health,
    }
}

/// Pool `web` with two healthy backends and a drained one.
pub(super) fn pool() -> view::Pool {
    let health = |state| view::Health {
        state,
        since: 0,
        age_seconds: 7_260,
        weight_percent: 100,
        last: Some(view::LastCheck { at: 0, microseconds: 400, error: None }),
        waiting: None,
        held_back_seconds: None,
        checks: view::CheckCounts::default(),
        clock: view::HealthClock::default(),
    };
    let backend = |name: &str, share, state| view::Backend {
        share,
        state,
        slots: (65_537.0 * share) as u32,
        health: Some(Box::new(health(view::HealthState::Healthy))),
        ..testing::backend(name)
    };
    let backends = vec![
        backend("web1", 0.6, view::BackendState::Active),
        backend("web2", 0.4, view::BackendState::Active),
        backend("web3", 0.0, view::BackendState::Draining),
    ];
    view::Pool { backends, usable: 2, vips: vec!["www".into(), "www6".into()], ..testing::pool() }
}

pub(super) fn summary() -> PoolSummary {
    let health = view::PoolHealth { healthy: 3, ..view::PoolHealth::default() };
    PoolSummary { backends: 3, usable: 2, health: Some(health), ..testing::summary() }
}

pub(super) fn counter(name: &str, packets: u64) -> Counter {
    let entry = maglev_model::runbook::parse_balancer(name).unwrap();
    Counter { name: name.into(), outcome: entry.outcome.into(), packets, help: entry.meaning.into() }
}

/// The counters after so many seconds of even traffic: each VIP gets half of the one before.
pub(super) fn counters(vips: &[&str], seconds: u64) -> Counters {
    let rate = |at: usize| 51_200 >> at.min(12);
    let each = vips.iter().enumerate().map(|(at, name)| {
        let packets = 1_000_000 + rate(at) * seconds;
        VipTraffic { name: (*name).into(), packets, bytes: packets * 100 }
    });
    let backend = |name: &str, rate: u64| view::BackendTraffic {
        pool: "web".into(),
        backend: name.into(),
        packets: 500_000 + rate * seconds,
        bytes: (500_000 + rate * seconds) * 100,
    };
    Counters {
        counters: vec![
            counter("transmitted", 9_000_000 + 76_800 * seconds),
            counter(Name::NoSuchVip.name(), 40 + 3 * seconds),
            counter(Name::TooBig.name(), 7),
            counter(Name::NotVip.name(), 100 * seconds),
        ],
        vips: each.collect(),
        backends: vec![backend("web1", 46_000), backend("web2", 30_780), backend("web3", 20)],
        interfaces: Vec::new(),
    }
}

pub(super) fn event(sequence: u64, what: What) -> view::Event {
    let (level, text) = (what.level(), what.to_string());
    view::Event { sequence, unix_milliseconds: 1_795_552_886_123 + sequence * 1_000, level, text, what }
}

pub(super) fn started(sequence: u64) -> view::Event {
    event(sequence, What::Started { version: "0.1.0".into() })
}

/// A whole reading of these VIPs at this second.
pub(super) fn reading(vips: &[Vip], second: u64) -> Reading {
    let names: Vec<&str> = vips.iter().map(|vip| vip.name.as_str()).collect();
    let facts = Facts { version: "0.1.0".into(), uptime_seconds: 11_100, ..Facts::default() };
    let health = What::BackendHealth {
        pool: "web".into(),
        backend: "web3".into(),
        health: view::HealthState::Unhealthy,
        reason: Some("HTTP 503".into()),
    };
    let events = if second == 0 { vec![started(1), event(2, health)] } else { Vec::new() };
    Reading {
        counters: Some((now(second).since_start, counters(&names, second))),
        facts: (second == 0).then_some((Duration::ZERO, facts)),
        node: Some(view::Node { announces: true, ..view::Node::default() }),
        pools: Some(vec![summary()]),
        events: Some(Events { missed: 0, events }),
        vips: Some(vips.to_vec()),
        neighbors: Some(view::BgpNeighbors(vec![neighbor()])),
        pool: Some(("web".into(), Ok(pool()))),
    }
}

pub(super) fn neighbor() -> view::BgpNeighbor {
    view::BgpNeighbor {
        name: "tor1".into(),
        remote_as: 65_000,
        state: "established".into(),
        since: 1_795_552_886 - 3 * 3_600,
        prefixes_sent: 2,
        sessions: 1,
        ..view::BgpNeighbor::default()
    }
}

/// A node with these VIPs, read this often.
pub(super) fn model(vips: &[Vip], readings: u64) -> Model {
    let mut model = Model::default();
    (0..readings).for_each(|second| model.read(reading(vips, second), now(second)));
    model
}

/// The node of the manual.
pub(super) fn node() -> Model {
    model(&[vip("www", "203.0.113.10", 2), vip("www6", "2001:db8:113::10", 1)], 6)
}
