//! Captured packets: the filters that user space writes, what a program notes about the packet in hand, and the records that it
//! returns. Only the program that captures has maps of these.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::backend::MemberId;
use crate::counters::{Allowance, Counter};
use crate::ids::{PoolIndex, VipId};
use crate::pod::Word;

/// Captures that run at once.
pub const CAPTURES: usize = 8;

/// The most bytes that are kept of a packet, one less than a power of two: more than a jumbo frame has.
pub const MOST_KEPT: u32 = (1 << 14) - 1;

/// Bytes of the ring in which records wait for user space: a power of two.
pub const RING_BYTES: u32 = 8 << 20;

/// Bytes in front of the IP header that are kept beside a packet that is encapsulated: an Ethernet header and two bytes of the next.
const LINK_WORDS: usize = 2;

// The number of the only one is masked.
const _: () = assert!(CAPTURES.is_power_of_two());
// A filter names counters by the bits of a word.
const _: () = assert!(Counter::ALL.len() <= 64);

/// A VIP's number, a pool's, a member's and the choice, as a packet's decision names them.
///
/// ```text
///  63        62..56   55    48  47      32  31     16  15      0
/// +---------+--------+--------+-----------+----------+---------+
/// | decided | 0      | choice | member    | pool     | VIP     |
/// +---------+--------+--------+-----------+----------+---------+
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecisionWord(pub u64);

impl DecisionWord {
    /// No decision was made.
    pub const NONE: Self = Self(0);
    /// The bits of a VIP's number.
    pub const VIP: u64 = 0xffff;
    /// The bits of a pool's number.
    pub const POOL: u64 = 0xffff << 16;
    /// The bits of a member's number.
    pub const MEMBER: u64 = 0xffff << 32;
    const DECIDED: u64 = 1 << 63;

    /// A decision. `choice` is a number below 256.
    #[inline(always)]
    pub const fn new(vip: VipId, pool: PoolIndex, member: MemberId, choice: u32) -> Self {
        let ids = vip.0 as u64 | (pool.0 as u64) << 16 | (member.get() as u64) << 32;
        Self(Self::DECIDED | ids | (choice as u64 & 0xff) << 48)
    }

    /// Whether there was a decision.
    #[inline(always)]
    pub const fn is_made(self) -> bool {
        self.0 & Self::DECIDED != 0
    }

    /// The VIP's number.
    pub const fn vip(self) -> VipId {
        VipId(self.0 as u16)
    }

    /// The pool's number.
    pub const fn pool(self) -> PoolIndex {
        PoolIndex((self.0 >> 16) as u16)
    }

    /// The member's number; 0 is none.
    pub const fn member(self) -> MemberId {
        MemberId::from_low_bits((self.0 >> 32) as u16)
    }

    /// The number of the choice.
    pub const fn choice(self) -> u32 {
        (self.0 >> 48 & 0xff) as u32
    }
}

/// Two addresses' worth of words: an IPv4 address is the first word, its network-order bytes read little-endian.
pub type AddressWords = [Word; 2];

/// What packets one capture takes: all conditions hold.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Filter {
    /// Nanoseconds of the monotonic clock at which the capture ends by itself; 0: there is no capture.
    pub until: Word,
    /// A bit for each [`Counter`] whose packets are taken.
    pub counters: Word,
    /// The bits of a [`DecisionWord`] that decide.
    pub ids_mask: Word,
    /// The values of these bits.
    pub ids: Word,
    /// [`FilterFamily`], which also says whether headers are to be read.
    pub family: Word,
    /// Which bits of the source's address decide, and their values.
    pub client_mask: AddressWords,
    /// The values of these bits.
    pub client: AddressWords,
    /// Which bits of the destination's address decide for a packet without a decision: those of the VIP's address.
    pub service_mask: AddressWords,
    /// The values of these bits.
    pub service: AddressWords,
    /// A port that is the source's or the destination's; 0: any.
    pub port: Word,
    /// The TCP flags that decide in the low byte, their values in the next one.
    pub tcp_flags: Word,
    /// Of 2^32 packets that fulfil the other conditions, so many are taken.
    pub sampled: Word,
    /// Bytes that are kept of a packet: at most [`MOST_KEPT`].
    pub kept: Word,
    /// Packets in a second on each CPU: at most 2^32 - 1.
    pub rate: Word,
}

