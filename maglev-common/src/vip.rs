//! The VIP directories: perfect hash tables that answer "which VIP is this packet for" with one multiplication and one
//! cache line.
//!
//! User space builds a directory aside, with a seed under which no two keys share an entry, and switches to it through one
//! word. The packet path hashes the key and compares one entry.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::maps::MAX_VIPS;
use crate::pod::Word;
use crate::settings::Unserved;
use crate::table::PoolIndex;

/// Entries of a directory: so many that a seed keeps [`MOST_KEYS`] apart once in 3,000 attempts, which takes a few
/// milliseconds.
pub const DIRECTORY_ENTRIES: usize = 1 << 16;

/// Keys that a directory takes: as many VIPs as there can be, and as many addresses.
pub const MOST_KEYS: usize = 2 * MAX_VIPS as usize;

/// Seeds that are tried before a build gives up.
const ATTEMPTS: u64 = 1 << 20;

/// A VIP by number, below [`crate::maps::MAX_VIPS`]: the index of its counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipId(pub u16);

/// A directory's value of a key.
///
/// ```text
///  63      62       61        34    33        32     31         16 15         0
/// +-------+--------+------------+---------+---------+-------------+------------+
/// | reset | silent | 0          | address | present | pool index  | VIP id     |
/// +-------+--------+------------+---------+---------+-------------+------------+
/// ```
///
/// All zero: no value. *address*: some VIP has this address, but the entry is not a VIP: it distinguishes packets to be dropped from
/// those to be passed to the host. *reset*: [`Unserved::Reset`] for packets that no backend can be given: of a VIP whose pool has none,
/// or to ports of the address that no VIP has. *silent*: echo requests to the address are not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipWord(pub u64);

impl VipWord {
    const PRESENT: u64 = 1 << 32;
    const ADDRESS: u64 = 1 << 33;
    const SILENT: u64 = 1 << 62;
    const RESET: u64 = 1 << 63;

    /// A VIP served by a pool.
    pub const fn vip(vip: VipId, pool: PoolIndex) -> Self {
        Self(Self::PRESENT | (pool.0 as u64) << 16 | vip.0 as u64)
    }

    /// The mark that an address belongs to some VIP.
    pub const ADDRESS_IN_USE: Self = Self(Self::PRESENT | Self::ADDRESS);

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
        VipId(self.0 as u16)
    }

    /// The pool that serves the VIP.
    #[inline(always)]
    pub const fn pool(self) -> PoolIndex {
        PoolIndex((self.0 >> 16) as u16)
    }
}

/// A key of a directory: what it hashes to and how it is compared.
pub trait Key: Copy + PartialEq + FromBytes + Immutable + KnownLayout + 'static {
    /// The key's hash under a directory's seed, which is odd: the highest bits choose the entry.
    fn hash(self, seed: u64) -> u64;
    /// The key of the same address and protocol, with any port.
    #[must_use]
    fn any_port(self) -> Self;
    /// The key of the bare address.
    #[must_use]
    fn bare_address(self) -> Self;
}

/// An IPv4 key. Port 0 stands for any port; protocol 0 with port 0 for the bare address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Key4(u64);

impl Key4 {
    /// The key of a destination: address and port are network-order bytes read as little-endian integers.
    #[inline(always)]
    pub const fn new(address: u32, port: u16, protocol: u8) -> Self {
        Self::from_service(address, port as u64 | (protocol as u64) << 16)
    }

    /// The same, of port and protocol as [`crate::hash::Transport::service`] has them.
    #[inline(always)]
    pub const fn from_service(address: u32, service: u64) -> Self {
        Self(address as u64 | service << 32)
    }
}

impl Key for Key4 {
    #[inline(always)]
    fn hash(self, seed: u64) -> u64 {
        // Multiplicative hashing (Knuth, TAOCP vol. 3, section 6.4): the highest bits depend on all of the key's.
        self.0.wrapping_mul(seed)
    }

    #[inline(always)]
    fn any_port(self) -> Self {
        Self(self.0 & !(0xffff << 32))
    }

    #[inline(always)]
    fn bare_address(self) -> Self {
        Self(self.0 & 0xffff_ffff)
    }
}

/// An IPv6 key, with the same wildcards as [`Key4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Key6 {
    address: [u64; 2],
    service: u64,
}

