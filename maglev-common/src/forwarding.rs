//! Everything the packet path decides by, except flows: one value of one map, so that one look-up finds all of it and
//! the rest is arithmetic.

use core::mem::offset_of;

use zerocopy::{FromBytes, KnownLayout};

use crate::backend::{InterfaceRecord, InterfaceSlot, MemberId, MemberRecord};
use crate::maps::{MAX_INTERFACES, MAX_MEMBERS, MAX_POOLS, SPARE_TABLES};
use crate::pod::{Short, Word};
use crate::table::{PADDED_SLOTS, PoolIndex, PoolWord, Slot, SlotWord, TableStart};
use crate::template::Template;
use crate::vip::{Directory4, Directory6, DirectoryWord, Switch};

/// Ids a member can have, nobody's included: all that fifteen bits can name.
pub const MEMBER_IDS: usize = MAX_MEMBERS as usize + 1;

/// Tables there is room for.
pub const TABLES: usize = (MAX_POOLS + SPARE_TABLES) as usize;

/// A table as it lies in memory: a [`SlotWord`] per slot, and padding.
pub type Table = [Short; PADDED_SLOTS];

const POOLS: usize = MAX_POOLS as usize;
const INTERFACES: usize = MAX_INTERFACES as usize;

// Indices are masked rather than compared: what cannot be out of range costs no branch.
const _: () = assert!(MEMBER_IDS.is_power_of_two() && POOLS.is_power_of_two() && INTERFACES.is_power_of_two());

/// What user space publishes and the packet path reads; no program writes to it.
///
/// All of it is zero at first: no VIPs, nobody alive. What each packet reads first stands first: an instruction's offset
/// reaches 32 KiB.
#[derive(Debug, FromBytes, KnownLayout)]
#[repr(C)]
pub struct Forwarding {
    /// Which directories are in use.
    pub switch: Switch,
    /// Seconds for which a confirmed flow entry that nothing renews is kept: the longest that any pool asks for.
    pub idle: Word,
    /// Fills the line.
    pub reserved: [Word; 5],
    /// A [`PoolWord`] per pool.
    pub pools: [Word; POOLS],
    /// A record per interface slot.
    pub interfaces: [InterfaceRecord; INTERFACES],
    /// Two directories of IPv4 VIPs: one is in use while the other is built.
    pub directories4: [Directory4; 2],
    /// The same for IPv6.
    pub directories6: [Directory6; 2],
    /// A template per member id; nobody's stays zero.
    pub templates: [Template; MEMBER_IDS],
    /// A record per member id, likewise.
    pub members: [MemberRecord; MEMBER_IDS],
    /// Tables by index. The first is never written.
    pub tables: [Table; TABLES],
}

// A template is one cache line: the map's memory begins at a page.
const _: () = assert!(offset_of!(Forwarding, templates).is_multiple_of(64));

impl Forwarding {
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
        self.template(id).set(&Template::of(member, self.interface(member.next_hop().interface())));
    }

    /// How health checks are sent to a member, dead or alive: worked out anew for each packet, since they are few.
    #[inline(always)]
    pub fn template_of_check(&self, id: MemberId) -> Template {
        let member = self.member(id);
        Template::of_check(member, self.interface(member.next_hop().interface()))
    }

    #[inline(always)]
    fn interface(&self, InterfaceSlot(slot): InterfaceSlot) -> &InterfaceRecord {
        &self.interfaces[slot as usize & (INTERFACES - 1)]
    }

    /// A slot of a table; a settled slot of nobody if there is no such table.
    #[inline(always)]
    pub fn slot(&self, TableStart(start): TableStart, slot: Slot) -> SlotWord {
        let word = self.tables.as_flattened().get(start as usize + slot.index());
        word.map_or(SlotWord::default(), |word| SlotWord(word.get()))
    }

    /// Seconds after which a confirmed flow entry may give way to another flow.
    #[inline(always)]
    pub fn idle(&self) -> u16 {
        self.idle.get() as u16
    }

    /// The IPv4 directory in use, and its seed.
    #[inline(always)]
    pub fn directory4(&self) -> (&Directory4, u64) {
        let word = DirectoryWord(self.switch.directory4.get());
        (&self.directories4[word.directory()], word.seed())
    }

    /// The IPv6 directory in use, and its seed.
    #[inline(always)]
    pub fn directory6(&self) -> (&Directory6, u64) {
        let word = DirectoryWord(self.switch.directory6.get());
        (&self.directories6[word.directory()], word.seed())
    }
}
