//! Everything the packet path decides by, except flows: one value of one map, so that one look-up finds all of it and
//! the rest is arithmetic.

use core::mem::offset_of;

use zerocopy::{FromBytes, KnownLayout};

use crate::backend::{InterfaceRecord, InterfaceSlot, MemberId, MemberRecord};
use crate::hash::{HashKey, KEY_WORDS, KeyWords};
use crate::maps::{MAX_INTERFACES, MAX_MEMBERS, MAX_POOLS, SPARE_TABLES};
use crate::pod::{Short, Word};
use crate::table::{PADDED_SLOTS, PoolIndex, PoolWord};
use crate::template::Template;
use crate::vip::{Annex, Directory4, Directory6, DirectoryWord, Index, Key4, Key6, Switch};

/// Ids a member can have, the reserved 0 included: all that fifteen bits can name.
pub const MEMBER_IDS: usize = MAX_MEMBERS as usize + 1;

/// The most tables that a node can have.
pub const TABLES: usize = (MAX_POOLS + SPARE_TABLES) as usize;

/// A table as it lies in memory: a [`SlotWord`] per slot, and padding.
pub type Table = [Short; PADDED_SLOTS];

const POOLS: usize = MAX_POOLS as usize;
const INTERFACES: usize = MAX_INTERFACES as usize;

/// Words of [`Forwarding::own_macs`]: as many as there were in two words for each interface.
const OWN_MACS: usize = 2 * INTERFACES;

// Indices are masked rather than compared: what cannot be out of range costs no branch.
const _: () = assert!(MEMBER_IDS.is_power_of_two() && POOLS.is_power_of_two() && INTERFACES.is_power_of_two());
const _: () = assert!(OWN_MACS.is_power_of_two());

/// Where in the map's value the tables begin, in bytes: as many as the node has pools for, and spare ones. So they are no part of
/// [`Forwarding`]. The offset is one at which memory can be mapped, whatever the size of a page.
pub const TABLES_OFFSET: usize = size_of::<Forwarding>().next_multiple_of(1 << 16);

/// Bytes of the map's value with so many tables.
pub const fn value_size(tables: u32) -> usize {
    TABLES_OFFSET + tables as usize * size_of::<Table>()
}

// The verifier takes no offset beyond this one.
const _: () = assert!(value_size(TABLES as u32) < 1 << 29);

/// What user space publishes and the packet path reads, but for tables; no program writes to it.
///
/// All of it is zero at first: no VIPs, no live members. The fields that each packet reads first come first: an instruction's offset
/// reaches 32 KiB.
#[derive(Debug, FromBytes, KnownLayout)]
#[repr(C)]
pub struct Forwarding {
    /// Which directories are in use.
    pub switch: Switch,
    /// Seconds for which a confirmed flow entry that nothing renews is kept: the longest that any pool asks for.
    longest_idle: Word,
    /// The [`OwnMac`] that all of [`Self::own_macs`] hold, or that of no frame if they differ: a node with one interface need not
    /// check on which interface a frame arrives.
    pub only_mac: Word,
    /// The key of the flow hash. Written before a program reads it, and never changed.
    hash_key: [Word; KEY_WORDS],
    /// From this jiffy on the daemon counts as gone; 0: it never does. Read by programs with a watchdog alone.
    pub deadline: Word,
    /// Fills the line.
    pub reserved: [Word; 6],
    /// A [`PoolWord`] per pool.
    pub pools: [Word; POOLS],
    /// An [`OwnMac`] by the low bits of the index of the interface that a frame comes in by: what plain packets are
    /// compared with.
    pub own_macs: [Word; OWN_MACS],
    /// Two directories of IPv4 VIPs: one is in use while the other is built.
    pub directories4: [Directory4; 2],
    /// The same for IPv6.
    pub directories6: [Directory6; 2],
    /// What the IPv4 directories have beside their entries.
    pub annexes4: [Annex; 2],
    /// The same for IPv6.
    pub annexes6: [Annex; 2],
    /// A template per member id; that of id 0 stays zero.
    pub templates: [Template; MEMBER_IDS],
    /// A record per member id, likewise.
    pub members: [MemberRecord; MEMBER_IDS],
    /// A record per interface slot.
    pub interfaces: [InterfaceRecord; INTERFACES],
    /// Seconds per pool for which an entry that nothing renews binds its flow. Only slots in transition read them.
    idles: [Word; POOLS],
}

