//! The addresses of some services, brought up to date in time proportional to the pools that changed. It must not know their
//! use.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use maglev_model::Pool;

/// How a set of addresses changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressDelta {
    /// Those that are new.
    pub added: BTreeSet<IpAddr>,
    /// Those that are gone.
    pub removed: BTreeSet<IpAddr>,
}

impl AddressDelta {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// The addresses of pools, and others.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    /// The pools by their place in memory, which no other has while they are kept here.
    pools: BTreeMap<usize, Arc<Pool>>,
    others: BTreeSet<IpAddr>,
    /// How often each address is used.
    uses: HashMap<IpAddr, usize>,
}

impl Addresses {
    /// Takes over these pools and other addresses in place of those before.
    pub(crate) fn follow<'a>(
        &mut self,
        pools: impl IntoIterator<Item = &'a Arc<Pool>>,
        others: BTreeSet<IpAddr>,
    ) -> AddressDelta {
        let place = |pool: &Arc<Pool>| Arc::as_ptr(pool).addr();
        let pools: BTreeMap<usize, Arc<Pool>> = pools.into_iter().map(|pool| (place(pool), Arc::clone(pool))).collect();
        let before = std::mem::replace(&mut self.pools, pools);
        let others_before = std::mem::replace(&mut self.others, others);
        let Self { pools, others, uses } = self;
        let mut touched = Touched { uses, was_used: BTreeMap::new() };
        for (_, pool) in pools.iter().filter(|(place, _)| !before.contains_key(place)) {
            pool.backends.values().for_each(|backend| touched.add(backend.address));
        }
        others.difference(&others_before).for_each(|address| touched.add(*address));
        for (_, pool) in before.iter().filter(|(place, _)| !pools.contains_key(place)) {
            pool.backends.values().for_each(|backend| touched.remove(backend.address));
        }
        others_before.difference(others).for_each(|address| touched.remove(*address));
        touched.delta()
    }

    /// Whether an address is one of them.
    pub(crate) fn contains(&self, address: &IpAddr) -> bool {
        self.uses.contains_key(address)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.uses.is_empty()
    }
}

/// The addresses whose uses changed, and whether they were used before.
struct Touched<'a> {
    uses: &'a mut HashMap<IpAddr, usize>,
    was_used: BTreeMap<IpAddr, bool>,
}

impl Touched<'_> {
    fn add(&mut self, address: IpAddr) {
        let uses = self.uses.entry(address).or_default();
        self.was_used.entry(address).or_insert(*uses > 0);
        *uses += 1;
    }

    fn remove(&mut self, address: IpAddr) {
        let Some(uses) = self.uses.get_mut(&address) else { return };
        self.was_used.entry(address).or_insert(true);
        *uses -= 1;
        if *uses == 0 {
            self.uses.remove(&address);
        }
    }

    fn delta(self) -> AddressDelta {
        let mut delta = AddressDelta::default();
        for (address, was_used) in self.was_used {
            match (was_used, self.uses.contains_key(&address)) {
                (false, true) => drop(delta.added.insert(address)),
                (true, false) => drop(delta.removed.insert(address)),
                (false, false) | (true, true) => {}
            }
        }
        delta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_model::{AdminState, Backend, Name, Weight};
    use proptest::prelude::*;

    /// A pool of backends with these addresses.
    fn pool(hosts: &[u8]) -> Arc<Pool> {
        let mut pool = Pool::new(Name::parse("web").unwrap());
        for (n, host) in hosts.iter().enumerate() {
            let name = Name::parse(&format!("b{n}")).unwrap();
            let (address, state) = (at(*host), AdminState::Active);
            let backend = Backend { name: name.clone(), address, weight: Weight::DEFAULT, state, mtu: None };
            pool.backends.insert(name, backend);
        }
        Arc::new(pool)
    }

    fn at(host: u8) -> IpAddr {
        [10, 0, 0, host].into()
    }

    proptest! {
        #[test]
        fn the_changes_lead_from_each_set_to_the_next(
            rounds in prop::collection::vec(
                (prop::collection::vec((any::<bool>(), prop::collection::vec(0..8_u8, 0..4)), 0..4), prop::collection::btree_set(0..8_u8, 0..3)),
                1..6,
            ),
        ) {
            let (mut addresses, mut known, mut kept) = (Addresses::default(), BTreeSet::new(), Vec::<Arc<Pool>>::new());
            for (new, others) in rounds {
                // Some pools stay as they are, others are replaced.
                let staying: Vec<bool> = new.iter().map(|(stays, _)| *stays).collect();
                let mut stays = staying.into_iter();
                kept.retain(|_| stays.next().unwrap_or(false));
                kept.extend(new.iter().map(|(_, hosts)| pool(hosts)));
                let others: BTreeSet<IpAddr> = others.into_iter().map(at).collect();
                let delta = addresses.follow(&kept, others.clone());
                let backends = kept.iter().flat_map(|pool| pool.backends.values());
                let wanted: BTreeSet<IpAddr> = backends.map(|backend| backend.address).chain(others).collect();
                prop_assert_eq!(&delta.added, &(&wanted - &known));
                prop_assert_eq!(&delta.removed, &(&known - &wanted));
                prop_assert!((0..8).map(at).all(|address| addresses.contains(&address) == wanted.contains(&address)));
                prop_assert_eq!(addresses.is_empty(), wanted.is_empty());
                known = wanted;
            }
        }
    }
}
