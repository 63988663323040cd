//! How a packet is sent to a member, worked out beforehand: the words of the outer headers as they are stored.

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

#[cfg(doc)]
use crate::backend::Tag;
use crate::backend::{InterfaceRecord, InterfaceSlot, MemberRecord, MemberState};
use crate::encap::Encap;
use crate::pod::Word;

/// Bytes of an Ethernet header.
const ETHERNET: u64 = 14;
/// EtherTypes as their two network-order bytes read little-endian.
const IPV4: u64 = 0x0008;
const IPV6: u64 = 0xdd86;
/// Version 4, five words of header.
const VERSION_IHL: u64 = 0x45;

/// The exit of packets for a member.
///
/// ```text
///  63      62             32  31   30  29      28             15  14       0
/// +-------+-----------------+---------+--------+----------------+-----------+
/// | alone | interface index | encap   | tagged | interface slot | longest   |
/// +-------+-----------------+---------+--------+----------------+-----------+
/// ```
///
/// *longest*: bytes of the longest frame, Ethernet header and any trailer included, that still fits the MTU of interface and path
/// once it is encapsulated. *encap*: the [`Encap`], in the low half's highest bits, so that one comparison finds the first and
/// another one the second. *alone*: every packet comes in by this interface, so that it need not be checked. *tagged*: frames are sent
/// with the [`Tag`] of the interface's record; then the high half is zero, so that no packet came in by the same interface, and those
/// that need no tag are not asked for one. A word of zeroes is no exit: no packet is that short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit(pub u64);

impl Exit {
    /// The member is dead, or its next hop is not resolved.
    pub const NONE: Self = Self(0);

    /// The sign. Interface indices are positive numbers of 32 bits with sign.
    const ALONE: u64 = 1 << 63;
    /// Next to the slot's bits.
    const TAGGED: u64 = 1 << 29;
    /// The most that *longest* can say: more than any MTU that drivers offer native XDP.
    const MOST: u64 = 0x7fff;
    /// The interface slot's bits, shifted.
    const SLOT: u16 = 0x3fff;
    /// The low half of an exit with another encapsulation than IP in IP is not below the first; with GUE not below the second, and
    /// over IPv6 not below the third.
    const OTHER: u32 = 1 << 30;
    const GUE: u32 = 2 << 30;
    const GUE6: u32 = 3 << 30;

    fn new(interface: &InterfaceRecord, slot: InterfaceSlot, state: MemberState) -> Self {
        let mtu = u64::from(state.path_mtu().within(interface.mtu()));
        let longest = (mtu + ETHERNET).saturating_sub(state.encap().overhead() as u64).min(Self::MOST);
        let alone = if interface.is_alone() { Self::ALONE } else { 0 };
        let slot = u64::from(slot.0 & Self::SLOT);
        let encap = match state.encap() {
            Encap::IpIp4 => 0,
            Encap::IpIp6 => Self::OTHER,
            Encap::Gue4 => Self::GUE,
            Encap::Gue6 => Self::GUE6,
        };
        let on = if interface.tag().exists() { Self::TAGGED } else { u64::from(interface.index()) << 32 | alone };
        Self(on | slot << 15 | u64::from(encap) | longest)
    }

    /// Whether frames need the tag of the interface's record.
    #[inline(always)]
    pub const fn is_tagged(self) -> bool {
        self.0 & Self::TAGGED != 0
    }

    /// Whether there is an exit.
    #[inline(always)]
    pub const fn exists(self) -> bool {
        self.0 != 0
    }

    /// Whether a frame of this length can be sent on it, once it has an outer header.
    #[inline(always)]
    pub const fn takes(self, frame: usize) -> bool {
        frame as u64 <= self.0 & Self::MOST
    }

    /// Bytes of the longest IP packet that fits.
    #[inline(always)]
    pub const fn longest_packet(self) -> u16 {
        (self.0 & Self::MOST).saturating_sub(ETHERNET) as u16
    }

    /// How packets are encapsulated.
    #[inline(always)]
    pub const fn encap(self) -> Encap {
        match self.0 as u32 {
            0..Self::OTHER => Encap::IpIp4,
            Self::OTHER..Self::GUE => Encap::IpIp6,
            Self::GUE..Self::GUE6 => Encap::Gue4,
            Self::GUE6.. => Encap::Gue6,
        }
    }

