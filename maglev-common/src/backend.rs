//! Members and their records: everything the packet path needs to send a packet to one backend of one pool.

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::encap::{Encap, EncapKind};
pub use crate::ids::MemberId;
use crate::ids::PoolIndex;
use crate::pod::Word;

/// The next hop of an encapsulated packet, in one word.
///
/// ```text
///  63                                    16 15              0
/// +----------------------------------------+----------------+
/// | next hop's MAC address, little-endian  | interface slot |
/// +----------------------------------------+----------------+
/// ```
///
/// A word of zeroes is a next hop that is not resolved. Beside the word stands the path's own MTU, which is kept in
/// [`MemberState`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop(pub u64, pub PathMtu);

/// The MTU of a path, IP header included, where it may be smaller than the interface's; zero: it has none of its own. It is
/// kept in units of two bytes: of an odd one, one byte is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathMtu(u16);

impl PathMtu {
    /// The interface's MTU alone counts.
    pub const NONE: Self = Self(0);
    /// Thirteen bits: 16,382 bytes, more than any MTU that drivers offer native XDP.
    const MOST: u32 = 0x1fff;

    /// This MTU in bytes. One that is larger than all that fit limits nothing.
    pub const fn new(mtu: u32) -> Self {
        if mtu / 2 > Self::MOST { Self::NONE } else { Self((mtu / 2) as u16) }
    }

    /// In bytes, if the path has its own.
    pub const fn get(self) -> Option<u32> {
        if self.0 == 0 { None } else { Some(self.0 as u32 * 2) }
    }

    /// The smaller of this and the interface's.
    #[inline(always)]
    pub const fn within(self, interface: u32) -> u32 {
        let own = self.0 as u32 * 2;
        if own != 0 && own < interface { own } else { interface }
    }
}

impl NextHop {
    /// No route or no neighbor: packets for the member are dropped and counted.
    pub const UNRESOLVED: Self = Self(0, PathMtu::NONE);

    /// The neighbor with this MAC address behind the interface in this slot.
    pub const fn new(mac: [u8; 6], interface: InterfaceSlot) -> Self {
        Self(mac_word(mac) << 16 | interface.0 as u64, PathMtu::NONE)
    }

    /// The same by a path with its own MTU, if it has one.
    #[must_use]
    pub const fn limited_to(self, mtu: Option<u32>) -> Self {
        match mtu {
            Some(mtu) => Self(self.0, PathMtu::new(mtu)),
            None => self,
        }
    }

    /// The same, if it is resolved, by a path whose MTU is this or less.
    #[must_use]
    pub const fn within(self, mtu: Option<u32>) -> Self {
        match (self, mtu) {
            (Self(word @ 1.., path), Some(mtu)) => Self(word, PathMtu::new(path.within(mtu))),
            _ => self,
        }
    }

    /// The same neighbor, behind the same interface in another slot.
    #[must_use]
    pub const fn moved_to(self, slot: InterfaceSlot) -> Self {
        Self(self.mac() << 16 | slot.0 as u64, self.1)
    }

    /// The MAC address in the low 48 bits.
    #[inline(always)]
    pub const fn mac(self) -> u64 {
        self.0 >> 16
    }

    /// The outgoing interface.
    #[inline(always)]
    pub const fn interface(self) -> InterfaceSlot {
        InterfaceSlot(self.0 as u16)
    }

    /// Whether there is a neighbor to send to.
    #[inline(always)]
    pub const fn is_resolved(self) -> bool {
        self.0 != 0
    }
}

