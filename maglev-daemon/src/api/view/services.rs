//! VIPs, pools and backends as they are, and the bodies that add and change them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Port, Protocol};

/// A VIP; also the body of `POST /v1/vips`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vip {
    /// Its name.
    pub name: String,
    /// The destination address.
    pub address: IpAddr,
    /// The destination port.
    pub port: Port,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The pool that serves it.
    pub pool: String,
}

/// A pool and how its table compares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSummary {
    /// Its name.
    pub name: String,
    /// Digest of its table: equal on nodes that choose the same backends.
    pub table_digest: String,
    /// How many backends it has.
    pub backends: usize,
}

/// `GET /v1/pools/NAME`: a pool with what belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Digest of its table.
    pub table_digest: String,
    /// The VIPs it serves.
    pub vips: Vec<String>,
    /// Its backends by name.
    pub backends: Vec<Backend>,
}

/// A backend and the way to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// The pool it belongs to.
    pub pool: String,
    /// Its name.
    pub name: String,
    /// Where encapsulated packets go.
    pub address: IpAddr,
    /// Its weight.
    pub weight: u16,
    /// Whether new flows are sent to it.
    pub state: BackendState,
    /// The slots of the table it owns.
    pub slots: u32,
    /// These slots as a part of all, 0 to 1.
    pub share: f64,
    /// The way to it.
    pub next_hop: NextHop,
}

/// Whether new flows are sent to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// It has slots of the table.
    Active,
    /// Its weight is 0: only flows it already has.
    Out,
}

impl BackendState {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Active, Self::Out];

    /// The word in JSON, text and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Out => "out",
        }
    }
}

/// The way to a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum NextHop {
    /// Packets leave.
    Resolved {
        /// By this interface.
        interface: String,
        /// To this neighbour.
        mac: String,
        /// Which is this gateway; absent if the backend itself is on-link.
        gateway: Option<IpAddr>,
    },
    /// Packets are dropped and counted.
    Unresolved {
        /// What is awaited.
        reason: String,
    },
}

/// The body of `POST /v1/pools`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPool {
    /// Its name.
    pub name: String,
}

/// The body of `POST /v1/pools/NAME/backends`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBackend {
    /// Its name.
    pub name: String,
    /// Where encapsulated packets go.
    pub address: IpAddr,
    /// Its weight.
    pub weight: u16,
}

/// The body of `PATCH /v1/pools/NAME/backends/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewWeight {
    /// The new weight.
    pub weight: u16,
}

/// The answer to a change: nothing but that it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}
