//! The keyed flow hash: the one function that places a flow in a table and in a flow table, on every node alike.

use core::fmt;

use crate::flow::WAYS;
use crate::table::{SLOTS, Slot};

/// The version of the hash: what [`FlowHash`] makes of a key and a flow. It is in the digests that nodes are compared by, so
/// that two nodes which hash differently show different ones.
pub const VERSION: u32 = 2;

/// Words of an expanded key.
pub const KEY_WORDS: usize = 5;

/// Of the words of a key, the one that the transport is hashed with; those before it are for the words of addresses.
const TRANSPORT: usize = KEY_WORDS - 1;

/// The fleet-wide key of the flow hash, expanded. Without it, flows cannot be aimed at one slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey([u64; KEY_WORDS]);

/// The words of an expanded key, each read only if the flow's family needs it: the XDP program reads them from memory.
pub trait KeyWords: Copy {
    /// The word with this index, below [`KEY_WORDS`].
    fn word(self, index: usize) -> u64;
}

impl HashKey {
    /// The key whose sixteen bytes stand in the configuration as 32 hexadecimal digits.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let key = u128::from_le_bytes(bytes);
        Self::new(key as u64, (key >> 64) as u64)
    }

    /// The key of two halves: its first eight bytes and its last, little-endian. Word *n* is the n-th number of a SplitMix64
    /// generator that starts at the first half, mixed once more with the second.
    pub const fn new(first: u64, second: u64) -> Self {
        let mut words = [0; KEY_WORDS];
        let (mut state, mut n) = (first, 0);
        while n < KEY_WORDS {
            state = state.wrapping_add(GOLDEN);
            words[n] = splitmix(splitmix(state).wrapping_add(second));
            n += 1;
        }
        Self(words)
    }

    /// All of its words.
    pub const fn words(self) -> [u64; KEY_WORDS] {
        self.0
    }
}

impl KeyWords for HashKey {
    #[inline(always)]
    fn word(self, index: usize) -> u64 {
        self.0[index]
    }
}

impl fmt::Debug for HashKey {
    /// The key is a secret of the fleet: it never reaches a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(…)")
    }
}

/// The highest bits of an IPv4 address, 1 to 32 of them, as a mask of its network-order bytes read little-endian.
#[inline(always)]
pub const fn mask4(bits: u8) -> u32 {
    (!(u32::MAX >> 1 >> (bits.wrapping_sub(1) & 31))).swap_bytes()
}

/// The same of an IPv6 address, 1 to 128 of them, in two words.
#[inline(always)]
pub const fn mask6(bits: u8) -> [u64; 2] {
    let some = (!(u64::MAX >> 1 >> (bits.wrapping_sub(1) & 63))).swap_bytes();
    if bits > 64 { [u64::MAX, some] } else { [some, 0] }
}

/// What identifies an IPv4 flow, as the packet carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple4 {
    /// Source address, then destination address: eight bytes of the IPv4 header, little-endian.
    pub addresses: u64,
    /// What identifies it beside the addresses.
    pub transport: Transport,
}

/// What identifies an IPv6 flow, as the packet carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple6 {
    /// Source address, then destination address: 32 bytes of the IPv6 header as four little-endian words.
    pub addresses: [u64; 4],
    /// What identifies it beside the addresses.
    pub transport: Transport,
}

/// Ports and protocol of a flow in one word, which is hashed as it is.
///
/// ```text
///  63        40 39        32 31               16 15          0
/// +------------+------------+-------------------+-------------+
/// | 0          | protocol   | destination port  | source port |
/// +------------+------------+-------------------+-------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport(u64);

impl Transport {
    /// Ports are the first four bytes of the L4 header, little-endian: source, then destination.
    #[inline(always)]
    pub const fn new(ports: u32, protocol: u8) -> Self {
        Self(ports as u64 | (protocol as u64) << 32)
    }

    /// The same seen from the other side: the ports change places.
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        Self(self.0 & !0xffff_ffff | (self.0 as u32).rotate_left(16) as u64)
    }

    /// The protocol number.
    #[inline(always)]
    pub const fn protocol(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// The ports, as of [`Self::new`].
    #[inline(always)]
    pub const fn ports(self) -> u32 {
        self.0 as u32
    }

    /// Destination port and protocol: two network-order bytes read little-endian, and a third.
    #[inline(always)]
    pub const fn service(self) -> u64 {
        self.0 >> 16
    }
}

/// The golden ratio's odd multiplier.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Odd multipliers of [`finish`]: SplitMix64's and those of MurmurHash3's finaliser.
const M: [u64; 3] = [0xbf58_476d_1ce4_e5b9, 0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53];

/// A flow's 64-bit hash and how its bits are spent.
///
/// ```text
///  63                              32 31        25 24                               0
/// +----------------------------------+------------+----------------------------------+
/// | tag; slot = high32 × 65537 >> 32 |  way tag   |  set                             |
/// +----------------------------------+------------+----------------------------------+
/// ```
///
/// The slot is a function of the tag, so a flow entry names its slot exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHash(pub u64);