/// A MAC address as it begins a frame: in the high 48 bits of a word, the frame's first eight bytes shifted by sixteen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnMac(pub u64);

impl OwnMac {
    /// The address of no frame: its low bits are not zero.
    pub const NONE: Self = Self(1);

    /// The MAC address in the low 48 bits of a word.
    #[inline(always)]
    pub const fn new(mac: u64) -> Self {
        Self(mac << 16)
    }

    /// The destination of a frame that begins with these eight bytes, read little-endian.
    #[inline(always)]
    pub const fn from_frame(start: u64) -> Self {
        Self(start << 16)
    }

    /// The MAC address in the low 48 bits.
    #[inline(always)]
    pub const fn mac(self) -> u64 {
        self.0 >> 16
    }
}

// A template is one cache line: the map's memory begins at a page.
const _: () = assert!(offset_of!(Forwarding, templates).is_multiple_of(64));

impl KeyWords for &Forwarding {
    #[inline(always)]
    fn word(self, index: usize) -> u64 {
        self.hash_key[index].get()
    }
}

impl Forwarding {
    /// Takes over the key of the flow hash.
    pub fn set_hash_key(&self, key: HashKey) {
        self.hash_key.iter().zip(key.words()).for_each(|(to, word)| to.set(word));
    }

    /// A pool's word: to be read once per packet.
    #[inline(always)]
    pub fn pool(&self, PoolIndex(pool): PoolIndex) -> PoolWord {
        PoolWord(self.pools[pool as usize & (POOLS - 1)].get())
    }

    /// A member's record.
    #[inline(always)]
    pub fn member(&self, id: MemberId) -> &MemberRecord {
        &self.members[id.index() & (MEMBER_IDS - 1)]
    }

    /// How packets are sent to a member.
    #[inline(always)]
    pub fn template(&self, id: MemberId) -> &Template {
        &self.templates[id.index() & (MEMBER_IDS - 1)]
    }

    /// Makes a member's template anew: to be done when its record changed, or that of its interface.
    pub fn renew(&self, id: MemberId) {
        let member = self.member(id);
        self.template(id).set(&Template::new(member, self.interface(member.next_hop().interface())));
    }

    /// How health checks are sent to a member, dead or alive: worked out anew for each packet, since they are few.
    #[inline(always)]
    pub fn template_of_check(&self, id: MemberId) -> Template {
        let member = self.member(id);
        Template::new_for_check(member, self.interface(member.next_hop().interface()))
    }

    /// The record of the interface in a slot.
    #[inline(always)]
    pub fn interface(&self, InterfaceSlot(slot): InterfaceSlot) -> &InterfaceRecord {
        &self.interfaces[slot as usize & (INTERFACES - 1)]
    }

    /// The address that most frames for this node have that come in by an interface. Another may be for it too: see
    /// [`Self::owns`].
    #[inline(always)]
    pub fn own_mac(&self, ingress: u32) -> OwnMac {
        OwnMac(self.own_macs[ingress as usize & (OWN_MACS - 1)].get())
    }

    /// Whether a frame to a MAC address that comes in by an interface is one of most: see [`Self::own_mac`].
    #[inline(always)]
    pub fn is_own(&self, destination: OwnMac, ingress: impl FnOnce() -> u32) -> bool {
        destination.0 == self.only_mac.get() || destination == self.own_mac(ingress())
    }

    /// Whether frames to a MAC address, in the low 48 bits, are for this node if they come in by an interface: to its own, or that of
    /// a VLAN device on it. One that has no record is part of one that has (a bond's): there, every interface's addresses are.
    #[inline(always)]
    pub fn owns(&self, ingress: u32, mac: u64) -> bool {
        // Loops that carry nothing from turn to turn: the verifier follows each turn once.
        if self.interfaces.iter().any(|record| record.index() == ingress && record.owns(mac)) {
            return ingress != 0;
        }
        if self.interfaces.iter().any(|record| record.index() == ingress) && ingress != 0 {
            return false;
        }
        self.interfaces.iter().any(|record| record.owns(mac))
    }

