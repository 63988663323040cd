//! Answers a packet that no backend can be given, from the VIP: a TCP segment with a RST, a UDP datagram with *port unreachable*; or drops
//! it, as [`Unserved`] says for its VIP, or for ports of its address that no VIP has. An answer is never longer than the packet.

use maglev_common::counters::Counter;
use maglev_common::hash::{Tuple4, Tuple6};
use maglev_common::settings::Unserved;
use maglev_common::vip::VipWord;
use zerocopy::byteorder::{LE, U16, U32, U64};
use zerocopy::transmute_ref;

use super::forward::{Left, refuse, unknown_port};
use super::icmp::is_answerable;
use crate::env::{Balancing, Chain, Packet};
use crate::packet::eth::{self, Payload};
use crate::packet::icmp::{self, Icmp};
use crate::packet::ipv4::{self, Ipv4};
use crate::packet::ipv6::{self, Ipv6, pseudo_sum};
use crate::packet::tcp::{self, Tcp};
use crate::packet::{CONTROL, Parsed, bounded, checksum, l4};
use crate::verdict::Verdict;
use crate::vip::{self, Lookup, Tuple};

/// Bytes behind a quoted IP header: its datagram's ports, length and checksum (RFC 792).
const QUOTED: usize = 8;
/// Bytes of the shortest frame that Ethernet carries, without its check sequence: others are padded to this.
const SHORTEST: usize = 60;
/// A transport header begins before this, one less than a power of two.
const MOST_START: usize = Chain::MOST;

/// Where the transport header of a packet that is to be answered begins in the frame, as a number that a function of the kernel can hand
/// on; and why the packet is dropped if it cannot be answered.
///
/// ```text
///  15             14     12 11        0
/// +--------------+---------+-----------+
/// | unknown port | 0       | offset    |
/// +--------------+---------+-----------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answerable(pub u16);

impl Answerable {
    const UNKNOWN_PORT: u16 = 1 << 15;

    #[inline(always)]
    fn transport(self) -> usize {
        bounded(usize::from(self.0), MOST_START)
    }

    #[inline(always)]
    const fn reason(self) -> Counter {
        if self.0 & Self::UNKNOWN_PORT == 0 { Counter::NoBackend } else { Counter::NoSuchVip }
    }
}

/// Drops a packet to a VIP whose pool has no backend, or to a port that no VIP has, or leaves it to be answered. What it is, is found out
/// anew: the path of other packets need not keep it.
///
/// # Errors
/// It is to be answered, and nothing is done: [`Left::Reset`] or [`Left::Unreachable`].
#[inline(always)]
pub fn decide<P: Packet, T: Balancing>(packet: &P, tables: &T) -> Result<Verdict, Left> {
    match eth::payload(packet) {
        Some(Payload::Ipv4(l3)) => decide_ip::<Tuple4, _, _>(packet, tables, l3),
        Some(Payload::Ipv6(l3)) => decide_ip::<Tuple6, _, _>(packet, tables, l3),
        Some(Payload::Other) | None => Ok(refuse(tables, Counter::NoBackend)),
    }
}

#[inline(always)]
fn decide_ip<F: Tuple, P: Packet, T: Balancing>(packet: &P, tables: &T, l3: usize) -> Result<Verdict, Left> {
    let Parsed::Flow(inner) = F::parse(packet, l3) else { return Ok(refuse(tables, Counter::NoBackend)) };
    let (word, reason) = match vip::lookup(inner.tuple, tables) {
        Lookup::Vip(word) => (word, 0),
        // Without a word, its VIP was removed a moment ago.
        Lookup::AddressOnly(word) => (word, Answerable::UNKNOWN_PORT),
        Lookup::Unknown => return Ok(refuse(tables, Counter::NoSuchVip)),
    };
    let answerable = Answerable(inner.transport as u16 | reason);
    match (word.unserved(), inner.tuple.transport().protocol()) {
        (Unserved::Reset, l4::TCP) => Err(Left::Reset(answerable)),
        (Unserved::Reset, l4::UDP) => Err(Left::Unreachable(answerable)),
        _ if reason != 0 => Ok(refuse(tables, unknown_port(inner.tuple))),
        _ => Ok(refuse(tables, answerable.reason())),
    }
}

/// What packets of a flow are counted by that no backend can be given, as far as they can be answered: else by this reason.
pub fn outcome<F: Tuple>(tuple: F, word: VipWord, reason: Counter) -> Counter {
    match (word.unserved(), tuple.transport().protocol()) {
        (Unserved::Reset, l4::TCP) => Counter::Reset,
        (Unserved::Reset, l4::UDP) => Counter::PortUnreachable,
        _ => reason,
    }
}

