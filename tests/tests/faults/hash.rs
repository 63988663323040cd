//! The flow hash: what a client can and cannot steer without its key.
//!
//! Keys are random, but the same in every run. A difference of two flows that keeps their hash, or their slot, under several
//! keys needs no key to be found: with it, flows are aimed at one slot.

use anyhow::{Result, ensure};
use maglev_common::hash::{FlowHash, HashKey, Transport, Tuple4, Tuple6};
use maglev_common::table::SLOTS;
use maglev_e2e::matrix::{Matrix, is_full};

/// Keys that each difference is tried under.
const KEYS: usize = 16;
/// Flows in each structured family.
const FAMILY: u32 = 1 << 16;
/// Bits of an IPv4 flow that a client or an operator chooses: two addresses and two ports.
const BITS4: u32 = 96;
/// The same of an IPv6 flow.
const BITS6: u32 = 288;

/// SplitMix64, as a source of keys and flows.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }
}

fn keys() -> [HashKey; KEYS] {
    let mut random = Random(0x6d61_676c_6576);
    std::array::from_fn(|_| HashKey::new(random.next(), random.next()))
}

/// A flow of either family as one row of words: addresses in the order of the packet's bytes, then ports.
trait Flow: Copy {
    fn random(random: &mut Random) -> Self;
    fn flipped(self, bits: &[u32]) -> Self;
    fn hash(self, key: HashKey) -> FlowHash;
}

#[derive(Clone, Copy)]
struct V4 {
    addresses: u64,
    ports: u32,
}

#[derive(Clone, Copy)]
struct V6 {
    addresses: [u64; 4],
    ports: u32,
}

impl Flow for V4 {
    fn random(random: &mut Random) -> Self {
        Self { addresses: random.next(), ports: random.next() as u32 }
    }

    fn flipped(mut self, bits: &[u32]) -> Self {
        for &bit in bits {
            match bit {
                0..64 => self.addresses ^= 1 << bit,
                _ => self.ports ^= 1 << (bit - 64),
            }
        }
        self
    }

    fn hash(self, key: HashKey) -> FlowHash {
        FlowHash::of4(key, Tuple4 { addresses: self.addresses, transport: Transport::new(self.ports, 6) })
    }
}

impl Flow for V6 {
    fn random(random: &mut Random) -> Self {
        Self { addresses: std::array::from_fn(|_| random.next()), ports: random.next() as u32 }
    }

    fn flipped(mut self, bits: &[u32]) -> Self {
        for &bit in bits {
            match bit {
                0..256 => self.addresses[bit as usize / 64] ^= 1 << (bit % 64),
                _ => self.ports ^= 1 << (bit - 256),
            }
        }
        self
    }

    fn hash(self, key: HashKey) -> FlowHash {
        FlowHash::of6(key, Tuple6 { addresses: self.addresses, transport: Transport::new(self.ports, 6) })
    }
}

/// The results of the differences tried so far.
#[derive(Default)]
struct Tally {
    differences: u64,
    /// The most keys under which one difference kept the hash.
    collisions: u32,
    /// The most keys under which one difference kept the slot.
    slots: u32,
}

impl Tally {
    /// Tries one difference, at a flow of its own, under every key.
    fn add<F: Flow>(&mut self, keys: &[HashKey], random: &mut Random, bits: &[u32]) {
        let one = F::random(random);
        let other = one.flipped(bits);
        let (mut collisions, mut slots) = (0, 0);
        for &key in keys {
            let (one, other) = (one.hash(key), other.hash(key));
            collisions += u32::from(one == other);
            slots += u32::from(one.slot() == other.slot());
        }
        self.differences += 1;
        self.collisions = self.collisions.max(collisions);
        self.slots = self.slots.max(slots);
    }

    /// A hash is kept under one key at most. A random function keeps a slot under four of sixteen keys for one difference in
    /// 10^16.
    fn judge(&self) -> Result<String> {
        let Self { differences, collisions, slots } = self;
        ensure!(*collisions < 2, "a difference keeps the hash under {collisions} of {KEYS} keys");
        ensure!(*slots < 4, "a difference keeps the slot under {slots} of {KEYS} keys");
        Ok(format!("{differences} differences: one hash under {collisions} keys at most, one slot under {slots}"))
    }
}

