//! Views for tests of the daemon and the command line, which change them where it matters.

use maglev_model::TransitionSettings;

use super::view;

/// An active backend of pool `web` that owns every slot and can be reached.
pub fn backend(name: &str) -> view::Backend {
    view::Backend {
        pool: "web".into(),
        name: name.into(),
        address: [10, 0, 1, 11].into(),
        weight: 100,
        state: view::BackendState::Active,
        since: None,
        slots: 65_537,
        share: 1.0,
        learning_slots: 0,
        pinned_flows: Some(0),
        health: None,
        next_hop: view::NextHop::Resolved {
            interface: "eth0".into(),
            vlan: None,
            mac: "02:00:00:00:00:09".into(),
            gateway: None,
            longest_packet: Some(1_580),
        },
    }
}

/// Pool `web` in short.
pub fn summary() -> view::PoolSummary {
    let view::Pool { name, tracking, encap, transition, in_transition, panic, health, table_digest, .. } = pool();
    let (backends, usable) = (1, 1);
    view::PoolSummary {
        name,
        tracking,
        encap,
        transition,
        in_transition,
        panic,
        health,
        table_digest,
        backends,
        usable,
    }
}

/// Pool `web` without backends.
pub fn pool() -> view::Pool {
    view::Pool {
        name: "web".into(),
        tracking: view::Tracking::Exception,
        encap: view::Encap::Ipip,
        transition: TransitionSettings::default().into(),
        in_transition: view::InTransition { pinned_flows: Some(0), ..view::InTransition::default() },
        panic: false,
        health: None,
        table_digest: "1234".into(),
        vips: Vec::new(),
        usable: 0,
        backends: Vec::new(),
    }
}

/// A draining node that reached this stage, with one second for each stage.
pub fn draining(last: view::Stage) -> view::Node {
    let stages = view::Stage::ALL.into_iter().take_while(|stage| *stage <= last);
    let stages =
        stages.zip(1..).map(|(stage, at)| view::PassedStage { stage, at: 1_700_000_000 + at, seconds: 9 - at });
    let drain = view::NodeDrain {
        since: 1_700_000_000,
        reason: Some("disk".into()),
        stages: stages.collect(),
        packets_forwarded: 41_233,
        ..view::NodeDrain::default()
    };
    view::Node {
        drain: Some(drain),
        unable: None,
        announces: true,
        last_node: false,
        lead_seconds: 10,
        quiet_seconds: 10,
        not_saved: None,
    }
}