    /// The interface's slot.
    #[inline(always)]
    pub const fn slot(self) -> InterfaceSlot {
        InterfaceSlot((self.0 >> 15) as u16 & Self::SLOT)
    }

    /// The interface's index; 0 if frames need a tag.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        (self.0 >> 32) as u32 & i32::MAX as u32
    }

    /// Whether a packet that came in by an interface is sent on the same one.
    #[inline(always)]
    pub fn is_ingress(self, ingress: impl FnOnce() -> u32) -> bool {
        (self.0 as i64) < 0 || (self.0 >> 32) as u32 == ingress()
    }
}

/// All that sending to a member over IPv4 takes: one cache line. Over IPv6, the addresses are taken from its record.
///
/// Made of a member's record and the record of the interface its next hop is on. Both may change while packets are sent:
/// each word is rewritten whole, the exit last, so that a packet sent to an old exit is at worst lost with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Template {
    /// [`Exit`].
    pub exit: Word,
    /// The member's [`MemberState`].
    pub state: Word,
    /// The Ethernet header in a word and three quarters; over IPv4 the outer header's first byte follows.
    pub ethernet: [Word; 2],
    /// Over IPv4: source, host bits zero, in bits 16 to 47; the destination's first two bytes above.
    pub addresses: Word,
    /// Over IPv4: the destination's last two bytes in the low sixteen bits, the partial checksum in the high half.
    pub end: Word,
    /// Over IPv4: which bits of `addresses` come from the flow hash; of the source's last two bytes alone, so that the
    /// checksum has one word to add.
    pub host_mask: Word,
    /// Fills the line.
    pub reserved: Word,
}

impl Template {
    /// The template of a member, whose next hop is on this interface.
    pub fn new(member: &MemberRecord, interface: &InterfaceRecord) -> Self {
        Self::sending(member, interface, member.state().is_alive())
    }

    /// The same for health checks: they are sent to dead members too, since a recovery could not be noticed otherwise.
    #[inline(always)]
    pub fn new_for_check(member: &MemberRecord, interface: &InterfaceRecord) -> Self {
        Self::sending(member, interface, true)
    }

    #[inline(always)]
    fn sending(member: &MemberRecord, interface: &InterfaceRecord, sends: bool) -> Self {
        let (state, next_hop) = (member.state(), member.next_hop());
        let mac = interface.mac.get();
        let sends = sends && next_hop.is_resolved() && interface.index() != 0;
        let exit = if sends { Exit::new(interface, next_hop.interface(), state) } else { Exit::NONE };
        let start = if state.encap().is_outer_v6() { IPV6 << 32 } else { IPV4 << 32 | VERSION_IHL << 48 };
        let [source, destination] = [&member.source, &member.destination].map(|address| address[0].get());
        Self {
            exit: Word::new(exit.0),
            state: Word::new(state.0),
            ethernet: [Word::new(next_hop.mac() | mac << 48), Word::new(mac >> 16 | start)],
            addresses: Word::new((source & 0xffff_ffff) << 16 | destination << 48),
            end: Word::new(destination >> 16 & 0xffff | u64::from(state.partial_checksum()) << 32),
            host_mask: Word::new((member.source_hash_mask[0].get() & 0xffff_0000) << 16),
            reserved: Word::new(0),
        }
    }

    /// Takes over another template.
    pub fn set(&self, new: &Self) {
        let Self { exit, state, ethernet, addresses, end, host_mask, reserved: _ } = new;
        self.ethernet.iter().zip(ethernet).for_each(|(to, from)| to.set(from.get()));
        self.addresses.set(addresses.get());
        self.end.set(end.get());
        self.host_mask.set(host_mask.get());
        self.state.set(state.get());
        self.exit.set(exit.get());
    }

