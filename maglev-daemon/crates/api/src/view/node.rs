//! The node's state and its drain. It must not know how a drain works.

use serde::{Deserialize, Serialize};

use maglev_model::node_drain::Stage;

/// `GET /v1/node`: the node's state, and the progress of its drain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The drain; null while the node serves.
    pub drain: Option<NodeDrain>,
    /// The reason why the node does not forward: an interface without the program, or no interface that is up. Absent while it
    /// can forward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unable: Option<String>,
    /// Whether the node announces prefixes: `maglev.yaml` has `bgp`.
    pub announces: bool,
    /// Whether no other node announces this node's VIPs, by `maglev.yaml`.
    pub last_node: bool,
    /// How long a drain announces prefixes as least preferred.
    pub lead_seconds: u64,
    /// How long no packet must arrive until the node is drained.
    pub quiet_seconds: u64,
    /// The reason why the last order is not saved: it holds until maglevd is started again. Absent if it is saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_saved: Option<String>,
}

/// A drain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDrain {
    /// When it was ordered, in seconds since 1970.
    pub since: u64,
    /// The operator's reason.
    pub reason: Option<String>,
    /// Whether no other node announces this node's VIPs, by the file or the operator.
    pub last_node: bool,
    /// The stages so far, the present one last.
    pub stages: Vec<PassedStage>,
    /// Whether the daemon was restarted during the drain.
    pub resumed: bool,
    /// Packets forwarded to backends since the drain began, or since the daemon started.
    pub packets_forwarded: u64,
    /// VIPs that received packets in the last interval.
    pub receiving: Vec<Receiving>,
    /// How long no packet arrived, in the stage *waiting*.
    pub quiet_seconds: u64,
}

/// A stage that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedStage {
    /// The stage.
    pub stage: Stage,
    /// When, in seconds since 1970.
    pub at: u64,
    /// How long ago that was.
    pub seconds: u64,
}

/// A VIP that receives packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiving {
    /// Its name.
    pub vip: String,
    /// Its packets a second.
    pub packets_per_second: u64,
}

/// `POST /v1/node/drain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDrain {
    /// The reason.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whether no other node announces this node's VIPs.
    #[serde(default)]
    pub last_node: bool,
}

/// `POST /v1/node/stop`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewStop {
    /// Whether the program is detached, whatever `dataplane.on_stop` says: nothing is left.
    #[serde(default)]
    pub detach: bool,
    /// Whether to detach although the node is not drained.
    #[serde(default)]
    pub force: bool,
}

impl NodeDrain {
    /// The present stage.
    pub fn stage(&self) -> Stage {
        self.stages.last().map_or(Stage::Marked, |passed| passed.stage)
    }

    /// The VIPs that still receive packets, in words.
    pub fn received(&self) -> String {
        let each = self.receiving.iter().map(|Receiving { vip, packets_per_second: rate }| {
            format!("{vip} {rate} packet{}/s", if *rate == 1 { "" } else { "s" })
        });
        each.collect::<Vec<_>>().join(", ")
    }
}

impl Node {
    /// The node's state, in a word.
    pub fn state(&self) -> &'static str {
        match self.drain.as_ref().map(NodeDrain::stage) {
            None => "serving",
            Some(Stage::Drained) => "drained",
            Some(_) => "draining",
        }
    }
}
