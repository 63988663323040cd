//! Headers, one page each: offsets, accessors, and parsers that yield values which cannot be wrong. A parser reports what it
//! found; the verdict and its counter are the path's decision.

pub mod eth;
pub mod ipv4;
pub mod ipv6;
pub mod l4;
pub mod plain;

use crate::env::Packet;

/// What a parser found where an IP packet should begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// A packet of a flow: TCP or UDP, whole.
    Flow(Inner<T>),
    /// An ICMP or ICMPv6 message.
    Icmp,
    /// A fragment, the first or a later one.
    Fragment,
    /// An IPv4 header with options.
    Options,
    /// An IPv6 extension header other than a fragment's.
    ExtensionHeader,
    /// A packet of another transport protocol.
    OtherProtocol,
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

impl<T> Inner<T> {
    /// The length of a frame that carries this packet, if all in front of the packet is an Ethernet header without tags. `frame` is
    /// the length as it came in.
    #[inline(always)]
    pub fn untagged(&self, frame: usize) -> usize {
        frame - (self.l3 - eth::HEADER)
    }
}

/// A version of IP: how its packets are read.
pub trait Ip: Copy {
    /// An address.
    type Address: Copy;
    /// The protocol number of an encapsulated packet in an outer header.
    const IN_IP: u8;

    /// Parses the packet whose IP header begins at an offset of the frame.
    fn parse(packet: &impl Packet, l3: usize) -> Parsed<Self>;
    /// The packet's destination, whatever else is wrong with it.
    fn read_destination(packet: &impl Packet, l3: usize) -> Option<Self::Address>;
    /// The packet's length, as its IP header says: read again, since few need it so late.
    fn read_length(packet: &impl Packet, l3: usize) -> Option<u32>;
    /// The traffic class, DSCP in the high six bits and ECN in the low two, of an IP header that begins with these two
    /// bytes, read little-endian.
    fn traffic_class(start: u16) -> u8;
}

#[cfg(test)]
mod tests;
