//! VIPs, pools and backends as they are, and the bodies that add and change them.

use std::net::IpAddr;
use std::time::Duration;

use maglev_model::{AdminState, Leftover, StateChange, UnixTime, Weight};
use serde::{Deserialize, Serialize};

use super::{
    Address, Encap, Health, InTransition, NewHealth, NewTransition, PoolHealth, Port, Protocol, Tracking, Transition,
    Unserved,
};

/// The body of `POST /v1/vips`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewVip {
    /// Its name.
    pub name: String,
    /// The destination address, or a prefix.
    pub address: Address,
    /// The destination port, a range of ports, or `any`.
    pub port: Port,
    /// The protocol.
    pub protocol: Protocol,
    /// The pool that serves it.
    pub pool: String,
    /// How it is announced: `true` (by its address; the default), `false`, or a prefix that contains the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announce: Option<String>,
    /// The communities of its prefix; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<Vec<String>>,
    /// The handling of its packets while its pool has no backend; dropped if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_empty: Option<Unserved>,
    /// By what its flows find their slots: `5-tuple` (the default), `source`, or `source/24` and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
}

/// The body of `PATCH /v1/vips/NAME`; absent fields keep their value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewForVip {
    /// How it is announced: `true` (by its address), `false`, or a prefix that contains the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announce: Option<String>,
    /// All communities of its prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<Vec<String>>,
    /// The handling of its packets while its pool has no backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_empty: Option<Unserved>,
    /// By what its flows find their slots. A change moves flows to other backends, which ends connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
}

/// A VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vip {
    /// Its name.
    pub name: String,
    /// The destination address, or a prefix.
    pub address: Address,
    /// The destination port, a range of ports, or `any`.
    pub port: Port,
    /// The protocol.
    pub protocol: Protocol,
    /// The pool that serves it.
    pub pool: String,
    /// The handling of its packets while its pool has no backend.
    #[serde(default)]
    pub when_empty: Unserved,
    /// By what its flows find their slots: `5-tuple`, `source`, or `source/24` and the like.
    pub affinity: String,
    /// The reason why it is not served and withdrawn, if so: the node or its backends need its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether it can be served.
    pub health: VipHealth,
}

/// Whether a VIP can be served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipHealth {
    /// The number of its pool's backends that own slots and receive new connections.
    pub serving: usize,
    /// All backends of its pool.
    pub backends: usize,
    /// Whether all active backends are used (fail-open) since too few are healthy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub panic: bool,
    /// Whether its prefix is announced to any neighbor; absent if it is not to be, or BGP is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<bool>,
    /// The number of neighbors that it is announced to; absent like `announced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced_to: Option<usize>,
    /// How many neighbors are configured for its family; absent like `announced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbors: Option<usize>,
    /// The reason why it is not announced to all of them; `BGP off` without a `bgp` section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
}

/// A pool without its backends, with its table's digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSummary {
    /// Its name.
    pub name: String,
    /// For which packets the flow table is consulted.
    pub tracking: Tracking,
    /// How packets for its backends are encapsulated.
    #[serde(default)]
    pub encap: Encap,
    /// The settings of transitions.
    pub transition: Transition,
    /// Its slots in transition and pinned flows.
    pub in_transition: InTransition,
    /// Whether all its active backends are used (fail-open) since too few are healthy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub panic: bool,
    /// Its health; absent if its backends are not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<PoolHealth>,
    /// Digest of its table: equal on nodes that choose the same backends.
    pub table_digest: String,
    /// How many backends it has.
    pub backends: usize,
    /// The number of usable backends: active, not unhealthy, and with a next hop.
    #[serde(default)]
    pub usable: usize,
}

/// `GET /v1/pools/NAME`: a pool with its VIPs and backends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// For which packets the flow table is consulted.
    pub tracking: Tracking,
    /// How packets for its backends are encapsulated.
    #[serde(default)]
    pub encap: Encap,
    /// The settings of transitions.
    pub transition: Transition,
    /// Its slots in transition and pinned flows.
    pub in_transition: InTransition,
    /// Whether all its active backends are used (fail-open) since too few are healthy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub panic: bool,
    /// Its health; absent if its backends are not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<PoolHealth>,
    /// Digest of its table.
    pub table_digest: String,
    /// The VIPs it serves.
    pub vips: Vec<String>,
    /// The number of usable backends: active, not unhealthy, and with a next hop.
    #[serde(default)]
    pub usable: usize,
    /// Its backends by name.
    pub backends: Vec<Backend>,
}

