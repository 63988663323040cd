//! Which VIP gets a packet, and which backend (docs/packets.md, "Which packets a VIP takes").

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use maglev_common::hash::{FlowHash, HashKey, Transport, Tuple4, Tuple6};
use maglev_common::settings::{Echo, Unserved};
use maglev_model::{Affinity, Ports, Protocol, Service};

use super::ip::protocol::least_with_ports;
use crate::world::{Backend, Pool, World};

/// What identifies a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Source and destination port as they stand in the packet; zeroes without ports.
    pub(crate) ports: [u8; 4],
    pub(crate) protocol: u8,
}

impl Flow {
    /// The same seen from the other side.
    pub(crate) fn reversed(self) -> Self {
        let [a, b, c, d] = self.ports;
        Self { source: self.destination, destination: self.source, ports: [c, d, a, b], protocol: self.protocol }
    }

    /// Its keyed hash.
    pub(crate) fn hash(self, world: &World) -> FlowHash {
        let (key, transport) =
            (HashKey::from_bytes(world.hash_key), Transport::new(u32::from_le_bytes(self.ports), self.protocol));
        let little = |bytes: [u8; 8]| u64::from_le_bytes(bytes);
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let ([a, b, c, d], [e, f, g, h]) = (source.octets(), destination.octets());
                FlowHash::of4(key, Tuple4 { addresses: little([a, b, c, d, e, f, g, h]), transport })
            }
            (source, destination) => {
                let words = [source, destination].map(|address| match address {
                    IpAddr::V6(address) => address.octets(),
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                });
                let word = |n: usize| {
                    let half: [u8; 8] = words[n / 2][n % 2 * 8..][..8].try_into().unwrap_or_default();
                    little(half)
                };
                FlowHash::of6(key, Tuple6 { addresses: [0, 1, 2, 3].map(word), transport })
            }
        }
    }
}

/// The hash by which a flow of a VIP finds its slot and its outer source: with affinity by source, what chooses the slot is the source's,
/// or its network's, and the rest the flow's own.
pub(crate) fn hash(world: &World, vip: usize, flow: Flow) -> FlowHash {
    let (own, bare) = (flow.hash(world), Flow { ports: [0; 4], protocol: 0, ..flow });
    let of = |source: IpNet| match source.network() {
        source @ IpAddr::V4(_) => Flow { source, destination: Ipv4Addr::UNSPECIFIED.into(), ..bare },
        source @ IpAddr::V6(_) => Flow { source, destination: Ipv6Addr::UNSPECIFIED.into(), ..bare },
    };
    let network = match world.vips[vip].affinity {
        Affinity::FiveTuple => None,
        Affinity::Source => Some(flow.source.into()),
        Affinity::Prefix(bits) => IpNet::new(flow.source, bits).ok(),
    };
    network.map_or(own, |network| own.of_source(of(network).hash(world)))
}

/// What the VIPs say of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// It is for this VIP.
    Vip(usize),
    /// Some VIP has the address, none takes the packet.
    AddressAlone,
    /// No VIP has the address.
    Nowhere,
}

/// Whether some VIP has an address.
pub(crate) fn is_vip_address(world: &World, address: IpAddr) -> bool {
    world.vips.iter().any(|vip| vip.service.network.contains(&address))
}

/// The VIP that gets a packet: of those that take it, the most specific.
pub(crate) fn wanted(world: &World, flow: Flow) -> Wanted {
    if !is_vip_address(world, flow.destination) {
        return Wanted::Nowhere;
    }
    let taking = world.vips.iter().enumerate().filter(|(_, vip)| takes(&vip.service, flow));
    // Longer prefix; of these, the one that names the protocol; of these, the one with fewer ports.
    let most = taking.max_by_key(|(_, vip)| {
        let Service { network, ports, protocol } = vip.service;
        (network.prefix_len(), protocol != Protocol::Any, Reverse(count(ports)))
    });
    most.map_or(Wanted::AddressAlone, |(place, _)| Wanted::Vip(place))
}

fn takes(service: &Service, flow: Flow) -> bool {
    let [_, _, high, low] = flow.ports;
    let port = u16::from_be_bytes([high, low]);
    let by_port = match service.ports {
        Ports::Any => true,
        Ports::Range { first, last } => (first.get()..=last.get()).contains(&port),
    };
    let number = match service.protocol {
        Protocol::Any => None,
        Protocol::Tcp => Some(6),
        Protocol::Udp => Some(17),
        Protocol::Sctp => Some(132),
        Protocol::UdpLite => Some(136),
        Protocol::Esp => Some(50),
        Protocol::Gre => Some(47),
    };
    service.network.contains(&flow.destination) && by_port && number.is_none_or(|number| number == flow.protocol)
}

fn count(ports: Ports) -> u32 {
    match ports {
        Ports::Any => 65_536,
        Ports::Range { first, last } => u32::from(last.get()) - u32::from(first.get()) + 1,
    }
}

/// The reason for which a packet is dropped that no VIP of its address takes.
pub(crate) const fn unknown(protocol: u8) -> &'static str {
    if least_with_ports(protocol).is_some() { "no_such_vip" } else { "other_protocol" }
}

/// The backend that owns the slot of a flow of a VIP.
pub(crate) fn owner(world: &World, vip: usize, hash: FlowHash) -> Option<&Backend> {
    let Pool { backends, table, .. } = world.pool_of(vip);
    backends.get(usize::from(*table.get(hash.slot().index())?))
}

/// Whether echo requests to a VIP's address are answered.
pub(crate) fn echoes(world: &World, address: IpAddr) -> bool {
    match world.echo {
        Echo::Always => true,
        Echo::Off => false,
        Echo::Serving => {
            let serving = |vip: &crate::world::Vip| {
                vip.service.network.contains(&address) && !world.pools[vip.pool].backends.is_empty()
            };
            world.vips.iter().any(serving)
        }
    }
}

/// Whether packets that no backend can be given are answered: of a VIP, or of none.
pub(crate) fn is_reset(world: &World, vip: Option<usize>) -> bool {
    let unserved = vip.map_or(world.unknown_port, |vip| world.vips[vip].when_empty);
    unserved == Unserved::Reset
}
