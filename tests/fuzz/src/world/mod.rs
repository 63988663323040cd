//! The worlds in which packets are handled: addresses, services and settings that the oracle and the programs' maps are both given.
//! They must not know packets.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use maglev_common::encap::EncapKind;
use maglev_common::settings::{Echo, Mss, Unserved};
use maglev_model::{Affinity, Service};

mod plan;
mod several;

pub use plan::{interface_records, steps};
pub use several::{decap_worlds, worlds};

/// A backend's decapsulation.
#[derive(Clone, Debug)]
pub struct DecapWorld {
    /// The prefixes of `--from`: outer sources that are accepted.
    pub sources: Vec<IpNet>,
    /// The prefixes of `--to`: inner destinations that packets are unwrapped for.
    pub vips: Vec<IpNet>,
    /// `--mss`.
    pub mss: Mss,
    /// The MTU in bytes of the interface that packets come in by.
    pub mtu: u32,
}

/// A load balancer's node.
#[derive(Clone, Debug)]
pub struct World {
    /// Its name in reports.
    pub name: &'static str,
    /// The key of the flow hash.
    pub hash_key: [u8; 16],
    /// The interfaces, in the order of their slots.
    pub interfaces: Vec<Interface>,
    /// The outer source for IPv4 backends.
    pub outer4: Ipv4Net,
    /// The outer source for IPv6 backends.
    pub outer6: Ipv6Net,
    /// The pools.
    pub pools: Vec<Pool>,
    /// The VIPs; a VIP's number is its place.
    pub vips: Vec<Vip>,
    /// The handling of packets to ports of VIPs' addresses that no VIP has.
    pub unknown_port: Unserved,
    /// Which echo requests are answered.
    pub echo: Echo,
    /// Packets that a CPU may answer in a second; `None`: as many as come.
    pub answers: Option<u32>,
}

/// The index of the interface that all frames come in by.
pub const INGRESS: u32 = 1;

/// An interface, or a VLAN device on one.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Further addresses whose frames it takes.
    pub also: Vec<[u8; 6]>,
    /// Its index; of a VLAN device, that of the interface that carries its frames.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The EtherType and number of a VLAN device's tag.
    pub tag: Option<(u16, u16)>,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The encapsulation of its packets.
    pub encap: EncapKind,
    /// Its backends.
    pub backends: Vec<Backend>,
    /// Per slot of its table, the place of its owner in `backends`. Empty if there is no backend.
    pub table: Vec<u16>,
    /// How its slots came to their owners.
    pub transition: Transition,
}

/// How the slots of a pool came to their owners, and how its flows are kept.
#[derive(Clone, Debug, Default)]
pub struct Transition {
    /// Per slot, the place of its previous owner, or [`Self::NONE`] if it is settled. Empty: all are.
    pub previous: Vec<u16>,
    /// Whether the slots that are not settled are learning.
    pub learning: bool,
    /// `udp: keep`.
    pub keeps_datagrams: bool,
    /// `tracking: always`.
    pub always: bool,
}

impl Transition {
    /// No previous owner.
    pub const NONE: u16 = u16::MAX;
}

/// A backend.
#[derive(Clone, Copy, Debug)]
pub struct Backend {
    /// Its number among all members.
    pub id: u16,
    /// The outer destination.
    pub address: IpAddr,
    /// The next hop, if it is resolved.
    pub next_hop: Option<Hop>,
}

/// A resolved next hop.
#[derive(Clone, Copy, Debug)]
pub struct Hop {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// The slot of its interface.
    pub slot: usize,
    /// The MTU of the path, where that is smaller than the interface's.
    pub mtu: Option<u32>,
}

/// A VIP.
#[derive(Clone, Copy, Debug)]
pub struct Vip {
    /// The packets that it takes.
    pub service: Service,
    /// The place of its pool.
    pub pool: usize,
    /// The handling of its packets while its pool has no backend.
    pub when_empty: Unserved,
    /// By what its flows find their slots.
    pub affinity: Affinity,
}

impl World {
    /// The pool of a VIP.
    pub fn pool_of(&self, vip: usize) -> &Pool {
        &self.pools[self.vips[vip].pool]
    }

    /// A backend by its number, with its pool.
    pub fn backend(&self, id: u16) -> Option<(&Pool, &Backend)> {
        self.pools.iter().find_map(|pool| Some((pool, pool.backends.iter().find(|backend| backend.id == id)?)))
    }
}
