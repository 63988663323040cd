//! ICMP and ICMPv6 to a VIP's address: errors go to the backend of the flow that they quote, echo requests are answered here.
//! It must not remember anything: an error reaches any node, and any CPU of it.

use maglev_common::counters::Counter;

use super::forward::{Left, Load, flow_of, refuse, send};
use crate::env::{Balancing, Forwarding, Packet, Segment};
use crate::packet::eth::{self, Payload};
use crate::packet::icmp::{self, Icmp, Message, Messages};
use crate::packet::{Span, l4};
use crate::verdict::Verdict;
use crate::vip::{self, Lookup, Tuple};

/// Handles an ICMP or ICMPv6 message that is [`super::forward::Left`]: to this node, whole, and without options or extension
/// headers.
#[inline(always)]
pub fn forward_icmp<F: Tuple + Messages, P: Packet, T: Balancing>(packet: &mut P, tables: &T) -> Verdict {
    let Some(Payload::Ipv4(l3) | Payload::Ipv6(l3)) = eth::payload(packet) else {
        return refuse(tables, Counter::NotIp);
    };
    let Some(length) = F::read_length(packet, l3) else { return refuse(tables, Counter::Truncated) };
    let span = Span { l3, length, transport: l3 + F::HEADER };
    let Some(destination) = F::read_destination(packet, l3) else { return refuse(tables, Counter::Truncated) };
    let address = vip::address_word(destination, tables);
    if !address.is_present() {
        return refuse(tables, Counter::NotVip);
    }
    // Read before the packet's own end is asked for: a comparison that another one makes needless is left out by the compiler, and
    // missed by the verifier.
    let Some(header) = packet.view::<Icmp>(span.transport) else { return refuse(tables, Counter::Malformed) };
    let kind = header.kind;
    if span.transport + icmp::HEADER > span.end() {
        return refuse(tables, Counter::Malformed);
    }
    match F::message(kind) {
        Message::Error => deliver::<F, _, _>(packet, tables, span, destination),
        Message::EchoRequest if address.is_silent() => refuse(tables, Counter::EchoOff),
        Message::EchoRequest => echo::<F, _, _>(packet, tables, span),
        Message::Other => refuse(tables, Counter::Icmp),
    }
}

/// Sends an error to the backend of the flow that it quotes: by the rules of the flow's own packets, but nothing is written, since
/// any host can quote any flow.
///
/// An error nearly always arrives on another CPU or node than its flow's packets, where the flow table does not have the flow. If
/// the flow's slot is learning then, a TCP flow may live at either of two backends: its errors go to one and the other in turn. TCP
/// causes an error for each segment and retransmission until one arrives, and a backend ignores errors about the connections of
/// others.
#[inline(always)]
fn deliver<F, P, T>(packet: &mut P, tables: &T, span: Span, destination: F::Address) -> Verdict
where
    F: Tuple,
    P: Packet,
    T: Balancing,
{
    let Some(tuple) = F::quoted(packet, span.transport + icmp::HEADER, span.end()) else {
        return refuse(tables, Counter::IcmpStray);
    };
    let Lookup::Vip(word) = vip::lookup(tuple, tables) else { return refuse(tables, Counter::IcmpStray) };
    if tuple.destination() != destination {
        return refuse(tables, Counter::IcmpStray);
    }
    let flow = flow_of(tuple, tables, word);
    let segment = match tuple.transport().protocol() {
        l4::TCP if tables.takes_turn(flow.hash) => Segment::RST,
        l4::TCP => Segment::SYN,
        _ => Segment::DATAGRAM,
    };
    let (member, _) = tables.choose_for_error(flow, segment);
    let load = Load { l3: span.l3, length: span.length, hash: flow.hash, bytes: packet.len() };
    tables.count_vip(word.traffic(), load.bytes as u64);
    tables.count(Counter::IcmpError);
    // An error about an error is never sent (RFC 1122 section 3.2.2).
    send::<F, _, _>(packet, tables, load, member).unwrap_or_else(|left| match left {
        Left::TooBig(_) => refuse(tables, Counter::TooBig),
        _ => refuse(tables, Counter::NoBackend),
    })
}

/// Answers an echo request in its own frame (RFC 792, RFC 4443 section 4.2), not more often than the node may answer at all.
#[inline(always)]
fn echo<F: Tuple + Messages, P: Packet, T: Balancing>(packet: &mut P, tables: &T, span: Span) -> Verdict {
    if !is_answered::<F, _, _>(packet, tables, span.l3) {
        return refuse(tables, Counter::Unanswerable);
    }
    if !tables.may_answer() {
        return refuse(tables, Counter::AnswerLimit);
    }
    eth::turn(packet);
    F::turn(packet, span.l3);
    icmp::reply::<F>(packet, span.transport);
    tables.count(Counter::EchoReply);
    Verdict::Transmit
}

/// Whether the source of a packet is one that an answer may be sent to: a single remote host, and no VIP.
#[inline(always)]
pub(super) fn is_answered<F: Tuple, P: Packet, T: Forwarding>(packet: &P, tables: &T, l3: usize) -> bool {
    F::read_source(packet, l3).is_some_and(|source| is_answerable::<F, _>(source, tables))
}

/// Whether an address is one that an answer may be sent to.
#[inline(always)]
pub(super) fn is_answerable<F: Tuple, T: Forwarding>(source: F::Address, tables: &T) -> bool {
    F::is_remote_host(source) && !vip::is_vip_address(source, tables)
}

#[cfg(test)]
mod tests;
