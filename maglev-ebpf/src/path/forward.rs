//! The whole path of a packet through the load balancer.

use core::hint::black_box;

use maglev_common::backend::MemberId;
use maglev_common::counters::{Counter, Outcome};
use maglev_common::hash::{FlowHash, Tuple4, Tuple6};
use maglev_common::settings::Unserved;
use maglev_common::template::{Exit, Template};
use maglev_common::vip::VipWord;

use crate::encap;
use crate::env::{Balancing, Counters, Decision, Flow, Flows, Forwarding, Ingress, Outer, Packet, Segment};
use crate::packet::eth::{self, Payload};
use crate::packet::l4;
use crate::packet::{Inner, Ip as _, Parsed, bounded, plain};
use crate::path::fragment::forward_fragment;
use crate::path::icmp::forward_icmp;
use crate::path::unserved::{self, Answerable};
use crate::path::{tag, too_big};
use crate::verdict::Verdict;
use crate::vip::{self, Address, Lookup, Tuple};

/// Balances one packet: it is encapsulated if the verdict is to send it.
///
/// The frame that is sent has the tag of the member's next hop, if it has one, whatever tags the packet came with.
///
/// Only frames to the MAC addresses of the interface they came in by are: on a shared segment, frames to another host reach
/// this one too, and broadcasts reach every node. The host knows what to do with those.
#[inline(always)]
pub fn forward<P: Packet, T: Balancing>(packet: &mut P, tables: &T) -> Verdict {
    match forward_plain(packet, tables).unwrap_or_else(|left| finish(packet, tables, left)) {
        Verdict::Tag(slot) => tag::send(packet, tables, slot),
        verdict => verdict,
    }
}

/// A packet that one function of the path leaves to another, as it is: the kernel bounds what a function may hold on its stack,
/// and the path of most packets has no registers to spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Not a plain packet to a VIP: [`forward_transport`].
    Otherwise,
    /// An ICMP message, whole and without options: [`forward_icmp`].
    Icmp4,
    /// An ICMPv6 message, whole and without extension headers: [`forward_icmp`].
    Icmp6,
    /// A fragment of an IPv4 packet: [`forward_fragment`].
    Fragment4,
    /// A fragment of an IPv6 packet: [`forward_fragment`].
    Fragment6,
    /// A packet that is longer than this, all that fits the path to its backend: [`too_big::answer`].
    TooBig(u16),
    /// A packet that no backend can be given: [`unserved::decide`].
    Unserved,
    /// A segment of TCP that no backend can be given, to be answered: [`unserved::reset`].
    Reset(Answerable),
    /// A datagram of UDP, likewise: [`unserved::unreachable`].
    Unreachable(Answerable),
}

/// Does what was left.
#[inline(always)]
fn finish<P: Packet, T: Balancing>(packet: &mut P, tables: &T, left: Left) -> Verdict {
    match left {
        Left::Otherwise => forward_transport(packet, tables).unwrap_or_else(|left| finish_rare(packet, tables, left)),
        left => finish_last(packet, tables, left),
    }
}

#[inline(always)]
fn finish_rare<P: Packet, T: Balancing>(packet: &mut P, tables: &T, left: Left) -> Verdict {
    let done = match left {
        Left::Fragment4 => forward_fragment::<Tuple4, _, _>(packet, tables),
        Left::Fragment6 => forward_fragment::<Tuple6, _, _>(packet, tables),
        left => Err(left),
    };
    done.unwrap_or_else(|left| finish_last(packet, tables, left))
}

#[inline(always)]
fn finish_last<P: Packet, T: Balancing>(packet: &mut P, tables: &T, left: Left) -> Verdict {
    let left = match left {
        Left::Unserved => match unserved::decide(packet, tables) {
            Ok(verdict) => return verdict,
            Err(left) => left,
        },
        left => left,
    };
    match left {
        Left::Icmp4 => forward_icmp::<Tuple4, _, _>(packet, tables),
        Left::Icmp6 => forward_icmp::<Tuple6, _, _>(packet, tables),
        Left::TooBig(mtu) => too_big::answer(packet, tables, mtu),
        Left::Reset(answerable) => unserved::reset(packet, tables, answerable),
        Left::Unreachable(answerable) => unserved::unreachable(packet, tables, answerable),
        Left::Otherwise | Left::Unserved | Left::Fragment4 | Left::Fragment6 => refuse(tables, Counter::NotIp),
    }
}

