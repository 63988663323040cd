//! Headers, one page each: offsets, accessors, and parsers that yield values which cannot be wrong. A parser reports what it
//! found; the verdict and its counter are the path's decision.

pub mod checksum;
pub mod eth;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod l4;
pub mod plain;
pub mod tcp;

use crate::env::Packet;

/// 1 if two bytes are the same, else 0: by arithmetic that neither compiler nor verifier makes a branch of.
#[inline(always)]
pub(crate) fn equals(a: u8, b: u8) -> usize {
    let differs = core::hint::black_box(usize::from(a ^ b));
    differs.wrapping_sub(1) >> (usize::BITS - 1)
}

/// A number that never exceeds `mask`, one less than a power of two, in a form in which the verifier knows it too.
#[inline(always)]
pub(crate) fn bounded(number: usize, mask: usize) -> usize {
    core::hint::black_box(number) & mask
}

/// Hops that a packet made here has before it.
const HOPS: u8 = 64;

/// The traffic class of ICMP messages made here: internetwork control (RFC 1812 section 4.3.2.5).
pub const CONTROL: u8 = 0xc0;

/// What a parser found where an IP packet should begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// A packet of a flow, whole: of TCP, UDP, or a protocol without ports.
    Flow(Inner<T>),
    /// An ICMP or ICMPv6 message, whole.
    Icmp(Span),
    /// A fragment, the first or a later one: [`Ip::fragment`].
    Fragment,
    /// A packet whose route its sender chose: an IPv4 source route option (RFC 7126 sections 4.3 and 4.4), or an IPv6 routing
    /// header of type 0 (RFC 5095) or with segments left.
    SourceRoute,
    /// More IPv6 extension headers than are followed.
    ExtensionHeader,
    /// A packet in a packet (RFC 2003, RFC 2473, RFC 4213): a backend might unwrap it too.
    Nested,
    /// A packet that has no hops left.
    HopLimit,
    /// A header that contradicts itself or the packet's length.
    Malformed,
    /// A packet that ends before its IP header does.
    Truncated,
}

/// A packet the path can balance, reduced to what it is decided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner<T> {
    /// Addresses, ports and protocol.
    pub tuple: T,
    /// Where in the frame the IP header begins: [`eth::HEADER`], and [`eth::TAG`] for each VLAN tag.
    pub l3: usize,
    /// The IP packet's length in bytes, IP header included.
    pub length: u32,
    /// Where in the frame the transport header begins.
    pub transport: usize,
}

/// An IP packet in a frame, by offsets and lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where in the frame the IP header begins.
    pub l3: usize,
    /// The IP packet's length, IP header included.
    pub length: u32,
    /// Where in the frame begins what follows the IP header and its options or extension headers.
    pub transport: usize,
}

impl Span {
    /// Where in the frame the packet ends; trailers may follow.
    #[inline(always)]
    pub const fn end(self) -> usize {
        self.l3 + self.length as usize
    }
}

/// A fragment, reduced to what it is decided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<T> {
    /// Addresses and protocol, and of the first fragment the ports if it is of TCP or UDP.
    pub tuple: T,
    /// The IP packet's length in bytes, IP header included.
    pub length: u32,
    /// Where in the frame the transport header begins in the first fragment; of a later one, `None`.
    pub transport: Option<usize>,
    /// All fragments of a datagram have the same number.
    pub identification: u32,
}

/// Bytes of a datagram that is whole: as many as a length field can name.
const MOST_DATAGRAM: u32 = 0xffff;

/// Whether a fragment is one that a sender makes: where `payload` bytes lie in their datagram, in units of eight bytes (RFC 791
/// section 3.2, RFC 8200 section 4.5). A second fragment that begins in the first one's TCP header hides flags (RFC 1858 section 4).
#[inline(always)]
const fn is_sound(offset: u32, more: bool, payload: u32, protocol: u8) -> bool {
    let whole_units = !more || payload.is_multiple_of(8);
    payload != 0 && whole_units && offset * 8 + payload <= MOST_DATAGRAM && !(offset == 1 && protocol == l4::TCP)
}

/// A version of IP: how its packets are read.
pub trait Ip: Copy {
    /// An address.
    type Address: Copy + PartialEq;
    /// The protocol number of an encapsulated packet in an outer header.
    const IN_IP: u8;
    /// Bytes of a header without options or extension headers.
    const HEADER: usize;

    /// Parses the packet whose IP header begins at an offset of the frame.
    fn parse(packet: &impl Packet, l3: usize) -> Parsed<Self>;
    /// Parses the fragment whose IP header begins at an offset of the frame: one for which [`Self::parse`] said so.
    ///
    /// # Errors
    /// What else it is: [`Parsed::Malformed`] if it contradicts itself, or is the first one and cuts its transport header.
    fn fragment(packet: &impl Packet, l3: usize) -> Result<Fragment<Self>, Parsed<Self>>;
    /// What fragments of a datagram have in common: a fragment's addresses and protocol, with this number in place of ports.
    #[must_use]
    fn datagram(self, number: u32) -> Self;
    /// The packet's destination, whatever else is wrong with it.
    fn read_destination(packet: &impl Packet, l3: usize) -> Option<Self::Address>;
    /// The packet's source.
    fn read_source(packet: &impl Packet, l3: usize) -> Option<Self::Address>;
    /// Whether an address may be that of a single remote host: neither unspecified, loopback, multicast nor broadcast.
    fn is_remote_host(address: Self::Address) -> bool;
    /// Turns a packet round: its destination becomes its source, and it has all hops before it.
    fn turn(packet: &mut impl Packet, l3: usize);
    /// The packet's length, as its IP header says: read again, since few need it so late.
    fn read_length(packet: &impl Packet, l3: usize) -> Option<u32>;
    /// The traffic class, DSCP in the high six bits and ECN in the low two, of an IP header that begins with these two
    /// bytes, read little-endian.
    fn traffic_class(start: u16) -> u8;
    /// The flow of a packet that an ICMP error quotes, seen from the other side: its source is the quoted packet's destination.
    /// The quoted packet begins at this offset and is cut off at `end` or before. `None` if no ports are left of it.
    fn quoted(packet: &impl Packet, l3: usize, end: usize) -> Option<Self>;
}

#[cfg(test)]
mod tests;
