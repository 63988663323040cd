//! The numbers of members, pools and VIPs, by which the words of maps name them.

use crate::maps::{MAX_MEMBERS, MAX_VIPS};

/// A backend in a pool, by number: 1…32,767, node-wide. 0 is no member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(u32);

impl MemberId {
    /// The id no member has.
    pub const NOBODY: Self = Self(0);
    /// The largest id: fifteen bits, as slots and flow entries keep them.
    pub const MAX: u16 = 0x7fff;

    /// The member with this number, if it is one (1…32,767).
    pub const fn new(id: u16) -> Option<Self> {
        if id == 0 || id > Self::MAX { None } else { Some(Self(id as u32)) }
    }

    /// The id in the low fifteen bits of a slot word or a flow entry.
    #[inline(always)]
    pub const fn from_low_bits(bits: u16) -> Self {
        Self((bits & Self::MAX) as u32)
    }

    /// The number.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        self.0 as u16
    }

    /// The number, as the index that it is.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Whether this is no member.
    #[inline(always)]
    pub const fn is_nobody(self) -> bool {
        self.0 == 0
    }
}

/// The index of a pool in the map of pool words, below [`crate::maps::MAX_POOLS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolIndex(pub u16);

/// A VIP by number, below [`crate::maps::MAX_VIPS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipId(pub u16);

/// Where a VIP's traffic is counted: so many entries behind the member of id 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VipTraffic(pub u16);

impl VipTraffic {
    /// That of the VIP with this number.
    #[inline(always)]
    pub const fn new(VipId(vip): VipId) -> Self {
        Self((MAX_MEMBERS as u16 + 1) | vip)
    }

    /// The VIP's number.
    #[inline(always)]
    pub const fn vip(self) -> VipId {
        VipId(self.0 & (MAX_VIPS as u16 - 1))
    }
}
