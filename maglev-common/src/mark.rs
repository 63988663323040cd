//! The mark of a health check's packets, from which the program at an interface's egress learns their member.

use crate::backend::MemberId;

/// The mark of a socket whose packets are encapsulated for one member.
///
/// ```text
///  31                              15 14              0
/// +----------------------------------+-----------------+
/// | 0x4d41_0000 ("MA")               | member          |
/// +----------------------------------+-----------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(pub u32);

impl Mark {
    /// The high bits of every mark of ours and of no other.
    pub const PREFIX: u32 = 0x4d41_0000;
    /// Which bits these are.
    pub const MASK: u32 = !(MemberId::MAX as u32);

    /// The mark of packets for a member.
    pub const fn from_member(member: MemberId) -> Self {
        Self(Self::PREFIX | member.get() as u32)
    }

    /// The member that packets with this mark are for, if it is one of ours.
    #[inline(always)]
    pub const fn member(self) -> Option<MemberId> {
        if self.0 & Self::MASK == Self::PREFIX { MemberId::new((self.0 & !Self::MASK) as u16) } else { None }
    }
}

// The prefix leaves the member's bits alone.
const _: () = assert!(Mark::PREFIX & !Mark::MASK == 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_its_member_and_other_marks_nobody() {
        for id in [1, 77, MemberId::MAX] {
            let member = MemberId::new(id).unwrap();
            assert_eq!(Mark::from_member(member).member(), Some(member));
        }
        // No mark, the mark of id 0, a container network's, one bit off.
        for other in [0, Mark::PREFIX, 0x0200_0001, 0x4d41_8001, 0x4d40_0001] {
            assert_eq!(Mark(other).member(), None, "{other:#x}");
        }
    }
}