/// A MAC address as the 48 low bits of a little-endian word.
pub const fn mac_word(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// The position of an interface in the device map and in the map of interface records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceSlot(pub u16);

/// MAC addresses beside its own that an interface can be given.
pub const MAX_ALSO: usize = 4;

/// The VLAN tag of frames that are sent on an interface: the four bytes between MAC addresses and EtherType, read little-endian.
/// Priority and drop eligibility are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag(pub u32);

impl Tag {
    /// The frames are sent without a tag.
    pub const NONE: Self = Self(0);

    /// The tag of a VLAN, by the EtherType that announces it (0x8100, 0x88a8) and the VLAN's number of twelve bits.
    pub const fn new(protocol: u16, vlan: u16) -> Self {
        let ([a, b], [c, d]) = (protocol.to_be_bytes(), (vlan & 0xfff).to_be_bytes());
        Self(u32::from_le_bytes([a, b, c, d]))
    }

    /// Whether there is one.
    #[inline(always)]
    pub const fn exists(self) -> bool {
        self.0 != 0
    }

    /// The EtherType that announces it.
    #[inline(always)]
    pub const fn protocol(self) -> u16 {
        (self.0 as u16).swap_bytes()
    }

    /// The VLAN's number.
    #[inline(always)]
    pub const fn vlan(self) -> u16 {
        ((self.0 >> 16) as u16).swap_bytes()
    }
}

/// An interface that packets are received and sent on: the input of templates, and which frames are for this node. That of a
/// VLAN device has the device's MAC address, and the index of the interface that carries its frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct InterfaceRecord {
    /// The interface's own MAC address in the low 48 bits.
    pub mac: Word,
    /// The interface index in the low half; its MTU in bytes (IP header included) above; the sign is set if the program
    /// is attached to no other interface.
    pub index_mtu: Word,
    /// Further MAC addresses whose frames are for this node, laid out like `mac`; 0 for none.
    pub also: [Word; MAX_ALSO],
    /// [`Tag`].
    pub tag: Word,
    /// Fills the line.
    pub reserved: Word,
}

impl InterfaceRecord {
    const ALONE: u64 = 1 << 63;

    /// A record for an interface.
    pub const fn new(mac: [u8; 6], ifindex: u32, mtu: u32) -> Self {
        Self {
            mac: Word::new(mac_word(mac)),
            index_mtu: Word::new(ifindex as u64 | (mtu as u64) << 32),
            also: [const { Word::new(0) }; MAX_ALSO],
            tag: Word::new(0),
            reserved: Word::new(0),
        }
    }

    /// The same, of a VLAN device: `ifindex` is that of the interface which carries its frames, `mtu` the smaller of both.
    #[must_use]
    pub fn tagged(self, tag: Tag) -> Self {
        self.tag.set(u64::from(tag.0));
        self
    }

    /// The tag of frames that are sent on it.
    #[inline(always)]
    pub fn tag(&self) -> Tag {
        Tag(self.tag.get() as u32)
    }

    /// The same, of an interface that takes frames to these MAC addresses too: at most [`MAX_ALSO`], of which none is
    /// 00:00:00:00:00:00.
    #[must_use]
    pub fn with_also(self, macs: &[[u8; 6]]) -> Self {
        self.also.iter().zip(macs).for_each(|(word, mac)| word.set(mac_word(*mac)));
        self
    }

    /// The same, of the only interface the program is attached to: every packet comes in by it.
    #[must_use]
    pub fn alone(self) -> Self {
        self.index_mtu.set(self.index_mtu.get() | Self::ALONE);
        self
    }

    /// Whether the program is attached to no other interface.
    pub fn is_alone(&self) -> bool {
        self.index_mtu.get() & Self::ALONE != 0
    }

    /// Whether a packet that came in by an interface came in by this one, or by that which carries its frames.
    #[inline(always)]
    pub fn is_ingress(&self, ingress: impl FnOnce() -> u32) -> bool {
        self.is_alone() || self.index() == ingress()
    }

    /// Whether frames to a MAC address, in the low 48 bits, are for this node if they come in by this interface.
    #[inline(always)]
    pub fn owns(&self, mac: u64) -> bool {
        let [a, b, c, d] = &self.also;
        mac != 0 && [&self.mac, a, b, c, d].iter().any(|own| own.get() == mac)
    }

    /// The interface index.
    #[inline(always)]
    pub fn index(&self) -> u32 {
        self.index_mtu.get() as u32
    }

