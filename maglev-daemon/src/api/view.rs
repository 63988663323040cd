//! The answers of the API, one type each: the daemon serialises them, the command line reads them back and renders
//! them as text or prints them as they are. It must not know how either side does so.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::model::{self, Refusal};

/// `GET /v1/status`: everything about the node but its counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's release.
    pub version: String,
    /// SHA-256 of the eBPF object, hexadecimal.
    pub object: String,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// The services file.
    pub services_file: String,
    /// Digest of the services: equal on nodes that serve the same.
    pub services_digest: String,
    /// Digest of the flow hash's key: equal on nodes that choose the same slots.
    pub hash_key_digest: String,
    /// Why what is saved is not what the packet path serves, if so; the next change or reload tries again.
    pub not_published: Option<String>,
    /// The last reload, if there was one.
    pub last_reload: Option<LastReload>,
    /// Memory of the data plane's maps.
    pub memory: Memory,
    /// Interfaces the program is attached to, or packets leave through.
    pub interfaces: Vec<Interface>,
    /// VIPs by name.
    pub vips: Vec<Vip>,
    /// Pools by name.
    pub pools: Vec<PoolSummary>,
    /// Backends by pool and name.
    pub backends: Vec<Backend>,
}

/// How the last reload went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReload {
    /// When, in seconds since 1970.
    pub unix_seconds: u64,
    /// Whether the files were taken over.
    pub successful: bool,
}

/// Memory of the data plane's maps, locked in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All maps together.
    pub total_bytes: u64,
    /// Each map.
    pub maps: Vec<MapMemory>,
}

/// Memory of one map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapMemory {
    /// The map's name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `native` or `generic`: how the program is attached.
    pub mode: String,
    /// Whether the program is attached.
    pub attached: bool,
    /// Its index.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
}

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

/// `POST /v1/reload`: the files were taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Fields of the node file that differ from what runs and take effect at the next start.
    pub restart_needed: Vec<String>,
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

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{error}")]
pub struct Error {
    /// One line for the operator.
    pub error: String,
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// One line for each fault, where there can be several: those of a file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// Whose fault it is that a request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorKind {
    /// The input can never be right.
    Invalid,
    /// Not possible as things stand: unknown, taken, in use, full.
    Conflict,
    /// The daemon failed to do it.
    Failed,
}

impl Error {
    /// The input can never be right.
    pub fn invalid(error: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, error.into())
    }

    /// Not possible as things stand.
    pub fn conflict(error: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, error.into())
    }

    /// The daemon failed to do it.
    pub fn failed(error: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, error.into())
    }

    const fn new(kind: ErrorKind, error: String) -> Self {
        Self { error, kind, details: Vec::new() }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(reason) => Self::invalid(reason),
            Refusal::Conflict(reason) => Self::conflict(reason),
            Refusal::Failed(reason) => Self::failed(reason),
        }
    }
}

/// A VIP's port: a number, or `any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port(pub Option<NonZeroU16>);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(port) => port.fmt(f),
            None => f.write_str("any"),
        }
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(port) => serializer.serialize_u16(port.get()),
            None => serializer.serialize_str("any"),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Port;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port from 1 to 65535, or \"any\"")
            }

            fn visit_u64<E: de::Error>(self, port: u64) -> Result<Port, E> {
                let number = u16::try_from(port).ok().and_then(NonZeroU16::new);
                number
                    .map(|port| Port(Some(port)))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(port), &self))
            }

            fn visit_str<E: de::Error>(self, port: &str) -> Result<Port, E> {
                if port == "any" { Ok(Port(None)) } else { Err(E::invalid_value(de::Unexpected::Str(port), &self)) }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl From<model::Protocol> for Protocol {
    fn from(protocol: model::Protocol) -> Self {
        match protocol {
            model::Protocol::Tcp => Self::Tcp,
            model::Protocol::Udp => Self::Udp,
        }
    }
}

impl From<Protocol> for model::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}
