//! The fragment table: where the fragments of a datagram go. Only the first one has ports, so what was decided by it is noted for
//! those that follow it, for a few seconds. All CPUs share it: a router and a card know a later fragment by its addresses alone, and
//! bring it to another CPU than its flow's other packets.

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::backend::MemberId;
use crate::flow::Seconds;
use crate::hash::FlowHash;
use crate::pod::Word;
use crate::vip::VipId;

/// Lines of the table, a power of two: 114,688 datagrams in 1 MiB.
pub const LINES: u32 = 1 << 14;
/// Datagrams that a line holds; a word that says which of them makes room next fills its 64 bytes.
pub const ENTRIES: usize = 7;

/// A datagram, known by a hash over its addresses, protocol and identification, which its fragments have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram(pub FlowHash);

impl Datagram {
    /// Its line.
    #[inline(always)]
    pub const fn line(self) -> u32 {
        self.0.0 as u32 & (LINES - 1)
    }

    /// Its tag: 28 bits that do not choose the line.
    #[inline(always)]
    const fn tag(self) -> u64 {
        self.0.0 >> 36
    }
}

/// What the first fragment of a datagram decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The VIP it is for.
    pub vip: VipId,
    /// The member it went to.
    pub member: MemberId,
}

/// An entry of the table; 0 is none, since it names no member.
///
/// ```text
///  63       36 35    28 27      15 14         0
/// +-----------+--------+----------+------------+
/// | tag       | step   | VIP id   | member id  |
/// +-----------+--------+----------+------------+
/// ```
///
/// *step*: when it was written, in steps of [`STEP_BITS`] bits of seconds, modulo 2^8. It counts in its own step and the next: four
/// to eight seconds. An entry that is as old as all steps, 17 minutes, would count again, but no sender uses an identification
/// again so late that this is not the same as chance.
#[derive(Clone, Copy)]
struct Entry(u64);

/// A step is four seconds.
const STEP_BITS: u32 = 2;
const VIP_BITS: u32 = 13;
const MEMBER_BITS: u32 = 15;
const _: () = assert!(crate::maps::MAX_VIPS <= 1 << VIP_BITS);

impl Entry {
    #[inline(always)]
    const fn new(Datagram(hash): Datagram, now: Seconds, noted: Noted) -> Self {
        let (tag, step) = (Datagram(hash).tag() << 36, (step(now) as u64) << (VIP_BITS + MEMBER_BITS));
        Self(tag | step | (noted.vip.0 as u64) << MEMBER_BITS | noted.member.get() as u64)
    }

    #[inline(always)]
    const fn is_of(self, datagram: Datagram) -> bool {
        self.0 >> 36 == datagram.tag()
    }

    #[inline(always)]
    const fn is_recent(self, now: Seconds) -> bool {
        let written = (self.0 >> (VIP_BITS + MEMBER_BITS)) as u8;
        // One that another CPU wrote a moment ago may be of the step that begins now.
        step(now).wrapping_add(1).wrapping_sub(written) <= 2 && self.0 != 0
    }

    #[inline(always)]
    const fn noted(self) -> Noted {
        let vip = (self.0 >> MEMBER_BITS) as u16 & ((1 << VIP_BITS) - 1);
        Noted { vip: VipId(vip), member: MemberId::from_low_bits(self.0 as u16) }
    }
}

#[inline(always)]
const fn step(Seconds(now): Seconds) -> u8 {
    (now >> STEP_BITS) as u8
}

/// A line of the table. CPUs write to it without locks: if two write at once, one datagram is lost at worst, and its later fragments
/// are dropped.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C, align(64))]
pub struct Line {
    entries: [Word; ENTRIES],
    turns: Word,
}

impl Line {
    /// Forgets all that was noted.
    pub fn clear(&self) {
        self.entries.iter().for_each(|word| word.set(0));
    }