    /// The MTU in bytes, IP header included.
    pub fn mtu(&self) -> u32 {
        ((self.index_mtu.get() & !Self::ALONE) >> 32) as u32
    }

    /// Takes over another record.
    pub fn set(&self, new: &Self) {
        let Self { mac, index_mtu, also, tag, reserved: _ } = new;
        self.tag.set(tag.get());
        self.mac.set(mac.get());
        self.index_mtu.set(index_mtu.get());
        self.also.iter().zip(also).for_each(|(to, from)| to.set(from.get()));
    }
}

/// The state word of a member's record.
///
/// ```text
///  63    62  48 47                32 31           16 15        3 2        1        0
/// +-----+------+--------------------+---------------+-----------+--------+--------+-------+
/// | gue | 0    | partial checksum   | pool index    | path MTU  | member | v6     | alive |
/// +-----+------+--------------------+---------------+-----------+--------+--------+-------+
/// ```
///
/// *gue*: the [`EncapKind`]. *v6*: the outer IP header is IPv6. *member*: bit 2, set as long as the id has a member, dead or alive. A word of zeroes is an id without one: nothing is sent
/// to it, health checks included.
///
/// The partial checksum is the ones' complement sum (RFC 1071) of all words of the outer IPv4 header that are the same
/// for each packet: version, IHL and a TOS of 0 (0x45 0x00), DF (0x40 0x00), TTL 64 with protocol 0 (0x40 0x00), the
/// source with its host bits zero, and the destination. The packet path adds TOS, total length, protocol and the
/// source's host bits. Each word is two bytes of the header in network order read as a little-endian number,
/// `u16::from_le_bytes([byte0, byte1])`, and the sum is folded to 16 bits: sums in ones' complement commute with the
/// byte order, so the complement is stored the same way. It is 0 where the outer header is IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberState(pub u64);

impl MemberState {
    const ALIVE: u64 = 1;
    const OUTER_V6: u64 = 2;
    const PATH_MTU: u64 = 0xfff8;
    const MEMBER: u64 = 4;
    const GUE: u64 = 1 << 63;

    /// The id has no member, or no longer has one.
    pub const NONE: Self = Self(0);

    /// A living member of this pool.
    pub const fn alive(pool: PoolIndex, encap: Encap, partial_checksum: u16) -> Self {
        let family = if encap.is_outer_v6() { Self::OUTER_V6 } else { 0 };
        Self(Self::ALIVE | Self::MEMBER | family | (pool.0 as u64) << 16 | (partial_checksum as u64) << 32)
            .with_encap_kind(encap.kind())
    }

    /// The same member with packets encapsulated so.
    #[must_use]
    pub const fn with_encap_kind(self, kind: EncapKind) -> Self {
        match kind {
            EncapKind::IpIp => Self(self.0 & !Self::GUE),
            EncapKind::Gue => Self(self.0 | Self::GUE),
        }
    }

    /// The same member by a path with this MTU.
    #[must_use]
    pub const fn with_path_mtu(self, mtu: PathMtu) -> Self {
        Self(self.0 & !Self::PATH_MTU | (mtu.0 as u64) << 3)
    }

    /// The path's own MTU.
    #[inline(always)]
    pub const fn path_mtu(self) -> PathMtu {
        PathMtu((self.0 & Self::PATH_MTU) as u16 >> 3)
    }

    /// The same member, dead: flow entries that name it are ignored from now on.
    pub const fn dead(self) -> Self {
        Self(self.0 & !Self::ALIVE)
    }

    /// The same member, alive.
    pub const fn living(self) -> Self {
        Self(self.0 | Self::ALIVE)
    }

    /// Whether the id has a member, dead or alive.
    #[inline(always)]
    pub const fn is_member(self) -> bool {
        self.0 & Self::MEMBER != 0
    }

    /// Whether flows may go to the member.
    #[inline(always)]
    pub const fn is_alive(self) -> bool {
        self.0 & Self::ALIVE != 0
    }

