//! Fragments of datagrams to a VIP. The first one has ports: it is decided as a whole packet would be, and where it goes is noted
//! in the fragment table. Later ones go there too, whatever CPU they reach. One whose first is not known is dropped: by its addresses
//! alone it could go to another backend than its flow, and half a datagram there is of no use.

use core::hint::black_box;

use maglev_common::backend::MemberId;
use maglev_common::counters::{Counter, VipTraffic};
use maglev_common::fragment::{Datagram, Noted};

use super::forward::{Left, Load, choose, refuse, send, vip_of};
use crate::env::{Balancing, Packet};
use crate::packet::eth::{self, Payload};
use crate::packet::{Fragment, Parsed, l4};
use crate::verdict::Verdict;
use crate::vip::{self, Tuple};

/// Balances a fragment that is [`Left`]: to this node, with a TTL and without a source route.
///
/// # Errors
/// What it leaves, and nothing done: a first fragment that is [`Left::TooBig`].
#[inline(always)]
pub fn forward_fragment<F: Tuple, P: Packet, T: Balancing>(packet: &mut P, tables: &T) -> Result<Verdict, Left> {
    let Some(Payload::Ipv4(l3) | Payload::Ipv6(l3)) = eth::payload(packet) else {
        return Ok(refuse(tables, Counter::NotIp));
    };
    let Some(destination) = F::read_destination(packet, l3) else { return Ok(refuse(tables, Counter::Truncated)) };
    if !vip::is_vip_address(destination, tables) {
        return Ok(refuse(tables, Counter::NotVip));
    }
    let fragment = match F::fragment(packet, l3) {
        Ok(fragment) => fragment,
        Err(Parsed::SourceRoute) => return Ok(refuse(tables, Counter::SourceRoute)),
        Err(Parsed::ExtensionHeader) => return Ok(refuse(tables, Counter::ExtensionHeader)),
        Err(Parsed::Nested) => return Ok(refuse(tables, Counter::Nested)),
        Err(_) => return Ok(refuse(tables, Counter::Malformed)),
    };
    let key = tables.hash_key();
    let datagram = Datagram(fragment.tuple.datagram(fragment.identification).hash(key));
    // All fragments have the same outer source, so that one queue of their backend gets them.
    let hash = fragment.tuple.datagram(0).hash(key);
    let load = Load { l3, length: fragment.length, hash, bytes: packet.len() };
    match fragment.transport {
        Some(transport) => begin(packet, tables, &fragment, transport, datagram, load),
        None => Ok(go_on::<F, _, _>(packet, tables, datagram, load)),
    }
}

/// Sends the first fragment of a datagram, and notes where it went.
#[inline(always)]
fn begin<F, P, T>(
    packet: &mut P,
    tables: &T,
    fragment: &Fragment<F>,
    transport: usize,
    datagram: Datagram,
    load: Load,
) -> Result<Verdict, Left>
where
    F: Tuple,
    P: Packet,
    T: Balancing,
{
    let protocol = fragment.tuple.transport().protocol();
    if matches!(protocol, l4::ICMP | l4::ICMPV6) {
        return Ok(refuse(tables, Counter::Icmp));
    }
    let word = match vip_of(fragment.tuple, tables) {
        Ok(word) => word,
        Err(reason) => return Ok(refuse(tables, reason)),
    };
    if !tables.may_begin() {
        return Ok(refuse(tables, Counter::FragmentLimit));
    }
    tables.count_vip(word.traffic(), load.bytes as u64);
    let hash = vip::hash(fragment.tuple, word, tables);
    let decision = choose(hash, || l4::segment(packet, protocol, transport), tables, word);
    tables.decided(&decision);
    if !decision.member.is_nobody()
        && let Some(line) = tables.line(datagram)
    {
        line.note(datagram, tables.now(), Noted { vip: word.id(), member: decision.member });
        tables.count(Counter::FragmentNoted);
    }
    // The verifier of Linux 6.1 forgets how large an id can be that it puts on its stack.
    let member = MemberId::from_low_bits(black_box(decision.member.get()));
    send::<F, _, _>(packet, tables, load, member)
}

/// Sends a later fragment of a datagram where its first went.
#[inline(always)]
fn go_on<F, P, T>(packet: &mut P, tables: &T, datagram: Datagram, load: Load) -> Verdict
where
    F: Tuple,
    P: Packet,
    T: Balancing,
{
    let Some(noted) = tables.line(datagram).and_then(|line| line.find(datagram, tables.now())) else {
        return refuse(tables, Counter::FragmentUnknown);
    };
    tables.count_vip(VipTraffic::new(noted.vip), load.bytes as u64);
    send::<F, _, _>(packet, tables, load, noted.member).unwrap_or_else(|left| match left {
        Left::TooBig(_) => refuse(tables, Counter::TooBig),
        _ => refuse(tables, Counter::NoBackend),
    })
}

#[cfg(test)]
mod tests;
