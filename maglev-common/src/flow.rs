//! The flow table's entries and buckets.

use zerocopy::{FromBytes, IntoBytes};

use crate::backend::MemberId;
use crate::pod::Word;
use crate::table::Slot;

/// Ways of a bucket: seven entries and a word of way tags fill one cache line.
pub const WAYS: usize = 7;

// Ways are masked by it.
const _: () = assert!((WAYS + 1).is_power_of_two());

/// The largest number of sets a CPU's flow table can have: the hash keeps 25 bits for them.
pub const MAX_SETS: u32 = 1 << 25;

/// Seconds since some start, modulo 2^16. Ages are differences, so only what is older than half a wrap (9 hours)
/// is ambiguous; user space clears it before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seconds(pub u16);

impl Seconds {
    /// How long ago `earlier` was, seen from now.
    #[inline(always)]
    pub const fn since(self, earlier: Self) -> u16 {
        self.0.wrapping_sub(earlier.0)
    }
}

/// A flow entry: which member a flow goes to, and when it was last seen.
///
/// ```text
///  63             32 31        16 15          14         0
/// +-----------------+------------+-----------+------------+
/// | tag             | last seen  | confirmed | member id  |
/// +-----------------+------------+-----------+------------+
/// ```
///
/// *Confirmed* means seen in two different seconds. Zero is an empty way: no entry names member 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEntry(pub u64);

impl FlowEntry {
    /// An empty way.
    pub const EMPTY: Self = Self(0);

    const CONFIRMED: u64 = 1 << 15;

    /// A new, unconfirmed entry.
    #[inline(always)]
    pub const fn new(tag: u32, member: MemberId, seen: Seconds) -> Self {
        Self((tag as u64) << 32 | (seen.0 as u64) << 16 | member.get() as u64)
    }

    /// The high half of the flow's hash.
    #[inline(always)]
    pub const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// When a packet of the flow was last seen.
    #[inline(always)]
    pub const fn last_seen(self) -> Seconds {
        Seconds((self.0 >> 16) as u16)
    }

    /// Whether the flow was seen in two different seconds.
    #[inline(always)]
    pub const fn is_confirmed(self) -> bool {
        self.0 & Self::CONFIRMED != 0
    }

    /// The member the flow goes to.
    #[inline(always)]
    pub const fn member(self) -> MemberId {
        MemberId::from_low_bits(self.0 as u16)
    }

    /// Whether the way holds nothing.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The slot of the flow: exactly, since the tag names it.
    #[inline(always)]
    pub const fn slot(self) -> Slot {
        Slot::from_tag(self.tag())
    }

    /// Whether it is the entry of a flow with this tag. An empty way's tag may match: it has no member.
    #[inline(always)]
    pub const fn is_of(self, tag: u32) -> bool {
        self.tag() == tag
    }

    /// For how many seconds its flow was silent, and one more, if another flow may take its way: it is unconfirmed, or was silent for
    /// longer than `idle`. Else 0.
    #[inline(always)]
    pub const fn silence(self, now: Seconds, idle: u16) -> u32 {
        if self.is_empty() {
            return u32::MAX;
        }
        // Above, how long ago it was, and one second; below, a bit of an unconfirmed one. There is a member, so that it borrows.
        let spent = ((now.0 as u32 + 2) << 16).wrapping_sub(self.0 as u32);
        let may_go = spent & Self::CONFIRMED as u32 != 0 || spent >> 16 > idle as u32 + 1;
        if may_go { spent >> 16 } else { 0 }
    }

    /// The entry after a packet in another second than the last one.
    #[inline(always)]
    pub const fn seen_again(self, now: Seconds) -> Self {
        Self(self.0 & !(0xffff << 16) | (now.0 as u64) << 16 | Self::CONFIRMED)
    }
}

/// The way tags of a bucket: a byte per way, zero if the way is empty, else bit 7 and the seven tag bits.
///
/// A byte may outlive its entry (user space clears entries alone), so a match is a hint that the entry confirms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WayTags(pub u64);

impl WayTags {
    const OCCUPIED: u8 = 0x80;
    const LOW_BITS: u64 = 0x0101_0101_0101_0101;
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    const ALL_WAYS: u64 = 0x00ff_ffff_ffff_ffff;

    /// The ways whose byte equals this tag: bit 7 of each matching way's byte.
    ///
    /// The subtraction's borrow can mark a way above a true match as well, never hide one: candidates only.
    #[inline(always)]
    pub const fn candidates(self, way_tag: u8) -> u64 {
        let wanted = (way_tag | Self::OCCUPIED) as u64 * Self::LOW_BITS;
        let different = self.0 ^ wanted;
        different.wrapping_sub(Self::LOW_BITS) & !different & Self::HIGH_BITS & Self::ALL_WAYS
    }

    /// The ways that never held a flow: bit 7 of each one's byte.
    #[inline(always)]
    pub const fn empty(self) -> u64 {
        !self.0 & Self::HIGH_BITS & Self::ALL_WAYS
    }

    /// The lowest of the ways that [`Self::candidates`] or [`Self::empty`] returns, of which there is one. Without a branch:
    /// no processor can predict which way it is.
    #[inline(always)]
    pub const fn lowest(ways: u64) -> usize {
        // Byte 7 − n holds n, and multiplying by 256^n brings it to the top.
        const NUMBERS: u64 = 0x0001_0203_0405_0607;
        let lowest = (ways & ways.wrapping_neg()) >> 7;
        (lowest.wrapping_mul(NUMBERS) >> 56) as usize
    }