/// Up to four bits at random, of so many.
fn few_bits(random: &mut Random, of: u32) -> Vec<u32> {
    (0..=random.below(4)).map(|_| random.below(of)).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

fn sampled<F: Flow>(bits: u32) -> Result<String> {
    let samples = if is_full() { 10_000_000 } else { 100_000 };
    let (keys, mut random, mut tally) = (keys(), Random(u64::from(bits)), Tally::default());
    for one in 0..bits {
        tally.add::<F>(&keys, &mut random, &[one]);
        for other in 0..one {
            tally.add::<F>(&keys, &mut random, &[one, other]);
        }
    }
    while tally.differences < samples {
        let bits = few_bits(&mut random, bits);
        tally.add::<F>(&keys, &mut random, &bits);
    }
    tally.judge()
}

#[test]
fn no_difference_of_four_bits_keeps_the_hash_without_the_key() -> Result<()> {
    Matrix::Fault.row("D11", "IPv4: up to 4 flipped bits, 16 keys", || sampled::<V4>(BITS4))?;
    Matrix::Fault.row("D11", "IPv6: up to 4 flipped bits, 16 keys", || sampled::<V6>(BITS6))
}

/// The difference that kept the hash of release 0.1 whatever the key, and all like it: two bits half a word apart in one word,
/// any two in a later one.
#[test]
fn no_difference_of_two_words_cancels() -> Result<()> {
    Matrix::Fault.row("D11", "IPv6: two bits each in two words, 16 keys", || {
        let (keys, mut random, mut tally) = (keys(), Random(11), Tally::default());
        let pairs = [(0, 1), (1, 2), (2, 3), (0, 3), (0, 4), (3, 4)];
        for (first, second) in if is_full() { &pairs[..] } else { &pairs[..2] } {
            for (high, low) in (32..64).map(|high| (high, high - 32)) {
                let bits = if *second == 4 { 32 } else { 64 };
                for other in 0..bits {
                    for last in 0..other {
                        let [a, b] = [high, low].map(|bit| first * 64 + bit);
                        let [c, d] = [other, last].map(|bit| second * 64 + bit);
                        tally.add::<V6>(&keys, &mut random, &[a, b, c, d]);
                    }
                }
            }
        }
        tally.judge()
    })
}

/// Whether flows spread over the slots like random ones, under every key: Pearson's statistic of so many cells has a standard
/// deviation of the square root of twice as many, and no slot holds more than chance explains.
fn spread<F: Flow>(keys: &[HashKey], family: impl Fn(u32) -> F) -> Result<(f64, u32)> {
    const MOST: u32 = 14;
    let expected = f64::from(FAMILY) / SLOTS as f64;
    let mut worst = (f64::MIN, 0);
    for &key in keys {
        let mut hits = vec![0_u32; SLOTS];
        (0..FAMILY).for_each(|n| hits[family(n).hash(key).slot().index()] += 1);
        let statistic: f64 = hits.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
        let deviations = (statistic - SLOTS as f64) / (2.0 * SLOTS as f64).sqrt();
        let most = hits.into_iter().max().unwrap_or_default();
        worst = (worst.0.max(deviations), worst.1.max(most));
    }
    ensure!(worst.0 < 5.5, "the slots' load is {:.1} standard deviations from a random one", worst.0);
    ensure!(worst.1 <= MOST, "{} flows of {FAMILY} share a slot", worst.1);
    Ok(worst)
}

/// A number's bits, each moved to a place of its own.
fn scattered<T: From<u8> + std::ops::BitXor<Output = T>>(n: u32, places: impl Fn(u32) -> T) -> T {
    (0..16).filter(|bit| n >> bit & 1 == 1).fold(T::from(0), |all, bit| all ^ places(bit))
}

/// A client's IPv6 flow to one service. The source is a number in reading order: its last bits are the host's.
fn from6(source: u128, port: u16) -> V6 {
    let source = source ^ 0x2001_0db8_0000_0000_0000_0000_0000_0000;
    let words = |bytes: [u8; 16]| [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n])));
    let [[a, b], [c, d]] = [source, 0x2001_0db8_0053_0000_0000_0000_0000_0010].map(u128::to_be_bytes).map(words);
    V6 { addresses: [a, b, c, d], ports: u32::from(port.to_be()) | u32::from(443_u16.to_be()) << 16 }
}

/// The same of IPv4.
fn from4(source: u32, port: u16) -> V4 {
    let addresses = u64::from((source ^ 0x0a00_0000).to_be()) | u64::from(u32::from_le_bytes([203, 0, 113, 10])) << 32;
    V4 { addresses, ports: u32::from(port.to_be()) | u32::from(443_u16.to_be()) << 16 }
}