    /// Takes over the record of an interface, and which frames are for this node by it.
    #[cfg(not(target_arch = "bpf"))]
    pub fn set_interface(&self, slot: usize, record: &InterfaceRecord) {
        if let Some(to) = self.interfaces.get(slot) {
            to.set(record);
        }
        self.only_mac.set(OwnMac::NONE.0);
        for (n, word) in self.own_macs.iter().enumerate() {
            word.set(self.own_mac_for(n).0);
        }
        let [first, others @ ..] = &self.own_macs;
        if others.iter().all(|word| word.get() == first.get()) {
            self.only_mac.set(first.get());
        }
    }

    /// Has frames that come in by a member of an interface (a bond) compared with that interface's address, in the low 48 bits, unless
    /// another interface has the member's word. Until the next [`Self::set_interface`]; without it they are compared at a second look.
    #[cfg(not(target_arch = "bpf"))]
    pub fn set_member_of_interface(&self, index: u32, mac: u64) {
        let n = index as usize & (OWN_MACS - 1);
        let has_word = |record: &InterfaceRecord| record.index() != 0 && record.index() as usize & (OWN_MACS - 1) == n;
        if !self.interfaces.iter().any(has_word) {
            self.own_macs[n].set(OwnMac::new(mac).0);
        }
    }

    /// The address of the interfaces that share a word of [`Self::own_macs`], or of all if none does; of several there is none.
    /// Frames to those of VLAN devices have tags: they are not plain.
    #[cfg(not(target_arch = "bpf"))]
    fn own_mac_for(&self, n: usize) -> OwnMac {
        let known = || self.interfaces.iter().filter(|record| record.index() != 0 && !record.tag().exists());
        let here = |record: &&InterfaceRecord| record.index() as usize & (OWN_MACS - 1) == n;
        let any = known().any(|record| here(&record));
        let mut macs = known().filter(|record| !any || here(record)).map(|record| record.mac.get());
        match macs.next() {
            Some(first) if macs.all(|mac| mac == first) => OwnMac::new(first),
            _ => OwnMac::NONE,
        }
    }

    /// Seconds after which a confirmed flow entry may be evicted by another flow.
    #[inline(always)]
    pub fn longest_idle(&self) -> u16 {
        self.longest_idle.get() as u16
    }

    /// Seconds after which an entry of a pool's flow binds it no more.
    #[inline(always)]
    pub fn idle(&self, PoolIndex(pool): PoolIndex) -> u16 {
        self.idles[pool as usize & (POOLS - 1)].get() as u16
    }

    /// Sets a pool's idle time; 0: it has none. Entries are kept for the longest of all.
    #[cfg(not(target_arch = "bpf"))]
    pub fn set_idle(&self, PoolIndex(pool): PoolIndex, seconds: u16) {
        self.idles[usize::from(pool) & (POOLS - 1)].set(u64::from(seconds));
        let longest = self.idles.iter().map(Word::get).max();
        longest.into_iter().filter(|&seconds| seconds != 0).for_each(|seconds| self.longest_idle.set(seconds));
    }

    /// Keeps confirmed flow entries for so many seconds until a pool has an idle time.
    #[cfg(not(target_arch = "bpf"))]
    pub fn set_first_idle(&self, seconds: u16) {
        if self.longest_idle.get() == 0 {
            self.longest_idle.set(u64::from(seconds));
        }
    }