    /// The exit of packets now.
    #[inline(always)]
    pub fn exit(&self) -> Exit {
        Exit(self.exit.get())
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
    use crate::backend::{NextHop, Tag};
    use crate::table::PoolIndex;

    fn member(encap: Encap) -> MemberRecord {
        MemberRecord {
            state: Word::new(MemberState::alive(PoolIndex(3), encap, 0x1234).0),
            next_hop: Word::new(NextHop::new([2, 0, 0, 0, 0, 9], InterfaceSlot(5)).0),
            destination: [Word::new(u64::from(u32::from_le_bytes([10, 0, 1, 11]))), Word::new(0)],
            source: [Word::new(u64::from(u32::from_le_bytes([10, 64, 0, 0]))), Word::new(0)],
            source_hash_mask: [Word::new(u64::from(u32::from_le_bytes([0, 0, 255, 255]))), Word::new(0)],
        }
    }

    fn interface(mtu: u32) -> InterfaceRecord {
        InterfaceRecord::new([2, 0, 0, 0, 0, 1], 7, mtu)
    }

    #[test]
    fn a_template_is_a_cache_line_of_words_as_they_are_stored() {
        assert_eq!(size_of::<Template>(), 64);
        let template = Template::new(&member(Encap::IpIp4), &interface(1_500));
        let bytes: [u8; 16] =
            template.ethernet.clone().map(|word| word.get().to_le_bytes()).concat().try_into().unwrap();
        assert_eq!(bytes, [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0]);
        assert_eq!(template.addresses.get().to_le_bytes(), [0, 0, 10, 64, 0, 0, 10, 0]);
        assert_eq!(template.end.get().to_le_bytes(), [1, 11, 0, 0, 0x34, 0x12, 0, 0]);
        assert_eq!(template.host_mask.get().to_le_bytes(), [0, 0, 0, 0, 255, 255, 0, 0]);
    }

    #[test]
    fn an_exit_takes_what_fits_with_its_outer_header() {
        for (encap, mtu, longest) in [
            (Encap::IpIp4, 1_500, 1_494),
            (Encap::IpIp6, 1_500, 1_474),
            (Encap::Gue4, 1_500, 1_482),
            (Encap::Gue6, 1_500, 1_462),
            (Encap::IpIp4, 65_536, 32_767),
            (Encap::Gue6, 65_536, 32_767),
        ] {
            let exit = Template::new(&member(encap), &interface(mtu)).exit();
            assert!(exit.takes(longest) && !exit.takes(longest + 1), "{encap:?} {mtu}");
            assert_eq!(usize::from(exit.longest_packet()), longest - 14);
            assert_eq!((exit.encap(), exit.slot()), (encap, InterfaceSlot(5)));
            assert!(exit.is_ingress(|| 7) && !exit.is_ingress(|| 8));
            assert_eq!(exit.index(), 7);
        }
    }

    #[test]
    fn the_smaller_mtu_of_interface_and_path_counts() {
        for (path, longest) in [(1_500, 1_494), (9_000, 1_594), (20_000, 1_594)] {
            let member = member(Encap::IpIp4);
            member.set_next_hop(member.next_hop().limited_to(Some(path)));
            for template in
                [Template::new(&member, &interface(1_600)), Template::new_for_check(&member, &interface(1_600))]
            {
                assert!(template.exit().takes(longest) && !template.exit().takes(longest + 1), "{path}");
            }
        }
    }

    #[test]
    fn whoever_is_alone_is_not_asked_where_packets_come_in() {
        let exit = Template::new(&member(Encap::IpIp6), &interface(1_500).alone()).exit();
        assert!(exit.is_ingress(|| unreachable!()) && exit.takes(1_474) && !exit.takes(1_475));
        assert_eq!(exit.index(), 7);
    }

    #[test]
    fn an_exit_with_a_tag_is_never_where_packets_come_in() {
        let vlan = interface(1_496).tagged(Tag::new(0x8100, 100));
        for record in [vlan.clone(), vlan.alone()] {
            let exit = Template::new(&member(Encap::IpIp4), &record).exit();
            assert!(exit.is_tagged() && exit.exists() && !exit.is_ingress(|| 7));
            assert_eq!((exit.slot(), exit.index(), exit.longest_packet()), (InterfaceSlot(5), 0, 1_476));
        }
        assert!(!Template::new(&member(Encap::IpIp4), &interface(1_500)).exit().is_tagged());
    }

    #[test]
    fn the_dead_and_the_unreachable_have_no_exit() {
        let unreachable = member(Encap::IpIp4);
        unreachable.next_hop.set(0);
        let dead = member(Encap::IpIp4);
        dead.state.set(dead.state().dead().0);
        for member in [&unreachable, &dead] {
            let exit = Template::new(member, &interface(1_500)).exit();
            assert!(!exit.exists() && !exit.takes(1));
        }
        let check = |member, interface| Template::new_for_check(member, &interface).exit();
        assert!(!check(&unreachable, interface(1_500)).exists());
        assert!(!check(&dead, InterfaceRecord::default()).exists());
        assert!(check(&dead, interface(1_500)).takes(1_494), "whether it still is dead is what a check asks");
    }
}