impl FlowHash {
    /// Hashes an IPv4 flow: four multiplications.
    #[inline(always)]
    pub fn of4(key: impl KeyWords, tuple: Tuple4) -> Self {
        let sum = product(tuple.addresses, key.word(0));
        Self(finish(sum ^ key.word(TRANSPORT) ^ tuple.transport.0))
    }

    /// Hashes an IPv6 flow: seven multiplications.
    #[inline(always)]
    pub fn of6(key: impl KeyWords, tuple: Tuple6) -> Self {
        let [a, b, c, d] = tuple.addresses;
        let sum = product(a, key.word(0))
            .wrapping_add(product(b, key.word(1)))
            .wrapping_add(product(c, key.word(2)))
            .wrapping_add(product(d, key.word(3)));
        Self(finish(sum ^ key.word(TRANSPORT) ^ tuple.transport.0))
    }

    /// The hash of a flow that finds its slot by its source, which has this hash: slot and tag are the source's; set and way are the
    /// flow's, so that all flows of a source have entries of their own.
    #[inline(always)]
    #[must_use]
    pub const fn of_source(self, source: Self) -> Self {
        Self((source.slot().tag_with(self.tag() as u16) as u64) << 32 | self.0 & 0xffff_ffff)
    }

    /// The table slot of the flow: an unbiased scaling, no division.
    #[inline(always)]
    pub const fn slot(self) -> Slot {
        Slot::from_tag(self.tag())
    }

    /// The high 32 bits, kept in the flow entry.
    #[inline(always)]
    pub const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The set of the flow table, given the number of sets less one (a power of two less one, at most 2^25 − 1).
    #[inline(always)]
    pub const fn set(self, mask: u32) -> u32 {
        self.0 as u32 & mask & 0x01ff_ffff
    }

    /// The way that the flow takes if it is free, and that is checked first: below seven, and independent of set, way tag
    /// and slot.
    #[inline(always)]
    pub const fn home_way(self) -> usize {
        ((self.tag() & 0xffff) as usize * WAYS) >> 16
    }

    /// The seven bits by which ways are distinguished before their entries are read.
    #[inline(always)]
    pub const fn way_tag(self) -> u8 {
        (self.0 as u32 >> 25) as u8
    }
}

impl Slot {
    /// The slot that a flow entry's tag stands for.
    #[inline(always)]
    pub const fn from_tag(tag: u32) -> Self {
        Self(((tag as u64 * SLOTS as u64) >> 32) as u32)
    }

    /// A tag that stands for the slot, by these bits one of the 65,535 that do: such tags begin at 65,535 times the slot's number,
    /// rounded up from slot × 2^32 / [`SLOTS`].
    #[inline(always)]
    const fn tag_with(self, bits: u16) -> u32 {
        let within = (bits as u32 * 0xffff) >> 16;
        self.0.wrapping_mul(0xffff).wrapping_add((self.0 != 0) as u32).wrapping_add(within)
    }
}

/// A word of addresses under its key: the product of the two halves of their sum, exact in 64 bits.
///
/// Two words have products with a given difference under at most one key in 2^31: whichever half they differ in, the
/// difference is multiplied by the other one, which is secret. A sum of such products therefore has no difference of inputs
/// that cancels whatever the key (the hash NH of UMAC, Black et al. 1999), as a mix by constant multipliers has.
#[inline(always)]
const fn product(word: u64, key: u64) -> u64 {
    let keyed = word.wrapping_add(key);
    (keyed >> 32) * (keyed & 0xffff_ffff)
}

/// Spreads each bit of a word over all of them. A bijection: it keeps apart what differs.
#[inline(always)]
const fn finish(word: u64) -> u64 {
    let h = word.wrapping_mul(M[0]);
    let h = (h ^ (h >> 32)).wrapping_mul(M[1]);
    let h = (h ^ (h >> 29)).wrapping_mul(M[2]);
    h ^ (h >> 32)
}

