//! The VIP directories: perfect hash tables that answer "which VIP is this packet for" with one multiplication and one
//! cache line, if the VIP has one address and one port. For the others, the address leads to rules.
//!
//! User space builds a directory aside, with a seed under which no two keys share an entry, and switches to it through one
//! word. The packet path hashes the key and compares one entry.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::hash::{mask4, mask6};
pub use crate::ids::VipId;
use crate::maps::{DEFAULT_VIPS, MAX_VIPS};
use crate::pod::Word;

/// Entries of a directory: so many that a seed keeps [`FEW_KEYS`] apart once in 3,000 attempts, which takes a few
/// milliseconds.
pub const DIRECTORY_ENTRIES: usize = 1 << 16;

/// Keys that a directory takes without displacements: as many VIPs as a node has by default, and as many addresses.
pub const FEW_KEYS: usize = 2 * DEFAULT_VIPS as usize;

/// Keys that a directory takes: as many VIPs as there can be, and as many addresses.
pub const MOST_KEYS: usize = 2 * MAX_VIPS as usize;

/// Seeds that are tried before a build gives up.
#[cfg(not(target_arch = "bpf"))]
const ATTEMPTS: u64 = 1 << 20;

/// Displacements of a directory with many keys: four keys share one, on average, if there are as many as can be.
const DISPLACEMENTS: usize = 1 << 11;

/// What stands for port and protocol in the look-up of an address's own word: no rule takes it.
pub const ADDRESS_ALONE: u64 = 1 << 24;

/// Rules that a directory has room for.
pub const MOST_RULES: usize = 1 << 14;
/// Rules that one address may lead to: the packet path looks through all of them.
pub const RULES_OF_ADDRESS: usize = 32;
/// Different lengths of prefixes that a directory may have, beside those of single addresses.
pub const MOST_LENGTHS: usize = size_of::<u64>();

/// A key of a directory: what it hashes to and how it is compared.
pub trait Key: Copy + PartialEq + FromBytes + Immutable + KnownLayout + 'static {
    /// The key's hash under a directory's seed, which is odd: the highest bits choose the entry.
    fn hash(self, seed: u64) -> u64;
    /// The key of the bare address.
    #[must_use]
    fn bare_address(self) -> Self;
    /// The key of the prefix with this length, in bits, that the address is in.
    #[must_use]
    fn prefix(self, length: u8) -> Self;
    /// Port and protocol, as [`crate::hash::Transport::service`] has them.
    fn service(self) -> u64;
}

/// An IPv4 key. Protocol 0 with port 0 stands for the bare address; a length above the protocol, for a prefix.
///
/// ```text
///  63      56 55        48 47                32 31         0
/// +----------+------------+--------------------+------------+
/// | length   | protocol   | destination port   | address    |
/// +----------+------------+--------------------+------------+
/// ```
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
    fn bare_address(self) -> Self {
        Self(self.0 & 0xffff_ffff)
    }

    #[inline(always)]
    fn prefix(self, length: u8) -> Self {
        Self(self.0 & u64::from(mask4(length)) | u64::from(length) << 56)
    }

    #[inline(always)]
    fn service(self) -> u64 {
        self.0 >> 32
    }
}

/// An IPv6 key, with port, protocol and length as in [`Key4`].
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
    fn bare_address(self) -> Self {
        Self { service: 0, ..self }
    }

    #[inline(always)]
    fn prefix(self, length: u8) -> Self {
        let ([a, b], [high, low]) = (mask6(length), self.address);
        Self { address: [high & a, low & b], service: u64::from(length) << 24 }
    }

    #[inline(always)]
    fn service(self) -> u64 {
        self.service
    }
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

/// What a directory has beside its entries.
#[derive(Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Annex {
    /// The lengths of its prefixes, a byte each from the lowest on, the longest first; 0 ends them.
    lengths: u64,
    /// Fills the line.
    reserved: [u64; 7],
    /// If it has more than [`FEW_KEYS`]: what is added to the place of each, by other bits of its hash.
    displacements: [u16; DISPLACEMENTS],
    /// The rules of all addresses and prefixes.
    rules: [Rule; MOST_RULES],
    /// The VIP of each rule.
    vips: [u64; MOST_RULES],
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
    /// More than [`MOST_RULES`], or an address has more than [`RULES_OF_ADDRESS`].
    TooManyRules,
    /// More than [`MOST_LENGTHS`] lengths of prefixes.
    TooManyLengths,
    /// No seed kept the keys apart: not seen in practice with keys that differ.
    NoSeed,
}