/// A backend and its next hop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub name: String,
    /// The destination of encapsulated packets.
    pub address: IpAddr,
    /// Its weight.
    pub weight: u16,
    /// Whether new flows are sent to it.
    pub state: BackendState,
    /// When it was drained or disabled, in seconds since 1970; absent if it is not, or the time is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The slots of the table it owns.
    pub slots: u32,
    /// These slots as a part of all, 0 to 1.
    pub share: f64,
    /// The number of learning slots whose previous owner it is.
    pub learning_slots: u32,
    /// Flows that are pinned to it on slots of other owners; null until the flow tables have been surveyed.
    pub pinned_flows: Option<u32>,
    /// Its health; absent if it is not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Box<Health>>,
    /// Its next hop.
    pub next_hop: NextHop,
}

impl Backend {
    /// With the times for the present uptime.
    #[must_use]
    pub fn at(&self, uptime: Duration) -> Self {
        let mut backend = self.clone();
        if let Some(health) = &mut backend.health {
            health.derive_times(uptime, crate::now());
        }
        backend
    }

    /// Whether no flow is left to it, except those of its own slots.
    pub fn is_drained(&self) -> bool {
        self.left().is_nothing()
    }

    /// The slots and flows that are left to it, without its own slots.
    pub const fn left(&self) -> Leftover {
        Leftover { learning_slots: self.learning_slots, pinned_flows: self.pinned_flows }
    }
}

impl PoolSummary {
    /// With the times for the present uptime.
    #[must_use]
    pub fn at(&self, uptime: Duration) -> Self {
        Self { in_transition: self.in_transition.at(uptime), ..self.clone() }
    }
}

/// Whether new flows are sent to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// It receives new flows.
    Active,
    /// Drained by an operator: it keeps its existing flows only.
    Draining,
    /// Disabled by an operator: it receives no packets.
    Disabled,
    /// Its weight is 0: it keeps its existing flows only.
    Out,
}

impl BackendState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Active, Self::Draining, Self::Disabled, Self::Out];

    /// The state of a backend: an operator's order takes precedence over the weight.
    pub const fn new(state: AdminState, weight: Weight) -> Self {
        match state {
            AdminState::Active if weight.0 == 0 => Self::Out,
            AdminState::Active => Self::Active,
            AdminState::Draining { .. } => Self::Draining,
            AdminState::Disabled { .. } => Self::Disabled,
        }
    }

    /// The word in JSON, text and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
            Self::Out => "out",
        }
    }
}

/// The next hop of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum NextHop {
    /// Packets are sent.
    Resolved {
        /// The outgoing interface.
        interface: String,
        /// The VLAN, if the interface is a VLAN device.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vlan: Option<Vlan>,
        /// The neighbor's MAC address.
        mac: String,
        /// The gateway; absent if the backend is on-link.
        gateway: Option<IpAddr>,
        /// Bytes of the longest packet of a client that fits the MTU of interface and route with its outer header; absent if the
        /// interface's MTU is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        longest_packet: Option<u32>,
    },
    /// Packets are dropped and counted.
    Unresolved {
        /// The reason.
        reason: String,
    },
}

/// The VLAN of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    /// Its number.
    pub id: u16,
    /// The interface that carries its frames.
    pub on: String,
}

/// The body of `POST /v1/pools`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPool {
    /// Its name.
    pub name: String,
    /// For which packets the flow table is consulted; the default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracking: Option<Tracking>,
    /// The settings of transitions; the default where absent.
    #[serde(default)]
    pub transition: NewTransition,
    /// The number of usable backends below which its VIPs are withdrawn; the default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_healthy: Option<u32>,
    /// How packets for its backends are encapsulated; the default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encap: Option<Encap>,
    /// The checks of its backends; no check if absent.
    #[serde(default)]
    pub health: NewHealth,
}

/// The body of `POST /v1/pools/NAME/backends`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBackend {
    /// Its name.
    pub name: String,
    /// The destination of encapsulated packets.
    pub address: IpAddr,
    /// Its weight.
    pub weight: u16,
}

/// The body of `PATCH /v1/pools/NAME/backends/NAME`: one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewForBackend {
    /// The new weight.
    Weight(u16),
    /// Its differences from its pool's check, in the form of `services.yaml`: `port: 8080`. Null: none.
    Check(Option<String>),
}

/// The body of `POST /v1/pools/NAME/backends/NAME/state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewState {
    /// The order.
    pub order: StateOrder,
}

/// An order about a backend's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateOrder {
    /// From active to draining.
    Drain,
    /// From draining back to active.
    Undrain,
    /// From active or draining to disabled.
    Disable,
    /// From disabled back to active.
    Enable,
}

impl StateOrder {
    /// The change, with its time.
    pub const fn at(self, now: UnixTime) -> StateChange {
        match self {
            Self::Drain => StateChange::Drain { now },
            Self::Undrain => StateChange::Undrain,
            Self::Disable => StateChange::Disable { now },
            Self::Enable => StateChange::Enable,
        }
    }
}

/// The answer to a successful change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}