    /// The IPv4 directory in use.
    #[inline(always)]
    pub fn directory4(&self) -> Index<'_, Key4> {
        let word = DirectoryWord(self.switch.directory4.get());
        Index { directory: &self.directories4[word.directory()], annexes: &self.annexes4, word }
    }

    /// The IPv6 directory in use.
    #[inline(always)]
    pub fn directory6(&self) -> Index<'_, Key6> {
        let word = DirectoryWord(self.switch.directory6.get());
        Index { directory: &self.directories6[word.directory()], annexes: &self.annexes6, word }
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;
    use crate::backend::{Tag, mac_word};

    const FIRST: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const SECOND: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn forwarding(interfaces: &[InterfaceRecord]) -> std::boxed::Box<Forwarding> {
        let forwarding = Forwarding::new_box_zeroed().unwrap();
        interfaces.iter().enumerate().for_each(|(slot, record)| forwarding.set_interface(slot, record));
        forwarding
    }

    /// Which of the two addresses frames that come in by an interface may have, at a first look and at a second.
    fn owned(forwarding: &Forwarding, ingress: u32) -> ([bool; 2], [bool; 2]) {
        let macs = [FIRST, SECOND].map(mac_word);
        (macs.map(|mac| forwarding.is_own(OwnMac::new(mac), || ingress)), macs.map(|mac| forwarding.owns(ingress, mac)))
    }

    #[test]
    fn each_interface_owns_its_own_address() {
        let both = forwarding(&[InterfaceRecord::new(FIRST, 2, 1_500), InterfaceRecord::new(SECOND, 3, 1_500)]);
        assert_eq!(owned(&both, 2), ([true, false], [true, false]));
        assert_eq!(owned(&both, 3), ([false, true], [false, true]));
        assert_eq!(owned(&both, 4), ([false, false], [true, true]), "a part of one of them");
        both.set_interface(0, &InterfaceRecord::new(SECOND, 2, 1_500));
        assert_eq!(owned(&both, 2), ([false, true], [false, true]), "an address that changed");
    }

    #[test]
    fn interfaces_that_share_a_word_are_told_apart_at_a_second_look() {
        let far = 3 + OWN_MACS as u32;
        let both = forwarding(&[InterfaceRecord::new(FIRST, 3, 1_500), InterfaceRecord::new(SECOND, far, 1_500)]);
        assert_eq!(owned(&both, 3), ([false, false], [true, false]));
        assert_eq!(owned(&both, far), ([false, false], [false, true]));
    }

    #[test]
    fn the_only_interface_owns_its_address_wherever_frames_come_in() {
        let one = forwarding(&[InterfaceRecord::new(FIRST, 2, 1_500).with_also(&[SECOND])]);
        assert_eq!(owned(&one, 77), ([true, false], [true, true]), "as a bond's parts");
        let first = OwnMac::new(mac_word(FIRST));
        assert!(one.is_own(first, || unreachable!("where it comes in is not asked")));
        one.set_interface(1, &InterfaceRecord::new(SECOND, 3, 1_500));
        assert_eq!(owned(&one, 3), ([false, true], [false, true]), "it is the only one no more");
        one.set_interface(1, &InterfaceRecord::default());
        assert!(one.is_own(first, || unreachable!("it is the only one again")));
    }

    #[test]
    fn a_vlan_devices_address_is_owned_on_its_interface_and_changes_nothing_for_plain_frames() {
        let vlan = InterfaceRecord::new(SECOND, 2, 1_500).tagged(Tag::new(0x8100, 100));
        let both = forwarding(&[InterfaceRecord::new(FIRST, 2, 1_500), vlan.clone()]);
        assert_eq!(owned(&both, 2), ([true, false], [true, true]));
        assert!(both.is_own(OwnMac::new(mac_word(FIRST)), || unreachable!("it is the only address of plain frames")));
        both.set_interface(2, &InterfaceRecord::new([2, 0, 0, 0, 0, 3], 3, 1_500));
        assert_eq!(owned(&both, 2), ([true, false], [true, true]));
        assert_eq!(owned(&both, 3), ([false, false], [false, false]), "another interface");
    }

    #[test]
    fn a_bonds_member_has_the_bonds_address_and_takes_no_other_interfaces_word() {
        let both = forwarding(&[InterfaceRecord::new(FIRST, 2, 1_500), InterfaceRecord::new(SECOND, 3, 1_500)]);
        both.set_member_of_interface(4, mac_word(FIRST));
        assert_eq!(owned(&both, 4), ([true, false], [true, true]));
        both.set_member_of_interface(3 + OWN_MACS as u32, mac_word(FIRST));
        assert_eq!(owned(&both, 3), ([false, true], [false, true]));
    }

    #[test]
    fn without_interfaces_no_address_is_owned() {
        let none = forwarding(&[]);
        assert!(!none.owns(2, 0) && !none.owns(0, mac_word(FIRST)));
        none.set_interface(0, &InterfaceRecord::default());
        assert_eq!(none.own_mac(2), OwnMac::NONE);
    }
}
