//! BGP: sessions with routers, and what they are told. It must not know how either comes about.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A neighbour's session: an item of `GET /v1/bgp/neighbors`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpNeighbor {
    /// Its name: its address, unless the node file says otherwise.
    pub name: String,
    /// Its AS number.
    pub remote_as: u32,
    /// The session's state, in the words of RFC 4271.
    pub state: String,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// Prefixes that the neighbour knows of this node.
    pub prefixes_sent: usize,
    /// How often a session came up since the daemon started.
    pub sessions: u64,
    /// Why the last session, or attempt at one, ended: the words of the side that ended it. A NOTIFICATION stays until another
    /// one comes, or until a session that was established in between ends.
    pub last_error: Option<String>,
    /// When that was, in seconds since 1970.
    pub last_error_at: Option<u64>,
    /// The last error of TCP after that NOTIFICATION.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later_error: Option<String>,
    /// When that was, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later_error_at: Option<u64>,
}

/// Sessions and prefixes in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpSummary {
    /// Neighbors that are configured.
    pub neighbors: usize,
    /// Those with an established session.
    pub established: usize,
    /// Prefixes that VIPs ask to be announced.
    pub prefixes: usize,
    /// Those that are announced to a neighbor.
    pub announced: usize,
}

/// All neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BgpNeighbors(pub Vec<BgpNeighbor>);

/// A prefix that VIPs ask to be announced: an item of `GET /v1/bgp/routes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpRoute {
    /// The prefix.
    pub prefix: IpNet,
    /// Whether it is announced to any neighbor.
    pub announced: bool,
    /// To how many neighbors it is announced.
    #[serde(default)]
    pub announced_to: usize,
    /// How many neighbors are configured for its family.
    #[serde(default)]
    pub neighbors: usize,
    /// Why it is not announced to all of them, or why it is being withdrawn.
    pub reason: Option<String>,
    /// The VIPs on it.
    pub vips: Vec<String>,
    /// Its communities, those of node and neighbours aside.
    pub communities: Vec<String>,
}

/// All prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BgpRoutes(pub Vec<BgpRoute>);
