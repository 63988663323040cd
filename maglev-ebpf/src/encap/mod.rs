//! Encapsulation: the outer headers of a packet for a backend.

pub mod gue;
mod header;
pub mod ipip;

use maglev_common::backend::MemberRecord;
use maglev_common::encap::Encap;
use maglev_common::template::Template;

use crate::env::{Outer, Packet};
use crate::packet::Ip;

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
        Encap::Gue4 | Encap::Gue6 => fits && packet.encapsulate_in_gue(outer, template, record),
    }
}

#[cfg(test)]
mod tests;