    /// Whether this is a living member of `pool`: what makes a flow entry count.
    #[inline(always)]
    pub const fn serves(self, pool: PoolIndex) -> bool {
        self.0 as u32 & (0xffff_0000 | Self::ALIVE as u32) == (pool.0 as u32) << 16 | Self::ALIVE as u32
    }

    /// The pool the member belongs to.
    #[inline(always)]
    pub const fn pool(self) -> PoolIndex {
        PoolIndex((self.0 >> 16) as u16)
    }

    /// How packets for the member are encapsulated.
    #[inline(always)]
    pub const fn encap(self) -> Encap {
        let kind = if self.0 & Self::GUE == 0 { EncapKind::IpIp } else { EncapKind::Gue };
        Encap::new(kind, self.0 & Self::OUTER_V6 != 0)
    }

    /// The constant part of the outer IPv4 header's checksum.
    #[inline(always)]
    pub const fn partial_checksum(self) -> u32 {
        (self.0 >> 32) as u16 as u32
    }
}

/// A member's record: one cache line, as it lies in [`crate::forwarding::Forwarding`].
///
/// It is user space's record of a member; packets are sent by the [`Template`] made of it. `next_hop` and `state` are
/// rewritten in place, each whole. The addresses never change under an id: a backend whose
/// address or outer source changes becomes a new member, so that no packet sees half of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct MemberRecord {
    /// [`NextHop`].
    pub next_hop: Word,
    /// [`MemberState`].
    pub state: Word,
    /// The backend's address, the outer destination: network-order bytes as little-endian words. An IPv4 address
    /// fills the low half of the first word.
    pub destination: [Word; 2],
    /// The outer source with its host bits zero, laid out alike.
    pub source: [Word; 2],
    /// The bits of the outer source that come from the flow hash, laid out alike; zero for a fixed source. Of an IPv4
    /// address only bits of the last two bytes: so the checksum has one word to add.
    pub source_hash_mask: [Word; 2],
}

impl MemberRecord {
    /// What is known of the next hop now.
    #[inline(always)]
    pub fn next_hop(&self) -> NextHop {
        NextHop(self.next_hop.get(), self.state().path_mtu())
    }

    /// Replaces the next hop. How packets are sent changes with the template that is made of it.
    pub fn set_next_hop(&self, NextHop(word, mtu): NextHop) {
        self.next_hop.set(word);
        self.state.set(self.state().with_path_mtu(mtu).0);
    }

    /// Changes what stands between the outer IP header and packets, likewise: one word says it, so no packet sees half of it.
    pub fn set_encap_kind(&self, kind: EncapKind) {
        self.state.set(self.state().with_encap_kind(kind).0);
    }

