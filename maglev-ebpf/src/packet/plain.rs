//! Plain packets: untagged, without options, extension headers or fragments, TCP or UDP. Nearly all packets are, so
//! they are read with one comparison with the packet's end. It must not say what is wrong with any
//! other: the parsers of the neighbouring modules do.

use maglev_common::hash::{Transport, Tuple4, Tuple6};
use zerocopy::byteorder::{LE, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::eth::Ethernet;
use super::ipv4::Ipv4;
use super::ipv6::Ipv6;
use super::{Inner, eth, ipv4, ipv6, l4};
use crate::env::Packet;

/// Ethernet, IPv4, and TCP as far as its flags. A datagram of a few bytes ends before: it is not plain.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Start4 {
    ethernet: Ethernet,
    ip: Ipv4,
    transport: TransportStart,
}

/// Ethernet, IPv6, and TCP as far as its flags.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Start6 {
    ethernet: Ethernet,
    ip: Ipv6,
    transport: TransportStart,
}

/// The first fourteen bytes of a TCP header, or a datagram's header and the first of its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct TransportStart {
    ports: U32<LE>,
    sequence_to_flags: [u8; 10],
}

/// Reads a plain IPv4 packet; `None` if it is not one.
#[inline(always)]
pub fn ipv4(packet: &impl Packet) -> Option<Inner<Tuple4>> {
    let Start4 { ethernet, ip, transport } = packet.view(0)?;
    if ethernet.ether_type.get() != eth::IPV4 || !ip.is_plain() || ip.is_fragment() {
        return None;
    }
    let (protocol, length) = (ip.protocol, u32::from(ip.length.get()));
    if !holds_transport(protocol, length, ipv4::HEADER) || eth::HEADER + length as usize > packet.len() {
        return None;
    }
    let tuple = Tuple4 { addresses: ip.addresses.get(), transport: Transport::new(transport.ports.get(), protocol) };
    Some(Inner { tuple, length, transport: eth::HEADER + ipv4::HEADER })
}

/// Reads a plain IPv6 packet; `None` if it is not one.
#[inline(always)]
pub fn ipv6(packet: &impl Packet) -> Option<Inner<Tuple6>> {
    let Start6 { ethernet, ip, transport } = packet.view(0)?;
    if ethernet.ether_type.get() != eth::IPV6 || ip.version() != 6 {
        return None;
    }
    let (protocol, payload) = (ip.next_header, u32::from(ip.payload_length.get()));
    let length = payload + ipv6::HEADER as u32;
    if !holds_transport(protocol, payload, 0) || eth::HEADER + length as usize > packet.len() {
        return None;
    }
    let tuple =
        Tuple6 { addresses: ip.addresses.map(U64::get), transport: Transport::new(transport.ports.get(), protocol) };
    Some(Inner { tuple, length, transport: eth::HEADER + ipv6::HEADER })
}

/// Whether a packet of this length holds the transport header it says it has: TCP or UDP.
#[inline(always)]
fn holds_transport(protocol: u8, length: u32, header: usize) -> bool {
    match protocol {
        l4::TCP => length >= header as u32 + l4::TCP_HEADER,
        l4::UDP => length >= header as u32 + l4::UDP_HEADER,
        _ => false,
    }
}
