//! The MSS that a backend announces to clients. A client's packet of full length must fit the link to the backend with its outer
//! header, so the MSS option in the answer to a SYN is lowered, at the backend, which alone sends it.
//!
//! Decapsulation notes the SYNs that came encapsulated; at the interfaces' egress their answers are known by that. So connections
//! that do not come through a load balancer keep their MSS, and so do those that the backend opens.

use maglev_common::encap::most_overhead;
use maglev_common::hash::{Transport, Tuple4, Tuple6};
use maglev_common::settings::Mss;
use maglev_common::syn::{SYN_KEY, SynWord};
use zerocopy::byteorder::{BE, U16, U64};

use crate::env::{DecapTables, Packet, Segment, Syns};
use crate::packet::eth::{self, Payload};
use crate::packet::ipv4::{self, Ipv4};
use crate::packet::ipv6::{self, Ipv6};
use crate::packet::{bounded, equals, l4};
use crate::vip::Tuple;

/// The smallest MSS that Linux takes (`TCP_MIN_MSS`).
const LEAST: usize = 88;

/// Options (RFC 9293 section 3.2): a byte of kind, and for all but these two one of length, which counts both.
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
/// The maximum segment size: four bytes, of which the last two are the number.
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
const MSS_BYTES: usize = 4;
/// Bytes of options that a header may have.
const MOST_OPTIONS: usize = 40;
/// Where a TCP header has its checksum.
const CHECKSUM: usize = 16;

/// A change to an outgoing segment: a number, and the checksum that covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where in the frame the TCP header has its checksum.
    pub checksum: usize,
    /// Where in the frame the MSS stands.
    pub at: usize,
    /// The MSS as it is.
    pub old: u16,
    /// The MSS as it is to be: less.
    pub new: u16,
}

impl Change {
    /// Both numbers as the checksum sums them: words in network order, each half in a word of its own if the option stands at an odd
    /// offset.
    #[inline(always)]
    pub const fn summed(self) -> (u16, u16) {
        let is_odd = self.at & 1 != self.checksum & 1;
        let (old, new) = if is_odd { (self.old.swap_bytes(), self.new.swap_bytes()) } else { (self.old, self.new) };
        (old.to_be(), new.to_be())
    }
}

/// A version of IP: how its TCP segments are read.
pub trait Family: Tuple {
    /// Bytes of IP and TCP headers, which the MSS does not count (RFC 6691).
    const HEADERS: usize;

    /// The TCP segment of the packet whose IP header begins at an offset. `None` if it is a fragment or has IPv6 extension headers.
    fn segment(packet: &impl Packet, l3: usize) -> Option<Tcp<Self>>;
    /// The flow seen from the other side.
    fn reversed(self) -> Self;
}

/// A TCP segment in a frame.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<F> {
    tuple: F,
    /// Where its header begins.
    start: usize,
    /// Bytes of its header.
    length: usize,
    flags: u8,
}

impl<F> Tcp<F> {
    #[inline(always)]
    fn read(packet: &impl Packet, start: usize, payload: usize, tuple: impl FnOnce(Transport) -> F) -> Option<Self> {
        let l4::Tcp { ports, length, flags } = l4::tcp_header(packet, start)?;
        let whole = length >= l4::TCP_HEADER as usize && length <= payload;
        whole.then(|| Self { tuple: tuple(Transport::new(ports, l4::TCP)), start, length, flags })
    }
}

impl Family for Tuple4 {
    const HEADERS: usize = ipv4::HEADER + l4::TCP_HEADER as usize;

    #[inline(always)]
    fn segment(packet: &impl Packet, l3: usize) -> Option<Tcp<Self>> {
        let header = packet.view::<Ipv4>(l3)?;
        let (bytes, length) = (header.header_length(), usize::from(header.length.get()));
        if header.protocol != l4::TCP || header.version() != 4 || header.is_fragment() || bytes < ipv4::HEADER {
            return None;
        }
        let addresses = header.addresses.get();
        Tcp::read(packet, l3 + bytes, length.checked_sub(bytes)?, |transport| Self { addresses, transport })
    }

    #[inline(always)]
    fn reversed(self) -> Self {
        Self { addresses: self.addresses.rotate_left(32), transport: self.transport.reversed() }
    }
}

impl Family for Tuple6 {
    const HEADERS: usize = ipv6::HEADER + l4::TCP_HEADER as usize;