/// Answers a segment with a RST, unless it is one.
#[inline(always)]
pub fn reset<P: Packet, T: Balancing>(packet: &mut P, tables: &T, answerable: Answerable) -> Verdict {
    match eth::payload(packet) {
        Some(Payload::Ipv4(l3)) => reset_ip::<Tuple4, _, _>(packet, tables, l3, answerable),
        Some(Payload::Ipv6(l3)) => reset_ip::<Tuple6, _, _>(packet, tables, l3, answerable),
        Some(Payload::Other) | None => refuse(tables, answerable.reason()),
    }
}

#[inline(always)]
fn reset_ip<F: Answered, P: Packet, T: Balancing>(
    packet: &mut P,
    tables: &T,
    l3: usize,
    answerable: Answerable,
) -> Verdict {
    let (transport, refused) = (answerable.transport(), || refuse(tables, answerable.reason()));
    // All that is read of the packet is read before anything else: the verifier loses sight of it later.
    let Some((addresses, length)) = F::addresses(packet, l3) else { return refused() };
    let Some(header) = packet.view::<Tcp>(transport).copied() else { return refused() };
    let Some(answer) = header.reset((l3 as u32 + length).wrapping_sub(transport as u32)) else { return refused() };
    if !is_answerable::<F, _>(F::source(addresses), tables) {
        return refuse(tables, Counter::Unanswerable);
    }
    if !tables.may_answer() {
        return refuse(tables, Counter::AnswerLimit);
    }
    if !cut(packet, l3 + F::HEADER + tcp::HEADER) || F::write_reset(packet, l3, addresses, answer).is_none() {
        return refused();
    }
    eth::turn(packet);
    tables.count(Counter::Reset);
    Verdict::Transmit
}

/// Answers a datagram with *port unreachable*, which quotes its headers.
#[inline(always)]
pub fn unreachable<P: Packet, T: Balancing>(packet: &mut P, tables: &T, answerable: Answerable) -> Verdict {
    match eth::payload(packet) {
        Some(Payload::Ipv4(l3)) => unreachable_ip::<Tuple4, _, _>(packet, tables, l3, answerable),
        Some(Payload::Ipv6(l3)) => unreachable_ip::<Tuple6, _, _>(packet, tables, l3, answerable),
        Some(Payload::Other) | None => refuse(tables, answerable.reason()),
    }
}

#[inline(always)]
fn unreachable_ip<F: Answered, P: Packet, T: Balancing>(
    packet: &mut P,
    tables: &T,
    l3: usize,
    answerable: Answerable,
) -> Verdict {
    let (transport, refused) = (answerable.transport(), || refuse(tables, answerable.reason()));
    let Some((addresses, length)) = F::addresses(packet, l3) else { return refused() };
    let Some(sum) = F::quoted_sum(packet, l3, transport) else { return refused() };
    let quote = (transport + QUOTED).wrapping_sub(l3);
    let added = F::HEADER + icmp::HEADER;
    let fits = length as usize >= added + quote && (F::QUOTES_OPTIONS || transport == l3 + F::HEADER);
    if !fits || !is_answerable::<F, _>(F::source(addresses), tables) {
        return refuse(tables, Counter::Unanswerable);
    }
    if !tables.may_answer() {
        return refuse(tables, Counter::AnswerLimit);
    }
    let end = transport + QUOTED;
    if packet.len() < end || !packet.trim(end) || !eth::insert_and_turn(packet, l3, added) {
        return refused();
    }
    if F::write_unreachable(packet, l3, addresses, (icmp::HEADER + quote) as u16, sum).is_none() {
        return refused();
    }
    tables.count(Counter::PortUnreachable);
    Verdict::Transmit
}

/// Cuts a frame off behind an answer that ends at this offset, or behind the padding that Ethernet wants then. False if the frame
/// is shorter: nothing is done.
#[inline(always)]
fn cut<P: Packet>(packet: &mut P, end: usize) -> bool {
    let length = if packet.len() < SHORTEST { end } else { end.max(SHORTEST) };
    if packet.len() < length || !packet.trim(length) {
        return false;
    }
    // What of this is no padding is written later.
    if let Some(padding) = packet.view_mut::<[u8; 8]>(SHORTEST - 8) {
        *padding = [0; 8];
    }
    true
}

/// How packets of a version of IP are answered.
trait Answered: Tuple {
    /// Both addresses of a header.
    type Addresses: Copy;
    /// Whether a quote may hold more than a header of the least length.
    const QUOTES_OPTIONS: bool;

    /// The addresses and the length of the packet at an offset.
    fn addresses(packet: &impl Packet, l3: usize) -> Option<(Self::Addresses, u32)>;
    /// The first of two addresses.
    fn source(addresses: Self::Addresses) -> Self::Address;
    /// Writes a RST and its headers.
    fn write_reset(packet: &mut impl Packet, l3: usize, addresses: Self::Addresses, answer: Tcp) -> Option<()>;
    /// The sum of what is quoted of a datagram.
    fn quoted_sum(packet: &impl Packet, l3: usize, transport: usize) -> Option<u64>;
    /// Writes the headers of a *port unreachable* with so many bytes behind its IP header; `sum`: that of what it quotes.
    fn write_unreachable(
        packet: &mut impl Packet,
        l3: usize,
        addresses: Self::Addresses,
        payload: u16,
        sum: u64,
    ) -> Option<()>;
}

