//! The slots that move from one table to another. It must not know why the tables differ.

use std::collections::BTreeMap;

use super::Table;
use crate::Name;

/// Slots with different owners in two tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disruption {
    /// Slots with another owner than before.
    pub moved: u32,
    /// Of these, the slots that no change of shares explains: those moved beyond the least that any table with the new shares
    /// has to move.
    pub collateral: u32,
}

/// Compares two tables by their owners' names.
pub fn disruption(before: &Table, after: &Table) -> Disruption {
    let moved = (0..before.slots().len()).filter(|&slot| before.owner(slot) != after.owner(slot)).count() as u32;
    let least = losses(before, after);
    Disruption { moved, collateral: moved.saturating_sub(least) }
}

/// The slots that owners must give up because their share shrinks; from an empty table, all slots.
fn losses(before: &Table, after: &Table) -> u32 {
    if before.names().is_empty() {
        return after.shares().iter().sum();
    }
    let kept: BTreeMap<&Name, u32> = after.names().iter().zip(after.shares()).collect();
    let lost = |(name, had): (&Name, u32)| had.saturating_sub(kept.get(name).copied().unwrap_or(0));
    before.names().iter().zip(before.shares()).map(lost).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Weight;
    use maglev_common::table::SLOTS;

    fn table(weights: &[u16]) -> Table {
        let names: Vec<_> = (0..weights.len()).map(|n| Name::parse(&format!("web{n}")).unwrap()).collect();
        Table::build(names.iter().zip(weights.iter().map(|&weight| Weight(weight))))
    }

    #[test]
    fn the_same_table_moves_nothing() {
        assert_eq!(disruption(&table(&[100; 10]), &table(&[100; 10])), Disruption::default());
    }

    #[test]
    fn from_and_to_an_empty_table_every_slot_moves_without_collateral() {
        let all = Disruption { moved: SLOTS as u32, collateral: 0 };
        assert_eq!(disruption(&table(&[]), &table(&[1, 1])), all);
        assert_eq!(disruption(&table(&[1, 1]), &table(&[])), all);
    }

    #[test]
    fn removing_one_of_many_moves_little_beyond_its_own() {
        for count in [10, 100, 1_000] {
            let before = table(&vec![100; count]);
            for removed in [0, count / 2, count - 1] {
                let mut weights = vec![100; count];
                weights[removed] = 0;
                let Disruption { moved, collateral } = disruption(&before, &table(&weights));
                println!("remove {removed} of {count}: {moved} slots moved, {collateral} beyond its own");
                assert!(f64::from(collateral) <= 0.01 * SLOTS as f64, "{collateral} of {count}");
            }
        }
    }

    #[test]
    fn a_slightly_smaller_weight_moves_little() {
        for count in [10, 100, 1_000] {
            let mut weights = vec![100; count];
            let before = table(&weights);
            weights[count / 3] = 99;
            let Disruption { moved, collateral } = disruption(&before, &table(&weights));
            println!("100 -> 99 of {count}: {moved} slots moved, {collateral} collateral");
            assert!(f64::from(moved) <= 0.003 * SLOTS as f64, "{moved} of {count}");
        }
    }
}
