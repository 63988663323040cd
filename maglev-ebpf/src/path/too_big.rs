//! Answers a packet that is too long for the path to its backend: *fragmentation needed* (RFC 792, RFC 1191) or *packet too big*
//! (RFC 4443 section 3.2), with the VIP as its source. The answer is never longer than the packet. Some packets are never
//! answered: without DF, ICMP errors, and those of a source that is no single remote host.

use maglev_common::counters::Counter;
use maglev_common::hash::{Tuple4, Tuple6};
use zerocopy::byteorder::{LE, U32};

use super::forward::refuse;
use super::icmp::is_answered;
use crate::env::{Balancing, Packet};
use crate::packet::checksum::sum;
use crate::packet::eth::{self, Payload};
use crate::packet::icmp::Icmp;
use crate::packet::ipv4::{self, DONT_FRAGMENT, Ipv4};
use crate::packet::ipv6::{self, Ipv6, pseudo_sum};
use crate::packet::{CONTROL, l4};
use crate::verdict::Verdict;

/// The smallest MTU of an answer: every host can receive 576 bytes (RFC 791), and sends IPv6 packets of 1,280 (RFC 8200).
const LEAST4: u16 = 576;
const LEAST6: u16 = 1_280;
/// Bytes of the packet that the answer quotes, so that it has the length of the smallest MTU: always the same, because the
/// verifier wants to know it.
const QUOTE4: usize = LEAST4 as usize - ipv4::HEADER - size_of::<Icmp>();
const QUOTE6: usize = LEAST6 as usize - ipv6::HEADER - size_of::<Icmp>();

/// Answers a packet that is longer than `mtu` bytes, all that fits the path to its backend; or drops it.
#[inline(always)]
pub fn answer<P: Packet, T: Balancing>(packet: &mut P, tables: &T, mtu: u16) -> Verdict {
    let answered = match eth::payload(packet) {
        Some(Payload::Ipv4(l3)) => answer4(packet, tables, l3, mtu),
        Some(Payload::Ipv6(l3)) => answer6(packet, tables, l3, mtu),
        Some(Payload::Other) | None => Err(Unanswered::Never),
    };
    match answered {
        Ok(()) => {
            tables.count(Counter::PacketTooBig);
            Verdict::Transmit
        }
        Err(Unanswered::Never) => refuse(tables, Counter::TooBig),
        Err(Unanswered::Limit) => refuse(tables, Counter::AnswerLimit),
    }
}

/// Why a packet is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unanswered {
    /// Such a packet never is.
    Never,
    /// None of this second's answers is left.
    Limit,
}

#[inline(always)]
fn answer4<P: Packet, T: Balancing>(packet: &mut P, tables: &T, l3: usize, mtu: u16) -> Result<(), Unanswered> {
    let header = packet.view::<Ipv4>(l3).ok_or(Unanswered::Never)?;
    let (addresses, told) = (header.addresses.get(), mtu.max(LEAST4));
    // The sender of a packet that is no longer than the answer's MTU would change nothing.
    if header.flags_fragment.get() & DONT_FRAGMENT == 0 || header.protocol == l4::ICMP || header.length.get() <= told {
        return Err(Unanswered::Never);
    }
    let overhead = ipv4::HEADER + size_of::<Icmp>();
    admit::<Tuple4, _, _>(packet, tables, l3)?;
    make_room(packet, l3, QUOTE4, overhead)?;
    let quoted = sum(packet.view::<[U32<LE>; QUOTE4 / 4]>(l3 + overhead).ok_or(Unanswered::Never)?);
    let [kind, code] = [3, 4];
    *packet.view_mut::<Icmp>(l3 + ipv4::HEADER).ok_or(Unanswered::Never)? =
        Icmp::error(kind, code, u32::from(told), quoted);
    *packet.view_mut::<Ipv4>(l3).ok_or(Unanswered::Never)? =
        Ipv4::answer(addresses, LEAST4 - ipv4::HEADER as u16, l4::ICMP, CONTROL);
    Ok(())
}

#[inline(always)]
fn answer6<P: Packet, T: Balancing>(packet: &mut P, tables: &T, l3: usize, mtu: u16) -> Result<(), Unanswered> {
    let header = packet.view::<Ipv6>(l3).ok_or(Unanswered::Never)?;
    let (addresses, told) = (header.addresses, mtu.max(LEAST6));
    let length = ipv6::HEADER as u32 + u32::from(header.payload_length.get());
    if length <= u32::from(told) {
        return Err(Unanswered::Never);
    }
    let overhead = ipv6::HEADER + size_of::<Icmp>();
    admit::<Tuple6, _, _>(packet, tables, l3)?;
    make_room(packet, l3, QUOTE6, overhead)?;
    let payload = (size_of::<Icmp>() + QUOTE6) as u16;
    let quoted = sum(packet.view::<[U32<LE>; QUOTE6 / 4]>(l3 + overhead).ok_or(Unanswered::Never)?);
    let pseudo = pseudo_sum(&addresses, payload, l4::ICMPV6);
    let [kind, code] = [2, 0];
    *packet.view_mut::<Icmp>(l3 + ipv6::HEADER).ok_or(Unanswered::Never)? =
        Icmp::error(kind, code, u32::from(told), quoted + pseudo);
    *packet.view_mut::<Ipv6>(l3).ok_or(Unanswered::Never)? = Ipv6::answer(addresses, payload, l4::ICMPV6, CONTROL);
    Ok(())
}

/// Takes one of this second's answers for a packet that may be answered at all.
#[inline(always)]
fn admit<F: crate::vip::Tuple, P: Packet, T: Balancing>(packet: &P, tables: &T, l3: usize) -> Result<(), Unanswered> {
    if !is_answered::<F, _, _>(packet, tables, l3) {
        return Err(Unanswered::Never);
    }
    if tables.may_answer() { Ok(()) } else { Err(Unanswered::Limit) }
}

/// Cuts a packet to what is quoted, and makes room for headers before it.
#[inline(always)]
fn make_room<P: Packet>(packet: &mut P, l3: usize, quote: usize, headers: usize) -> Result<(), Unanswered> {
    let made = packet.len() > l3 + quote && packet.trim(l3 + quote) && eth::insert_and_turn(packet, l3, headers);
    if made { Ok(()) } else { Err(Unanswered::Never) }
}

#[cfg(test)]
mod tests;