/// The family that a filter's addresses are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u64)]
pub enum FilterFamily {
    /// No condition is on addresses, ports or flags.
    #[default]
    Unread = 0,
    /// Packets of either family.
    Either = 1,
    /// IPv4 alone.
    V4 = 4,
    /// IPv6 alone.
    V6 = 6,
}

/// All filters: one value of a map.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Filters {
    /// Filters from here on are not used.
    pub count: Word,
    /// A bit for each counter that one of them takes.
    pub counters: Word,
    /// If one filter alone is used, its number and one; else 0.
    pub only: Word,
    /// By the number of the capture.
    pub filters: [Filter; CAPTURES],
}

/// What a capture took on one CPU.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct CaptureCounts {
    /// Packets that fulfilled the conditions.
    pub matched: Word,
    /// Of them, those that were beyond the rate.
    pub limited: Word,
    /// Of them, those for which the ring had no room.
    pub lost: Word,
    /// What is left of this second's rate.
    pub allowance: Allowance,
}

/// What is known of the packet in hand.
#[derive(Debug, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Note {
    /// The frame's first bytes as they came in.
    pub link: [Word; LINK_WORDS],
    /// Its length as it came in.
    pub length: Word,
    /// The [`DecisionWord`].
    pub decision: Word,
    /// The hash of its flow, if there was a decision.
    pub hash: Word,
    /// The number of the last counter that says what became of it, and one; 0: none yet.
    pub counter: Word,
    /// Bytes that were copied as they came in, since what follows may rewrite them; and one; 0: none.
    pub copied: Word,
    /// Which headers were read: [`Headers::transport`] says what is known; 0: not yet.
    pub headers: Headers,
}

/// The headers that filters read.
///
/// ```text
///  63   49  48        47     40  39    32  31          16  15           0
/// +-------+---------+----------+---------+---------------+---------------+
/// | 0     | unread  | family   | flags   | dest. port    | source port   |
/// +-------+---------+----------+---------+---------------+---------------+
/// ```
#[derive(Debug, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Headers {
    /// The source's address.
    pub source: AddressWords,
    /// The destination's address.
    pub destination: AddressWords,
    /// *family*: 4 or 6, or 1: neither. *flags*: those of a TCP segment, unless they are *unread*. Ports in network order, 0 where there
    /// are none.
    pub transport: Word,
    /// Of the captures so far: a bit for each that takes the packet.
    pub captures: Word,
    /// The most bytes that one of them keeps of it.
    pub kept: Word,
    /// Fills the line.
    pub reserved: Word,
}

/// A [`Headers::transport`] without ports and flags.
#[inline(always)]
pub const fn transport_word(family: u8, flags: u8, ports: u32) -> u64 {
    (family as u64) << 40 | (flags as u64) << 32 | ports as u64
}

/// The family of a packet that is neither IPv4 nor IPv6, or is cut short.
pub const NO_FAMILY: u8 = 1;

impl Headers {
    const UNREAD: u64 = 1 << 48;

    /// Takes over the headers of a plain packet, whose flags are left unread.
    #[inline(always)]
    pub fn set(&self, source: [u64; 2], destination: [u64; 2], family: u8, ports: u32) {
        for n in 0..2 {
            self.source[n].set(source[n]);
            self.destination[n].set(destination[n]);
        }
        self.transport.set(transport_word(family, 0, ports) | Self::UNREAD);
    }

    /// Whether all that a filter reads was read.
    #[inline(always)]
    pub fn suffice(&self, filter: &Filter) -> bool {
        let transport = self.transport.get();
        transport != 0 && (transport & Self::UNREAD == 0 || filter.tcp_flags.get() == 0)
    }
}

impl Filters {
    /// Whether a filter may take a packet, by what is known without reading it: most packets need no more.
    #[inline(always)]
    pub fn may_take(&self, note: &Note) -> bool {
        let counter = note.counter.get().wrapping_sub(1) & 63;
        if self.counters.get() >> counter & 1 == 0 {
            return false;
        }
        let only = self.only.get();
        if only == 0 {
            return true;
        }
        let filter = &self.filters[only.wrapping_sub(1) as usize & (CAPTURES - 1)];
        filter.takes_outcome(note)
            && (!filter.reads_headers(note) || !note.headers.suffice(filter) || filter.takes_headers(note))
    }
}