impl Key6 {
    /// The key of a destination: address and port are network-order bytes read as little-endian integers.
    #[inline(always)]
    pub const fn new(address: [u64; 2], port: u16, protocol: u8) -> Self {
        Self::from_service(address, port as u64 | (protocol as u64) << 16)
    }

    /// The same, of port and protocol as [`crate::hash::Transport::service`] has them.
    #[inline(always)]
    pub const fn from_service(address: [u64; 2], service: u64) -> Self {
        Self { address, service }
    }
}

impl Key for Key6 {
    #[inline(always)]
    fn hash(self, seed: u64) -> u64 {
        let h = self.address[0].wrapping_mul(seed);
        let h = (h ^ (h >> 32) ^ self.address[1]).wrapping_mul(seed);
        (h ^ (h >> 32) ^ self.service).wrapping_mul(seed)
    }

    #[inline(always)]
    fn any_port(self) -> Self {
        Self { service: self.service & !0xffff, ..self }
    }

    #[inline(always)]
    fn bare_address(self) -> Self {
        Self { service: 0, ..self }
    }
}

#[inline(always)]
const fn mix(word: u64) -> u64 {
    let h = (word ^ (word >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^ (h >> 29)
}

/// One entry: a key and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Entry<K> {
    key: K,
    word: u64,
}

/// A perfect hash table from keys to VIP words, under a seed that is kept in its [`DirectoryWord`].
///
/// A directory of zeroes is empty and valid under any seed.
#[derive(Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Directory<K> {
    entries: [Entry<K>; DIRECTORY_ENTRIES],
}

/// The directory of IPv4 VIPs.
pub type Directory4 = Directory<Key4>;
/// The directory of IPv6 VIPs.
pub type Directory6 = Directory<Key6>;

/// Why a directory was not built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// More than [`MOST_KEYS`].
    TooManyKeys,
    /// The same key twice.
    DuplicateKey,
    /// No seed kept the keys apart: not seen in practice with keys that differ.
    NoSeed,
}

/// Which of two directories the packet path reads, and the seed of that one: one word, so that one load finds both.
///
/// The word is the seed. It is odd, and its bit 20 says which directory: as far as the second IPv4 directory lies behind
/// the first, so that the bit need not even be shifted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryWord(pub u64);

impl DirectoryWord {
    const SECOND: u64 = size_of::<Directory4>() as u64;

    /// Directory 0 or 1, under the seed that these bits make.
    const fn new(directory: usize, bits: u64) -> Self {
        let second = if directory == 0 { 0 } else { Self::SECOND };
        Self(bits & !Self::SECOND | second | 1)
    }

    /// Which one is in use.
    #[inline(always)]
    pub const fn directory(self) -> usize {
        (self.0 / Self::SECOND) as usize & 1
    }

    /// Its seed.
    #[inline(always)]
    pub const fn seed(self) -> u64 {
        self.0
    }
}

impl<K: Key> Directory<K> {
    /// The value of a key in this directory, built under this seed; a word that is not present if it has none.
    #[inline(always)]
    pub fn find(&self, seed: u64, key: K) -> VipWord {
        let entry = &self.entries[position(key, seed)];
        if entry.key == key { VipWord(entry.word) } else { VipWord(0) }
    }

    /// Rebuilds the directory, which is number 0 or 1, from scratch and returns the word that switches to it. The same keys in
    /// the same order give the same bytes.
    ///
    /// # Errors
    /// The directory is left empty and the reason is returned.
    pub fn build(&mut self, directory: usize, keys: &[(K, VipWord)]) -> Result<DirectoryWord, BuildError> {
        self.entries.fill(Entry { key: K::new_zeroed(), word: 0 });
        if keys.len() > MOST_KEYS {
            return Err(BuildError::TooManyKeys);
        }
        if keys.iter().enumerate().any(|(n, (key, _))| keys[..n].iter().any(|(other, _)| other == key)) {
            return Err(BuildError::DuplicateKey);
        }
        let mut words = (1..=ATTEMPTS).map(|attempt| DirectoryWord::new(directory, mix(attempt)));
        words.find(|word| self.try_seed(word.seed(), keys)).ok_or(BuildError::NoSeed)
    }

    /// Places every key, or none.
    fn try_seed(&mut self, seed: u64, keys: &[(K, VipWord)]) -> bool {
        for (n, &(key, word)) in keys.iter().enumerate() {
            let entry = &mut self.entries[position(key, seed)];
            if entry.word != 0 {
                for &(key, _) in &keys[..n] {
                    self.entries[position(key, seed)] = Entry { key: K::new_zeroed(), word: 0 };
                }
                return false;
            }
            *entry = Entry { key, word: word.0 };
        }
        true
    }
}

