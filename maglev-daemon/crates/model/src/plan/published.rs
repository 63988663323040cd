//! A pool as it is published: its number, its members, its table by names and by ids. It must not know what is desired.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use maglev_common::backend::{MemberId, NextHop};
use maglev_common::encap::EncapKind;
use maglev_common::table::{PoolIndex, PoolWord, SlotWord, TableIndex};

use serde::{Deserialize, Serialize};

use crate::Standing;
use crate::digest::Digest;
use crate::table::Table;
use crate::transition::{Outdated, Pinned, Progress, Transition};
use crate::{Name, Pool, PoolSettings, Services};

use super::Step;
use super::owners::{Owners, by_slot, table_of};
use super::planner::{Known, mtu_of};
use super::saved::LastSaved;

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
    /// Seconds for which entries bind its flows, as published; 0: it is not known.
    idle: u16,
    /// The desired state in the last plan; in the present one, once it is made.
    pub(super) desired: Option<Arc<Pool>>,
    /// Whether the present plan desires another state.
    pub(super) differs: bool,
    /// Whether next hops and standings of its members are as the present plan knows them.
    pub(super) is_known: bool,
    /// Whether members, or their state, changed since the last turn-over.
    pub(super) stirred: bool,
    /// The input of the table.
    pub(super) owners: Owners,
    /// Members whose flows are kept.
    pub(super) living: BTreeSet<MemberId>,
    /// Of a node without history: until when it waits for backends that it has not reached yet, while others stand
    /// in for them.
    pub(super) awaits: Option<Duration>,
    digest: Digest,
    /// Slots that each of the owners owns.
    shares: Vec<u32>,
    pub(super) transition: Arc<Transition>,
    /// The learning that began with the last plan, as long as it is not known whether that reached the packet path.
    pub(super) begun: Option<Begun>,
    /// The parts that are not published yet.
    pub(super) outdated: Outdated,
    /// The numbers of slots per phase, as published last.
    pub(super) progress: Progress,
    pub(super) pinned: Option<Pinned>,
    pub(super) saved: Option<LastSaved>,
}

/// Learning that begins with a plan. It takes its time from when the packet path follows the plan: until then, flows go to their old
/// owners without a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// When it ends, if the packet path followed at once.
    pub(super) until: Duration,
    /// How long it takes.
    pub(super) takes: Duration,
}

/// A backend, by number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) next_hop: NextHop,
    /// How its record says that packets are encapsulated.
    pub(super) encap: EncapKind,
    /// When its next hop was lost, if that is not long ago: a neighbor may miss a few probes.
    pub(super) lost: Option<Duration>,
    /// Its standing by its health.
    pub(super) standing: Standing,
    /// Whether its record says that it is dead.
    pub(super) dead: bool,
}

/// How long a member whose next hop was lost counts as alive. Its slots go to others at once, but its connections wait for it as
/// long: dropped packets are sent again, while another backend would reset the connections. Also how long a node without history
/// waits for backends it has not reached yet.
pub const HOLD: Duration = Duration::from_secs(5);

impl Member {
    /// Records the next hop.
    pub(super) fn reach(&mut self, next_hop: NextHop, now: Duration) {
        let was_resolved = self.next_hop.is_resolved();
        self.next_hop = next_hop;
        self.lost = (was_resolved && !next_hop.is_resolved()).then_some(now);
    }

    /// A member that packets can meet from now on.
    pub(super) fn new(id: MemberId, next_hop: NextHop, encap: EncapKind) -> Self {
        Self { id, next_hop, encap, lost: None, standing: Standing::default(), dead: false }
    }

    /// Whether its flows are kept when its slots get other owners.
    pub(super) fn lives(&self, now: Duration) -> bool {
        self.standing.lives && self.is_reached(now)
    }

    /// Whether it is reachable, or was a moment ago.
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
            idle: 0,
            desired: None,
            differs: true,
            is_known: false,
            stirred: true,
            owners: Owners::new(),
            living: BTreeSet::new(),
            awaits: None,
            digest: Digest::from_table(&Table::build([])),
            shares: Vec::new(),
            transition: Arc::new(Transition::new()),
            begun: None,
            outdated: Outdated::default(),
            progress: Progress::default(),
            pinned: None,
            saved: None,
        }
    }

    /// The packet path follows the last plan only now: the learning that began with it takes its time from here on.
    pub(super) fn begin(&mut self, now: Duration) -> Option<Begun> {
        let Begun { until, takes } = self.begun.take()?;
        let begun = Begun { until: now + takes, takes };
        if begun.until > until && self.transition.learns_until(until) {
            Arc::make_mut(&mut self.transition).postpone(until, begun.until);
            self.progress = self.transition.progress();
        }
        Some(begun)
    }

    /// Whether the last plan desired the same.
    pub(super) fn is_desired(&self, pool: &Arc<Pool>) -> bool {
        self.desired.as_ref() == Some(pool)
    }

    /// Whether the next hop of a member was lost not long ago: time changes what that means.
    pub(super) fn has_lost(&self) -> bool {
        self.members.values().any(|member| member.lost.is_some())
    }

    /// Whether its members have these next hops and standings.
    pub(super) fn agrees(&self, name: &Name, target: &Services, known: &Known<'_>) -> bool {
        self.members.iter().all(|((backend, address), member)| {
            let desired = target.pools.get(name).and_then(|pool| pool.backends.get(backend));
            let next_hop = (known.next_hop)(*address).within(desired.and_then(mtu_of));
            member.next_hop == next_hop && member.standing == (known.standing)(name, backend, *address)
        })
    }

    /// Encapsulates packets for its members so from now on.
    pub(super) fn encapsulate(&mut self, kind: EncapKind, steps: &mut Vec<Step>) {
        for member in self.members.values_mut().filter(|member| member.encap != kind) {
            member.encap = kind;
            steps.push(Step::SetEncap { id: member.id, kind });
        }
    }

    /// Has entries bind its flows for so many seconds from now on.
    pub(super) fn idle(&mut self, seconds: u16, steps: &mut Vec<Step>) {
        if self.idle != seconds {
            self.idle = seconds;
            steps.push(Step::SetIdle { pool: self.index, seconds });
        }
    }

    /// When time alone causes the next change.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let lost = self.members.values().filter_map(|member| Some(member.lost? + HOLD));
        lost.chain(self.transition.deadline()).chain(self.awaits).min()
    }

    /// Its slots and their transitions.
    pub fn transition(&self) -> &Transition {
        &self.transition
    }

    /// How many of its slots are in each phase.
    pub const fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The result of the last survey of the flow tables.
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

    /// The member of a backend.
    pub fn member(&self, backend: &Name, address: IpAddr) -> Option<MemberId> {
        self.members.get(&(backend.clone(), address)).map(|member| member.id)
    }

    /// Whether packets are sent to a backend, or were a moment ago.
    pub fn reaches(&self, backend: &Name, address: IpAddr, now: Duration) -> bool {
        self.members.get(&(backend.clone(), address)).is_some_and(|member| member.is_reached(now))
    }

    /// The slots that a backend owns.
    pub fn slots_of(&self, backend: &Name) -> u32 {
        let at = self.owners.binary_search_by(|(name, ..)| name.cmp(backend)).ok();
        at.and_then(|at| self.shares.get(at)).copied().unwrap_or(0)
    }

    /// Sets new owners and returns the owner of each slot. The table is built anew, by names, whenever anything differs, and not
    /// kept: it would be as large as the slots by ids.
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