    /// The member's state now.
    #[inline(always)]
    pub fn state(&self) -> MemberState {
        MemberState(self.state.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_cache_line() {
        assert_eq!(size_of::<MemberRecord>(), 64);
    }

    #[test]
    fn a_next_hop_keeps_mac_and_interface_apart() {
        let hop = NextHop::new([0xff; 6], InterfaceSlot(3));
        assert_eq!((hop.mac(), hop.interface()), (0xffff_ffff_ffff, InterfaceSlot(3)));
        assert!(!NextHop::UNRESOLVED.is_resolved());
    }

    #[test]
    fn only_a_living_member_serves_and_only_its_pool() {
        let state = MemberState::alive(PoolIndex(511), Encap::IpIp6, 0xffff);
        assert!(state.serves(PoolIndex(511)));
        assert!(!state.serves(PoolIndex(510)));
        assert!(!state.dead().serves(PoolIndex(511)));
        assert_eq!(state.dead().living(), state);
        assert_eq!((state.dead().pool(), state.encap()), (PoolIndex(511), Encap::IpIp6));
        assert_eq!(state.partial_checksum(), 0xffff);
    }

    #[test]
    fn the_kind_of_encapsulation_changes_nothing_else() {
        for encap in [Encap::IpIp4, Encap::IpIp6, Encap::Gue4, Encap::Gue6] {
            let state = MemberState::alive(PoolIndex(511), encap, 0xffff).with_path_mtu(PathMtu::new(1_500));
            for kind in [EncapKind::IpIp, EncapKind::Gue] {
                let other = state.with_encap_kind(kind);
                assert_eq!(other.encap(), Encap::new(kind, encap.is_outer_v6()));
                assert!(other.serves(PoolIndex(511)) && other.partial_checksum() == 0xffff);
                assert_eq!(other.with_encap_kind(encap.kind()), state);
            }
        }
    }

    #[test]
    fn a_paths_mtu_stands_beside_the_rest_of_the_state() {
        let state = MemberState::alive(PoolIndex(511), Encap::IpIp6, 0xffff);
        for mtu in [PathMtu::NONE, PathMtu::new(1_500), PathMtu::new(16_382)] {
            let with = state.with_path_mtu(PathMtu::new(2)).with_path_mtu(mtu);
            assert_eq!((with.path_mtu(), with.with_path_mtu(PathMtu::NONE)), (mtu, state));
            assert!(with.serves(PoolIndex(511)) && with.encap() == Encap::IpIp6 && with.partial_checksum() == 0xffff);
        }
        let hop = NextHop::new([2, 0, 0, 0, 0, 9], InterfaceSlot(0));
        let named = |hop: NextHop, mtu| hop.within(mtu).1.within(1_500);
        assert_eq!([Some(1_400), Some(1_600), None].map(|mtu| named(hop, mtu)), [1_400, 1_500, 1_500]);
        let narrow = hop.limited_to(Some(1_300));
        assert_eq!([Some(1_400), Some(1_200), None].map(|mtu| named(narrow, mtu)), [1_300, 1_200, 1_300]);
        assert_eq!(NextHop::UNRESOLVED.within(Some(1_400)), NextHop::UNRESOLVED);
        let within = |mtu| PathMtu::new(mtu).within(1_500);
        assert_eq!([0, 1_401, 1_600, 16_384].map(within), [1_500, 1_400, 1_500, 1_500]);
    }

    #[test]
    fn an_id_has_a_member_until_its_state_is_cleared_dead_or_alive() {
        let state = MemberState::alive(PoolIndex(0), Encap::IpIp4, 0);
        assert!(state.is_member() && state.dead().is_member());
        assert!(!MemberState::NONE.is_member() && !MemberState::NONE.is_alive());
    }

    #[test]
    fn an_interface_owns_its_mac_address_and_those_it_was_given() {
        assert_eq!(size_of::<InterfaceRecord>(), 64);
        let (own, virtual_router) = ([2, 0, 0, 0, 0, 1], [0, 0, 0x5e, 0, 1, 7]);
        let record = InterfaceRecord::new(own, 7, 1_500).with_also(&[virtual_router]);
        assert!(record.owns(mac_word(own)) && record.owns(mac_word(virtual_router)));
        for other in [[2, 0, 0, 0, 0, 2], [0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0; 6]] {
            assert!(!record.owns(mac_word(other)), "{other:x?}");
        }
        assert!(!InterfaceRecord::default().owns(0));
    }

    #[test]
    fn a_tag_is_four_bytes_of_a_frame() {
        let tag = Tag::new(0x88a8, 0xabc);
        assert_eq!(tag.0.to_le_bytes(), [0x88, 0xa8, 0x0a, 0xbc]);
        assert_eq!((tag.protocol(), tag.vlan()), (0x88a8, 0xabc));
        assert!(Tag::new(0x8100, 0).exists() && !Tag::NONE.exists(), "VLAN 0 is a tag too");
        assert_eq!(Tag::new(0x8100, 0xffff), Tag::new(0x8100, 0xfff));
    }

    #[test]
    fn ids_are_fifteen_bits() {
        assert_eq!(MemberId::new(0), None);
        assert_eq!(MemberId::new(32_768), None);
        assert_eq!(MemberId::from_low_bits(0xffff).get(), MemberId::MAX);
    }
}