    #[inline(always)]
    fn segment(packet: &impl Packet, l3: usize) -> Option<Tcp<Self>> {
        let header = packet.view::<Ipv6>(l3)?;
        if header.next_header != l4::TCP || header.version() != 6 {
            return None;
        }
        let addresses = header.addresses.map(U64::get);
        let payload = usize::from(header.payload_length.get());
        Tcp::read(packet, l3 + ipv6::HEADER, payload, |transport| Self { addresses, transport })
    }

    #[inline(always)]
    fn reversed(self) -> Self {
        let [a, b, c, d] = self.addresses;
        Self { addresses: [c, d, a, b], transport: self.transport.reversed() }
    }
}

/// The outer headers of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// Bytes from the start of the outer IP header to the inner one.
    pub bytes: usize,
    /// Whether the outer IP header is IPv6.
    pub is_v6: bool,
}

/// Notes a packet that came encapsulated if it is a SYN, with the largest MSS for its answer. The inner packet follows
/// the outer headers, and is IPv4 if `is_v4`.
#[inline(always)]
pub fn note<P: Packet, T: DecapTables>(packet: &P, tables: &T, outer: Outer, is_v4: bool) {
    match tables.mss() {
        Mss::Off => {}
        _ if is_v4 => note_family::<Tuple4, _, _>(packet, tables, outer),
        _ => note_family::<Tuple6, _, _>(packet, tables, outer),
    }
}

#[inline(always)]
fn note_family<F: Family, P: Packet, T: DecapTables>(packet: &P, tables: &T, outer: Outer) {
    let Some(segment) = F::segment(packet, eth::HEADER + outer.bytes) else { return };
    if !Segment::from_flags(segment.flags).is_syn() {
        return;
    }
    let mss = match tables.mss() {
        Mss::Limit(limit) => usize::from(limit) - (F::HEADERS - Tuple4::HEADERS),
        Mss::Off | Mss::Auto => {
            // Later packets of the connection may have longer outer headers than its SYN.
            let overhead = outer.bytes.max(most_overhead(outer.is_v6));
            (tables.mtu() as usize).saturating_sub(overhead + F::HEADERS)
        }
    };
    let (hash, mss) = (segment.tuple.hash(SYN_KEY), mss.clamp(LEAST, usize::from(u16::MAX)) as u16);
    if let Some(entry) = tables.syn(hash) {
        entry.set(SynWord::new(hash, tables.now(), mss).0);
    }
}

/// The change to an outgoing packet, if it answers a SYN that came encapsulated with an MSS that is too large. A segment without the
/// option stands for 536 or 1,220 bytes, and is left as it is.
#[inline(always)]
pub fn lower<P: Packet, T: Syns>(packet: &P, tables: &T) -> Option<Change> {
    match eth::payload(packet)? {
        Payload::Ipv4(l3) => lower_family::<Tuple4, _, _>(packet, tables, l3),
        Payload::Ipv6(l3) => lower_family::<Tuple6, _, _>(packet, tables, l3),
        Payload::Other => None,
    }
}

#[inline(always)]
fn lower_family<F: Family, P: Packet, T: Syns>(packet: &P, tables: &T, l3: usize) -> Option<Change> {
    let Tcp { tuple, start, length, flags } = F::segment(packet, l3)?;
    if !Segment::from_flags(flags).is_syn_ack() {
        return None;
    }
    let hash = tuple.reversed().hash(SYN_KEY);
    let new = SynWord(tables.syn(hash)?.get()).mss(hash, tables.now())?;
    let header = l4::TCP_HEADER as usize;
    let at = mss_option(packet, start + header, length - header)? + MSS_BYTES - size_of::<u16>();
    let old = packet.view::<U16<BE>>(at)?.get();
    (old > new).then_some(Change { checksum: start + CHECKSUM, at, old, new })
}

/// Where in the frame the MSS option begins, of options that begin at an offset and have so many bytes.
#[inline(always)]
fn mss_option(packet: &impl Packet, start: usize, length: usize) -> Option<usize> {
    let mut at = 0;
    for _ in 0..MOST_OPTIONS {
        let &[kind, bytes] = packet.view::<[u8; 2]>(start + at)?;
        if at + MSS_BYTES > length || kind == END_OF_OPTIONS {
            return None;
        }
        if kind == MAXIMUM_SEGMENT_SIZE {
            return (usize::from(bytes) == MSS_BYTES).then_some(start + at);
        }
        // Worked out rather than branched upon: the verifier would follow each branch of each turn by itself.
        let padding = equals(kind, NO_OPERATION);
        let step = padding + (1 - padding) * usize::from(bytes);
        if step + padding < 2 || at + step > length {
            return None;
        }
        at = bounded(at + step, 63);
    }
    None
}

#[cfg(test)]
mod tests;
