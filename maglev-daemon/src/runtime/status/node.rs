//! The node and its drain as the API shows them. It must not know the clients.

use std::time::Duration;

use maglev_api::view;
use maglev_config::NodeConfig;
use maglev_core::node::Node;
use maglev_core::node_drain::{Order, Progress};
use maglev_model::UnixTime;
use maglev_model::node_drain::{Settings, Stage};

/// The node's state at this time.
pub(in crate::runtime) fn node(node: &Node, running: &NodeConfig, now: Duration) -> view::Node {
    let Settings { lead, quiet, last_node } = running.drain;
    let drain = node.node_drain();
    view::Node {
        drain: drain.progress().map(|progress| progress_view(&progress, now)),
        unable: node.trouble().map(str::to_owned),
        announces: running.bgp.is_some(),
        last_node,
        lead_seconds: lead.as_secs(),
        quiet_seconds: quiet.as_secs(),
        not_saved: drain.unsaved().map(str::to_owned),
    }
}

fn progress_view(progress: &Progress<'_>, now: Duration) -> view::NodeDrain {
    let Progress { order, stages, forwarded, resumed, receiving, quiet_for } = progress;
    let Order { since: UnixTime(since), reason, last_node } = order;
    let UnixTime(unix_now) = maglev_api::now();
    let passed = |(stage, time): &(Stage, Duration)| {
        let seconds = now.saturating_sub(*time).as_secs();
        view::PassedStage { stage: *stage, at: unix_now.saturating_sub(seconds), seconds }
    };
    let receiving =
        receiving.iter().map(|(vip, rate)| view::Receiving { vip: vip.to_string(), packets_per_second: *rate });
    view::NodeDrain {
        since: *since,
        reason: reason.clone(),
        last_node: *last_node,
        stages: stages.iter().map(passed).collect(),
        resumed: *resumed,
        packets_forwarded: *forwarded,
        receiving: receiving.collect(),
        quiet_seconds: quiet_for.as_secs(),
    }
}
