//! A pool as it is published: its number, its members, its table by names and by ids. It must not know what is desired.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use maglev_common::backend::{MemberId, NextHop};
use maglev_common::table::{PoolIndex, SlotWord, TableIndex};

use crate::digest::Digest;
use crate::maglev::Table;
use crate::model::{Name, Weight};
use crate::transition::{Pinned, Transition};

/// A pool as it is published.
#[derive(Debug)]
pub struct PublishedPool {
    pub(super) index: PoolIndex,
    /// By name and address: a backend whose address changes becomes a new member.
    pub(super) members: BTreeMap<(Name, IpAddr), Member>,
    pub(super) table_index: TableIndex,
    /// What the table was built from, in the order of names.
    pub(super) owners: Vec<(Name, Weight, MemberId)>,
    table: Arc<Table>,
    digest: Digest,
    shares: Vec<u32>,
    pub(super) transition: Arc<Transition>,
    pub(super) pinned: Option<Pinned>,
}

/// A backend, by number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) next_hop: NextHop,
}

impl PublishedPool {
    /// A pool whose word is still zero.
    pub(super) fn new(index: PoolIndex) -> Self {
        let table = Arc::new(Table::build([]));
        let digest = Digest::of_table(&table);
        Self {
            index,
            members: BTreeMap::new(),
            table_index: TableIndex::EMPTY,
            owners: Vec::new(),
            table,
            digest,
            shares: Vec::new(),
            transition: Arc::new(Transition::new()),
            pinned: None,
        }
    }

    /// Its slots and what is in transition.
    pub fn transition(&self) -> &Transition {
        &self.transition
    }

    /// What the last survey of the flow tables found.
    pub const fn pinned(&self) -> Option<&Pinned> {
        self.pinned.as_ref()
    }

    /// Its place in the map of pool words.
    pub const fn index(&self) -> PoolIndex {
        self.index
    }

    /// The digest of its table.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Its table, by names.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The member that a backend is.
    pub fn member(&self, backend: &Name, address: IpAddr) -> Option<MemberId> {
        self.members.get(&(backend.clone(), address)).map(|member| member.id)
    }

    /// The slots that a backend owns.
    pub fn slots_of(&self, backend: &Name) -> u32 {
        let at = self.table.names().binary_search(backend).ok();
        at.and_then(|at| self.shares.get(at)).copied().unwrap_or(0)
    }

    /// The slots of the table as they are published: who owns each, by member id.
    pub(super) fn slot_words(&self) -> Arc<[SlotWord]> {
        let word = |&owner: &u16| {
            let id = self.owners.get(usize::from(owner)).map_or(MemberId::NOBODY, |(_, _, id)| *id);
            SlotWord::settled(id)
        };
        self.table.slots().iter().map(word).collect()
    }

    /// Takes over new owners. The table depends on names and weights alone: where only ids differ, it is kept.
    pub(super) fn rebuild(&mut self, owners: Vec<(Name, Weight, MemberId)>) {
        let by_weight = |owners: &[(Name, Weight, MemberId)]| -> Vec<_> {
            owners.iter().map(|(name, weight, _)| (name.clone(), *weight)).collect()
        };
        if by_weight(&owners) != by_weight(&self.owners) {
            let table = Table::build(owners.iter().map(|(name, weight, _)| (name, *weight)));
            self.digest = Digest::of_table(&table);
            self.shares = table.shares();
            self.table = Arc::new(table);
        }
        self.owners = owners;
    }
}
