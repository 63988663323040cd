//! The packet inside a tunnel: whether the backend's network stack may see it. It must not know how the outer header was
//! accepted, and changes nothing.
//!
//! The outer source can be forged, and what is unwrapped looks as if it came from the link itself. So only packets for a
//! VIP's address pass, and none that a host takes orders from.

use maglev_common::counters::DecapCounter;

use super::Tunnel;
use crate::env::{DecapTables, Packet};
use crate::packet::eth;
use crate::packet::ipv4::{self, Ipv4};
use crate::packet::ipv6::{self, Ipv6};
use crate::packet::l4;

/// ICMP messages by which a router directs hosts (RFC 792, RFC 1256).
mod icmp {
    pub(super) const REDIRECT: u8 = 5;
    pub(super) const ROUTER_ADVERTISEMENT: u8 = 9;
    pub(super) const ROUTER_SOLICITATION: u8 = 10;
}

/// Neighbor discovery (RFC 4861): router solicitation, router advertisement, neighbor solicitation, neighbor advertisement,
/// redirect.
mod discovery {
    pub(super) const FIRST: u8 = 133;
    pub(super) const LAST: u8 = 137;
    /// The only hop limit with which these messages are valid: no router forwarded them (section 7.1).
    pub(super) const HOP_LIMIT: u8 = 255;
}

/// Where the transport header may begin behind the Ethernet header, all others at their longest: one less than a power of two.
const MOST_START: usize = 255;

const _: () = assert!(super::gue::MOST_HEADERS + ipv4::HEADER * 3 <= MOST_START);

/// The fragment offset of an IPv4 header.
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Says why the packet inside a tunnel is dropped.
#[inline(always)]
pub(super) fn check<P: Packet, T: DecapTables>(packet: &P, tables: &T, tunnel: &Tunnel) -> Result<(), DecapCounter> {
    let offset = eth::HEADER + tunnel.header;
    if tunnel.protocol == ipv4::IN_IP {
        check4(packet, tables, offset, tunnel.payload)
    } else {
        check6(packet, tables, offset, tunnel.payload)
    }
}

#[inline(always)]
fn check4<P: Packet, T: DecapTables>(
    packet: &P,
    tables: &T,
    offset: usize,
    payload: usize,
) -> Result<(), DecapCounter> {
    let inner = packet.view::<Ipv4>(offset).ok_or(DecapCounter::Malformed)?;
    let (header, length) = (inner.header_length(), usize::from(inner.length.get()));
    if inner.version_ihl >> 4 != 4 || header < ipv4::HEADER || header > length || length != payload {
        return Err(DecapCounter::Malformed);
    }
    if inner.protocol == l4::ICMP && inner.flags_fragment.get() & FRAGMENT_OFFSET == 0 {
        let kind = kind(packet, offset + header).filter(|_| header < length).ok_or(DecapCounter::Malformed)?;
        if matches!(kind, icmp::REDIRECT | icmp::ROUTER_ADVERTISEMENT | icmp::ROUTER_SOLICITATION) {
            return Err(DecapCounter::NeighborDiscovery);
        }
    }
    let (source, destination) = (inner.addresses.get() as u32, inner.destination());
    if !is_host4(source) || source == destination {
        return Err(DecapCounter::ImpossibleSource);
    }
    if !is_host4(destination) || !tables.serves4(destination) {
        return Err(DecapCounter::ForeignDestination);
    }
    Ok(())
}

#[inline(always)]
fn check6<P: Packet, T: DecapTables>(
    packet: &P,
    tables: &T,
    offset: usize,
    payload: usize,
) -> Result<(), DecapCounter> {
    let inner = packet.view::<Ipv6>(offset).ok_or(DecapCounter::Malformed)?;
    let length = usize::from(inner.payload_length.get());
    if inner.version() != 6 || ipv6::HEADER + length != payload {
        return Err(DecapCounter::Malformed);
    }
    if inner.next_header == l4::ICMPV6 {
        let kind = kind(packet, offset + ipv6::HEADER).filter(|_| length > 0).ok_or(DecapCounter::Malformed)?;
        if matches!(kind, discovery::FIRST..=discovery::LAST) {
            return Err(DecapCounter::NeighborDiscovery);
        }
    } else if inner.hop_limit == discovery::HOP_LIMIT && is_extension(inner.next_header) {
        // It may stand behind extension headers; from beyond a router nothing comes with this hop limit.
        return Err(DecapCounter::NeighborDiscovery);
    }
    let (source, destination) = ([inner.addresses[0].get(), inner.addresses[1].get()], inner.destination());
    if !is_host6(source) || source == destination {
        return Err(DecapCounter::ImpossibleSource);
    }
    if !is_host6(destination) || !tables.serves6(destination) {
        return Err(DecapCounter::ForeignDestination);
    }
    Ok(())
}

/// The type of an ICMP or ICMPv6 message, whose code follows: from a comparison that one byte lies before the packet's end, the
/// verifier learns nothing.
#[inline(always)]
fn kind(packet: &impl Packet, offset: usize) -> Option<u8> {
    packet.view::<[u8; 2]>(offset).map(|&[kind, _]| kind)
}

/// Whether a host beyond a link can have this IPv4 address: not of 0/8, 127/8, 169.254/16 (RFC 3927 section 2.7), 224/4 or 240/4.
#[inline(always)]
const fn is_host4(address: u32) -> bool {
    const LINK_LOCAL: u16 = u16::from_le_bytes([169, 254]);
    let first = address as u8;
    first != 0 && first != 127 && first < 224 && address as u16 != LINK_LOCAL
}

/// Whether a host beyond a link can have this IPv6 address: not of ff00::/8, fe80::/10, ::/96 (`::` and `::1` among them) or
/// ::ffff:0:0/96, which stands for IPv4 addresses.
#[inline(always)]
const fn is_host6([high, low]: [u64; 2]) -> bool {
    const MULTICAST: u64 = 0xff;
    const LINK_LOCAL: u64 = 0x80fe;
    const MAPPED: u32 = u32::from_le_bytes([0, 0, 0xff, 0xff]);
    let is_ipv4 = high == 0 && (low as u32 == 0 || low as u32 == MAPPED);
    high & 0xff != MULTICAST && high & 0xc0ff != LINK_LOCAL && !is_ipv4
}

/// Whether a host looks for an upper protocol behind this header: hop-by-hop, routing, fragment, AH, destination options,
/// mobility.
#[inline(always)]
const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, 0 | 43 | 44 | 51 | 60 | 135)
}
