//! The verdict for a packet that the node sends on one of the load balancer's interfaces: health checks of backends are
//! encapsulated as client packets are; all other packets of the node itself to a VIP are dropped.

use maglev_common::backend::{InterfaceRecord, MemberId};
use maglev_common::counters::Counter;
use maglev_common::hash::{Tuple4, Tuple6};
use maglev_common::mark::Mark;

use crate::encap;
use crate::env::{Counters, Forwarding, Ingress, Outer, Tagged};
use crate::packet::eth::{self, Payload};
use crate::packet::{Inner, Ip, Parsed, l4};
use crate::vip::{self, Address, Tuple};

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The mark of the socket that sent it.
    pub mark: Mark,
    /// Whether the node only passes it on.
    pub forwarded: bool,
}

/// What is to become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// It leaves as it is.
    Pass,
    /// It does not leave.
    Drop,
    /// It was encapsulated, and is sent on this interface.
    Encapsulated,
    /// It was encapsulated, and is sent on the interface with this index.
    Redirect(u32),
}

/// Encapsulates a packet of a health check for its member; keeps back what else the node itself has for a VIP. A check that was
/// sent by a VLAN device has a tag: it leaves with that of its member's next hop instead.
#[inline(always)]
pub fn depart<P: Tagged, T: Ingress + Counters>(packet: &mut P, tables: &T, from: Origin) -> Departure {
    if !is_for_vip(packet, tables) || from.forwarded {
        return Departure::Pass;
    }
    // An answer of the host to a packet that no socket awaits, or one of its clients: another node would balance it.
    let Some(member) = checked(tables, from.mark) else { return keep(tables, Counter::Stray) };
    // One that had two, of which the inner one would be left beside its bytes, was not sent by a device that is known here.
    if !packet.remove_tag() || packet.has_tag() {
        return keep(tables, Counter::CheckUnsent);
    }
    match eth::payload(packet) {
        Some(Payload::Ipv4(eth::HEADER)) => parse_and_send::<Tuple4, _, _>(packet, tables, member),
        Some(Payload::Ipv6(eth::HEADER)) => parse_and_send::<Tuple6, _, _>(packet, tables, member),
        _ => keep(tables, Counter::CheckUnsent),
    }
}

#[inline(always)]
fn parse_and_send<F: Tuple, P: Tagged, T: Ingress + Counters>(
    packet: &mut P,
    tables: &T,
    member: MemberId,
) -> Departure {
    match F::parse(packet, eth::HEADER) {
        Parsed::Flow(inner) if l4::has_ports(inner.tuple.transport().protocol()) => {
            send(packet, tables, &inner, member)
        }
        _ => keep(tables, Counter::CheckUnsent),
    }
}

/// The member that a mark names. The mark of a member that was removed names none: its record may still say where it was.
#[inline(always)]
fn checked<T: Forwarding>(tables: &T, mark: Mark) -> Option<MemberId> {
    mark.member().filter(|&id| tables.forwarding().member(id).state().is_member())
}

/// Whether a packet's destination is a VIP's. What is encapsulated is for a backend.
#[inline(always)]
fn is_for_vip<P: Tagged, T: Forwarding>(packet: &P, tables: &T) -> bool {
    match eth::payload(packet) {
        Some(Payload::Ipv4(l3)) => is_vip(tables, Tuple4::read_destination(packet, l3)),
        Some(Payload::Ipv6(l3)) => is_vip(tables, Tuple6::read_destination(packet, l3)),
        Some(Payload::Other) | None => false,
    }
}

#[inline(always)]
fn is_vip<A: Address, T: Forwarding>(tables: &T, destination: Option<A>) -> bool {
    destination.is_some_and(|address| vip::is_vip_address(address, tables))
}

/// Sends a packet to a member, dead or alive, with the outer header that a client's packet of the same flow would get.
#[inline(always)]
fn send<F, P, T>(packet: &mut P, tables: &T, inner: &Inner<F>, member: MemberId) -> Departure
where
    F: Tuple,
    P: Tagged,
    T: Ingress + Counters,
{
    let template = &tables.forwarding().template_of_check(member);
    let exit = template.exit();
    let hash = inner.tuple.hash(tables.hash_key());
    let outer = Outer { protocol: F::IN_IP, l3: inner.l3, length: inner.length, hash: hash.0 };
    let record = tables.forwarding().member(member);
    let fits = exit.takes(eth::HEADER + inner.length as usize);
    let sent = encap::encapsulate::<F>(packet, exit.encap(), fits, outer, template, record);
    if !sent {
        return keep(tables, Counter::CheckUnsent);
    }
    if exit.is_tagged() {
        return send_tagged(packet, tables, tables.forwarding().interface(exit.slot()));
    }
    tables.count(Counter::CheckSent);
    if exit.is_ingress(|| tables.ingress()) { Departure::Encapsulated } else { Departure::Redirect(exit.index()) }
}

/// Sends an encapsulated packet with the tag of an interface.
#[inline(always)]
fn send_tagged<P: Tagged, T: Ingress + Counters>(packet: &mut P, tables: &T, interface: &InterfaceRecord) -> Departure {
    if !packet.add_tag(interface.tag()) {
        return keep(tables, Counter::CheckUnsent);
    }
    tables.count(Counter::CheckSent);
    let index = interface.index();
    if interface.is_ingress(|| tables.ingress()) { Departure::Encapsulated } else { Departure::Redirect(index) }
}

/// Counts a packet that does not leave.
#[inline(always)]
fn keep<T: Counters>(tables: &T, reason: Counter) -> Departure {
    tables.count(reason);
    Departure::Drop
}

#[cfg(test)]
mod tests;
