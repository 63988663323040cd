//! The VIP directories: perfect hash tables that answer "which VIP is this packet for" with two loads and no probing.
//!
//! User space builds a directory aside, so that no two keys share a slot, and switches to it through one word. The
//! packet path hashes the key, looks up its group's displacement and compares one entry.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::pod::Word;
use crate::table::PoolIndex;

/// Entries of a directory: at most a quarter is used (512 VIPs and as many addresses), so a seed is found at once.
pub const DIRECTORY_SLOTS: usize = 4_096;

/// Groups of keys that share a displacement.
pub const DIRECTORY_GROUPS: usize = 1_024;

const SLOT_BITS: u32 = DIRECTORY_SLOTS.ilog2();
const GROUP_BITS: u32 = DIRECTORY_GROUPS.ilog2();

/// A VIP by number, below [`crate::maps::MAX_VIPS`]: the index of its counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipId(pub u16);

/// What a directory says of a key.
///
/// ```text
///  63          34    33        32     31         16 15         0
/// +--------------+---------+---------+-------------+------------+
/// | 0            | address | present | pool index  | VIP id     |
/// +--------------+---------+---------+-------------+------------+
/// ```
///
/// All zero, it says nothing. *address*: some VIP has this address, but the entry is not a VIP: it tells packets to be dropped from those to be
/// passed to the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VipWord(pub u64);

impl VipWord {
    const PRESENT: u64 = 1 << 32;
    const ADDRESS: u64 = 1 << 33;

    /// A VIP served by a pool.
    pub const fn vip(vip: VipId, pool: PoolIndex) -> Self {
        Self(Self::PRESENT | (pool.0 as u64) << 16 | vip.0 as u64)
    }

    /// The mark that an address belongs to some VIP.
    pub const ADDRESS_IN_USE: Self = Self(Self::PRESENT | Self::ADDRESS);

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
    /// The key's hash under a directory's seed, which is odd: the highest ten bits choose the group, the next twelve
    /// the entry.
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
        Self::of_service(address, port as u64 | (protocol as u64) << 16)
    }

    /// The same, of port and protocol as [`crate::hash::Transport::service`] has them.
    #[inline(always)]
    pub const fn of_service(address: u32, service: u64) -> Self {
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
        Self::of_service(address, port as u64 | (protocol as u64) << 16)
    }

    /// The same, of port and protocol as [`crate::hash::Transport::service`] has them.
    #[inline(always)]
    pub const fn of_service(address: [u64; 2], service: u64) -> Self {
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

/// One entry: a key and what the directory says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Entry<K> {
    key: K,
    word: u64,
}

/// A perfect hash table from keys to VIP words.
///
/// A directory of zeroes is empty and valid.
#[derive(Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Directory<K> {
    seed: u64,
    displacements: [u16; DIRECTORY_GROUPS],
    entries: [Entry<K>; DIRECTORY_SLOTS],
}

/// The directory of IPv4 VIPs.
pub type Directory4 = Directory<Key4>;
/// The directory of IPv6 VIPs.
pub type Directory6 = Directory<Key6>;

/// Why a directory was not built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// More keys than a quarter of [`DIRECTORY_SLOTS`].
    TooManyKeys,
    /// The same key twice.
    DuplicateKey,
    /// No seed kept the keys apart: not seen in practice with keys that differ.
    NoSeed,
}

impl<K: Key> Directory<K> {
    /// What the directory says of a key; a word that is not present if it says nothing.
    #[inline(always)]
    pub fn find(&self, key: K) -> VipWord {
        let hash = key.hash(self.seed);
        let displacement = self.displacements[group(hash)];
        let entry = &self.entries[slot(hash, displacement)];
        if entry.key == key { VipWord(entry.word) } else { VipWord(0) }
    }

    /// Rebuilds the directory from scratch. The same keys in the same order give the same bytes.
    ///
    /// # Errors
    /// The directory is left empty and the reason is told.
    pub fn build(&mut self, keys: &[(K, VipWord)]) -> Result<(), BuildError> {
        self.clear();
        if keys.len() > DIRECTORY_SLOTS / 4 {
            return Err(BuildError::TooManyKeys);
        }
        if keys.iter().enumerate().any(|(n, (key, _))| keys[..n].iter().any(|(other, _)| other == key)) {
            return Err(BuildError::DuplicateKey);
        }
        for attempt in 1..=64 {
            if self.try_seed(attempt, keys) {
                return Ok(());
            }
            self.clear();
        }
        Err(BuildError::NoSeed)
    }

    fn clear(&mut self) {
        self.seed = 0;
        self.displacements.fill(0);
        let empty = Entry { key: K::new_zeroed(), word: 0 };
        self.entries.fill(empty);
    }