/// Steps between the addresses of a family: odd, even, and such that carry far.
const STRIDES: [u64; 6] = [3, 257, 65_537, 0x00ff_ff00, 0x0101_0101, 0x9e37_79b9_7f4a_7c15];

/// Runs `judge` on the families, and says how many there were and the worst of them.
fn worst<F: Flow>(families: Vec<Box<dyn Fn(u32) -> F>>) -> Result<String> {
    let all = keys();
    let keys = if is_full() { &all[..] } else { &all[..2] };
    let mut worst = (f64::MIN, 0);
    let count = families.len();
    for (n, family) in families.into_iter().enumerate() {
        let (deviations, most) = spread(keys, family).map_err(|error| error.context(format!("family {n}")))?;
        worst = (worst.0.max(deviations), worst.1.max(most));
    }
    Ok(format!("{count} families: {:.1} standard deviations, {} flows in a slot at most", worst.0, worst.1))
}

#[test]
fn structured_ipv6_sources_spread_like_random_ones() -> Result<()> {
    Matrix::Fault.row("D11", "IPv6: 65,536 structured sources spread over the slots", || {
        let mut families: Vec<Box<dyn Fn(u32) -> V6>> = Vec::new();
        // As words of the packet: the four bits of the fault, and the 15 groups of four below them.
        for gap in [29, 32] {
            families.push(Box::new(move |n| {
                let mut flow = from6(0, 40_000);
                flow.addresses[0] ^= scattered(n, |bit| 1_u64 << (63 - bit) | 1 << (31 - bit));
                flow.addresses[1] ^= scattered(n, |bit| 1_u64 << (63 - bit) | 1 << (63 - gap - bit));
                flow
            }));
        }
        // The last 16 bits, /64s, /48s, and 16 bits anywhere between.
        families.extend(
            (0..=96)
                .step_by(if is_full() { 4 } else { 16 })
                .map(|shift| Box::new(move |n| from6(u128::from(n) << shift, 40_000)) as Box<dyn Fn(u32) -> V6>),
        );
        for stride in STRIDES {
            families.push(Box::new(move |n| from6(u128::from(n) * u128::from(stride), 40_000)));
            families.push(Box::new(move |n| from6((u128::from(n) * u128::from(stride)) << 48, 40_000)));
        }
        // Every seventh bit of the address; the same bits in both words; hosts and ports by 256.
        families.push(Box::new(|n| from6(scattered(n, |bit| 1_u128 << (7 * bit)), 40_000)));
        families.push(Box::new(|n| from6(u128::from(n) << 64 | u128::from(n), 40_000)));
        families.push(Box::new(|n| from6(u128::from(n) << 48 | u128::from(n), 40_000)));
        families.push(Box::new(|n| from6(u128::from(n >> 8), 40_000 + (n & 0xff) as u16)));
        families.push(Box::new(|n| from6(u128::from(n), n as u16)));
        families.push(Box::new(|n| from6(0, n as u16)));
        worst(families)
    })
}

#[test]
fn structured_ipv4_sources_spread_like_random_ones() -> Result<()> {
    Matrix::Fault.row("D11", "IPv4: 65,536 structured sources spread over the slots", || {
        let mut families: Vec<Box<dyn Fn(u32) -> V4>> = Vec::new();
        families.extend(
            (0..=16).step_by(4).map(|shift| Box::new(move |n| from4(n << shift, 40_000)) as Box<dyn Fn(u32) -> V4>),
        );
        for stride in STRIDES {
            families.push(Box::new(move |n| from4(n.wrapping_mul(stride as u32), 40_000)));
        }
        families.push(Box::new(|n| from4(scattered(n, |bit| 1_u32 << (2 * bit)), 40_000)));
        families.push(Box::new(|n| from4(scattered(n, |bit| 2_u32 << (2 * bit)), 40_000)));
        families.push(Box::new(|n| from4(n >> 8, 40_000 + (n & 0xff) as u16)));
        families.push(Box::new(|n| from4(n >> 8 << 24, (n & 0xff) as u16 * 256)));
        families.push(Box::new(|n| from4(n << 16, n as u16)));
        families.push(Box::new(|n| from4(n, n as u16)));
        families.push(Box::new(|n| from4(0, n as u16)));
        worst(families)
    })
}