impl Filter {
    /// Whether the outcome and the decision are among those that this filter takes: what is known without headers.
    #[inline(always)]
    pub fn takes_outcome(&self, note: &Note) -> bool {
        let (counter, decision) = (note.counter.get().wrapping_sub(1), DecisionWord(note.decision.get()));
        if self.until.get() == 0 || counter >= 64 || self.counters.get() >> counter & 1 == 0 {
            return false;
        }
        let mask = self.ids_mask.get();
        if decision.is_made() { decision.0 & mask == self.ids.get() } else { mask & !DecisionWord::VIP == 0 }
    }

    /// Whether more is to be known: [`Self::takes_headers`].
    #[inline(always)]
    pub fn reads_headers(&self, note: &Note) -> bool {
        let is_made = DecisionWord(note.decision.get()).is_made();
        self.family.get() != FilterFamily::Unread as u64 || !is_made && self.ids_mask.get() != 0
    }

    /// Whether the headers are among those that this filter takes.
    #[inline(always)]
    pub fn takes_headers(&self, note: &Note) -> bool {
        let Headers { source, destination, transport, .. } = &note.headers;
        let transport = transport.get();
        let family = transport >> 40 & 0xff;
        let wanted = self.family.get();
        let port = self.port.get();
        if port != 0 && transport & 0xffff != port && transport >> 16 & 0xffff != port {
            return false;
        }
        let is_of = |words: &AddressWords, mask: &AddressWords, values: &AddressWords| {
            words[0].get() & mask[0].get() == values[0].get() && words[1].get() & mask[1].get() == values[1].get()
        };
        if wanted > FilterFamily::Either as u64 && family != wanted || !is_of(source, &self.client_mask, &self.client) {
            return false;
        }
        let flags = self.tcp_flags.get();
        if transport >> 32 & flags & 0xff != flags >> 8 {
            return false;
        }
        // A packet without a decision is a VIP's if it is for its address.
        let is_made = DecisionWord(note.decision.get()).is_made();
        is_made || self.ids_mask.get() == 0 || is_of(destination, &self.service_mask, &self.service)
    }
}

/// What a CPU has to capture with: one value of a map.
#[derive(Debug, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct CaptureState {
    /// The packet in hand.
    pub note: Note,
    /// By the number of the capture.
    pub counts: [CaptureCounts; CAPTURES],
    /// A record and the bytes behind it, as they are put into the ring: those of the packet as it came in, then as it leaves. What is
    /// behind their most is room that only the verifier asks for.
    pub record: [Word; size_of::<Record>() / 8],
    /// The bytes.
    pub bytes: [Word; 2 * (MOST_KEPT as usize + 1) / 8],
}

/// A captured packet: its bytes follow, first as they came in, then as they leave.
///
/// A packet that was sent on is kept as it leaves alone, unless it came in a form that the path rewrites: what came in is what is behind
/// its outer headers, and [`Self::link`] in front of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Record {
    /// Nanoseconds of the monotonic clock.
    pub time: u64,
    /// A bit for each capture that takes it.
    pub captures: u64,
    /// The frame's first bytes as they came in.
    pub link: [u64; LINK_WORDS],
    /// [`DecisionWord`].
    pub decision: u64,
    /// The hash of its flow, if there was a decision.
    pub hash: u64,
    /// The number of the [`Counter`] that says what became of it.
    pub counter: u32,
    /// The index of the interface it came in by.
    pub ingress: u32,
    /// The frame's length as it came in.
    pub length: u32,
    /// Bytes of it that follow.
    pub kept: u32,
    /// The frame's length as it leaves; 0 if it does not leave changed.
    pub left_length: u32,
    /// Bytes of it that follow.
    pub left_kept: u32,
}

impl Record {
    /// A record and the bytes behind it: as the packet came in, and as it leaves. `None` if they are cut short.
    pub fn split(bytes: &[u8]) -> Option<(Self, &[u8], &[u8])> {
        let (record, rest) = Self::read_from_prefix(bytes).ok()?;
        let (before, rest) = rest.split_at_checked(record.kept as usize)?;
        Some((record.clone(), before, rest.get(..record.left_kept as usize)?))
    }
}

