//! The outer Ethernet and IP header, the same for every kind of encapsulation.
//!
//! Headers are assembled in registers and stored as whole words: a header written byte by byte costs more than the
//! table lookup.

use maglev_common::backend::MemberRecord;
use maglev_common::template::Template;
use zerocopy::byteorder::{LE, U64};

use crate::packet::checksum;

/// The outer header's TTL and hop limit.
const TTL: u64 = 64;
/// *Don't fragment*, as its two network-order bytes read little-endian.
const DONT_FRAGMENT: u64 = 0x0040;

/// What differs from packet to packet.
pub(super) struct Fields {
    /// Copied whole: DSCP as it is, ECN in *normal mode* (RFC 6040 section 4.1).
    pub(super) class: u8,
    /// Bytes that the header's length field says.
    pub(super) length: u32,
    /// The protocol of what follows.
    pub(super) protocol: u8,
    /// The flow hash.
    pub(super) hash: u64,
}

/// Writes the first 32 bytes over IPv4, and returns the last two.
#[inline(always)]
pub(super) fn write4(words: &mut [U64<LE>; 4], template: &Template, fields: &Fields) -> u16 {
    let (class, protocol) = (u64::from(fields.class), u64::from(fields.protocol));
    let length = u64::from((fields.length as u16).swap_bytes());
    let host_bits = fields.hash & template.host_mask.get();
    let end = template.end.get();
    // The partial sum, and what differs from packet to packet; host bits are all in one word of the header.
    let sum = (end >> 32) + (class << 8) + (protocol << 8) + length + (host_bits >> 32);
    let checksum = u64::from(checksum::finish(sum as u32));
    words[0].set(template.ethernet[0].get());
    words[1].set(template.ethernet[1].get() | class << 56);
    words[2].set(length | DONT_FRAGMENT << 32 | TTL << 48 | protocol << 56);
    words[3].set(template.addresses.get() | host_bits | checksum);
    end as u16
}

/// Writes the first 48 bytes over IPv6, and returns the last six in the low bits.
#[inline(always)]
pub(super) fn write6(words: &mut [U64<LE>; 6], template: &Template, record: &MemberRecord, fields: &Fields) -> u64 {
    let class = u32::from(fields.class);
    // The flow label (RFC 6438) lets routers on the way spread flows that share both outer addresses.
    let label = fields.hash as u32 & 0x000f_ffff;
    let class_label = (6 << 28 | class << 20 | label).swap_bytes();
    let length = u64::from((fields.length as u16).swap_bytes());
    let start = u64::from(class_label >> 16) | length << 16 | u64::from(fields.protocol) << 32 | TTL << 40;
    words[0].set(template.ethernet[0].get());
    words[1].set(template.ethernet[1].get() | u64::from(class_label & 0xffff) << 48);
    // Each address is read where it is written: read all at once, they do not fit the registers.
    let [source0, source1] = source6(record, fields.hash);
    words[2].set(start | source0 << 48);
    words[3].set(source0 >> 16 | source1 << 48);
    let [destination0, destination1] = [record.destination[0].get(), record.destination[1].get()];
    words[4].set(source1 >> 16 | destination0 << 48);
    words[5].set(destination0 >> 16 | destination1 << 48);
    destination1 >> 16
}

#[inline(always)]
fn source6(record: &MemberRecord, hash: u64) -> [u64; 2] {
    let word = |n: usize| record.source[n].get() | hash & record.source_hash_mask[n].get();
    [word(0), word(1)]
}