/// A RST with its checksum; `pseudo`: the sum of the pseudo-header.
#[inline(always)]
fn with_checksum(answer: Tcp, pseudo: u64) -> Tcp {
    let words: &[U32<LE>; tcp::HEADER / 4] = transmute_ref!(&answer);
    let sum = checksum::finish(checksum::folded(checksum::sum(words) + pseudo));
    Tcp { checksum: U16::new(sum), ..answer }
}

impl Answered for Tuple4 {
    type Addresses = u64;
    const QUOTES_OPTIONS: bool = true;

    #[inline(always)]
    fn addresses(packet: &impl Packet, l3: usize) -> Option<(u64, u32)> {
        let header = packet.view::<Ipv4>(l3)?;
        Some((header.addresses.get(), u32::from(header.length.get())))
    }

    #[inline(always)]
    fn source(addresses: u64) -> u32 {
        addresses as u32
    }

    #[inline(always)]
    fn write_reset(packet: &mut impl Packet, l3: usize, addresses: u64, answer: Tcp) -> Option<()> {
        const REST: u64 = (tcp::HEADER as u16).swap_bytes() as u64 + (l4::TCP as u16).swap_bytes() as u64;
        let pseudo = (addresses & 0xffff_ffff) + (addresses >> 32) + REST;
        *packet.view_mut::<Tcp>(l3 + ipv4::HEADER)? = with_checksum(answer, pseudo);
        *packet.view_mut::<Ipv4>(l3)? = Ipv4::answer(addresses, tcp::HEADER as u16, l4::TCP, 0);
        Some(())
    }

    /// The header's own checksum makes its sum that of nothing, whatever options it has. If the checksum is wrong, that of the answer is.
    #[inline(always)]
    fn quoted_sum(packet: &impl Packet, _l3: usize, transport: usize) -> Option<u64> {
        Some(0xffff + checksum::sum(packet.view::<[U32<LE>; QUOTED / 4]>(transport)?))
    }

    #[inline(always)]
    fn write_unreachable(packet: &mut impl Packet, l3: usize, addresses: u64, payload: u16, sum: u64) -> Option<()> {
        let [kind, code] = [3, 3];
        *packet.view_mut::<Icmp>(l3 + ipv4::HEADER)? = Icmp::error(kind, code, 0, sum);
        *packet.view_mut::<Ipv4>(l3)? = Ipv4::answer(addresses, payload, l4::ICMP, CONTROL);
        Some(())
    }
}

impl Answered for Tuple6 {
    type Addresses = [U64<LE>; 4];
    /// Extension headers have no checksum: their sum would have to be worked out.
    const QUOTES_OPTIONS: bool = false;

    #[inline(always)]
    fn addresses(packet: &impl Packet, l3: usize) -> Option<([U64<LE>; 4], u32)> {
        let header = packet.view::<Ipv6>(l3)?;
        Some((header.addresses, ipv6::HEADER as u32 + u32::from(header.payload_length.get())))
    }

    #[inline(always)]
    fn source([high, low, ..]: [U64<LE>; 4]) -> [u64; 2] {
        [high.get(), low.get()]
    }

    #[inline(always)]
    fn write_reset(packet: &mut impl Packet, l3: usize, addresses: [U64<LE>; 4], answer: Tcp) -> Option<()> {
        let pseudo = pseudo_sum(&addresses, tcp::HEADER as u16, l4::TCP);
        *packet.view_mut::<Tcp>(l3 + ipv6::HEADER)? = with_checksum(answer, pseudo);
        *packet.view_mut::<Ipv6>(l3)? = Ipv6::answer(addresses, tcp::HEADER as u16, l4::TCP, 0);
        Some(())
    }

    #[inline(always)]
    fn quoted_sum(packet: &impl Packet, l3: usize, _transport: usize) -> Option<u64> {
        Some(checksum::sum(packet.view::<[U32<LE>; (ipv6::HEADER + QUOTED) / 4]>(l3)?))
    }

    #[inline(always)]
    fn write_unreachable(
        packet: &mut impl Packet,
        l3: usize,
        addresses: [U64<LE>; 4],
        payload: u16,
        sum: u64,
    ) -> Option<()> {
        let [kind, code] = [1, 4];
        let covered = sum + pseudo_sum(&addresses, payload, l4::ICMPV6);
        *packet.view_mut::<Icmp>(l3 + ipv6::HEADER)? = Icmp::error(kind, code, 0, covered);
        *packet.view_mut::<Ipv6>(l3)? = Ipv6::answer(addresses, payload, l4::ICMPV6, CONTROL);
        Some(())
    }
}

#[cfg(test)]
mod tests;
