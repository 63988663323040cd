//! The Maglev lookup table and the pool word through which the XDP program finds it.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::ids::MemberId;
pub use crate::ids::PoolIndex;
use crate::settings::{Tracking, UdpPolicy};

/// Slots of a table: a prime, as the permutations of the Maglev paper (§3.4) need it.
pub const SLOTS: usize = 65_537;

/// Table words as they lie in the map: padded to a multiple of eight bytes.
pub const PADDED_SLOTS: usize = 65_540;

/// A slot of a table, below [`SLOTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub(crate) u32);

impl Slot {
    /// The slot with this index, if a table has it.
    pub const fn new(index: u32) -> Option<Self> {
        if index < SLOTS as u32 { Some(Self(index)) } else { None }
    }

    /// The slot's position in the table.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The content of a slot: the owner's member id in 15 bits; bit 15 is set while the slot is in transition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct SlotWord(pub u16);

impl SlotWord {
    /// Bit 15: the owner changed while the old owner is still alive.
    pub const IN_TRANSITION: u16 = 1 << 15;

    /// A settled slot of this owner.
    pub const fn settled(owner: MemberId) -> Self {
        Self(owner.get())
    }

    /// A slot of this owner, in transition.
    pub const fn moving(owner: MemberId) -> Self {
        Self(owner.get() | Self::IN_TRANSITION)
    }

    /// The slot's owner; member id 0 in a table without backends.
    #[inline(always)]
    pub const fn owner(self) -> MemberId {
        MemberId::from_low_bits(self.0)
    }

    /// Whether flows of this slot may belong to a previous owner.
    #[inline(always)]
    pub const fn in_transition(self) -> bool {
        self.0 as u32 & Self::IN_TRANSITION as u32 != 0
    }
}

/// The index of a table in the map of tables.
///
/// Table 0 is never written: none of its slots has an owner, and a pool word of zeroes finds "no backend" by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableIndex(pub u16);

impl TableIndex {
    /// The table in which no slot has an owner.
    pub const EMPTY: Self = Self(0);

    /// Where the table begins.
    pub const fn start(self) -> TableStart {
        TableStart(self.0 as u32 * PADDED_SLOTS as u32)
    }
}

/// Where a table begins: the number of slots before it, padding included. With this the packet path is spared a
/// multiplication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStart(pub u32);

impl TableStart {
    /// Of [`TableIndex::EMPTY`].
    pub const EMPTY: Self = Self(0);

    /// The table that begins here.
    pub const fn table(self) -> TableIndex {
        TableIndex((self.0 / PADDED_SLOTS as u32) as u16)
    }
}

/// One aligned word per pool, read once per packet and stored once per change.
///
/// ```text
///  63       62                    32 31     30                     0
/// +--------+------------------------+------+------------------------+
/// | always | current table          | keep | previous table         |
/// +--------+------------------------+------+------------------------+
/// ```
///
/// *always*: [`Tracking::Always`]. *keep*: [`UdpPolicy::Keep`]. Tables are given as [`TableStart`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolWord(pub u64);

impl PoolWord {
    /// The sign: one comparison tests it.
    const ALWAYS: u64 = 1 << 63;
    const KEEP: u64 = 1 << 31;
    /// Where a table may begin.
    const START: u64 = 0x7fff_ffff;

    /// A pool that uses `current`, and in which no slot is learning.
    pub const fn settled(current: TableIndex) -> Self {
        Self((current.start().0 as u64) << 32)
    }

    /// The same word, of a pool in which slots are learning: their previous owners stand in `previous`.
    #[must_use]
    pub const fn learning(self, previous: TableIndex) -> Self {
        Self(self.0 & !Self::START | previous.start().0 as u64)
    }

    /// The same word, of a pool whose flows are tracked like this.
    #[must_use]
    pub const fn tracked(self, tracking: Tracking, udp: UdpPolicy) -> Self {
        let always = match tracking {
            Tracking::Exception => 0,
            Tracking::Always => Self::ALWAYS,
        };
        let keep = match udp {
            UdpPolicy::New => 0,
            UdpPolicy::Keep => Self::KEEP,
        };
        Self(self.0 & !(Self::ALWAYS | Self::KEEP) | always | keep)
    }

    /// When the flow table is consulted.
    #[inline(always)]
    pub const fn tracking(self) -> Tracking {
        if (self.0 as i64) < 0 { Tracking::Always } else { Tracking::Exception }
    }

    /// The handling of datagrams without an entry in a slot that is learning.
    #[inline(always)]
    pub const fn udp(self) -> UdpPolicy {
        if self.0 & Self::KEEP == 0 { UdpPolicy::New } else { UdpPolicy::Keep }
    }

    /// The table that owns the pool's slots.
    #[inline(always)]
    pub const fn current(self) -> TableStart {
        TableStart((self.0 >> 32 & Self::START) as u32)
    }

    /// The table of previous owners; the empty one if no slot is learning.
    #[inline(always)]
    pub const fn previous(self) -> TableStart {
        TableStart((self.0 & Self::START) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_words_keep_owner_and_transition_apart() {
        let word = SlotWord(SlotWord::IN_TRANSITION | 32_767);
        assert!(word.in_transition());
        assert_eq!(word.owner().get(), 32_767);
        assert!(!SlotWord::settled(word.owner()).in_transition());
    }

    #[test]
    fn a_zero_pool_word_uses_the_empty_table() {
        assert_eq!(PoolWord::default().current().table(), TableIndex::EMPTY);
    }

    #[test]
    fn a_pool_word_keeps_its_parts_apart() {
        let last = TableIndex(crate::forwarding::TABLES as u16 - 1);
        let word = PoolWord::settled(last);
        assert_eq!(word.previous().table(), TableIndex::EMPTY);
        for (tracking, udp) in [(Tracking::Always, UdpPolicy::New), (Tracking::Exception, UdpPolicy::Keep)] {
            let word = word.tracked(tracking, udp).learning(last);
            assert_eq!((word.current().table(), word.previous().table()), (last, last));
            assert_eq!((word.tracking(), word.udp()), (tracking, udp));
        }
    }

    #[test]
    fn the_padded_table_is_a_whole_number_of_words() {
        const { assert!(PADDED_SLOTS >= SLOTS) };
        assert_eq!(PADDED_SLOTS * size_of::<SlotWord>() % 8, 0);
    }
}
