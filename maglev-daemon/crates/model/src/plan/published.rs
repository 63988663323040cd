//! A pool as it is published: its number, its members, its table by names and by ids. It must not know what is desired.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use maglev_common::backend::{MemberId, NextHop};
use maglev_common::table::{PoolIndex, PoolWord, SlotWord, TableIndex};

use crate::Standing;
use crate::digest::Digest;
use crate::table::Table;
use crate::transition::{Outdated, Pinned, Progress, Transition};
use crate::{Name, Pool, PoolSettings};

use super::owners::{Owners, by_slot, table_of};

/// A pool as it is published.
#[derive(Debug)]
pub struct PublishedPool {
    pub(super) index: PoolIndex,
    /// By name and address: a backend whose address changes becomes a new member.
    pub(super) members: BTreeMap<(Name, IpAddr), Member>,
    /// The tables of owners and of previous owners, and the word that names them.
    pub(super) current: TableIndex,
    pub(super) previous: TableIndex,
    pub(super) published: PoolWord,
    pub(super) settings: PoolSettings,
    /// What was desired of it by the last plan; by the present one, once it is made.
    pub(super) desired: Option<Pool>,
    /// Whether the present plan desires another.
    pub(super) differs: bool,
    /// Whether members, or what is known of them, are others than at the last turn-over.
    pub(super) stirred: bool,
    /// What the table was built from.
    pub(super) owners: Owners,
    /// Members whose flows are kept.
    pub(super) living: BTreeSet<MemberId>,
    /// Of a node that knows no history: until when it waits for backends that it has not reached yet, while others stand
    /// in for them.
    pub(super) awaits: Option<Duration>,
    digest: Digest,
    /// Slots that each of the owners owns.
    shares: Vec<u32>,
    pub(super) transition: Arc<Transition>,
    /// What of it is not published yet.
    pub(super) outdated: Outdated,
    /// How far it is, as it was published last.
    pub(super) progress: Progress,
    pub(super) pinned: Option<Pinned>,
}

/// A backend, by number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) next_hop: NextHop,
    /// When its next hop was lost, if that is not long ago: a neighbour may miss a few questions.
    pub(super) lost: Option<Duration>,
    /// What its health makes of it.
    pub(super) standing: Standing,
    /// Whether its record says that it is dead.
    pub(super) dead: bool,
}

/// How long a member whose next hop was lost counts as living. Its slots go to others at once; but its connections wait
/// for it as long: what is dropped is sent again, while another backend would reset them. And how long a node that knows
/// no history waits for those it has not reached yet.
pub const HOLD: Duration = Duration::from_secs(5);

impl Member {
    /// Takes over what is known of the next hop.
    pub(super) fn reach(&mut self, next_hop: NextHop, now: Duration) {
        let was_resolved = self.next_hop.is_resolved();
        self.next_hop = next_hop;
        self.lost = (was_resolved && !next_hop.is_resolved()).then_some(now);
    }

    /// A member that packets can meet from now on.
    pub(super) fn new(id: MemberId, next_hop: NextHop) -> Self {
        Self { id, next_hop, lost: None, standing: Standing::default(), dead: false }
    }

    /// Whether flows that are its are kept when their slots change hands.
    pub(super) fn lives(&self, now: Duration) -> bool {
        self.standing.lives && self.is_reached(now)
    }

    /// Whether it can be reached, or could a moment ago.
    pub(super) fn is_reached(&self, now: Duration) -> bool {
        self.next_hop.is_resolved() || self.lost.is_some_and(|lost| now < lost + HOLD)
    }
}

impl PublishedPool {
    /// A pool whose word is still zero.
    pub(super) fn new(index: PoolIndex) -> Self {
        Self {
            index,
            members: BTreeMap::new(),
            current: TableIndex::EMPTY,
            previous: TableIndex::EMPTY,
            published: PoolWord::default(),
            settings: PoolSettings::default(),
            desired: None,
            differs: true,
            stirred: true,
            owners: Owners::new(),
            living: BTreeSet::new(),
            awaits: None,
            digest: Digest::from_table(&Table::build([])),
            shares: Vec::new(),
            transition: Arc::new(Transition::new()),
            outdated: Outdated::default(),
            progress: Progress::default(),
            pinned: None,
        }
    }

    /// Whether just this was desired by the last plan too.
    pub(super) fn is_desired(&self, pool: &Pool) -> bool {
        self.desired.as_ref() == Some(pool)
    }

    /// When time alone is the next to change something.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let lost = self.members.values().filter_map(|member| Some(member.lost? + HOLD));
        lost.chain(self.transition.deadline()).chain(self.awaits).min()
    }

    /// Its slots and what is in transition.
    pub fn transition(&self) -> &Transition {
        &self.transition
    }

    /// How many of its slots are in which phase.
    pub const fn progress(&self) -> &Progress {
        &self.progress
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

    /// Its table, by names, built anew.
    pub fn table(&self) -> Table {
        table_of(&self.owners)
    }

    /// The member that a backend is.
    pub fn member(&self, backend: &Name, address: IpAddr) -> Option<MemberId> {
        self.members.get(&(backend.clone(), address)).map(|member| member.id)
    }

    /// Whether packets leave for a backend, or did a moment ago.
    pub fn reaches(&self, backend: &Name, address: IpAddr, now: Duration) -> bool {
        self.members.get(&(backend.clone(), address)).is_some_and(|member| member.is_reached(now))
    }

    /// The slots that a backend owns.
    pub fn slots_of(&self, backend: &Name) -> u32 {
        let at = self.owners.binary_search_by(|(name, ..)| name.cmp(backend)).ok();
        at.and_then(|at| self.shares.get(at)).copied().unwrap_or(0)
    }

    /// Takes over new owners; tells who owns each slot. The table is built anew, by names, whenever anything differs, and not
    /// kept: it would be as large as what is known of the slots by ids.
    pub(super) fn rebuild(&mut self, owners: Owners) -> Vec<SlotWord> {
        if owners == self.owners {
            return self.transition.owners().to_vec();
        }
        let table = table_of(&owners);
        self.digest = Digest::from_table(&table);
        self.shares = table.shares();
        self.owners = owners;
        by_slot(&table, &self.owners)
    }
}
