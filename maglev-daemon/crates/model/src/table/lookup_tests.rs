//! Tests of [`super`]: shares, determinism and golden vectors.

use super::*;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn names(count: usize) -> Vec<Name> {
    (0..count).map(|n| Name::parse(&format!("web{n}")).unwrap()).collect()
}

fn table(weights: &[u16]) -> Table {
    Table::build(names(weights.len()).iter().zip(weights.iter().map(|&weight| Weight(weight))))
}

fn fingerprint(table: &Table) -> String {
    let bytes: Vec<u8> = table.slots().iter().flat_map(|slot| slot.to_le_bytes()).collect();
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Each backend's share lies within 1 % or 1.5 slots of its weight's, whichever is larger.
fn check_shares(names: &[Name], weights: &[u16]) {
    let table = Table::build(names.iter().zip(weights.iter().map(|&weight| Weight(weight))));
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    for (name, &weight) in names.iter().zip(weights) {
        let wanted = f64::from(weight) / total * SLOTS as f64;
        let at = table.names().binary_search(name);
        let got = at.map_or(0.0, |at| f64::from(table.shares()[at]));
        assert!((got - wanted).abs() <= f64::max(0.01 * wanted, 1.5), "{name}: {got} slots, weight's share {wanted}");
    }
}

#[test]
fn xxh64_matches_its_published_vectors() {
    // The empty input and two texts, as the reference implementation (`xxhsum -H1`) prints them.
    assert_eq!(xxh64(b"", 0), 0xef46_db37_51d8_e999);
    assert_eq!(xxh64(b"a", 0), 0xd24e_c4f1_a98c_6e5b);
    assert_eq!(xxh64(b"abc", 0), 0x44bc_2cf5_ad77_0999);
    assert_eq!(xxh64(b"Nobody inspects the spammish repetition", 0), 0xfbce_a83c_8a37_8bf1);
}

#[test]
fn golden_vectors() {
    let rows: [(&[u16], &str); 5] = [
        (&[], "6aaff0fba005e8c430b056b536a8f858c911e1fcb0837d2ceb5c91f953e9ef34"),
        (&[1], "bdd02c7d1ec88ce6321850a22d13c83e5d2ac53a58bfd599f49af35cb2d459db"),
        (&[100; 10], "f392f367d693363514a31e28226579c14ecd59e3eb564520be3947b9834fdb9a"),
        (&[1, 2, 3, 0, 65_535], "3d23185649ed03390b33a5e2c2594c84d347b6338f85f34a10274d92cd32effa"),
        (&[100; 1_000], "e9d5c7697af714ddde3401d2b9e4f4c4826c207cdbfca69b66292bc001115231"),
    ];
    let got = rows.map(|(weights, _)| fingerprint(&table(weights)));
    assert_eq!(got, rows.map(|(_, golden)| golden.to_owned()));
}

#[test]
fn equal_weights_share_equally() {
    for count in [1, 2, 3, 10, 100, 1_000, 10_000] {
        check_shares(&names(count), &vec![1; count]);
        check_shares(&names(count), &vec![65_535; count]);
    }
}

#[test]
fn mixed_weights_share_by_weight() {
    let cycle = |count: usize, weights: &[u16]| weights.iter().copied().cycle().take(count).collect::<Vec<_>>();
    for count in [2, 5, 10, 100, 1_000] {
        for weights in [&[1, 2][..], &[100, 50, 10, 75], &[100, 99], &[7, 11, 13], &[1, 1_000], &[1, 65_535], &[0, 3]] {
            check_shares(&names(count), &cycle(count, weights));
        }
    }
}

#[test]
fn the_slots_of_an_empty_set_have_no_owner() {
    for table in [table(&[]), table(&[0, 0])] {
        assert!(table.names().is_empty());
        assert!(table.slots().iter().all(|&slot| slot == NO_OWNER));
        assert_eq!(table.owner(0), None);
    }
}

#[test]
fn as_many_backends_as_there_are_ids_fit() {
    let table = table(&vec![1; 32_767]);
    assert!(table.shares().iter().all(|&share| share >= 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_order_gives_the_same_bytes(
        (backends, shuffled) in prop::collection::btree_map("[a-z0-9]{1,40}", any::<u16>(), 0..60)
            .prop_map(|set| set.into_iter().collect::<Vec<_>>())
            .prop_flat_map(|set| (Just(set.clone()), Just(set).prop_shuffle())),
    ) {
        let build = |set: &[(String, u16)]| {
            let set: Vec<_> = set.iter().map(|(name, weight)| (Name::parse(name).unwrap(), Weight(*weight))).collect();
            Table::build(set.iter().map(|(name, weight)| (name, *weight)))
        };
        prop_assert_eq!(build(&backends), build(&shuffled));
    }

    #[test]
    fn random_weights_share_by_weight(weights in prop::collection::vec(any::<u16>(), 1..200)) {
        prop_assume!(weights.iter().any(|&weight| weight > 0));
        check_shares(&names(weights.len()), &weights);
    }
}

mod faults {
    use super::*;
    use maglev_testing::matrix::{Row, timed};

    /// The slots, by either method, and how long that took.
    fn filled(weights: &[u16], by: fn(&mut [Walk], u32, &mut Slots)) -> (Box<[u16]>, std::time::Duration) {
        let mut sorted = names(weights.len());
        sorted.sort();
        let mut walks: Vec<_> =
            sorted.iter().zip(weights).map(|(name, weight)| Walk::new(name, Weight(*weight))).collect();
        let heaviest = u32::from(*weights.iter().max().unwrap());
        let mut slots = Slots::new();
        let ((), took) = timed(|| by(&mut walks, heaviest, &mut slots));
        (slots.owners, took)
    }

    #[test]
    fn unlike_weights_are_filled_in_milliseconds() {
        for (case, weights) in [
            ("1,000 backends, one of weight 65,535", [vec![65_535], vec![1; 999]].concat()),
            ("1,000 backends, the last of weight 65,535", [vec![1; 999], vec![65_535]].concat()),
            ("32,767 backends, one of weight 65,535", [vec![65_535], vec![1; 32_766]].concat()),
            ("10,000 backends of weights 1 to 10,000", (1..=10_000).collect()),
        ] {
            let mut row = Row::fault("R7", &format!("the table of {case}"));
            let (turns, took) = filled(&weights, fill_by_turns);
            let (rounds, before) = match weights.len() > 10_000 {
                // Two thousand million steps.
                true => (turns.clone(), None),
                false => {
                    let (rounds, took) = filled(&weights, fill_by_rounds);
                    (rounds, Some(took))
                }
            };
            assert!(turns == rounds, "{case}");
            let (built, whole) = timed(|| table(&weights));
            assert_eq!(built.shares().iter().sum::<u32>(), SLOTS as u32);
            row.says(format!("{whole:.1?}; by turns {took:.1?}, by rounds {before:.1?}"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn turns_are_those_of_the_rounds(weights in prop::collection::vec(prop_oneof![1..4_u16, 1..=u16::MAX], 1..300)) {
            prop_assert_eq!(filled(&weights, fill_by_turns).0, filled(&weights, fill_by_rounds).0);
        }
    }
}