/// The entry in which a key stands.
#[inline(always)]
fn position<K: Key>(key: K, seed: u64) -> usize {
    (key.hash(seed) >> (u64::BITS - DIRECTORY_ENTRIES.ilog2())) as usize
}

/// Which of the two directories of each family the packet path reads: a [`DirectoryWord`] each.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Switch {
    /// The IPv4 directory in use.
    pub directory4: Word,
    /// The IPv6 directory in use.
    pub directory6: Word,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::collections::BTreeMap;
    use std::vec::Vec;
    use zerocopy::FromZeros;

    fn build(keys: &BTreeMap<(u32, u16, u8), u16>) -> (Box<Directory4>, u64) {
        let keys: Vec<_> = keys
            .iter()
            .map(|(&(address, port, protocol), &id)| {
                (Key4::new(address, port, protocol), VipWord::vip(VipId(id), PoolIndex(id)))
            })
            .collect();
        let mut directory = Directory4::new_box_zeroed().unwrap();
        let word = directory.build(1, &keys).unwrap();
        assert_eq!(word.directory(), 1);
        (directory, word.seed())
    }

    #[test]
    fn a_full_directory_of_neighboring_addresses_builds() {
        let keys = (0..1_024).map(|n| ((0x0a71_00cb | n << 24, 0x5000, 6), n as u16)).collect();
        let (directory, seed) = build(&keys);
        for (&(address, port, protocol), &id) in &keys {
            assert_eq!(directory.find(seed, Key4::new(address, port, protocol)).id(), VipId(id));
        }
    }

    #[test]
    fn too_many_and_duplicate_keys_are_refused() {
        let mut directory = Directory4::new_box_zeroed().unwrap();
        let word = VipWord::ADDRESS_IN_USE;
        let many: Vec<_> = (0..1_025).map(|n| (Key4::new(n, 0, 0), word)).collect();
        assert_eq!(directory.build(0, &many), Err(BuildError::TooManyKeys));
        let twice = [(Key4::new(1, 0, 0), word), (Key4::new(1, 0, 0), word)];
        assert_eq!(directory.build(0, &twice), Err(BuildError::DuplicateKey));
    }

    #[test]
    fn a_word_keeps_its_parts_apart() {
        let vip = VipWord::vip(VipId(511), PoolIndex(511));
        for word in [vip, VipWord::ADDRESS_IN_USE] {
            let marked = word.with_unserved(Unserved::Reset).silent();
            assert_eq!((marked.unserved(), marked.is_silent()), (Unserved::Reset, true));
            assert_eq!((marked.id(), marked.pool(), marked.is_present()), (word.id(), word.pool(), true));
            assert_eq!((word.unserved(), word.is_silent()), (Unserved::Drop, false));
            assert_eq!(word.with_unserved(Unserved::Reset).with_unserved(Unserved::Drop), word);
        }
    }

    #[test]
    fn an_ipv6_key_is_found_by_all_its_parts() {
        let key = Key6::new([1, 2], 3, 6);
        let mut directory = Directory6::new_box_zeroed().unwrap();
        let seed = directory.build(0, &[(key, VipWord::vip(VipId(9), PoolIndex(8)))]).unwrap().seed();
        assert_eq!(directory.find(seed, key).pool(), PoolIndex(8));
        for other in
            [Key6::new([1, 1], 3, 6), Key6::new([0, 2], 3, 6), Key6::new([1, 2], 4, 6), Key6::new([1, 2], 3, 17)]
        {
            assert!(!directory.find(seed, other).is_present());
        }
    }

    proptest! {
        #[test]
        fn a_directory_finds_its_keys_and_no_others(
            keys in prop::collection::btree_map((any::<u32>(), any::<u16>(), 0_u8..3), any::<u16>(), 0..200),
            probes in prop::collection::vec((any::<u32>(), any::<u16>(), 0_u8..3), 50),
        ) {
            let (directory, seed) = build(&keys);
            for (&(address, port, protocol), &id) in &keys {
                prop_assert_eq!(directory.find(seed, Key4::new(address, port, protocol)).id(), VipId(id));
            }
            for probe in probes {
                let found = directory.find(seed, Key4::new(probe.0, probe.1, probe.2)).is_present();
                prop_assert_eq!(found, keys.contains_key(&probe));
            }
        }
    }
}