// A filter of zeroes takes nothing, and the record is whole words.
const _: () = assert!(size_of::<Record>().is_multiple_of(8));

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros as _;

    fn note(decision: DecisionWord, counter: Counter) -> Note {
        let note = Note::new_zeroed();
        note.decision.set(decision.0);
        note.counter.set(counter as u64 + 1);
        note.headers.source[0].set(0x0100_000a);
        note.headers.destination[0].set(0x0a71_00cb);
        note.headers.transport.set(transport_word(4, 0x12, 0x5000_3930));
        note
    }

    fn filter() -> Filter {
        let filter = Filter::default();
        filter.until.set(1);
        filter.counters.set(u64::MAX);
        filter
    }

    #[test]
    fn a_filter_takes_packets_of_which_every_condition_holds() {
        let decided = DecisionWord::new(VipId(3), PoolIndex(2), MemberId::new(7).unwrap(), 0);
        let sent = note(decided, Counter::Transmitted);
        assert!(filter().takes_outcome(&sent) && !filter().reads_headers(&sent));
        assert!(!Filter::default().takes_outcome(&sent), "no capture");
        type Change = (fn(&Filter), bool);
        let changes: [Change; 14] = [
            (|filter| filter.counters.set(1 << Counter::Transmitted as u64), true),
            (|filter| filter.counters.set(1 << Counter::TooBig as u64), false),
            (|filter| (filter.ids_mask.set(DecisionWord::VIP), filter.ids.set(3)).1, true),
            (|filter| (filter.ids_mask.set(DecisionWord::VIP), filter.ids.set(4)).1, false),
            (|filter| (filter.ids_mask.set(DecisionWord::POOL), filter.ids.set(2 << 16)).1, true),
            (|filter| (filter.ids_mask.set(DecisionWord::MEMBER), filter.ids.set(8 << 32)).1, false),
            (|filter| filter.family.set(FilterFamily::V6 as u64), false),
            (|filter| filter.family.set(FilterFamily::V4 as u64), true),
            (|filter| (filter.client_mask[0].set(0xff), filter.client[0].set(10)).1, true),
            (|filter| (filter.client_mask[0].set(0xff), filter.client[0].set(11)).1, false),
            (|filter| filter.port.set(0x3930), true),
            (|filter| filter.port.set(0x5000), true),
            (|filter| filter.port.set(0x3931), false),
            (|filter| filter.tcp_flags.set(0x1012), false),
        ];
        for (n, (change, takes)) in changes.into_iter().enumerate() {
            let filter = filter();
            change(&filter);
            assert_eq!(filter.takes_outcome(&sent) && filter.takes_headers(&sent), takes, "{n}");
        }
    }

    #[test]
    fn a_packet_without_a_decision_is_a_vips_by_its_address() {
        let stray = note(DecisionWord::NONE, Counter::Malformed);
        let filter = filter();
        assert!(filter.takes_outcome(&stray) && !filter.reads_headers(&stray));
        filter.ids_mask.set(DecisionWord::VIP);
        filter.ids.set(3);
        filter.service_mask[0].set(u64::from(u32::MAX));
        filter.service[0].set(0x0a71_00cb);
        assert!(filter.takes_outcome(&stray) && filter.reads_headers(&stray) && filter.takes_headers(&stray));
        filter.service[0].set(0x0b71_00cb);
        assert!(!filter.takes_headers(&stray));
        filter.ids_mask.set(DecisionWord::POOL);
        assert!(!filter.takes_outcome(&stray), "a pool takes decided packets alone");
    }

    #[test]
    fn a_record_that_is_cut_short_is_none() {
        let record = Record { kept: 2, left_kept: 3, ..Record::default() };
        let mut bytes = record.as_bytes().to_vec();
        bytes.extend(*b"inout, and padding");
        let whole = size_of::<Record>() + 5;
        assert_eq!(Record::split(&bytes), Some((record, &b"in"[..], &b"out"[..])));
        assert!((0..whole).all(|length| Record::split(&bytes[..length]).is_none()));
    }

    #[test]
    fn a_decision_is_read_as_it_was_written() {
        let member = MemberId::new(MemberId::MAX).unwrap();
        let word = DecisionWord::new(VipId(4_095), PoolIndex(2_047), member, 2);
        assert!(word.is_made() && !DecisionWord::NONE.is_made());
        assert_eq!(
            (word.vip(), word.pool(), word.member(), word.choice()),
            (VipId(4_095), PoolIndex(2_047), member, 2)
        );
        let nobody = DecisionWord::new(VipId(0), PoolIndex(0), MemberId::NOBODY, 0);
        assert!(nobody.is_made() && nobody.member().is_nobody());
    }
}
