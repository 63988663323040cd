//! Decapsulation on a backend: the outer headers of IP in IP or GUE go, the packet the client sent stays.
//!
//! Packets are accepted only from the load balancers' addresses, and unwrapped only if they are for a VIP ([`inner`]). ECN is
//! combined as RFC 6040 §4.2 says, so congestion met between load balancer and backend reaches the client's transport.

use maglev_common::counters::{DecapCounter, Outcome};
use zerocopy::byteorder::{BE, LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::env::{DecapTables, Packet};
use crate::packet::eth::{self, Payload};
use crate::packet::ipv4::{self, Ipv4};
use crate::packet::ipv6::{self, Ipv6};
use crate::packet::l4;
use crate::path::mss;
use crate::verdict::Verdict;

mod gue;
mod inner;

/// The ECN field (RFC 3168 §5).
mod ecn {
    pub(super) const MASK: u8 = 0b11;
    pub(super) const NOT_ECT: u8 = 0b00;
    pub(super) const ECT_1: u8 = 0b01;
    pub(super) const ECT_0: u8 = 0b10;
    pub(super) const CE: u8 = 0b11;
}

/// Both MAC addresses as one and a half words.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Addresses {
    first: U64<LE>,
    last: U32<LE>,
}

impl Addresses {
    #[inline(always)]
    fn get(&self) -> (u64, u32) {
        (self.first.get(), self.last.get())
    }

    #[inline(always)]
    fn set(&mut self, (first, last): (u64, u32)) {
        self.first.set(first);
        self.last.set(last);
    }
}

/// An Ethernet header, its addresses in words.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    addresses: Addresses,
    ether_type: U16<BE>,
}

/// Outer headers that were found good.
#[derive(Clone, Copy)]
struct Tunnel {
    /// Bytes from the start of the outer IP header to the inner one.
    header: usize,
    /// The inner protocol: 4 or 41.
    protocol: u8,
    /// The outer traffic class.
    traffic_class: u8,
    /// Whether the outer IP header is IPv6.
    is_v6: bool,
    /// Bytes behind the outer headers, as they say themselves. The frame holds them, and may be padded behind them.
    payload: usize,
}

/// Removes the outer headers of one packet.
#[inline(always)]
pub fn decapsulate<P: Packet, T: DecapTables>(packet: &mut P, tables: &T) -> Verdict {
    let counter = match unwrap(packet, tables) {
        Ok(()) => DecapCounter::Decapsulated,
        Err(reason) => reason,
    };
    tables.count(counter);
    match counter.outcome() {
        Outcome::Dropped => Verdict::Drop,
        Outcome::Forwarded | Outcome::Passed | Outcome::Answered | Outcome::Noted => Verdict::Pass,
    }
}

#[inline(always)]
fn unwrap<P: Packet, T: DecapTables>(packet: &mut P, tables: &T) -> Result<(), DecapCounter> {
    let tunnel = tunnel(packet, tables)?;
    inner::check(packet, tables, &tunnel)?;
    let outer = mss::Outer { bytes: tunnel.header, is_v6: tunnel.is_v6 };
    mss::note(packet, tables, outer, tunnel.protocol == ipv4::IN_IP);
    strip(packet, &tunnel)
}

#[inline(always)]
fn tunnel<P: Packet, T: DecapTables>(packet: &P, tables: &T) -> Result<Tunnel, DecapCounter> {
    match eth::payload(packet) {
        Some(Payload::Ipv4(eth::HEADER)) => tunnel4(packet, tables),
        Some(Payload::Ipv6(eth::HEADER)) => tunnel6(packet, tables),
        _ => Err(DecapCounter::NotEncapsulated),
    }
}

#[inline(always)]
fn tunnel4<P: Packet, T: DecapTables>(packet: &P, tables: &T) -> Result<Tunnel, DecapCounter> {
    let outer = packet.view::<Ipv4>(eth::HEADER).ok_or(DecapCounter::NotEncapsulated)?;
    let in_udp = outer.protocol == l4::UDP;
    let is_tunnel = if in_udp {
        // A fragment may have no ports; behind options they are not looked for.
        outer.is_plain() && !outer.is_fragment() && gue::is_gue(packet, eth::HEADER + ipv4::HEADER)
    } else {
        matches!(outer.protocol, ipv4::IN_IP | ipv6::IN_IP)
    };
    if !is_tunnel {
        return Err(DecapCounter::NotEncapsulated);
    }
    if !tables.accepts4(outer.addresses.get() as u32) {
        return Err(DecapCounter::ForeignSource);
    }
    if outer.is_fragment() {
        return Err(DecapCounter::Fragment);
    }
    let length = usize::from(outer.length.get());
    if !outer.is_plain() || length < ipv4::HEADER || !packet.reaches(eth::HEADER + length) {
        return Err(DecapCounter::Malformed);
    }
    let (protocol, traffic_class) = (outer.protocol, outer.traffic_class);
    let payload = length - ipv4::HEADER;
    let tunnel = Tunnel { header: ipv4::HEADER, protocol, traffic_class, is_v6: false, payload };
    if in_udp { gue::open(packet, tunnel) } else { Ok(tunnel) }
}

