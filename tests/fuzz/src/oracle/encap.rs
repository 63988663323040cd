//! Encapsulation (docs/packets.md): an outer IP header, and for GUE the headers of UDP and GUE, with the Ethernet header and tag of
//! the next hop in front.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use maglev_common::encap::EncapKind;

use super::bytes::{checksum, put};
use super::ip::protocol;
use super::link::Family;
use crate::world::{Backend, Hop, Interface, Pool, World};

/// GUE's UDP port.
const GUE_PORT: u16 = 6_080;

/// Bytes that stand before a packet: without an Ethernet header.
pub(crate) fn overhead(pool: &Pool, backend: &Backend) -> usize {
    let outer = if backend.address.is_ipv4() { 20 } else { 40 };
    outer + if pool.encap == EncapKind::Gue { 8 + 4 } else { 0 }
}

/// Bytes of the longest packet that fits the path to a backend.
pub(crate) fn longest(world: &World, pool: &Pool, backend: &Backend, hop: Hop) -> usize {
    let interface = world.interfaces[hop.slot].mtu;
    // A path's MTU is kept in units of two bytes.
    let mtu = hop.mtu.map_or(interface, |mtu| interface.min(mtu & !1));
    (mtu as usize).saturating_sub(overhead(pool, backend))
}

/// A packet to be encapsulated.
pub(crate) struct Inner<'a> {
    pub(crate) family: Family,
    /// DSCP and ECN.
    pub(crate) class: u8,
    /// Its length, as it says itself.
    pub(crate) length: usize,
    /// Its bytes, and those that follow it in its frame.
    pub(crate) bytes: &'a [u8],
    /// The flow hash.
    pub(crate) hash: u64,
}

/// The frame that carries a packet to a backend.
pub(crate) fn frame(world: &World, pool: &Pool, backend: &Backend, hop: Hop, inner: &Inner<'_>) -> Vec<u8> {
    let Interface { mac, tag, .. } = &world.interfaces[hop.slot];
    let mut frame = [hop.mac, *mac].concat();
    if let Some((ether_type, vlan)) = tag {
        frame.extend([ether_type.to_be_bytes(), vlan.to_be_bytes()].concat());
    }
    let inside = match inner.family {
        Family::V4 => protocol::IPV4,
        Family::V6 => protocol::IPV6,
    };
    let (next, between) = match pool.encap {
        EncapKind::IpIp => (inside, Vec::new()),
        EncapKind::Gue => (protocol::UDP, gue(inner, inside)),
    };
    let payload = between.len() + inner.length;
    match backend.address {
        IpAddr::V4(to) => {
            frame.extend([0x08, 0x00]);
            frame.extend(outer4(world, to, inner, next, payload));
        }
        IpAddr::V6(to) => {
            frame.extend([0x86, 0xdd]);
            frame.extend(outer6(world, to, inner, next, payload));
        }
    }
    frame.extend(between);
    frame.extend(inner.bytes);
    frame
}

/// UDP, its checksum 0 (RFC 6935), and GUE of version 0 without optional fields.
fn gue(inner: &Inner<'_>, inside: u8) -> Vec<u8> {
    let [low, high, ..] = inner.hash.to_le_bytes();
    let source = [low & 0x3f | 0xc0, high];
    let length = (inner.length + 8 + 4) as u16;
    [source, GUE_PORT.to_be_bytes(), length.to_be_bytes(), [0, 0], [0, inside], [0, 0]].concat()
}

fn outer4(world: &World, to: Ipv4Addr, inner: &Inner<'_>, next: u8, payload: usize) -> [u8; 20] {
    let mut header = [0; 20];
    let source = world.outer4;
    let mut from = source.network().octets();
    let free = source.hostmask().octets();
    // Host bits, at most sixteen, are the hash's fifth and sixth byte.
    let [_, _, _, _, c, d, ..] = inner.hash.to_le_bytes();
    from[2] |= c & free[2];
    from[3] |= d & free[3];
    put(&mut header, 0, &[0x45, inner.class]);
    put(&mut header, 2, &((20 + payload) as u16).to_be_bytes());
    put(&mut header, 6, &[0x40, 0, 64, next]);
    put(&mut header, 12, &from);
    put(&mut header, 16, &to.octets());
    let sum = checksum(&[&header]);
    put(&mut header, 10, &sum.to_be_bytes());
    header
}

fn outer6(world: &World, to: Ipv6Addr, inner: &Inner<'_>, next: u8, payload: usize) -> [u8; 40] {
    let mut header = [0; 40];
    let source = world.outer6;
    let (mut from, free) = (source.network().octets(), source.hostmask().octets());
    // Host bits are the hash, twice.
    for (n, byte) in from.iter_mut().enumerate() {
        *byte |= inner.hash.to_le_bytes()[n % 8] & free[n];
    }
    let label = inner.hash as u32 & 0x000f_ffff;
    put(&mut header, 0, &(6 << 28 | u32::from(inner.class) << 20 | label).to_be_bytes());
    put(&mut header, 4, &(payload as u16).to_be_bytes());
    put(&mut header, 6, &[next, 64]);
    put(&mut header, 8, &from);
    put(&mut header, 24, &to.octets());
    header
}
