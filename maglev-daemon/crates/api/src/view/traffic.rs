//! Counters of packets, and explanations of single flows.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Protocol;

/// `GET /v1/counters`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Packets by outcome.
    pub counters: Vec<Counter>,
    /// Traffic of each VIP.
    pub vips: Vec<VipTraffic>,
    /// Traffic of each backend.
    pub backends: Vec<BackendTraffic>,
    /// Packets lost at interfaces.
    #[serde(default)]
    pub interfaces: Vec<InterfaceCounter>,
}

/// A counter of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Its name.
    pub name: String,
    /// `forwarded`, `passed`, `dropped`, or `noted` for an event without an outcome.
    pub outcome: String,
    /// Packets counted since the daemon started.
    pub packets: u64,
    /// Its meaning.
    pub help: String,
}

/// Received packets and bytes of a VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipTraffic {
    /// The VIP.
    pub name: String,
    /// Packets.
    pub packets: u64,
    /// Bytes, Ethernet header included.
    pub bytes: u64,
}

/// Packets and bytes sent to a backend of a pool, without the outer header.
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

/// Packets that are lost at an interface, as its driver or the kernel counts them: outside the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceCounter {
    /// The interface.
    pub interface: String,
    /// `kernel` or `driver`.
    pub source: String,
    /// The name of the counter; a driver's is that of `ethtool -S`, of all queues together.
    pub name: String,
    /// Packets since the interface exists.
    pub packets: u64,
}

/// `GET /v1/flow`: the outcome of a flow's next packet, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The destination.
    pub service: SocketAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The outcome: `forwarded`, `passed`, `dropped` or `answered`.
    pub outcome: String,
    /// The VIP, if one matches.
    pub vip: Option<String>,
    /// Its pool.
    pub pool: Option<String>,
    /// The flow's slot.
    pub slot: Option<u32>,
    /// The backend that receives the packet.
    pub backend: Option<String>,
    /// The reason, in a sentence.
    pub reason: String,
}
