//! GUE (draft-ietf-intarea-gue, version 0): an outer IP header, a UDP header and a GUE header of four bytes in front of the whole
//! packet. No optional field is sent.
//!
//! ```text
//!  0              2                  4        6          8             9          10      12
//! +--------------+------------------+--------+----------+-------------+----------+-------+
//! | source port  | destination port | length | checksum | 0|0| hlen 0 | protocol | flags |
//! | 11, 14 bits  | 6080             |        | 0        |             | 4 or 41  | 0     |
//! +--------------+------------------+--------+----------+-------------+----------+-------+
//! ```
//!
//! The checksum stays 0, over IPv6 too: the packet inside has one of its own, and no bit that the outer header could lose names
//! another flow (RFC 6935, RFC 6936).

use maglev_common::backend::MemberRecord;
use maglev_common::encap::{Encap, GUE_HEADERS, GUE_PORT};
use maglev_common::hash::{Tuple4, Tuple6};
use maglev_common::template::Template;
use zerocopy::byteorder::{LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{Fields, write4, write6};
use crate::env::{Outer, Packet};
use crate::packet::{Ip, eth, ipv4, l4};

/// Bytes that all headers over IPv4 add.
pub const OVERHEAD4: usize = Encap::Gue4.overhead();
/// Bytes that all headers over IPv6 add.
pub const OVERHEAD6: usize = Encap::Gue6.overhead();

/// The source port: 0xc000 and 14 bits of the flow hash, of its lowest sixteen. They depend on neither the flow's slot nor the
/// outer IPv4 source's host bits.
const SOURCE_PORT: u16 = u16::from_le_bytes([0xc0, 0]);
const SOURCE_PORT_HASH: u16 = u16::from_le_bytes([0x3f, 0xff]);

/// Ethernet, IPv4, UDP and GUE: 46 bytes; then the inner header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Frame4 {
    words: [U64<LE>; 4],
    udp: U64<LE>,
    gue: U32<LE>,
    end: U16<LE>,
    inner: U16<LE>,
}

/// Ethernet, IPv6, UDP and GUE: 66 bytes; then the inner header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Frame6 {
    words: [U64<LE>; 6],
    udp: U64<LE>,
    gue: U64<LE>,
    end: U16<LE>,
    inner: U16<LE>,
}

/// Puts all headers in front of a packet, with an Ethernet header without tags before them. Returns whether there was room.
#[inline(always)]
pub fn encapsulate(packet: &mut impl Packet, outer: Outer, template: &Template, record: &MemberRecord) -> bool {
    if template.exit().encap().is_outer_v6() {
        encapsulate6(packet, outer, template, record)
    } else {
        encapsulate4(packet, outer, template)
    }
}

#[inline(always)]
fn encapsulate4(packet: &mut impl Packet, outer: Outer, template: &Template) -> bool {
    if !packet.grow(OVERHEAD4 + eth::HEADER - outer.l3) {
        return false;
    }
    let Some(frame) = packet.view_mut::<Frame4>(0) else { return false };
    let length = outer.length + OVERHEAD4 as u32;
    let fields = fields(outer, frame.inner.get(), length);
    let last = u64::from(write4(&mut frame.words, template, &fields));
    let udp = udp(outer);
    // The UDP header begins two bytes into the word, so its checksum is in the next.
    frame.udp.set(last | udp << 16);
    frame.gue.set(u32::from(outer.protocol) << 24);
    frame.end.set(0);
    true
}

#[inline(always)]
fn encapsulate6(packet: &mut impl Packet, outer: Outer, template: &Template, record: &MemberRecord) -> bool {
    if !packet.grow(OVERHEAD6 + eth::HEADER - outer.l3) {
        return false;
    }
    let Some(frame) = packet.view_mut::<Frame6>(0) else { return false };
    let length = outer.length + GUE_HEADERS as u32;
    let fields = fields(outer, frame.inner.get(), length);
    let last = write6(&mut frame.words, template, record, &fields);
    let udp = udp(outer);
    // Six bytes of the address; the source port; the rest of the UDP header.
    frame.udp.set(last | udp << 48);
    frame.gue.set(udp >> 16 | u64::from(outer.protocol) << 56);
    frame.end.set(0);
    true
}

#[inline(always)]
fn fields(outer: Outer, inner: u16, length: u32) -> Fields {
    let is_v4 = outer.protocol == ipv4::IN_IP;
    let class = if is_v4 { Tuple4::traffic_class(inner) } else { Tuple6::traffic_class(inner) };
    Fields { class, length, protocol: l4::UDP, hash: outer.hash }
}

/// The UDP header, its checksum 0.
#[inline(always)]
fn udp(outer: Outer) -> u64 {
    let source = outer.hash as u16 & SOURCE_PORT_HASH | SOURCE_PORT;
    let length = (outer.length as u16).wrapping_add(GUE_HEADERS as u16).swap_bytes();
    u64::from(source) | u64::from(GUE_PORT.swap_bytes()) << 16 | u64::from(length) << 32
}