/// Which of two directories the packet path reads, how, and the seed of that one: one word, so that one load finds all.
///
/// The word is the seed. It is odd. Its bit 20 says which directory: as far as the second IPv4 directory lies behind the first,
/// so that the bit need not even be shifted. Its sign says whether the directory has displacements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryWord(pub u64);

impl DirectoryWord {
    const SECOND: u64 = size_of::<Directory4>() as u64;
    const DISPLACED: u64 = 1 << 63;

    /// Directory 0 or 1, with displacements or without, under the seed that these bits make.
    #[cfg(not(target_arch = "bpf"))]
    const fn new(directory: usize, displaced: bool, bits: u64) -> Self {
        let second = if directory == 0 { 0 } else { Self::SECOND };
        let displaced = if displaced { Self::DISPLACED } else { 0 };
        Self(bits & !(Self::SECOND | Self::DISPLACED) | second | displaced | 1)
    }

    /// Which one is in use.
    #[inline(always)]
    pub const fn directory(self) -> usize {
        (self.0 / Self::SECOND) as usize & 1
    }

    /// Whether that is the first.
    #[inline(always)]
    const fn is_first(self) -> bool {
        self.0 & Self::SECOND == 0
    }

    /// Whether its keys have displacements: it has more than [`FEW_KEYS`].
    #[inline(always)]
    const fn is_displaced(self) -> bool {
        self.0 & Self::DISPLACED != 0
    }

    /// Its seed.
    #[inline(always)]
    const fn seed(self) -> u64 {
        self.0
    }
}

/// A directory that is in use, for look-ups.
#[derive(Clone, Copy, Debug)]
pub struct Index<'a, K> {
    /// The entries.
    pub directory: &'a Directory<K>,
    /// The rest of it, and of the other one.
    pub annexes: &'a [Annex; 2],
    /// The word that says it is.
    pub word: DirectoryWord,
}

impl<K: Key> Index<'_, K> {
    /// The value of a key; a word that is not present if it has none.
    #[inline(always)]
    pub fn find(&self, key: K) -> VipWord {
        let (hash, entries) = (key.hash(self.word.seed()), &self.directory.entries);
        let entry = if self.word.is_displaced() {
            &entries[place(hash, self.annex().displacements[displacement_of(hash)])]
        } else {
            &entries[place(hash, 0)]
        };
        if entry.key == key { VipWord(entry.word) } else { VipWord(0) }
    }

    /// What it has beside its entries: seldom asked for, and chosen by a branch, so that finding the entries takes no instruction for it.
    #[inline(always)]
    const fn annex(&self) -> &Annex {
        let [first, second] = self.annexes;
        if self.word.is_first() { first } else { second }
    }

    /// The value of the key's bare address, or else of the longest prefix that the address is in.
    #[inline(always)]
    pub fn find_address(&self, key: K) -> VipWord {
        let address = self.find(key.bare_address());
        if address.is_present() {
            return address;
        }
        let mut lengths = self.annex().lengths;
        for _ in 0..MOST_LENGTHS {
            if lengths == 0 {
                break;
            }
            let prefix = self.find(key.prefix(lengths as u8));
            if prefix.is_present() {
                return prefix;
            }
            lengths >>= 8;
        }
        VipWord(0)
    }

    /// The VIP of a packet that no key of its own has: by the rules of its address. If none takes it, the value of the address.
    #[inline(always)]
    pub fn find_by_rules(&self, key: K) -> VipWord {
        let address = self.find_address(key);
        let (first, rules) = (address.0 as usize & 0xffff, (address.0 >> 16) as usize & 0xffff);
        for n in 0..RULES_OF_ADDRESS {
            if n >= rules {
                break;
            }
            let at = (first + n) & (MOST_RULES - 1);
            if self.annex().rules[at].takes(key.service()) {
                return VipWord(self.annex().vips[at]);
            }
        }
        address
    }
}

/// Where in a directory a key with this hash stands.
#[inline(always)]
fn place(hash: u64, displacement: u16) -> usize {
    ((hash >> (u64::BITS - DIRECTORY_ENTRIES.ilog2())) as usize + displacement as usize) & (DIRECTORY_ENTRIES - 1)
}

/// Which displacement a key with this hash has: by the bits below those of its place.
#[inline(always)]
fn displacement_of(hash: u64) -> usize {
    (hash >> (u64::BITS - DIRECTORY_ENTRIES.ilog2() - DISPLACEMENTS.ilog2())) as usize & (DISPLACEMENTS - 1)
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

mod rule;
mod word;
pub use rule::Rule;
pub use word::VipWord;

#[cfg(not(target_arch = "bpf"))]
mod build;
#[cfg(not(target_arch = "bpf"))]
pub use build::Contents;

#[cfg(test)]
mod tests;
