//! Encapsulation: the outer headers of a packet for a backend.

pub mod ipip;

use maglev_common::backend::MemberRecord;
use maglev_common::encap::Encap;
use maglev_common::template::Template;

use crate::env::Packet;
use crate::packet::Ip;

/// What an outer header takes from the packet and its flow.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// Protocol number of the packet inside: 4 for IPv4, 41 for IPv6.
    pub protocol: u8,
    /// Where in the frame its IP header begins: what stands in front of it is replaced.
    pub l3: usize,
    /// The inner packet's length in bytes.
    pub length: u32,
    /// The flow hash, from which a source prefix takes its host bits and IPv6 its flow label.
    pub hash: u64,
}

/// Encapsulates a packet that fits its exit; `record` is the member's. Returns whether it did, and there was room. (Whether it
/// fits is asked on each branch: asked before, the compiler spills registers between.)
#[inline(always)]
pub fn encapsulate<F: Ip>(
    packet: &mut impl Packet,
    encap: Encap,
    fits: bool,
    outer: Outer,
    template: &Template,
    record: &MemberRecord,
) -> bool {
    match encap {
        Encap::IpIp4 => fits && ipip::encapsulate4::<F>(packet, outer, template),
        Encap::IpIp6 => fits && ipip::encapsulate6::<F>(packet, outer, template, record),
    }
}

#[cfg(test)]
mod tests;