    /// What was noted of a datagram.
    #[inline(always)]
    pub fn find(&self, datagram: Datagram, now: Seconds) -> Option<Noted> {
        for word in &self.entries {
            let entry = Entry(word.get());
            if entry.is_of(datagram) && entry.is_recent(now) {
                return Some(entry.noted());
            }
        }
        None
    }

    /// Notes where a datagram goes: over what was noted of it before, else where nothing recent is, else over each entry in turn.
    #[inline(always)]
    pub fn note(&self, datagram: Datagram, now: Seconds, noted: Noted) {
        let entry = Entry::new(datagram, now, noted).0;
        for word in &self.entries {
            if Entry(word.get()).is_of(datagram) {
                return word.set(entry);
            }
        }
        for word in &self.entries {
            if !Entry(word.get()).is_recent(now) {
                return word.set(entry);
            }
        }
        // In a form in which the verifier knows the bound too.
        let turn = self.turns.get() as usize & 7;
        self.turns.set(if turn + 1 < ENTRIES { turn as u64 + 1 } else { 0 });
        if let Some(word) = self.entries.get(turn) {
            word.set(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn datagram(tag: u64) -> Datagram {
        Datagram(FlowHash(tag << 36 | 5))
    }

    fn to(member: u16) -> Noted {
        Noted { vip: VipId(crate::maps::MAX_VIPS as u16 - 1), member: MemberId::new(member).unwrap() }
    }

    #[test]
    fn a_datagram_is_known_for_four_to_eight_seconds() {
        for (written, lasts) in [(0, 8), (3, 5), (65_534, 6)] {
            let line = Line::default();
            line.note(datagram(9), Seconds(written), to(32_767));
            for later in 0..12_u16 {
                let found = line.find(datagram(9), Seconds(written.wrapping_add(later)));
                assert_eq!(found, (later < lasts).then(|| to(32_767)), "written at {written}, {later} s ago");
            }
            assert_eq!(line.find(datagram(8), Seconds(written)), None);
        }
    }

    #[test]
    fn a_cpu_whose_clock_was_read_a_moment_before_another_ones_knows_its_datagrams() {
        for (now, written) in [(3, 4), (65_535, 0), (1_023, 1_024)] {
            let line = Line::default();
            line.note(datagram(9), Seconds(written), to(1));
            assert_eq!(line.find(datagram(9), Seconds(now)), Some(to(1)), "{written}, read at {now}");
            assert_eq!(line.find(datagram(9), Seconds(now.wrapping_sub(4))), None);
        }
    }

    #[test]
    fn a_line_holds_seven_and_the_oldest_makes_room() {
        let line = Line::default();
        for n in 1..=7 {
            line.note(datagram(n), Seconds(8), to(n as u16));
        }
        assert!((1..=7).all(|n| line.find(datagram(n), Seconds(9)) == Some(to(n as u16))));
        line.note(datagram(8), Seconds(9), to(8));
        assert_eq!([1, 2, 8].map(|n| line.find(datagram(n), Seconds(9)).is_some()), [false, true, true]);
        line.note(datagram(1), Seconds(9), to(1));
        assert_eq!([1, 2, 3].map(|n| line.find(datagram(n), Seconds(9)).is_some()), [true, false, true]);
    }

    #[test]
    fn a_datagram_has_one_entry_and_old_ones_make_room_first() {
        let line = Line::default();
        line.note(datagram(1), Seconds(0), to(1));
        line.note(datagram(2), Seconds(20), to(2));
        line.note(datagram(2), Seconds(21), to(3));
        assert_eq!(line.find(datagram(2), Seconds(21)), Some(to(3)), "the latest counts");
        for n in 3..=8 {
            line.note(datagram(n), Seconds(21), to(4));
        }
        assert!((2..=8).all(|n| line.find(datagram(n), Seconds(21)).is_some()), "all but the one of 20 s ago");
    }

    #[test]
    fn a_line_of_zeroes_knows_nothing() {
        assert_eq!(Line::default().find(datagram(0), Seconds(0)), None);
    }
}
