//! VIPs, pools and backends as they are, and the bodies that add and change them.

use std::net::IpAddr;
use std::time::Duration;

use maglev_model::{AdminState, Leftover, StateChange, UnixTime, Weight};
use serde::{Deserialize, Serialize};

use super::{Health, InTransition, NewHealth, NewTransition, PoolHealth, Port, Protocol, Tracking, Transition};

/// The body of `POST /v1/vips`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewVip {
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
    /// How it is announced: `true` (by its address; the default), `false`, or a prefix that holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announce: Option<String>,
    /// The communities of its prefix; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<Vec<String>>,
}

/// The body of `PATCH /v1/vips/NAME`: what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAnnounce {
    /// How it is announced: `true` (by its address), `false`, or a prefix that holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announce: Option<String>,
    /// All communities of its prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<Vec<String>>,
}

/// A VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Why it cannot be served and is withdrawn, if so: its address is needed by the node or its backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether it can be served.
    pub health: VipHealth,
}

/// Whether a VIP can be served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipHealth {
    /// Its pool's backends that own slots: where new connections go.
    pub serving: usize,
    /// All backends of its pool.
    pub backends: usize,
    /// Whether they are all used since too few are healthy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub panic: bool,
    /// Whether its prefix is announced to any neighbor; absent if it is not to be, or BGP is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<bool>,
    /// To how many neighbors it is announced; absent like `announced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced_to: Option<usize>,
    /// How many neighbors are configured for its family; absent like `announced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbors: Option<usize>,
    /// Why it is not announced to all of them; `BGP off` without a `bgp` section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
}

/// A pool and how its table compares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSummary {
    /// Its name.
    pub name: String,
    /// For which packets the flow table is consulted.
    pub tracking: Tracking,
    /// How the flows of a slot go over to a new owner.
    pub transition: Transition,
    /// What is going over to a new owner now.
    pub in_transition: InTransition,
    /// Whether all its active backends are used since too few are healthy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub panic: bool,
    /// What checks tell of it; absent if its backends are not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<PoolHealth>,
    /// Digest of its table: equal on nodes that choose the same backends.
    pub table_digest: String,
    /// How many backends it has.
    pub backends: usize,
    /// How many of them can be sent new connections: active, not unhealthy, and with a next hop.
    #[serde(default)]
    pub usable: usize,
}

/// `GET /v1/pools/NAME`: a pool with what belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// For which packets the flow table is consulted.
    pub tracking: Tracking,
    /// How the flows of a slot go over to a new owner.
    pub transition: Transition,
    /// What is going over to a new owner now.
    pub in_transition: InTransition,
    /// Whether all its active backends are used since too few are healthy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub panic: bool,
    /// What checks tell of it; absent if its backends are not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<PoolHealth>,
    /// Digest of its table.
    pub table_digest: String,
    /// The VIPs it serves.
    pub vips: Vec<String>,
    /// How many of its backends can be sent new connections: active, not unhealthy, and with a next hop.
    #[serde(default)]
    pub usable: usize,
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
    /// When it was drained or disabled, in seconds since 1970; absent if it is not, or the time is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The slots of the table it owns.
    pub slots: u32,
    /// These slots as a part of all, 0 to 1.
    pub share: f64,
    /// The slots that are learning for it, their previous owner.
    pub learning_slots: u32,
    /// Flows that are pinned to it though their slots belong to others; null until the flow tables have been surveyed.
    pub pinned_flows: Option<u32>,
    /// What its checks tell; absent if it is not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Box<Health>>,
    /// The way to it.
    pub next_hop: NextHop,
}

impl Backend {
    /// As it is when the daemon has been up for so long.
    #[must_use]
    pub fn at(&self, uptime: Duration) -> Self {
        let mut backend = self.clone();
        if let Some(health) = &mut backend.health {
            health.derive_times(uptime, crate::now());
        }
        backend
    }

    /// Whether no flow is left to it but those of its own slots.
    pub fn is_drained(&self) -> bool {
        self.left().is_nothing()
    }

    /// What is left to it beside its own slots.
    pub const fn left(&self) -> Leftover {
        Leftover { learning_slots: self.learning_slots, pinned_flows: self.pinned_flows }
    }
}

impl PoolSummary {
    /// As it is when the daemon has been up for so long.
    #[must_use]
    pub fn at(&self, uptime: Duration) -> Self {
        Self { in_transition: self.in_transition.at(uptime), ..self.clone() }
    }
}

/// Whether new flows are sent to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// It has slots of the table.
    Active,
    /// An operator drains it: only flows it already has.
    Draining,
    /// An operator disabled it: no packets.
    Disabled,
    /// Its weight is 0: only flows it already has.
    Out,
}

impl BackendState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Active, Self::Draining, Self::Disabled, Self::Out];

    /// The state of a backend: what an operator ordered before what its weight says.
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
    /// For which packets the flow table is consulted; the default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracking: Option<Tracking>,
    /// How the flows of a slot go over to a new owner; the default where absent.
    #[serde(default)]
    pub transition: NewTransition,
    /// How many backends must be healthy for its VIPs to be announced; the default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_healthy: Option<u32>,
    /// How its backends are checked; they are not if absent.
    #[serde(default)]
    pub health: NewHealth,
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

/// The body of `PATCH /v1/pools/NAME/backends/NAME`: one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewForBackend {
    /// The new weight.
    Weight(u16),
    /// What of its pool's check is different for it, as `services.yaml` says it: `port: 8080`. Null: nothing.
    Check(Option<String>),
}

/// The body of `POST /v1/pools/NAME/backends/NAME/state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewState {
    /// What is ordered.
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
    /// The change that it is now.
    pub const fn at(self, now: UnixTime) -> StateChange {
        match self {
            Self::Drain => StateChange::Drain { now },
            Self::Undrain => StateChange::Undrain,
            Self::Disable => StateChange::Disable { now },
            Self::Enable => StateChange::Enable,
        }
    }
}

/// The answer to a change: nothing but that it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}
