//! Packets: counted, and explained one by one.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Protocol;

/// `GET /v1/counters`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Packets by what became of them.
    pub counters: Vec<Counter>,
    /// Traffic of each VIP.
    pub vips: Vec<VipTraffic>,
    /// Traffic of each backend.
    pub backends: Vec<BackendTraffic>,
}

/// A counter of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Its name.
    pub name: String,
    /// `forwarded`, `passed`, `dropped`, or `noted` for what happened on the way.
    pub outcome: String,
    /// Packets counted since the daemon started.
    pub packets: u64,
    /// What it counts.
    pub help: String,
}

/// Packets and bytes of a VIP, as they came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipTraffic {
    /// The VIP.
    pub name: String,
    /// Packets.
    pub packets: u64,
    /// Bytes, Ethernet header included.
    pub bytes: u64,
}

/// Packets and bytes sent to a backend of a pool, as they came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendTraffic {
    /// The pool.
    pub pool: String,
    /// The backend.
    pub backend: String,
    /// Packets.
    pub packets: u64,
    /// Bytes, Ethernet header included.
    pub bytes: u64,
}

/// `GET /v1/flow`: where the next packet of a flow goes, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The destination.
    pub service: SocketAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// What becomes of the packet: `forwarded`, `passed` or `dropped`.
    pub outcome: String,
    /// The VIP, if one takes the packet.
    pub vip: Option<String>,
    /// Its pool.
    pub pool: Option<String>,
    /// The flow's slot.
    pub slot: Option<u32>,
    /// The backend that gets the packet.
    pub backend: Option<String>,
    /// One sentence.
    pub reason: String,
}
