//! Directories of few and of many keys, by rules and prefixes.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;
use zerocopy::FromZeros;

use super::*;
use crate::table::PoolIndex;

/// A directory that was built, and what look-ups need.
struct Built<K> {
    directory: Box<Directory<K>>,
    annexes: Box<[Annex; 2]>,
    word: DirectoryWord,
}

impl<K: Key> Built<K> {
    fn new(contents: &Contents<K>) -> Result<Self, BuildError> {
        Self::new_as(contents.keys.len() > FEW_KEYS, contents)
    }

    fn new_as(displaced: bool, contents: &Contents<K>) -> Result<Self, BuildError> {
        let (mut directory, mut annexes) =
            (Directory::new_box_zeroed().unwrap(), <[Annex; 2]>::new_box_zeroed().unwrap());
        let word = directory.build_as(displaced, &mut annexes[1], 1, contents)?;
        assert_eq!((word.directory(), word.is_displaced()), (1, displaced));
        Ok(Self { directory, annexes, word })
    }

    fn index(&self) -> Index<'_, K> {
        Index { directory: &self.directory, annexes: &self.annexes, word: self.word }
    }
}

fn keys<K>(keys: impl IntoIterator<Item = (K, VipWord)>) -> Contents<K> {
    Contents { keys: keys.into_iter().collect(), ..Contents::default() }
}

const fn vip(id: u16) -> VipWord {
    VipWord::vip(VipId(id), PoolIndex(id))
}

fn neighbors(count: u32) -> Contents<Key4> {
    keys((0..count).map(|n| (Key4::new(0x0071_00cb | n >> 8 << 8 | n << 24, 0x5000, 6), vip(n as u16))))
}

#[test]
fn full_directories_of_neighboring_addresses_build() {
    for count in [FEW_KEYS as u32, FEW_KEYS as u32 + 1, MOST_KEYS as u32] {
        let contents = neighbors(count);
        let built = Built::new(&contents).unwrap();
        assert!(contents.keys.iter().all(|&(key, word)| built.index().find(key) == word));
        assert!(!built.index().find(Key4::new(1, 2, 3)).is_present());
    }
}

#[test]
fn too_many_and_duplicate_keys_are_refused() {
    let refused = |contents: &Contents<Key4>| Built::new(contents).err();
    let many = |count: u32| keys((0..count).map(|n| (Key4::new(n, 0, 0), VipWord::ADDRESS_IN_USE)));
    assert_eq!(refused(&many(8_193)), Some(BuildError::TooManyKeys));
    let twice = keys([(Key4::new(1, 0, 0), VipWord::ADDRESS_IN_USE); 2]);
    assert_eq!(refused(&twice), Some(BuildError::DuplicateKey));
    let rules = |count| Contents { rules: vec![(Rule::new(0, 1, 6), vip(1)); count], ..many(1) };
    assert_eq!(refused(&rules(MOST_RULES + 1)), Some(BuildError::TooManyRules));
    assert_eq!(refused(&keys([(Key4::new(1, 0, 0), VipWord::address(0, 33))])), Some(BuildError::TooManyRules));
    let lengths = Contents { lengths: vec![1; 9], ..many(1) };
    assert_eq!(refused(&lengths), Some(BuildError::TooManyLengths));
}

#[test]
fn an_ipv6_key_is_found_by_all_its_parts() {
    let key = Key6::new([1, 2], 3, 6);
    let built = Built::new(&keys([(key, vip(9))])).unwrap();
    assert_eq!(built.index().find(key), vip(9));
    for other in [Key6::new([1, 1], 3, 6), Key6::new([0, 2], 3, 6), Key6::new([1, 2], 4, 6), Key6::new([1, 2], 3, 17)] {
        assert!(!built.index().find(other).is_present());
    }
}

const fn address4(octets: [u8; 4]) -> u32 {
    u32::from_le_bytes(octets)
}

