//! Real Maglev tables, each built once: who owns which slot, by the number of the backend.

use std::collections::HashMap;
use std::rc::Rc;

use maglev_daemon::maglev::{self, Table};
use maglev_daemon::model::{Name, Weight};

/// The backends that take part in a table, in the order of their numbers, and their weights.
pub(super) type Weights = Vec<(u16, u16)>;

/// What a slot holds that nobody owns.
pub(super) const NOBODY: u16 = maglev::NOBODY;

/// The tables that were built.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    tables: HashMap<Weights, Rc<[u16]>>,
}

impl Ownership {
    /// Per slot, the number of the backend that owns it.
    pub(super) fn of(&mut self, weights: Weights) -> Rc<[u16]> {
        if let Some(slots) = self.tables.get(&weights) {
            return Rc::clone(slots);
        }
        let names: Vec<Name> = weights.iter().map(|&(backend, _)| name(backend)).collect();
        let table = Table::build(names.iter().zip(&weights).map(|(name, &(_, weight))| (name, Weight(weight))));
        // Names are in the order of numbers, and so the table's indices are the weights'.
        let number = |&index: &u16| weights.get(usize::from(index)).map_or(NOBODY, |&(backend, _)| backend);
        let slots: Rc<[u16]> = table.slots().iter().map(number).collect();
        self.tables.insert(weights, Rc::clone(&slots));
        slots
    }
}

/// The name of a backend.
pub(super) fn name(backend: u16) -> Name {
    Name::parse(&format!("web{backend:03}")).expect("letters and digits are a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_go_to_whom_the_table_gives_them() {
        let slots = Ownership::default().of(vec![(3, 100), (7, 300)]);
        let names = [name(3), name(7)];
        let table = Table::build([(&names[0], Weight(100)), (&names[1], Weight(300))]);
        assert!((0..slots.len()).all(|slot| table.owner(slot) == Some(&name(slots[slot]))));
        assert!(Ownership::default().of(Vec::new()).iter().all(|&owner| owner == NOBODY));
    }
}
