//! The slots that a change moves, before it is made: a pool's current table against its table after the change. It must not know
//! the change, nor flows.

use std::collections::{BTreeMap, BTreeSet};

use maglev_common::backend::MemberId;

use super::owners::{self, Known};
use super::published::PublishedPool;
use crate::table::{Disruption, Table, disruption};
use crate::{Backend, Name, Pool, Standing};

/// The slots that move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// How many slots.
    pub disruption: Disruption,
    /// Per slot, whether its owner changes.
    pub moved: Vec<bool>,
    /// The backends of either table and any other, in the order of their names.
    pub shares: Vec<Share>,
}

/// The slots of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The backend.
    pub name: Name,
    /// How many it owns.
    pub before: u32,
    /// How many it owns after the change.
    pub after: u32,
}

impl Preview {
    /// Compares two tables. The backends `named` are listed too, even if they own no slots.
    pub fn new<'a>(before: &'a Table, after: &'a Table, named: impl IntoIterator<Item = &'a Name>) -> Self {
        let names: BTreeSet<_> = before.names().iter().chain(after.names()).chain(named).collect();
        let (had, has) = (owned(before), owned(after));
        let slots = |owned: &BTreeMap<_, _>, name: &'a Name| owned.get(name).copied().unwrap_or(0);
        let share = |name: &'a Name| Share { name: name.clone(), before: slots(&had, name), after: slots(&has, name) };
        Self {
            disruption: disruption(before, after),
            moved: (0..before.slots().len()).map(|slot| before.owner(slot) != after.owner(slot)).collect(),
            shares: names.into_iter().map(share).collect(),
        }
    }
}

/// The table of a pool with these backends, by their known health and next hops. A backend that is not published yet is assumed
/// to be healthy and to have a next hop.
pub fn table_of(pool: &Pool, published: Option<&PublishedPool>) -> Table {
    let new = Known { id: MemberId::NOBODY, standing: Standing::default(), is_resolved: true };
    let known = |backend: &Backend| published.and_then(|pool| pool.known(backend)).unwrap_or(new);
    owners::table_of(&owners::owners(owners::candidates(pool.backends.values(), |backend| Some(known(backend)))))
}

/// The slots of each backend of a table.
fn owned(table: &Table) -> BTreeMap<&Name, u32> {
    table.names().iter().zip(table.shares()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AdminState, Weight};
    use maglev_common::table::SLOTS;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    /// Pool `web` of `web0`, `web1`, … with these weights.
    fn pool(weights: &[u16]) -> Pool {
        let mut pool = Pool::new(name("web"));
        for (n, weight) in (0_u8..).zip(weights) {
            let (name, address) = (name(&format!("web{n}")), [10, 0, 1, n].into());
            let backend =
                Backend { name: name.clone(), address, weight: Weight(*weight), state: AdminState::Active, mtu: None };
            pool.backends.insert(name, backend);
        }
        pool
    }

    fn preview(before: &Pool, after: &Pool) -> Preview {
        Preview::new(&table_of(before, None), &table_of(after, None), before.backends.keys())
    }

    /// Moved, collateral, and the slots of these backends before and after.
    fn figures(preview: &Preview, backends: [usize; 2]) -> (u32, u32, [(u32, u32); 2]) {
        let Disruption { moved, collateral } = preview.disruption;
        (moved, collateral, backends.map(|n| (preview.shares[n].before, preview.shares[n].after)))
    }

    #[test]
    fn what_moves_is_the_same_on_every_node() {
        let ten = pool(&[100; 10]);
        let mut without = ten.clone();
        without.backends.remove(&name("web3"));
        let removed = preview(&ten, &without);
        assert_eq!(figures(&removed, [3, 4]), (6_794, 240, [(6_554, 0), (6_554, 7_282)]));
        let added = preview(&without, &ten);
        assert_eq!(figures(&added, [3, 4]), (6_794, 240, [(0, 6_554), (7_282, 6_554)]));
        let mut lighter = ten.clone();
        lighter.backends.get_mut(&name("web3")).unwrap().weight = Weight(50);
        assert_eq!(figures(&preview(&ten, &lighter), [3, 4]), (3_249, 144, [(6_554, 3_449), (6_554, 6_899)]));
    }

    #[test]
    fn draining_and_removing_move_the_same_slots() {
        let before = pool(&[100, 50, 200, 100]);
        let (mut drained, mut removed) = (before.clone(), before.clone());
        drained.backends.get_mut(&name("web2")).unwrap().state = AdminState::Draining { since: None };
        removed.backends.remove(&name("web2"));
        assert_eq!(preview(&before, &drained), preview(&before, &removed));
    }

    #[test]
    fn the_figures_agree_with_the_slots() {
        let preview = preview(&pool(&[100, 100, 0]), &pool(&[100, 0, 100]));
        let moved = preview.moved.iter().filter(|moved| **moved).count();
        assert_eq!((preview.moved.len(), moved), (SLOTS, preview.disruption.moved as usize));
        let owned = |share: fn(&Share) -> u32| preview.shares.iter().map(share).collect::<Vec<_>>();
        assert_eq!(owned(|share| share.before).iter().sum::<u32>(), SLOTS as u32);
        assert_eq!(owned(|share| share.after).iter().sum::<u32>(), SLOTS as u32);
        assert_eq!(
            (preview.shares[2].before, preview.shares[1].after),
            (0, 0),
            "a backend without slots is listed too"
        );
    }

    #[test]
    fn a_change_without_consequence_moves_nothing() {
        let (before, mut after) = (pool(&[100, 100, 0]), pool(&[100, 100, 0]));
        after.backends.remove(&name("web2"));
        let preview = preview(&before, &after);
        assert_eq!(preview.disruption, Disruption::default());
        assert!(preview.moved.iter().all(|moved| !moved));
        assert_eq!(preview.shares.len(), 3);
    }
}
