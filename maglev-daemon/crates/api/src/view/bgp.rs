//! BGP: sessions with neighbors, and announced prefixes. It must not know how BGP works.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A neighbor's session: an item of `GET /v1/bgp/neighbors`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpNeighbor {
    /// Its name in the node file; its address by default.
    pub name: String,
    /// Its AS number.
    pub remote_as: u32,
    /// The session's state, in the words of RFC 4271.
    pub state: String,
    /// The time of the last change of state, in seconds since 1970.
    pub since: u64,
    /// Prefixes that this node announces to the neighbor.
    pub prefixes_sent: usize,
    /// How often a session came up since the daemon started.
    pub sessions: u64,
    /// The error that ended the last session or attempt. A NOTIFICATION stays until the next one, or until a session that was
    /// established in between ends.
    pub last_error: Option<String>,
    /// The time of that error, in seconds since 1970.
    pub last_error_at: Option<u64>,
    /// The last error of TCP after that NOTIFICATION.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later_error: Option<String>,
    /// The time of that error, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later_error_at: Option<u64>,
}

/// Sessions and prefixes in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpSummary {
    /// The number of configured neighbors.
    pub neighbors: usize,
    /// The number of neighbors with an established session.
    pub established: usize,
    /// Prefixes of VIPs that are to be announced.
    pub prefixes: usize,
    /// The number of prefixes that are announced to a neighbor.
    pub announced: usize,
}

/// All neighbors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BgpNeighbors(pub Vec<BgpNeighbor>);

/// A prefix of VIPs that is to be announced: an item of `GET /v1/bgp/routes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpRoute {
    /// The prefix.
    pub prefix: IpNet,
    /// Whether it is announced to any neighbor.
    pub announced: bool,
    /// The number of neighbors that it is announced to.
    #[serde(default)]
    pub announced_to: usize,
    /// How many neighbors are configured for its family.
    #[serde(default)]
    pub neighbors: usize,
    /// The reason why it is not announced to all of them, or is being withdrawn.
    pub reason: Option<String>,
    /// The VIPs on it.
    pub vips: Vec<String>,
    /// Its communities, without those of node and neighbors.
    pub communities: Vec<String>,
}

/// All prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BgpRoutes(pub Vec<BgpRoute>);