/// Balances a packet that is not plain, or refuses it.
///
/// # Errors
/// What it leaves, and nothing done: never [`Left::Otherwise`].
#[inline(always)]
pub fn forward_transport<P: Packet, T: Balancing>(packet: &mut P, tables: &T) -> Result<Verdict, Left> {
    let payload = eth::payload(packet);
    let here = is_addressed_here(packet, tables);
    match payload {
        Some(Payload::Ipv4(l3)) => receive::<Tuple4, _, _>(packet, tables, l3, here, [Left::Icmp4, Left::Fragment4]),
        Some(Payload::Ipv6(l3)) => receive::<Tuple6, _, _>(packet, tables, l3, here, [Left::Icmp6, Left::Fragment6]),
        Some(Payload::Other) => Ok(refuse(tables, Counter::NotIp)),
        None => Ok(refuse(tables, Counter::Truncated)),
    }
}

/// Whether a frame is addressed to this node.
#[inline(always)]
fn is_addressed_here<P: Packet, T: Ingress>(packet: &P, tables: &T) -> bool {
    let Some(destination) = eth::destination(packet) else { return true };
    tables.forwarding().is_own(destination, || tables.ingress()) || tables.owns(destination.mac())
}

/// Balances the IP packet at an offset of a frame, which may be addressed to another host. What ICMP messages and fragments are
/// left as comes last.
#[inline(always)]
fn receive<F: Tuple, P: Packet, T: Balancing>(
    packet: &mut P,
    tables: &T,
    l3: usize,
    here: bool,
    [icmp, fragment]: [Left; 2],
) -> Result<Verdict, Left> {
    let reason = if !here {
        Counter::OtherMac
    } else {
        match F::parse(packet, l3) {
            Parsed::Flow(inner) => return balance(packet, tables, &inner),
            Parsed::Icmp(span) if span.transport == l3 + F::HEADER => return Err(icmp),
            Parsed::Icmp(_) => Counter::Icmp,
            Parsed::Fragment => return Err(fragment),
            Parsed::SourceRoute => Counter::SourceRoute,
            Parsed::ExtensionHeader => Counter::ExtensionHeader,
            Parsed::Nested => Counter::Nested,
            Parsed::HopLimit => Counter::HopLimit,
            Parsed::Malformed => Counter::Malformed,
            Parsed::Truncated => Counter::Truncated,
        }
    };
    Ok(unhandled(tables, F::read_destination(packet, l3), reason))
}

/// Balances a plain packet to a VIP, which is what nearly every packet is.
///
/// Whatever it answers, [`forward_transport`] would have answered, and done, the same. It exists for speed: no reason is
/// carried about for which a packet might have been refused.
///
/// # Errors
/// What it leaves, and nothing done.
#[inline(always)]
pub fn forward_plain<P: Packet, T: Balancing>(packet: &mut P, tables: &T) -> Result<Verdict, Left> {
    let own = |destination| tables.forwarding().is_own(destination, || tables.ingress());
    if let Some(inner) = plain::ipv4(packet, own) {
        return balance_plain(packet, tables, &inner);
    }
    let Some(inner) = plain::ipv6(packet, own) else { return Err(Left::Otherwise) };
    balance_plain(packet, tables, &inner)
}

#[inline(always)]
fn balance_plain<F, P, T>(packet: &mut P, tables: &T, inner: &Inner<F>) -> Result<Verdict, Left>
where
    F: Tuple,
    P: Packet,
    T: Balancing,
{
    let word = vip::find_exact(inner.tuple, tables);
    if !word.is_present() {
        return Err(Left::Otherwise);
    }
    tables.received(inner.tuple.ends());
    serve::<true, _, _, _>(packet, tables, inner, word, inner.tuple.hash(tables.hash_key()))
}

/// Handles a packet of a node whose daemon is gone: dropped if it would be balanced, else it is the host's. Tables that nothing keeps up
/// to date lead to backends that are gone too.
#[inline(always)]
pub fn abandon<P: Packet, T: Balancing>(packet: &P, tables: &T) -> Verdict {
    let reason = if is_addressed_here(packet, tables) { Counter::DaemonGone } else { Counter::OtherMac };
    match eth::payload(packet) {
        Some(Payload::Ipv4(l3)) => unhandled(tables, Tuple4::read_destination(packet, l3), reason),
        Some(Payload::Ipv6(l3)) => unhandled(tables, Tuple6::read_destination(packet, l3), reason),
        Some(Payload::Other) => refuse(tables, Counter::NotIp),
        None => refuse(tables, Counter::Truncated),
    }
}