/// SplitMix64's mix (Steele, Lea and Flood 2014).
const fn splitmix(word: u64) -> u64 {
    let h = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u128 = u128::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    const KEY: HashKey = HashKey::from_bytes(BYTES.to_le_bytes());

    fn tuple4(n: u64) -> Tuple4 {
        // 198.51.100.x → 203.0.113.10, ports from n: the shape of real traffic, where few bits differ.
        let addresses = u64::from_le_bytes([198, 51, 100, n as u8, 203, 0, 113, 10]);
        Tuple4 { addresses, transport: Transport::new(0x5000_0000 | (n >> 8) as u32 & 0xffff, 6) }
    }

    fn tuple6(n: u64) -> Tuple6 {
        Tuple6 { addresses: [0xb80d_0120, n & 0xff, 0xb80d_0120, 1], transport: Transport::new((n >> 8) as u32, 17) }
    }

    /// The largest departure from one half with which an output bit flips when one input bit flips.
    fn worst_bias(hash: impl Fn(u64, u32) -> u64, bits: u32) -> f64 {
        const SAMPLES: u64 = 20_000;
        let mut worst = 0.0_f64;
        for flipped in 0..bits {
            let mut changed = [0_u32; 64];
            for n in 0..SAMPLES {
                let difference = hash(n, u32::MAX) ^ hash(n, flipped);
                for (bit, count) in changed.iter_mut().enumerate() {
                    *count += (difference >> bit) as u32 & 1;
                }
            }
            for count in changed {
                worst = worst.max((f64::from(count) / SAMPLES as f64 - 0.5).abs());
            }
        }
        worst
    }

    #[test]
    fn every_ipv4_input_bit_reaches_every_output_bit() {
        let bias = worst_bias(
            |n, flip| {
                let mut tuple = tuple4(n);
                match flip {
                    0..64 => tuple.addresses ^= 1 << flip,
                    64..96 => tuple.transport.0 ^= 1 << (flip - 64),
                    _ => {}
                }
                FlowHash::of4(KEY, tuple).0
            },
            96,
        );
        assert!(bias < 0.03, "worst bit bias {bias}");
    }

    #[test]
    fn every_ipv6_input_bit_reaches_every_output_bit() {
        let bias = worst_bias(
            |n, flip| {
                let mut tuple = tuple6(n);
                match flip {
                    0..256 => tuple.addresses[flip as usize / 64] ^= 1 << (flip % 64),
                    256..288 => tuple.transport.0 ^= 1 << (flip - 256),
                    _ => {}
                }
                FlowHash::of6(KEY, tuple).0
            },
            288,
        );
        assert!(bias < 0.03, "worst bit bias {bias}");
    }

    #[test]
    fn the_key_reaches_every_output_bit() {
        let bias = worst_bias(
            |n, flip| {
                let flipped = if flip < 128 { 1 << flip } else { 0 };
                FlowHash::of4(HashKey::from_bytes((BYTES ^ flipped).to_le_bytes()), tuple4(n)).0
            },
            128,
        );
        assert!(bias < 0.03, "worst bit bias {bias}");
    }

    /// The hash is part of the fleet's contract: nodes of different releases must agree, so these never change.
    #[test]
    fn vectors() {
        let v4 = |n| FlowHash::of4(KEY, tuple4(n)).0;
        let v6 = |n| FlowHash::of6(KEY, tuple6(n)).0;
        assert_eq!([v4(0), v4(1), v4(0x1234)], VECTORS4);
        assert_eq!([v6(0), v6(1), v6(0x1234)], VECTORS6);
    }

    // Computed by an independent implementation.
    const VECTORS4: [u64; 3] = [0x7ed2_a956_a520_93ba, 0x59f8_40bb_9f9b_4848, 0xf248_6483_a34c_1ef9];
    const VECTORS6: [u64; 3] = [0x7c00_1a4c_e244_4366, 0x8b93_75c8_9836_4150, 0x3ec9_b72c_12f4_4032];

    #[test]
    fn masks_keep_the_highest_bits_as_on_the_wire() {
        let kept = |bits| mask4(bits).to_le_bytes();
        assert_eq!(
            [kept(1), kept(24), kept(25), kept(32)],
            [[128, 0, 0, 0], [255, 255, 255, 0], [255, 255, 255, 128], [255; 4]]
        );
        for bits in 1..=128_u8 {
            let [high, low] = mask6(bits).map(u64::swap_bytes);
            assert_eq!(u128::from(high) << 64 | u128::from(low), u128::MAX << (128 - bits), "{bits}");
        }
    }

    #[test]
    fn flows_of_a_source_share_a_slot_and_nothing_else() {
        let (one, other) = (FlowHash(0x1111_2222_3333_4444), FlowHash(0x5555_6666_7777_8888));
        let source = FlowHash(0x9999_aaaa_bbbb_cccc);
        assert_ne!(one.of_source(source).tag(), other.of_source(source).tag(), "entries of their own");
        for slot in [0, 1, 2, 32_768, 65_535, 65_536].map(Slot) {
            for bits in [0, 1, 32_768, u16::MAX] {
                assert_eq!(Slot::from_tag(slot.tag_with(bits)), slot, "{bits}");
            }
        }
        assert_eq!(one.of_source(source).slot(), other.of_source(source).slot());
        assert_eq!(one.of_source(source).set(u32::MAX), one.set(u32::MAX));
    }

    #[test]
    fn slots_cover_the_table_evenly() {
        let mut hits = std::vec![0_u32; SLOTS];
        for n in 0..SLOTS as u64 * 16 {
            hits[FlowHash::of4(KEY, tuple4(n)).slot().index()] += 1;
        }
        // Poisson with mean 16: a slot outside 0…48 would be a one-in-10^9 event.
        assert!(hits.iter().all(|&n| n <= 48));
        assert!(hits.iter().filter(|&&n| n == 0).count() < 5);
    }

    #[test]
    fn the_tag_names_the_slot() {
        for tag in [0, 1, 65_535, 65_536, u32::MAX] {
            let hash = FlowHash(u64::from(tag) << 32 | 0xdead_beef);
            assert_eq!(hash.slot(), Slot::from_tag(hash.tag()));
        }
        assert_eq!(Slot::from_tag(u32::MAX).index(), SLOTS - 1);
    }
}