#[test]
fn the_first_rule_that_takes_a_packet_counts() {
    let address = address4([203, 0, 113, 10]);
    let rules = [
        (Rule::new(443, 443, 6), vip(1)),
        (Rule::new(8_000, 8_100, 6), vip(2)),
        (Rule::new(0, u16::MAX, 6), vip(3)),
        (Rule::new(0, u16::MAX, 0), vip(4)),
    ];
    let keys = [(Key4::new(address, 0, 0), VipWord::address(0, 4)), (Key4::new(1, 0, 0), VipWord::address(1, 1))];
    let contents = Contents { keys: keys.into(), rules: rules.into(), lengths: Vec::new() };
    let built = Built::new(&contents).unwrap();
    let find =
        |address, port: u16, protocol| built.index().find_by_rules(Key4::new(address, port.swap_bytes(), protocol));
    for (port, protocol, id) in [
        (443, 6, 1),
        (443, 17, 4),
        (7_999, 6, 3),
        (8_000, 6, 2),
        (8_100, 6, 2),
        (8_101, 6, 3),
        (65_535, 6, 3),
        (0, 50, 4),
    ] {
        assert_eq!(find(address, port, protocol), vip(id), "port {port}, protocol {protocol}");
    }
    assert_eq!(find(1, 8_050, 6), vip(2));
    assert_eq!(find(1, 443, 6), VipWord::address(1, 1), "no rule of this address takes it");
    assert_eq!(find(2, 443, 6), VipWord(0), "no VIP has the address");
}

#[test]
fn the_longest_prefix_counts() {
    let any = Rule::new(0, u16::MAX, 0);
    let key4 = |octets| Key4::new(address4(octets), 80_u16.swap_bytes(), 6);
    let networks4 =
        [([203, 0, 113, 0], 24, 1), ([203, 0, 113, 128], 25, 2), ([203, 0, 0, 0], 16, 3), ([200, 0, 0, 0], 5, 4)];
    let mut keys: Vec<_> =
        networks4.iter().map(|&(octets, length, n)| (key4(octets).prefix(length), VipWord::address(n, 1))).collect();
    keys.push((key4([203, 0, 113, 200]).bare_address(), VipWord::address(0, 1)));
    let rules = (0..5).map(|n| (any, vip(n))).collect();
    let built = Built::new_as(true, &Contents { keys, rules, lengths: vec![25, 24, 16, 5] }).unwrap();
    for (octets, id) in [
        ([203, 0, 113, 200], 0),
        ([203, 0, 113, 201], 2),
        ([203, 0, 113, 127], 1),
        ([203, 0, 112, 1], 3),
        ([207, 255, 255, 255], 4),
    ] {
        assert_eq!(built.index().find_by_rules(key4(octets)), vip(id), "{octets:?}");
    }
    assert!(!built.index().find_by_rules(key4([208, 0, 0, 0])).is_present());

    let key6 = |address: u128| {
        let words =
            address.to_be_bytes().as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect::<Vec<_>>();
        Key6::new([words[0], words[1]], 80_u16.swap_bytes(), 6)
    };
    let base = 0x2001_0db8_0113_0000_0000_0000_0000_0000_u128;
    let lengths = [127, 65, 64, 63, 33, 1];
    let keys =
        lengths.iter().zip(0..).map(|(&length, n)| (key6(base).prefix(length), VipWord::address(n, 1))).collect();
    let rules = (0..6).map(|n| (any, vip(n))).collect();
    let built = Built::new(&Contents { keys, rules, lengths: lengths.to_vec() }).unwrap();
    for (bit, id) in [
        (0, Some(0)),
        (1, Some(1)),
        (62, Some(1)),
        (63, Some(2)),
        (64, Some(3)),
        (65, Some(4)),
        (94, Some(4)),
        (95, Some(5)),
        (126, Some(5)),
        (127, None),
    ] {
        let found = built.index().find_by_rules(key6(base ^ 1 << bit));
        assert_eq!(found, id.map_or(VipWord(0), vip), "another bit {bit}");
    }
}

proptest! {
    #[test]
    fn a_directory_finds_its_keys_and_no_others(
        held in prop::collection::btree_map((any::<u32>(), any::<u16>(), 0_u8..3), any::<u16>(), 0..200),
        probes in prop::collection::vec((any::<u32>(), any::<u16>(), 0_u8..3), 50),
        displaced in any::<bool>(),
    ) {
        let held: BTreeMap<_, _> = held;
        let contents = keys(held.iter().map(|(&(address, port, protocol), &id)| (Key4::new(address, port, protocol), vip(id))));
        let built = Built::new_as(displaced, &contents).unwrap();
        for &(key, word) in &contents.keys {
            prop_assert_eq!(built.index().find(key), word);
        }
        for probe in probes {
            let found = built.index().find(Key4::new(probe.0, probe.1, probe.2)).is_present();
            prop_assert_eq!(found, held.contains_key(&probe));
        }
    }
}
