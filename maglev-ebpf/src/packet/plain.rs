//! Plain packets: untagged, without options, extension headers or fragments, TCP or UDP. Nearly all packets are, so
//! they are read by a few wide loads and one comparison with the packet's end. It must not say what is wrong with any
//! other: the parsers of the neighbouring modules do.

use maglev_common::hash::{Tuple4, Tuple6};
use zerocopy::byteorder::{LE, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Inner, eth, ipv4, ipv6, l4};
use crate::env::Packet;

/// Ethernet, IPv4, and TCP as far as its flags. A datagram of a few bytes ends before: it is not plain.
///
/// ```text
///  0      12          14         16       18      20         22    24         26          34      38         48
/// +------+-----------+----------+--------+-------+----------+-----+----------+-----------+-------+----------+
/// | MACs | EtherType | ver, TOS | length | ident | fragment | TTL | checksum | addresses | ports | … flags  |
/// |      |           |          |        |       |          | prot|          |           |       |          |
/// +------+-----------+----------+--------+-------+----------+-----+----------+-----------+-------+----------+
/// ```
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Start4 {
    macs: [u8; 12],
    type_version_class: U32<LE>,
    length_to_protocol: U64<LE>,
    checksum: [u8; 2],
    addresses: U64<LE>,
    transport: Transport,
}

/// Ethernet, IPv6, and TCP as far as its flags.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Start6 {
    macs: [u8; 12],
    type_version_class: U32<LE>,
    flow_label: [u8; 2],
    length_header_hops: U32<LE>,
    addresses: [U64<LE>; 4],
    transport: Transport,
}

/// The first fourteen bytes of a TCP header, or a datagram's header and the first of its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Transport {
    ports: U32<LE>,
    sequence_to_flags: [u8; 10],
}

/// EtherType, then version 4 with five words of header, as they are read; the traffic class masked out.
const START4: u32 = (eth::IPV4.swap_bytes() as u32) | 0x45 << 16;
const START4_MASK: u32 = 0x00ff_ffff;
/// EtherType and version 6; the traffic class masked out.
const START6: u32 = (eth::IPV6.swap_bytes() as u32) | 0x60 << 16;
const START6_MASK: u32 = 0x00f0_ffff;
/// *More fragments* and the fragment offset.
const FRAGMENT: u64 = (ipv4::FRAGMENT.swap_bytes() as u64) << 32;

/// Reads a plain IPv4 packet; `None` if it is not one.
#[inline(always)]
pub fn ipv4(packet: &impl Packet) -> Option<Inner<Tuple4>> {
    let start = packet.view::<Start4>(0)?;
    let (kind, middle) = (start.type_version_class.get(), start.length_to_protocol.get());
    if kind & START4_MASK != START4 || middle & FRAGMENT != 0 {
        return None;
    }
    let (length, protocol) = ((middle as u16).swap_bytes(), (middle >> 56) as u8);
    if !holds_transport(protocol, length, ipv4::HEADER) || eth::HEADER + usize::from(length) > packet.len() {
        return None;
    }
    let tuple = Tuple4 { addresses: start.addresses.get(), ports: start.transport.ports.get(), protocol };
    Some(Inner { tuple, traffic_class: (kind >> 24) as u8, length, transport: eth::HEADER + ipv4::HEADER })
}

/// Reads a plain IPv6 packet; `None` if it is not one.
#[inline(always)]
pub fn ipv6(packet: &impl Packet) -> Option<Inner<Tuple6>> {
    let start = packet.view::<Start6>(0)?;
    let (kind, middle) = (start.type_version_class.get(), start.length_header_hops.get());
    if kind & START6_MASK != START6 {
        return None;
    }
    let (payload, protocol) = ((middle as u16).swap_bytes(), (middle >> 16) as u8);
    let length = u32::from(payload) + ipv6::HEADER as u32;
    let length = if length > u32::from(u16::MAX) { return None } else { length as u16 };
    if !holds_transport(protocol, length, ipv6::HEADER) || eth::HEADER + usize::from(length) > packet.len() {
        return None;
    }
    let addresses = start.addresses.map(U64::get);
    let tuple = Tuple6 { addresses, ports: start.transport.ports.get(), protocol };
    // The class is the four low bits of the first byte and the four high bits of the second.
    let traffic_class = ((kind >> 12) as u8 & 0xf0) | (kind >> 28) as u8;
    Some(Inner { tuple, traffic_class, length, transport: eth::HEADER + ipv6::HEADER })
}

/// Whether a packet of this length holds the transport header it says it has: TCP or UDP.
#[inline(always)]
fn holds_transport(protocol: u8, length: u16, header: usize) -> bool {
    match protocol {
        l4::TCP => length >= header as u16 + l4::TCP_HEADER,
        l4::UDP => length >= header as u16 + l4::UDP_HEADER,
        _ => false,
    }
}
