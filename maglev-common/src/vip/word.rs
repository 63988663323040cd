//! What a directory answers: the word of a VIP, of an address or of a prefix.

use crate::ids::{VipId, VipTraffic};
use crate::settings::Unserved;
use crate::table::PoolIndex;

/// A directory's value of a key: of a VIP, or of an address or prefix.
///
/// ```text
///   63     62      61 42  41         34   33       32       31                16  15                  0
/// +-------+--------+-----+-------------+---------+---------+---------------------+---------------------+
/// | reset | silent | 0   | source bits | address | present | pool, or rules      | traffic, or first   |
/// |       |        |     |             |         |         | of the address      | of these rules      |
/// +-------+--------+-----+-------------+---------+---------+---------------------+---------------------+
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipWord(pub u64);

impl VipWord {
    const PRESENT: u64 = 1 << 32;
    const ADDRESS: u64 = 1 << 33;
    /// Where the bits of the source begin.
    const SOURCE: u32 = 34;
    const SILENT: u64 = 1 << 62;
    const RESET: u64 = 1 << 63;

    /// A VIP served by a pool.
    pub const fn vip(vip: VipId, pool: PoolIndex) -> Self {
        Self(Self::PRESENT | (pool.0 as u64) << 16 | VipTraffic::new(vip).0 as u64)
    }

    /// The mark that an address belongs to some VIP, and no rule.
    pub const ADDRESS_IN_USE: Self = Self::address(0, 0);

    /// The mark that an address or prefix belongs to some VIP, with the first of its rules and their number.
    pub const fn address(first: u16, rules: u16) -> Self {
        Self(Self::PRESENT | Self::ADDRESS).with_rules(first, rules)
    }

    /// The same word of an address or prefix, with the first of its rules and their number.
    #[must_use]
    pub const fn with_rules(self, first: u16, rules: u16) -> Self {
        Self(self.0 & !0xffff_ffff | (rules as u64) << 16 | first as u64)
    }

    /// Whether it is that of an address or prefix, not a VIP's.
    #[inline(always)]
    pub const fn is_address(self) -> bool {
        self.0 & Self::ADDRESS != 0
    }

    /// The same word of a VIP whose flows find their slots by so many bits of their source address: at least 1.
    #[must_use]
    pub const fn by_source(self, bits: u8) -> Self {
        Self(self.0 & !(0xff << Self::SOURCE) | (bits as u64) << Self::SOURCE)
    }

    /// The bits of a source address by which the VIP's flows find their slots; 0 if by all that identifies a flow.
    #[inline(always)]
    pub const fn source_bits(self) -> u8 {
        (self.0 >> Self::SOURCE) as u8
    }

    /// The same word, with this handling of packets that no backend can be given.
    #[must_use]
    pub const fn with_unserved(self, unserved: Unserved) -> Self {
        match unserved {
            Unserved::Drop => Self(self.0 & !Self::RESET),
            Unserved::Reset => Self(self.0 | Self::RESET),
        }
    }

    /// The same word of an address whose echo requests are not answered.
    #[must_use]
    pub const fn silent(self) -> Self {
        Self(self.0 | Self::SILENT)
    }

    /// The handling of packets that no backend can be given.
    #[inline(always)]
    pub const fn unserved(self) -> Unserved {
        if (self.0 as i64) < 0 { Unserved::Reset } else { Unserved::Drop }
    }

    /// Whether echo requests to the address are left unanswered.
    #[inline(always)]
    pub const fn is_silent(self) -> bool {
        self.0 & Self::SILENT != 0
    }

    /// Whether the key exists at all.
    #[inline(always)]
    pub const fn is_present(self) -> bool {
        self.0 != 0
    }

    /// The VIP's number.
    #[inline(always)]
    pub const fn id(self) -> VipId {
        self.traffic().vip()
    }

    /// Where the VIP's traffic is counted.
    #[inline(always)]
    pub const fn traffic(self) -> VipTraffic {
        VipTraffic(self.0 as u16)
    }

    /// The pool that serves the VIP.
    #[inline(always)]
    pub const fn pool(self) -> PoolIndex {
        PoolIndex((self.0 >> 16) as u16)
    }
}
