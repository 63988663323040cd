//! Whether the node serves or is taken out of service. It must not know how a drain goes.

use serde::{Deserialize, Serialize};

use maglev_model::drain::Stage;

/// `GET /v1/node`: what an operator ordered of the node, and how far that has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The drain; null while the node serves.
    pub drain: Option<NodeDrain>,
    /// Why the node forwards nothing for VIPs: an interface without the program, or none that is up. Absent while it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unable: Option<String>,
    /// Whether routers are told prefixes at all: `maglev.yaml` has `bgp`.
    pub announces: bool,
    /// Whether no other node announces the VIPs of this one, as `maglev.yaml` says.
    pub last_node: bool,
    /// For how long a drain announces prefixes as least preferred.
    pub lead_seconds: u64,
    /// For how long no packet may come in until the node is drained.
    pub quiet_seconds: u64,
    /// Why what was last ordered is not saved: it holds until maglevd is started again. Absent if it is saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_saved: Option<String>,
}

/// A drain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDrain {
    /// When it was ordered, in seconds since 1970.
    pub since: u64,
    /// Why, in the operator's words.
    pub reason: Option<String>,
    /// Whether no other node announces the VIPs of this one, as far as the file or the operator says.
    pub last_node: bool,
    /// The stages so far, the present one last.
    pub stages: Vec<PassedStage>,
    /// Whether the daemon was started in its midst.
    pub resumed: bool,
    /// Packets sent on to backends since it began, or since the daemon did.
    pub packets_forwarded: u64,
    /// VIPs that packets came in for when last counted.
    pub receiving: Vec<Receiving>,
    /// For how long no packet came in, once they are waited for to stop.
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

/// A VIP that packets come in for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiving {
    /// Its name.
    pub vip: String,
    /// How many.
    pub packets_per_second: u64,
}

/// `POST /v1/node/drain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDrain {
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whether no other node announces the VIPs of this one.
    #[serde(default)]
    pub last_node: bool,
}

impl NodeDrain {
    /// The present stage.
    pub fn stage(&self) -> Stage {
        self.stages.last().map_or(Stage::Marked, |passed| passed.stage)
    }

    /// What still comes in, in words.
    pub fn received(&self) -> String {
        let each = self.receiving.iter().map(|Receiving { vip, packets_per_second: rate }| {
            format!("{vip} {rate} packet{}/s", if *rate == 1 { "" } else { "s" })
        });
        each.collect::<Vec<_>>().join(", ")
    }
}

impl Node {
    /// What the node does, in a word.
    pub fn state(&self) -> &'static str {
        match self.drain.as_ref().map(NodeDrain::stage) {
            None => "serving",
            Some(Stage::Drained) => "drained",
            Some(_) => "draining",
        }
    }
}
