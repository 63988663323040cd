//! The domain: names, weights, backends, pools, VIPs, and the changes an operator makes to them. Pure; it must not
//! know files, sockets or the data plane.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use maglev_common::maps;

mod admission;
mod affinity;
mod announce;
pub mod bgp;
pub mod capture;
mod change;
mod community;
mod decap;
mod delta;
mod difference;
pub mod digest;
mod guard;
mod health;
mod host;
mod leftover;
mod mtu;
pub mod node_drain;
mod places;
pub mod plan;
mod ramp;
mod refusal;
mod resolution;
pub mod runbook;
mod service;
mod settings;
mod standing;
mod state;
pub mod table;
mod text;
mod time;
pub mod transition;
mod vip;

pub use admission::{Admission, VipAdmission};
pub use affinity::Affinity;
pub use announce::{Announce, AnnounceBy, AnnounceChange, MAX_COMMUNITIES};
pub use change::not_unicast;
pub use community::Community;
pub use decap::can_be_vips;
pub use delta::{Delta, Removed, Touched};
pub use difference::{Counts, Difference};
pub use health::{Check, HealthChange, Hysteresis, OnAllDead, Override, Percent, PoolHealth, Probe, Request, Tls, Via};
pub use health::{RCODES, is_dns_name, server_name};
pub use health::{parse_on_all_dead, parse_panic, parse_slow_start};
pub use host::Host;
pub use leftover::Leftover;
pub use maglev_common::encap::{Encap, EncapKind};
pub use maglev_common::settings::{Echo, Tracking, UdpPolicy, Unserved};
pub use mtu::Mtu;
pub use places::{Clash, MAX_LENGTHS, MAX_RULES, Places};
pub use ramp::Ramp;
pub use refusal::Refusal;
pub use resolution::Resolution;
pub use service::{Ports, Protocol, Service, parse_network, shown_network};
pub use settings::{
    PoolSettings, SettingsChange, TransitionSettings, encap_word, parse_encap, parse_idle, parse_learning,
    parse_min_healthy, parse_tracking, parse_udp, tracking_word, udp_word,
};
pub use standing::{Health, Standing};
pub use state::{AdminState, StateChange};
pub use text::shown;
pub use text::{BadValue, parse_address, parse_endpoint, parse_reason};
pub use time::{ShownDuration, UnixTime, WrittenDuration};
pub use time::{parse_duration, parse_timeout, parse_utc, utc_with_milliseconds};
pub use vip::{PacketSettings, VipChange, parse_echo, parse_unserved, unserved_word};

/// The name of a VIP, pool or backend: 1–63 of `a-z A-Z 0-9 . _ -`, the first a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A backend's weight: its share of the table relative to its pool's other backends. With 0 it owns no slots and keeps the
/// flows it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(pub u16);

/// A virtual IP: a service and the pool that serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Its name, unique among VIPs.
    pub name: Name,
    /// The packets it takes, unique among VIPs.
    pub service: Service,
    /// The pool that serves it.
    pub pool: Name,
    /// How it is announced.
    pub announce: Announce,
    /// The handling of its packets while its pool has no backend.
    pub when_empty: Unserved,
    /// By what its flows find their slots.
    pub affinity: Affinity,
}

/// A server behind a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its name, unique in its pool: the table is ordered by it.
    pub name: Name,
    /// Where encapsulated packets go: the outer destination.
    pub address: IpAddr,
    /// Its share.
    pub weight: Weight,
    /// The state that an operator ordered.
    pub state: AdminState,
    /// The MTU of the path to it, in bytes, where a link is smaller than interfaces and routes show; `None`: it is as these say.
    pub mtu: Option<Mtu>,
}

/// A set of backends that serve the same content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name, unique among pools.
    pub name: Name,
    /// How it keeps connections while its backends change.
    pub settings: PoolSettings,
    /// How its backends are checked, and the consequences of failures.
    pub health: PoolHealth,
    /// Its backends by name.
    pub backends: BTreeMap<Name, Backend>,
}

/// Everything that is the same on every node: pools and the VIPs they serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Pools by name. Services before and after a change share those that it leaves alone: a copy, a comparison or a text of all of
    /// them takes time in proportion to the changed ones.
    pub pools: BTreeMap<Name, Arc<Pool>>,
    /// VIPs by name.
    pub vips: BTreeMap<Name, Vip>,
}

/// How many of each a node takes; never more than the design's limits in `maglev_common::maps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// VIPs, at most [`maps::MAX_VIPS`].
    pub vips: u32,
    /// Pools, at most [`maps::MAX_POOLS`]. Each takes 131 KB of kernel memory, in use or not.
    pub pools: u32,
    /// Backends over all pools (members), at most [`maps::MAX_MEMBERS`].
    pub backends: u32,
}

impl Limits {
    /// The design's limits.
    pub const MOST: Self = Self { vips: maps::MAX_VIPS, pools: maps::MAX_POOLS, backends: maps::MAX_MEMBERS };
}

impl Default for Limits {
    /// Memory is reserved for pools: by default for fewer than the design allows.
    fn default() -> Self {
        Self { vips: maps::DEFAULT_VIPS, pools: maps::DEFAULT_POOLS, backends: maps::MAX_MEMBERS }
    }
}

/// The outer source of encapsulated packets, per outer family: an address (a prefix of full length), or a prefix
/// whose host bits come from the flow hash. A family without one cannot reach backends of that family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OuterSources {
    /// For backends with an IPv4 address.
    pub v4: Option<Ipv4Net>,
    /// For backends with an IPv6 address.
    pub v6: Option<Ipv6Net>,
}

/// The capabilities of a node: services are validated against them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How many of each.
    pub limits: Limits,
    /// The families of backends that it can send to.
    pub outer: OuterSources,
}

/// One change to the services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new VIP.
    AddVip(Vip),
    /// The removal of a VIP.
    RemoveVip(Name),
    /// Other settings for a VIP.
    SetVip {
        /// The VIP.
        vip: Name,
        /// The change.
        change: VipChange,
    },
    /// A new pool.
    AddPool(Pool),
    /// The removal of a pool that no VIP uses.
    RemovePool(Name),
    /// Other settings for a pool.
    SetPool {
        /// The pool.
        pool: Name,
        /// The change.
        change: SettingsChange,
        /// The change to its checks.
        health: HealthChange,
    },
    /// A new backend.
    AddBackend {
        /// In this pool.
        pool: Name,
        /// The backend.
        backend: Backend,
    },
    /// The removal of a backend.
    RemoveBackend {
        /// In this pool.
        pool: Name,
        /// Its name.
        backend: Name,
        /// Even if connections are dropped.
        force: bool,
    },
    /// Another weight for a backend.
    SetWeight {
        /// In this pool.
        pool: Name,
        /// Its name.
        backend: Name,
        /// The new weight.
        weight: Weight,
    },
    /// A change to a backend's override of its pool's check.
    SetCheck {
        /// In this pool.
        pool: Name,
        /// The override; `None`: none.
        backend: Name,
        /// The override; `None`: none.
        own: Option<Override>,
    },
    /// Another administrative state for a backend.
    SetState {
        /// In this pool.
        pool: Name,
        /// Its name.
        backend: Name,
        /// The order.
        change: StateChange,
    },
}