    /// Hash and displace: groups in order of falling size, each by the first displacement that fits.
    fn try_seed(&mut self, attempt: u64, keys: &[(K, VipWord)]) -> bool {
        self.seed = mix(attempt) | 1;
        let mut sizes = [0_u16; DIRECTORY_GROUPS];
        for (key, _) in keys {
            sizes[group(key.hash(self.seed))] += 1;
        }
        let largest = sizes.iter().copied().max().unwrap_or(0);
        (1..=largest)
            .rev()
            .all(|size| (0..DIRECTORY_GROUPS).filter(|&g| sizes[g] == size).all(|group| self.place_group(group, keys)))
    }

    fn place_group(&mut self, wanted: usize, keys: &[(K, VipWord)]) -> bool {
        let members = || keys.iter().filter(|(key, _)| group(key.hash(self.seed)) == wanted);
        let fits = |&displacement: &u16| {
            members().enumerate().all(|(n, (key, _))| {
                let at = slot(key.hash(self.seed), displacement);
                let taken = self.entries[at].word != 0;
                !taken && members().take(n).all(|(other, _)| slot(other.hash(self.seed), displacement) != at)
            })
        };
        let Some(displacement) = (0..DIRECTORY_SLOTS as u16).find(fits) else { return false };
        self.displacements[wanted] = displacement;
        for &(key, word) in keys.iter().filter(|(key, _)| group(key.hash(self.seed)) == wanted) {
            self.entries[slot(key.hash(self.seed), displacement)] = Entry { key, word: word.0 };
        }
        true
    }
}

#[inline(always)]
const fn group(hash: u64) -> usize {
    (hash >> (64 - GROUP_BITS)) as usize
}

#[inline(always)]
const fn slot(hash: u64, displacement: u16) -> usize {
    ((hash >> (64 - GROUP_BITS - SLOT_BITS)) as usize ^ displacement as usize) & (DIRECTORY_SLOTS - 1)
}

/// Which of the two directories of each family the packet path reads: one word each.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Switch {
    /// 0 or 1: the IPv4 directory in use.
    pub directory4: Word,
    /// 0 or 1: the IPv6 directory in use.
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

    fn build(keys: &BTreeMap<(u32, u16, u8), u16>) -> Box<Directory4> {
        let keys: Vec<_> = keys
            .iter()
            .map(|(&(address, port, protocol), &id)| {
                (Key4::new(address, port, protocol), VipWord::vip(VipId(id), PoolIndex(id)))
            })
            .collect();
        let mut directory = Directory4::new_box_zeroed().unwrap();
        directory.build(&keys).unwrap();
        directory
    }

    #[test]
    fn a_full_directory_of_neighbouring_addresses_builds() {
        let keys = (0..1_024).map(|n| ((0x0a71_00cb | n << 24, 0x5000, 6), n as u16)).collect();
        let directory = build(&keys);
        for (&(address, port, protocol), &id) in &keys {
            assert_eq!(directory.find(Key4::new(address, port, protocol)).id(), VipId(id));
        }
    }

    #[test]
    fn too_many_and_duplicate_keys_are_refused() {
        let mut directory = Directory4::new_box_zeroed().unwrap();
        let word = VipWord::ADDRESS_IN_USE;
        let many: Vec<_> = (0..1_025).map(|n| (Key4::new(n, 0, 0), word)).collect();
        assert_eq!(directory.build(&many), Err(BuildError::TooManyKeys));
        let twice = [(Key4::new(1, 0, 0), word), (Key4::new(1, 0, 0), word)];
        assert_eq!(directory.build(&twice), Err(BuildError::DuplicateKey));
    }

    #[test]
    fn an_ipv6_key_is_found_by_all_its_parts() {
        let key = Key6::new([1, 2], 3, 6);
        let mut directory = Directory6::new_box_zeroed().unwrap();
        directory.build(&[(key, VipWord::vip(VipId(9), PoolIndex(8)))]).unwrap();
        assert_eq!(directory.find(key).pool(), PoolIndex(8));
        for other in
            [Key6::new([1, 1], 3, 6), Key6::new([0, 2], 3, 6), Key6::new([1, 2], 4, 6), Key6::new([1, 2], 3, 17)]
        {
            assert!(!directory.find(other).is_present());
        }
    }

    proptest! {
        #[test]
        fn a_directory_finds_its_keys_and_no_others(
            keys in prop::collection::btree_map((any::<u32>(), any::<u16>(), 0_u8..3), any::<u16>(), 0..200),
            probes in prop::collection::vec((any::<u32>(), any::<u16>(), 0_u8..3), 50),
        ) {
            let directory = build(&keys);
            for (&(address, port, protocol), &id) in &keys {
                prop_assert_eq!(directory.find(Key4::new(address, port, protocol)).id(), VipId(id));
            }
            for probe in probes {
                let found = directory.find(Key4::new(probe.0, probe.1, probe.2)).is_present();
                prop_assert_eq!(found, keys.contains_key(&probe));
            }
        }
    }
}
