//! The bytes of a packet.

use super::Chain;
use maglev_common::backend::{MemberRecord, Tag};
use maglev_common::template::Template;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A header as it lies in a packet: any bytes are one, at any address.
pub trait Header: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned {}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned> Header for T {}

/// What an outer header takes from the packet and its flow.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// Protocol number of the packet inside: 4 for IPv4, 41 for IPv6.
    pub protocol: u8,
    /// Where in the frame its IP header begins: what stands in front of it is replaced.
    pub l3: usize,
    /// The inner packet's length in bytes.
    pub length: u32,
    /// The flow hash, from which a source prefix takes its host bits and IPv6 its flow label.
    pub hash: u64,
}

/// The bytes of one packet, from its Ethernet header on.
pub trait Packet {
    /// Bytes in the packet.
    fn len(&self) -> usize;

    /// Whether the packet has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it has at least so many bytes: cheaper to ask than its length.
    fn reaches(&self, length: usize) -> bool {
        length <= self.len()
    }

    /// The header at an offset, unless the packet ends before the header does, or its first piece.
    fn view<T: Header>(&self, offset: usize) -> Option<&T>;

    /// The same, to write to.
    fn view_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T>;

    /// Follows the IPv6 extension headers that begin at an offset: `packet::ipv6::follow`. In the kernel, a function of its own, so
    /// that its turns take no room on the stack of others.
    fn follow(&self, start: usize, length: usize, first: u8, quoted: bool) -> Chain;

    /// Adds bytes of unspecified content in front of the packet. On failure the packet is as before.
    #[must_use]
    fn grow(&mut self, bytes: usize) -> bool;

    /// Removes bytes from the front of the packet. On failure the packet is as before.
    #[must_use]
    fn shrink(&mut self, bytes: usize) -> bool;

    /// `encap::gue::encapsulate`. In the kernel, a function of its own, so that it takes no registers from packets that are given
    /// an outer IP header alone.
    #[must_use]
    fn encapsulate_in_gue(&mut self, outer: Outer, template: &Template, record: &MemberRecord) -> bool;

    /// Cuts the packet off at this length, which is less than it has. On failure the packet is as before.
    #[must_use]
    fn trim(&mut self, length: usize) -> bool;
}

/// An outgoing packet, which may have a VLAN tag beside its bytes: network cards insert it.
pub trait Tagged: Packet {
    /// Removes the outermost tag, if there is one, wherever it stands. On failure the packet is as before.
    #[must_use]
    fn remove_tag(&mut self) -> bool;

    /// Gives a packet without tags a tag. On failure the packet is as before.
    #[must_use]
    fn add_tag(&mut self, tag: Tag) -> bool;
}
