//! The whole path of a packet through the load balancer.

use maglev_common::backend::{Family, MemberId, MemberRecord};
use maglev_common::counters::{Counter, Outcome};
use maglev_common::hash::FlowHash;
use maglev_common::table::{PoolIndex, Slot, TableIndex};
use maglev_common::vip::VipId;

use crate::affinity::{self, Choice, Flow};
use crate::encap::{Outer, ipip};
use crate::env::{Packet, Tables};
use crate::packet::eth::{self, Payload};
use crate::packet::l4::Segment;
use crate::packet::{Inner, Parsed, Unhandled, ipv4, ipv6};
use crate::verdict::Verdict;
use crate::vip::{self, Address, Lookup, Tuple};

/// Where a flow goes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The VIP.
    pub vip: VipId,
    /// The VIP's pool.
    pub pool: PoolIndex,
    /// The pool's table.
    pub table: TableIndex,
    /// The flow's hash.
    pub hash: FlowHash,
    /// The flow's slot.
    pub slot: Slot,
    /// The slot's owner.
    pub owner: MemberId,
    /// The member the flow goes to.
    pub member: MemberId,
    /// Why it goes there.
    pub choice: Choice,
}

/// Balances one packet: it is encapsulated if the verdict is to send it.
#[inline(always)]
pub fn forward<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let result = match eth::payload(packet) {
        Some(Payload::Ipv4) => balance(packet, tables, ipv4::parse(packet, eth::HEADER)),
        Some(Payload::Ipv6) => balance(packet, tables, ipv6::parse(packet, eth::HEADER)),
        Some(Payload::TaggedIpv4(offset)) => tagged(tables, ipv4::destination(packet, offset)),
        Some(Payload::TaggedIpv6(offset)) => tagged(tables, ipv6::destination(packet, offset)),
        Some(Payload::Other) => Err(Counter::NotIp),
        None => Err(Counter::Truncated),
    };
    let (verdict, counter) = match result {
        Ok(Verdict::Transmit) => (Verdict::Transmit, Counter::Transmitted),
        Ok(verdict) => (verdict, Counter::Redirected),
        Err(reason) => (refusal(reason), reason),
    };
    tables.count(counter);
    verdict
}

/// Decides where a flow goes, without a packet: the same code for the kernel and for `maglev flow explain`.
///
/// # Errors
/// The reason for which packets of the flow are passed or dropped.
#[inline(always)]
pub fn decide<F: Tuple, T: Tables>(tuple: F, segment: Segment, tables: &T) -> Result<Decision, Counter> {
    let (vip, pool) = find_vip(tuple, tables)?;
    choose(tuple, segment, tables, vip, pool)
}

#[inline(always)]
fn find_vip<F: Tuple, T: Tables>(tuple: F, tables: &T) -> Result<(VipId, PoolIndex), Counter> {
    match vip::lookup(tuple, tables) {
        Lookup::Vip(word) => Ok((word.id(), word.pool())),
        Lookup::AddressOnly => Err(Counter::NoSuchVip),
        Lookup::Unknown => Err(Counter::NotVip),
    }
}

#[inline(always)]
fn choose<F: Tuple, T: Tables>(
    tuple: F,
    segment: Segment,
    tables: &T,
    vip: VipId,
    pool: PoolIndex,
) -> Result<Decision, Counter> {
    let hash = tuple.hash(tables.hash_key());
    let (table, slot) = (tables.forwarding().pool(pool).current(), hash.slot());
    let owner = tables.slot(table, slot).owner();
    let (member, choice) = affinity::choose(tables, Flow { pool, hash, segment, owner });
    if member.is_nobody() {
        return Err(Counter::NoBackend);
    }
    Ok(Decision { vip, pool, table, hash, slot, owner, member, choice })
}

#[inline(always)]
fn balance<F, P, T>(packet: &mut P, tables: &T, parsed: Parsed<F, F::Address>) -> Result<Verdict, Counter>
where
    F: Tuple,
    P: Packet,
    T: Tables,
{
    let inner = match parsed {
        Some(Ok(inner)) => inner,
        Some(Err(Unhandled { destination, reason })) => return Err(unhandled(tables, destination, reason)),
        None => return Err(Counter::Truncated),
    };
    let bytes = packet.len() as u64;
    let (vip, pool) = find_vip(inner.tuple, tables)?;
    tables.count_vip(vip, bytes);
    let decision = choose(inner.tuple, inner.segment, tables, vip, pool)?;
    tables.decided(&decision);
    send(packet, tables, &inner, &decision, bytes)
}

/// Encapsulates a packet to its member and tells where it leaves.
#[inline(always)]
fn send<F, P, T>(
    packet: &mut P,
    tables: &T,
    inner: &Inner<F>,
    decision: &Decision,
    bytes: u64,
) -> Result<Verdict, Counter>
where
    F: Tuple,
    P: Packet,
    T: Tables,
{
    let record = tables.forwarding().member(decision.member);
    let state = record.state();
    if !state.is_alive() {
        return Err(Counter::NoBackend);
    }
    let next_hop = record.next_hop();
    if !next_hop.is_resolved() {
        return Err(Counter::NextHopUnresolved);
    }
    let interface = tables.forwarding().interface(next_hop.interface());
    let index_mtu = interface.index_mtu.get();
    let overhead = match state.outer() {
        Family::V4 => ipip::OVERHEAD4,
        Family::V6 => ipip::OVERHEAD6,
    };
    if u64::from(inner.length) + overhead as u64 > index_mtu >> 32 {
        return Err(Counter::TooBig);
    }
    let outer = Outer {
        protocol: F::IN_IP,
        traffic_class: inner.traffic_class,
        length: inner.length,
        hash: decision.hash.0,
        destination_mac: next_hop.mac(),
        source_mac: interface.mac.get(),
    };
    encapsulate(packet, outer, state.outer(), record)?;
    tables.count_member(decision.member, bytes);
    if index_mtu as u32 == tables.ingress() {
        Ok(Verdict::Transmit)
    } else {
        Ok(Verdict::Redirect(next_hop.interface()))
    }
}

#[inline(always)]
fn encapsulate<P: Packet>(packet: &mut P, outer: Outer, family: Family, record: &MemberRecord) -> Result<(), Counter> {
    let done = match family {
        Family::V4 => ipip::encapsulate4(packet, outer, record),
        Family::V6 => ipip::encapsulate6(packet, outer, record),
    };
    if done { Ok(()) } else { Err(Counter::NoHeadroom) }
}

/// The counter of a packet that is not balanced: its reason if it is for a VIP's address, else it is the host's.
#[inline(always)]
fn unhandled<A: Address, T: Tables>(tables: &T, destination: A, reason: Counter) -> Counter {
    if vip::is_vip_address(destination, tables) { reason } else { Counter::NotVip }
}

#[inline(always)]
fn tagged<A: Address, T: Tables>(tables: &T, destination: Option<A>) -> Result<Verdict, Counter> {
    Err(destination.map_or(Counter::Truncated, |destination| unhandled(tables, destination, Counter::Vlan)))
}

#[inline(always)]
fn refusal(reason: Counter) -> Verdict {
    match reason.outcome() {
        Outcome::Passed => Verdict::Pass,
        Outcome::Dropped | Outcome::Forwarded | Outcome::Noted => Verdict::Drop,
    }
}

#[cfg(test)]
mod tests;
