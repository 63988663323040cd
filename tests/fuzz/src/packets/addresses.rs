//! Addresses and ports: those of VIPs, those beside them, clients', and such as no client has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use maglev_model::{Ports, Protocol, Service};

use super::{choose, one_in};
use crate::world::World;

/// Source and destination of a packet, the number of its protocol, and the ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) source_port: u16,
    pub(super) port: u16,
}

const PROTOCOLS: [u8; 14] = [6, 6, 6, 17, 17, 17, 132, 136, 50, 47, 4, 41, 1, 58];

/// A flow of a VIP, or beside one.
pub(super) fn flow(rng: &mut Rng, world: &World) -> Flow {
    let Service { network, ports, protocol } = world.vips[rng.usize(..world.vips.len())].service;
    let mut destination = within(rng, network.network(), network.prefix_len());
    if one_in(rng, 40) {
        destination = anywhere(rng, destination.is_ipv4());
    }
    let mut number = if protocol == Protocol::Any { choose(rng, &PROTOCOLS) } else { protocol.number() };
    if one_in(rng, 24) {
        number = if one_in(rng, 3) { rng.u8(..) } else { choose(rng, &PROTOCOLS) };
    }
    let mut port = match ports {
        Ports::Any => choose(rng, &[80, 443, 1, 1_023, 1_024, 7_000, 7_999, 65_535, 0]),
        Ports::Range { first, last } => rng.u16(first.get()..=last.get()),
    };
    if one_in(rng, 16) {
        port = match rng.u8(..3) {
            0 => port.wrapping_add(1),
            1 => port.wrapping_sub(1),
            _ => rng.u16(..),
        };
    }
    let source = if one_in(rng, 24) { odd_source(rng, world, destination) } else { client(rng, destination.is_ipv4()) };
    // Few, so that flows have several packets.
    let source_port = if one_in(rng, 2) { 1_000 + rng.u16(..4) } else { rng.u16(..) };
    Flow { source, destination, protocol: number, source_port, port }
}

/// An ordinary client.
pub(super) fn client(rng: &mut Rng, is_v4: bool) -> IpAddr {
    if is_v4 {
        Ipv4Addr::new(198, 51, 100, if one_in(rng, 2) { rng.u8(..2) } else { rng.u8(..) }).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0xc11e, 0, 0, 0, 0, if one_in(rng, 2) { rng.u16(..2) } else { rng.u16(..) }).into()
    }
}

/// A source that is never answered, or nearly one.
fn odd_source(rng: &mut Rng, world: &World, destination: IpAddr) -> IpAddr {
    if one_in(rng, 6) {
        return destination;
    }
    if one_in(rng, 4) {
        let network = world.vips[rng.usize(..world.vips.len())].service.network;
        let address = within(rng, network.network(), network.prefix_len());
        if address.is_ipv4() == destination.is_ipv4() {
            return address;
        }
    }
    if destination.is_ipv4() {
        let [a, b, c] = [rng.u8(..), rng.u8(..), rng.u8(..)];
        let first = choose(rng, &[0, 1, 10, 126, 127, 128, 169, 192, 223, 224, 239, 240, 254, 255]);
        choose(rng, &[Ipv4Addr::new(first, a, b, c), Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Ipv4Addr::LOCALHOST])
            .into()
    } else {
        let low = u128::from(rng.u64(..));
        let addresses =
            [0, 1, 2, 1 << 64, 0xff02 << 112 | 1, 0xff << 120 | low, 0xfe80 << 112 | low, 0xfeff << 112, 0x7f << 120];
        Ipv6Addr::from_bits(choose(rng, &addresses)).into()
    }
}

/// An address of a network: often the first, the last, or one beside it.
fn within(rng: &mut Rng, network: IpAddr, length: u8) -> IpAddr {
    match network {
        IpAddr::V4(address) => {
            let host = u32::MAX.checked_shr(length.into()).unwrap_or(0);
            let (bits, random) = (address.to_bits(), rng.u32(..));
            Ipv4Addr::from_bits(bits | choose(rng, &[0, host, random & host, 7 & host])).into()
        }
        IpAddr::V6(address) => {
            let host = u128::MAX.checked_shr(length.into()).unwrap_or(0);
            let (bits, random) = (address.to_bits(), u128::from(rng.u64(..)) << 64 | u128::from(rng.u64(..)));
            Ipv6Addr::from_bits(bits | choose(rng, &[0, host, random & host, 7 & host])).into()
        }
    }
}

/// Any address, most of them next to VIPs.
fn anywhere(rng: &mut Rng, is_v4: bool) -> IpAddr {
    if is_v4 {
        let [a, b] = [rng.u8(..), rng.u8(..)];
        choose(
            rng,
            &[
                Ipv4Addr::new(203, 0, 113, a),
                Ipv4Addr::new(198, 20, a, b),
                Ipv4Addr::new(198, 17, a, b),
                Ipv4Addr::new(b, a, 113, 10),
            ],
        )
        .into()
    } else {
        let [a, b] = [rng.u16(..), rng.u16(..)];
        choose(
            rng,
            &[
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, a),
                Ipv6Addr::new(0x2001, 0xdb8, a, 0, 0, 0, 0, b),
                Ipv6Addr::new(0x2001, 0xdb8, 0x7fff, a, 0, 0, 0, b),
            ],
        )
        .into()
    }
}