/// Decides where a flow goes, without a packet: the same code for the kernel and for `maglev flow explain`.
///
/// # Errors
/// The reason for which packets of the flow are passed, dropped or answered.
#[inline(always)]
pub fn decide<F: Tuple, T: Flows>(tuple: F, segment: Segment, tables: &T) -> Result<Decision, Counter> {
    let word = match vip::lookup(tuple, tables) {
        Lookup::Vip(word) => word,
        Lookup::AddressOnly(word) => return Err(unserved::outcome(tuple, word, unknown_port(tuple))),
        Lookup::Unknown => return Err(Counter::NotVip),
    };
    let decision = choose(vip::hash(tuple, word, tables), || segment, tables, word);
    if decision.member.is_nobody() { Err(unserved::outcome(tuple, word, Counter::NoBackend)) } else { Ok(decision) }
}

/// The VIP of a flow.
///
/// # Errors
/// The reason for which packets of the flow are passed or dropped.
#[inline(always)]
pub(super) fn vip_of<F: Tuple, T: Forwarding>(tuple: F, tables: &T) -> Result<VipWord, Counter> {
    match vip::lookup(tuple, tables) {
        Lookup::Vip(word) => Ok(word),
        Lookup::AddressOnly(_) => Err(unknown_port(tuple)),
        Lookup::Unknown => Err(Counter::NotVip),
    }
}

/// The reason for which packets to a VIP's address are dropped that no VIP there takes.
#[inline(always)]
pub(super) fn unknown_port<F: Tuple>(tuple: F) -> Counter {
    if l4::has_ports(tuple.transport().protocol()) { Counter::NoSuchVip } else { Counter::OtherProtocol }
}

/// The decision for a flow of a VIP; it may have no member.
#[inline(always)]
pub(super) fn choose<T: Flows>(hash: FlowHash, segment: impl Fn() -> Segment, tables: &T, word: VipWord) -> Decision {
    let (vip, pool) = (word.id(), word.pool());
    let flow = Flow { pool, word: tables.forwarding().pool(pool), hash };
    let (member, choice) = tables.choose(flow, segment);
    Decision { vip, flow, member, choice }
}

/// A flow of a VIP, and its pool.
#[inline(always)]
pub(super) fn flow_of<F: Tuple, T: Forwarding>(tuple: F, tables: &T, word: VipWord) -> Flow {
    let pool = word.pool();
    Flow { pool, word: tables.forwarding().pool(pool), hash: vip::hash(tuple, word, tables) }
}

#[inline(always)]
fn balance<F, P, T>(packet: &mut P, tables: &T, inner: &Inner<F>) -> Result<Verdict, Left>
where
    F: Tuple,
    P: Packet,
    T: Balancing,
{
    match vip::lookup(inner.tuple, tables) {
        Lookup::Vip(word) => serve::<false, _, _, _>(packet, tables, inner, word, vip::hash(inner.tuple, word, tables)),
        Lookup::AddressOnly(word) if word.unserved() == Unserved::Reset => Err(Left::Unserved),
        Lookup::AddressOnly(_) => Ok(refuse(tables, unknown_port(inner.tuple))),
        Lookup::Unknown => Ok(refuse(tables, Counter::NotVip)),
    }
}

/// Sends a packet of a VIP to its member, encapsulated. `PLAIN`: it is plain.
#[inline(always)]
fn serve<const PLAIN: bool, F, P, T>(
    packet: &mut P,
    tables: &T,
    inner: &Inner<F>,
    word: VipWord,
    hash: FlowHash,
) -> Result<Verdict, Left>
where
    F: Tuple,
    P: Packet,
    T: Balancing,
{
    let bytes = packet.len();
    tables.count_vip(word.traffic(), bytes as u64);
    let segment = || l4::segment(packet, inner.tuple.transport().protocol(), inner.transport);
    let decision = choose(hash, segment, tables, word);
    tables.decided(&decision);
    let load = Load { l3: inner.l3, length: inner.length, hash: decision.flow.hash, bytes };
    // The verifier of Linux 6.1 forgets how large an id can be that the longer function puts on its stack.
    let id = if PLAIN { decision.member } else { MemberId::from_low_bits(black_box(decision.member.get())) };
    send::<F, _, _>(packet, tables, load, id)
}