#[inline(always)]
fn tunnel6<P: Packet, T: DecapTables>(packet: &P, tables: &T) -> Result<Tunnel, DecapCounter> {
    let outer = packet.view::<Ipv6>(eth::HEADER).ok_or(DecapCounter::NotEncapsulated)?;
    let in_udp = outer.next_header == l4::UDP;
    let is_tunnel = if in_udp {
        gue::is_gue(packet, eth::HEADER + ipv6::HEADER)
    } else {
        matches!(outer.next_header, ipv4::IN_IP | ipv6::IN_IP)
    };
    if !is_tunnel {
        return Err(DecapCounter::NotEncapsulated);
    }
    if !tables.accepts6([outer.addresses[0].get(), outer.addresses[1].get()]) {
        return Err(DecapCounter::ForeignSource);
    }
    let payload = usize::from(outer.payload_length.get());
    if outer.version() != 6 || !packet.reaches(eth::HEADER + ipv6::HEADER + payload) {
        return Err(DecapCounter::Malformed);
    }
    let (protocol, traffic_class) = (outer.next_header, outer.traffic_class());
    let tunnel = Tunnel { header: ipv6::HEADER, protocol, traffic_class, is_v6: true, payload };
    if in_udp { gue::open(packet, tunnel) } else { Ok(tunnel) }
}

#[inline(always)]
fn strip<P: Packet>(packet: &mut P, tunnel: &Tunnel) -> Result<(), DecapCounter> {
    let inner = eth::HEADER + tunnel.header;
    let ether_type = if tunnel.protocol == ipv4::IN_IP {
        combine4(packet, inner, tunnel.traffic_class)?;
        eth::IPV4
    } else {
        combine6(packet, inner, tunnel.traffic_class)?;
        eth::IPV6
    };
    let addresses = packet.view::<Addresses>(0).ok_or(DecapCounter::Malformed)?.get();
    let moved = packet.view_mut::<Header>(tunnel.header).ok_or(DecapCounter::Malformed)?;
    moved.addresses.set(addresses);
    moved.ether_type.set(ether_type);
    if packet.shrink(tunnel.header) { Ok(()) } else { Err(DecapCounter::NoRoom) }
}

/// The inner ECN field after decapsulation (RFC 6040 §4.2, figure 4).
///
/// # Errors
/// The packet must be dropped: congestion was met that the inner transport could not be notified of.
#[inline(always)]
fn combine(inner: u8, outer: u8) -> Result<u8, DecapCounter> {
    match (inner & ecn::MASK, outer & ecn::MASK) {
        (ecn::NOT_ECT, ecn::CE) => Err(DecapCounter::Congestion),
        (ecn::NOT_ECT, _) => Ok(ecn::NOT_ECT),
        (_, ecn::CE) => Ok(ecn::CE),
        (ecn::ECT_0, ecn::ECT_1) => Ok(ecn::ECT_1),
        (inner, _) => Ok(inner),
    }
}

#[inline(always)]
fn combine4<P: Packet>(packet: &mut P, offset: usize, outer: u8) -> Result<(), DecapCounter> {
    let header = packet.view_mut::<Ipv4>(offset).ok_or(DecapCounter::Malformed)?;
    let old = header.traffic_class;
    let new = old & !ecn::MASK | combine(old, outer)?;
    if new != old {
        header.traffic_class = new;
        header.checksum.set(adjusted(header.checksum.get(), old.into(), new.into()));
    }
    Ok(())
}

#[inline(always)]
fn combine6<P: Packet>(packet: &mut P, offset: usize, outer: u8) -> Result<(), DecapCounter> {
    let header = packet.view_mut::<Ipv6>(offset).ok_or(DecapCounter::Malformed)?;
    let old = header.traffic_class();
    let new = old & !ecn::MASK | combine(old, outer)?;
    if new != old {
        let word = header.version_class_label.get() & !(0xff << 20) | u32::from(new) << 20;
        header.version_class_label.set(word);
    }
    Ok(())
}

/// A checksum after one 16-bit word changed (RFC 1624, equation 3).
#[inline(always)]
const fn adjusted(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u32 + !old as u32 + new as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests;
