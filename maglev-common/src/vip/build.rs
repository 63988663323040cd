//! How user space builds a directory.

use alloc::vec;
use alloc::vec::Vec;

use super::*;

/// All that a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents<K> {
    /// Its keys: of VIPs with one address and one port, of all addresses and of prefixes.
    pub keys: Vec<(K, VipWord)>,
    /// Its rules and the VIP of each: those of one address or prefix in a row, in the order in which they count.
    pub rules: Vec<(Rule, VipWord)>,
    /// The lengths of its prefixes, the longest first.
    pub lengths: Vec<u8>,
}

impl<K> Default for Contents<K> {
    fn default() -> Self {
        Self { keys: Vec::new(), rules: Vec::new(), lengths: Vec::new() }
    }
}

impl<K: Key> Contents<K> {
    fn check(&self) -> Result<(), BuildError> {
        if self.keys.len() > MOST_KEYS {
            return Err(BuildError::TooManyKeys);
        }
        let of_address = |(_, word): &(K, VipWord)| if word.is_address() { (word.0 >> 16) as u16 } else { 0 };
        if self.rules.len() > MOST_RULES || self.keys.iter().any(|key| usize::from(of_address(key)) > RULES_OF_ADDRESS)
        {
            return Err(BuildError::TooManyRules);
        }
        if self.lengths.len() > MOST_LENGTHS {
            return Err(BuildError::TooManyLengths);
        }
        let mut hashes: Vec<_> = self.keys.iter().map(|(key, _)| (key.hash(mix(1) | 1), key)).collect();
        hashes.sort_unstable_by_key(|(hash, _)| *hash);
        // Keys that are the same have the same hash.
        let is_twice = |n: usize| {
            let (hash, key) = hashes[n];
            hashes[n + 1..].iter().take_while(|(other, _)| *other == hash).any(|(_, other)| *other == key)
        };
        if (0..hashes.len()).any(is_twice) { Err(BuildError::DuplicateKey) } else { Ok(()) }
    }
}

impl<K: Key> Directory<K> {
    /// Rebuilds the directory, which is number 0 or 1, from scratch and returns the word that switches to it. The same contents in
    /// the same order give the same bytes.
    ///
    /// # Errors
    /// The directory is left empty and the reason is returned.
    pub fn build(
        &mut self,
        annex: &mut Annex,
        directory: usize,
        contents: &Contents<K>,
    ) -> Result<DirectoryWord, BuildError> {
        self.build_as(contents.keys.len() > FEW_KEYS, annex, directory, contents)
    }

    /// The same, displaced or not whatever the number of keys.
    pub(super) fn build_as(
        &mut self,
        displaced: bool,
        annex: &mut Annex,
        directory: usize,
        contents: &Contents<K>,
    ) -> Result<DirectoryWord, BuildError> {
        self.clear();
        annex.displacements.fill(0);
        contents.check()?;
        annex.lengths = contents.lengths.iter().rev().fold(0, |lengths, length| lengths << 8 | u64::from(*length));
        for (n, (rule, vip)) in contents.rules.iter().enumerate() {
            (annex.rules[n], annex.vips[n]) = (*rule, vip.0);
        }
        let mut words = (1..=ATTEMPTS).map(|attempt| DirectoryWord::new(directory, displaced, mix(attempt)));
        let built = |word: &DirectoryWord| {
            let seed = word.seed();
            if displaced {
                self.try_displaced(annex, seed, &contents.keys)
            } else {
                self.try_seed(seed, &contents.keys)
            }
        };
        words.find(built).ok_or(BuildError::NoSeed)
    }

    fn clear(&mut self) {
        self.entries.fill(Entry { key: K::new_zeroed(), word: 0 });
    }

    /// Places every key, or none.
    fn try_seed(&mut self, seed: u64, keys: &[(K, VipWord)]) -> bool {
        for (n, &(key, word)) in keys.iter().enumerate() {
            let entry = &mut self.entries[place(key.hash(seed), 0)];
            if entry.word != 0 {
                for &(key, _) in &keys[..n] {
                    self.entries[place(key.hash(seed), 0)] = Entry { key: K::new_zeroed(), word: 0 };
                }
                return false;
            }
            *entry = Entry { key, word: word.0 };
        }
        true
    }

    /// The same with a displacement for each group of keys, the largest groups first (Belazzougui, Botelho and Dietzfelbinger 2009).
    fn try_displaced(&mut self, annex: &mut Annex, seed: u64, keys: &[(K, VipWord)]) -> bool {
        let mut groups = vec![Vec::new(); DISPLACEMENTS];
        for &(key, word) in keys {
            let hash = key.hash(seed);
            groups[displacement_of(hash)].push((hash, Entry { key, word: word.0 }));
        }
        let mut order: Vec<_> = (0..DISPLACEMENTS).collect();
        order.sort_by_key(|&group| usize::MAX - groups[group].len());
        for group in order {
            let members = &groups[group];
            let distinct =
                |n: usize| members[n + 1..].iter().all(|&(hash, _)| place(hash, 0) != place(members[n].0, 0));
            let free =
                |displacement: u16| members.iter().all(|&(hash, _)| self.entries[place(hash, displacement)].word == 0);
            let found =
                (0..members.len()).all(distinct).then(|| (0..=u16::MAX).find(|&displacement| free(displacement)));
            let Some(Some(displacement)) = found else {
                self.clear();
                return false;
            };
            annex.displacements[group] = displacement;
            for &(hash, entry) in members {
                self.entries[place(hash, displacement)] = entry;
            }
        }
        true
    }
}

const fn mix(word: u64) -> u64 {
    let h = (word ^ (word >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^ (h >> 29)
}
