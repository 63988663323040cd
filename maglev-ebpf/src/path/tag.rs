//! Gives an encapsulated frame the VLAN tag of its next hop: apart from the path, which knows no tags.

use maglev_common::backend::InterfaceSlot;
use maglev_common::counters::Counter;

use super::forward::refuse;
use crate::env::{Counters, Ingress, Packet};
use crate::packet::eth;
use crate::verdict::Verdict;

/// Sends a frame without tags on the interface in a slot, with that interface's tag.
#[inline(always)]
pub fn send<P: Packet, T: Ingress + Counters>(packet: &mut P, tables: &T, slot: InterfaceSlot) -> Verdict {
    let record = tables.forwarding().interface(slot);
    if !eth::insert_tag(packet, record.tag()) {
        return refuse(tables, Counter::NoHeadroom);
    }
    if record.is_ingress(|| tables.ingress()) {
        tables.count(Counter::Transmitted);
        Verdict::Transmit
    } else {
        tables.count(Counter::Redirected);
        Verdict::Redirect(slot)
    }
}

#[cfg(test)]
mod tests;
