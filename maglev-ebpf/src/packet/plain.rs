//! Plain packets: to the interface's own MAC address, untagged, without options, extension headers or fragments, TCP or UDP,
//! with hops left. Nearly all packets are, so they are read with one comparison with the packet's end. It must not say what is
//! wrong with any other: the parsers of the neighboring modules do.

use maglev_common::forwarding::OwnMac;
use maglev_common::hash::{Transport, Tuple4, Tuple6};
use zerocopy::byteorder::{BE, LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Inner, eth, ipv4, ipv6, l4};
use crate::env::Packet;

/// Ethernet, IPv4, and TCP as far as its flags; headers are cut where one load covers most. A datagram of a few bytes ends
/// before: it is not plain.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Start4 {
    /// The destination MAC address, and a part of the source's.
    macs: U64<LE>,
    mac_end: [u8; 4],
    /// EtherType, IP version and header length, traffic class.
    kind: U32<LE>,
    length: U16<BE>,
    identification: [u8; 2],
    flags_fragment: U16<BE>,
    ttl: u8,
    protocol: u8,
    checksum: [u8; 2],
    addresses: U64<LE>,
    transport: TransportStart,
}

impl Start4 {
    const KIND: u32 = u32::from_le_bytes([0x08, 0x00, 0x45, 0]);
    const KIND_MASK: u32 = u32::from_le_bytes([0xff, 0xff, 0xff, 0]);
}

/// Ethernet, IPv6, and TCP as far as its flags.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Start6 {
    macs: U64<LE>,
    mac_end: [u8; 4],
    /// EtherType, IP version, and the beginning of traffic class and flow label.
    kind: U32<LE>,
    label: [u8; 2],
    payload_length: U16<BE>,
    next_header: u8,
    hop_limit: u8,
    addresses: [U64<LE>; 4],
    transport: TransportStart,
}

impl Start6 {
    const KIND: u32 = u32::from_le_bytes([0x86, 0xdd, 0x60, 0]);
    const KIND_MASK: u32 = u32::from_le_bytes([0xff, 0xff, 0xf0, 0]);
}

const _: () = {
    let transport = eth::HEADER + ipv4::HEADER;
    assert!(core::mem::offset_of!(Start4, transport) == transport && u16::from_be_bytes([0x08, 0x00]) == eth::IPV4);
    let transport = eth::HEADER + ipv6::HEADER;
    assert!(core::mem::offset_of!(Start6, transport) == transport && u16::from_be_bytes([0x86, 0xdd]) == eth::IPV6);
};

/// The first fourteen bytes of a TCP header, or a datagram's header and the first of its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct TransportStart {
    ports: U32<LE>,
    sequence_to_flags: [u8; 10],
}

/// Reads a plain IPv4 packet to a MAC address of ours, as `own` says; `None` if it is not one.
#[inline(always)]
pub fn ipv4(packet: &impl Packet, own: impl FnOnce(OwnMac) -> bool) -> Option<Inner<Tuple4>> {
    let start = packet.view::<Start4>(0)?;
    if start.kind.get() & Start4::KIND_MASK != Start4::KIND || !own(OwnMac::from_frame(start.macs.get())) {
        return None;
    }
    if start.flags_fragment.get() & ipv4::FRAGMENT != 0 || start.ttl == 0 {
        return None;
    }
    let (protocol, length) = (start.protocol, usize::from(start.length.get()));
    if !holds_transport(protocol, length, ipv4::HEADER) || !packet.reaches(eth::HEADER + length) {
        return None;
    }
    let transport = Transport::new(start.transport.ports.get(), protocol);
    let tuple = Tuple4 { addresses: start.addresses.get(), transport };
    Some(Inner { tuple, l3: eth::HEADER, length: length as u32, transport: eth::HEADER + ipv4::HEADER })
}

/// Reads a plain IPv6 packet to a MAC address of ours; `None` if it is not one.
#[inline(always)]
pub fn ipv6(packet: &impl Packet, own: impl FnOnce(OwnMac) -> bool) -> Option<Inner<Tuple6>> {
    let start = packet.view::<Start6>(0)?;
    if start.kind.get() & Start6::KIND_MASK != Start6::KIND || !own(OwnMac::from_frame(start.macs.get())) {
        return None;
    }
    let (protocol, payload) = (start.next_header, usize::from(start.payload_length.get()));
    let length = payload + ipv6::HEADER;
    if start.hop_limit == 0 || !holds_transport(protocol, payload, 0) || !packet.reaches(eth::HEADER + length) {
        return None;
    }
    let transport = Transport::new(start.transport.ports.get(), protocol);
    let tuple = Tuple6 { addresses: start.addresses.map(U64::get), transport };
    Some(Inner { tuple, l3: eth::HEADER, length: length as u32, transport: eth::HEADER + ipv6::HEADER })
}

/// Whether a packet of this length holds the transport header it says it has: TCP or UDP. (Lengths are of 64 bits here: those of 32 cost
/// an instruction to widen.)
#[inline(always)]
fn holds_transport(protocol: u8, length: usize, header: usize) -> bool {
    match protocol {
        l4::TCP => length >= header + l4::TCP_HEADER as usize,
        l4::UDP => length >= header + l4::UDP_HEADER as usize,
        _ => false,
    }
}