    /// Whether this way is among [`Self::candidates`] or [`Self::empty`].
    #[inline(always)]
    pub const fn has(candidates: u64, way: usize) -> bool {
        candidates >> (way * 8) & 0x80 != 0
    }

    /// The tag of the flow that `way` took last.
    pub const fn of(self, way: usize) -> u8 {
        (self.0 >> (way * 8)) as u8 & !Self::OCCUPIED
    }

    /// The tags after `way` took a flow with this tag.
    #[inline(always)]
    pub const fn with(self, way: usize, way_tag: u8) -> Self {
        let shift = way * 8;
        Self(self.0 & !(0xff << shift) | ((way_tag | Self::OCCUPIED) as u64) << shift)
    }
}

/// A set of the flow table: one cache line that one CPU writes. Seven entries, [`FlowEntry`] in each, and their
/// [`WayTags`].
#[derive(Debug, Default, FromBytes, IntoBytes)]
#[repr(C, align(64))]
pub struct Bucket([Word; WAYS + 1]);

impl Bucket {
    /// Forgets all flows.
    pub fn clear(&self) {
        self.0.iter().for_each(|word| word.set(0));
    }

    /// The entries.
    pub fn entries(&self) -> &[Word] {
        &self.0[..WAYS]
    }

    /// The entry in a way. The way is masked, not compared: the verifier is to see that no way lies beyond the line.
    #[inline(always)]
    pub fn entry(&self, way: usize) -> FlowEntry {
        FlowEntry(self.0[way & WAYS].get())
    }

    /// The way tags.
    #[inline(always)]
    pub fn tags(&self) -> WayTags {
        WayTags(self.0[WAYS].get())
    }

    /// Puts a flow into a way.
    #[inline(always)]
    pub fn put(&self, way: usize, entry: FlowEntry, way_tag: u8) {
        self.0[WAYS].set(self.tags().with(way, way_tag).0);
        self.renew(way, entry);
    }

    /// Replaces the entry in a way by one of the same flow.
    #[inline(always)]
    pub fn renew(&self, way: usize, entry: FlowEntry) {
        self.0[way & WAYS].set(entry.0);
    }

    /// A copy of its own.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(core::array::from_fn(|n| Word::new(self.0[n].get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!(size_of::<Bucket>(), 64);
        assert_eq!(align_of::<Bucket>(), 64);
    }

    #[test]
    fn an_entry_keeps_its_fields_apart() {
        let member = MemberId::new(32_767).unwrap();
        let entry = FlowEntry::new(u32::MAX, member, Seconds(0xffff));
        assert!(!entry.is_confirmed());
        let again = entry.seen_again(Seconds(3));
        assert_eq!((again.tag(), again.member(), again.last_seen()), (u32::MAX, member, Seconds(3)));
        assert!(again.is_confirmed());
    }

    #[test]
    fn the_silence_of_what_may_go_is_known_by_its_age_and_the_idle_time() {
        let entry = |seen: u16, confirmed: bool| {
            let new = FlowEntry::new(7, MemberId::new(1).unwrap(), Seconds(seen));
            if confirmed { new.seen_again(Seconds(seen)) } else { new }
        };
        for now in [0_u16, 5, 40_000, 65_535] {
            for (age, confirmed, silence) in
                [(0, false, 1), (9, false, 10), (9, true, 0), (10, true, 0), (11, true, 12), (30_000, true, 30_001)]
            {
                let found = entry(now.wrapping_sub(age), confirmed).silence(Seconds(now), 10);
                assert_eq!(found, silence, "{age} s, confirmed {confirmed}, at {now}");
            }
            assert_eq!(FlowEntry::EMPTY.silence(Seconds(now), 10), u32::MAX);
            assert_eq!(entry(now.wrapping_add(1), false).silence(Seconds(now), 10), 0, "seen a moment later");
        }
    }

    #[test]
    fn ages_survive_the_wrap() {
        assert_eq!(Seconds(2).since(Seconds(65_535)), 3);
    }

    proptest! {
        #[test]
        fn no_matching_way_is_hidden(tags in any::<u64>(), way in 0..WAYS, way_tag in 0_u8..128) {
            let tags = WayTags(tags).with(way, way_tag);
            prop_assert!(WayTags::has(tags.candidates(way_tag), way));
            prop_assert_eq!(tags.of(way), way_tag);
        }

        #[test]
        fn a_way_is_empty_until_it_takes_a_flow(ways in prop::collection::btree_set(0..WAYS, 0..WAYS), way_tag in 0_u8..128) {
            let tags = ways.iter().fold(WayTags::default(), |tags, &way| tags.with(way, way_tag));
            for way in 0..WAYS {
                prop_assert_eq!(WayTags::has(tags.empty(), way), !ways.contains(&way));
            }
        }

        #[test]
        fn the_lowest_candidate_always_matches(tags in any::<u64>(), way_tag in 0_u8..128) {
            let candidates = WayTags(tags).candidates(way_tag);
            if candidates != 0 {
                let way = candidates.trailing_zeros() / 8;
                prop_assert_eq!((tags >> (way * 8)) as u8, way_tag | 0x80);
                prop_assert_eq!(WayTags::lowest(candidates), way as usize);
            }
        }
    }
}