/// A packet that is to be encapsulated.
#[derive(Clone, Copy)]
pub(super) struct Load {
    /// Where in the frame its IP header begins.
    pub(super) l3: usize,
    /// Its length in bytes.
    pub(super) length: u32,
    /// The hash of its flow.
    pub(super) hash: FlowHash,
    /// The frame's length as it came in.
    pub(super) bytes: usize,
}

impl Load {
    /// The length of a frame that carries this packet, if all in front of the packet is an Ethernet header without tags. `frame` is
    /// the length with what is in front of it now.
    #[inline(always)]
    const fn untagged(self, frame: usize) -> usize {
        frame - (self.l3 - eth::HEADER)
    }
}

/// Encapsulates a packet and sends it to a member; id 0 stands for none.
#[inline(always)]
pub(super) fn send<F, P, T>(packet: &mut P, tables: &T, load: Load, member: MemberId) -> Result<Verdict, Left>
where
    F: Tuple,
    P: Packet,
    T: Balancing,
{
    // The template of id 0 has no exit.
    let template = tables.forwarding().template(member);
    let exit = template.exit();
    let outer = Outer { protocol: F::IN_IP, l3: load.l3, length: load.length, hash: load.hash.0 };
    let fits = exit.takes(load.untagged(load.bytes)) || trim::<F, P>(packet, load.l3, exit);
    let record = tables.forwarding().member(member);
    let sent = encap::encapsulate::<F>(packet, exit.encap(), fits, outer, template, record);
    if !sent {
        return match hindrance(template, load.untagged(packet.len())) {
            Counter::TooBig => Err(Left::TooBig(template.exit().longest_packet())),
            Counter::NoBackend => Err(Left::Unserved),
            reason => Ok(refuse(tables, reason)),
        };
    }
    tables.count_member(member, load.bytes as u64);
    if exit.is_ingress(|| tables.ingress()) {
        tables.count(Counter::Transmitted);
        Ok(Verdict::Transmit)
    } else if exit.is_tagged() {
        Ok(Verdict::Tag(exit.slot()))
    } else {
        tables.count(Counter::Redirected);
        Ok(Verdict::Redirect(exit.slot()))
    }
}

/// Cuts off what an Ethernet frame carries behind its IP packet, if the packet itself fits: the driver would drop the
/// frame. Returns whether it did. A frame that fits keeps its padding, as bare ACKs do: cutting it costs a call.
#[inline(always)]
fn trim<F: Tuple, P: Packet>(packet: &mut P, l3: usize, exit: Exit) -> bool {
    let Some(length) = F::read_length(packet, l3) else { return false };
    // The verifier of Linux 6.1 does not know that two bytes, once swapped, are still two.
    let length = bounded(length as usize, 0xffff);
    exit.takes(eth::HEADER + length) && packet.trim(l3 + length)
}

/// Why a packet was not sent to its member. Apart, so that the way of those that are sent stays straight. (Not `#[cold]`:
/// that is a section of its own, which the loader does not link.)
#[inline(never)]
fn hindrance(template: &Template, frame: usize) -> Counter {
    let exit = template.exit();
    if !template.state().is_alive() {
        Counter::NoBackend
    } else if !exit.exists() {
        Counter::NextHopUnresolved
    } else if !exit.takes(frame) {
        Counter::TooBig
    } else {
        Counter::NoHeadroom
    }
}

/// Refuses a packet that cannot be balanced: by its reason if it is for a VIP's address, else it is the host's.
#[inline(always)]
fn unhandled<A: Address, T: Forwarding + Counters>(tables: &T, destination: Option<A>, reason: Counter) -> Verdict {
    match destination {
        Some(address) if vip::is_vip_address(address, tables) => refuse(tables, reason),
        Some(_) => refuse(tables, Counter::NotVip),
        None => refuse(tables, Counter::Truncated),
    }
}

/// Counts a packet that is not sent and returns its verdict.
#[inline(always)]
pub(super) fn refuse<T: Counters>(tables: &T, reason: Counter) -> Verdict {
    tables.count(reason);
    match reason.outcome() {
        Outcome::Passed => Verdict::Pass,
        Outcome::Dropped | Outcome::Forwarded | Outcome::Answered | Outcome::Noted => Verdict::Drop,
    }
}

#[cfg(test)]
mod tests;
