//! IP in IP (RFC 2003, RFC 2473): an outer IPv4 or IPv6 header in front of the whole packet, with a new Ethernet
//! header before it.
//!
//! Headers are assembled in registers and stored as whole words: a header written byte by byte costs more than the
//! table lookup.

use maglev_common::backend::MemberRecord;
use maglev_common::encap::Encap;
use maglev_common::template::Template;
use zerocopy::byteorder::{LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Outer;
use crate::env::Packet;
use crate::packet::{Ip, checksum, eth};

/// Bytes an outer IPv4 header adds.
pub const OVERHEAD4: usize = Encap::IpIp4.overhead();
/// Bytes an outer IPv6 header adds.
pub const OVERHEAD6: usize = Encap::IpIp6.overhead();

/// The outer header's TTL and hop limit.
const TTL: u64 = 64;
/// *Don't fragment*, as its two network-order bytes read little-endian.
const DONT_FRAGMENT: u64 = 0x0040;

/// Ethernet and IPv4: 34 bytes as four words and a half; then the inner header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Frame4 {
    words: [U64<LE>; 4],
    last: U16<LE>,
    inner: U16<LE>,
}

/// Ethernet and IPv6: 54 bytes; then the inner header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Frame6 {
    words: [U64<LE>; 6],
    last: U32<LE>,
    end: U16<LE>,
    inner: U16<LE>,
}

/// Puts an outer IPv4 header in front of a packet, and an Ethernet header without tags before it. Returns whether there was room.
#[inline(always)]
pub fn encapsulate4<F: Ip>(packet: &mut impl Packet, outer: Outer, template: &Template) -> bool {
    if !packet.grow(OVERHEAD4 + eth::HEADER - outer.l3) {
        return false;
    }
    let Some(frame) = packet.view_mut::<Frame4>(0) else { return false };
    // Copied whole: DSCP as it is, ECN in *normal mode* (RFC 6040 section 4.1).
    let class = u64::from(F::traffic_class(frame.inner.get()));
    let length = u64::from(((outer.length + OVERHEAD4 as u32) as u16).swap_bytes());
    let host_bits = outer.hash & template.host_mask.get();
    let end = template.end.get();
    // The partial sum, and what differs from packet to packet; host bits are all in one word of the header.
    let sum = (end >> 32) + (class << 8) + (u64::from(outer.protocol) << 8) + length + (host_bits >> 32);
    let checksum = u64::from(checksum::finish(sum as u32));
    frame.words[0].set(template.ethernet[0].get());
    frame.words[1].set(template.ethernet[1].get() | class << 56);
    frame.words[2].set(length | DONT_FRAGMENT << 32 | TTL << 48 | u64::from(outer.protocol) << 56);
    frame.words[3].set(template.addresses.get() | host_bits | checksum);
    frame.last.set(end as u16);
    true
}

/// The same with an outer IPv6 header.
#[inline(always)]
pub fn encapsulate6<F: Ip>(packet: &mut impl Packet, outer: Outer, template: &Template, record: &MemberRecord) -> bool {
    if !packet.grow(OVERHEAD6 + eth::HEADER - outer.l3) {
        return false;
    }
    let Some(frame) = packet.view_mut::<Frame6>(0) else { return false };
    let class = u32::from(F::traffic_class(frame.inner.get()));
    // The flow label (RFC 6438) lets routers on the way spread flows that share both outer addresses.
    let label = outer.hash as u32 & 0x000f_ffff;
    let class_label = (6 << 28 | class << 20 | label).swap_bytes();
    let length = u64::from((outer.length as u16).swap_bytes());
    let start = u64::from(class_label >> 16) | length << 16 | u64::from(outer.protocol) << 32 | TTL << 40;
    frame.words[0].set(template.ethernet[0].get());
    frame.words[1].set(template.ethernet[1].get() | u64::from(class_label & 0xffff) << 48);
    // Each address is read where it is written: read all at once, they do not fit the registers.
    let [source0, source1] = source6(record, outer.hash);
    frame.words[2].set(start | source0 << 48);
    frame.words[3].set(source0 >> 16 | source1 << 48);
    let [destination0, destination1] = [record.destination[0].get(), record.destination[1].get()];
    frame.words[4].set(source1 >> 16 | destination0 << 48);
    frame.words[5].set(destination0 >> 16 | destination1 << 48);
    frame.last.set((destination1 >> 16) as u32);
    frame.end.set((destination1 >> 48) as u16);
    true
}

#[inline(always)]
fn source6(record: &MemberRecord, hash: u64) -> [u64; 2] {
    let word = |n: usize| record.source[n].get() | hash & record.source_hash_mask[n].get();
    [word(0), word(1)]
}
