//! A node: the maps that its packet path reads and writes, and the real path over them. It must not know why they hold
//! what they hold; [`super::control`] does.

use std::cell::Cell;

use maglev_common::backend::{InterfaceRecord, MemberId, MemberRecord, MemberState};
use maglev_common::counters::{Counter, VipTraffic};
use maglev_common::flow::{Bucket, FlowEntry, Seconds};
use maglev_common::forwarding::{Forwarding, Table};
use maglev_common::hash::FlowHash;
use maglev_common::maps::{DEFAULT_POOLS, SPARE_TABLES};
use maglev_common::table::{PoolIndex, PoolWord, Slot, SlotWord, TableStart};
use maglev_ebpf::affinity;
use maglev_ebpf::env::{self, Choice, Clock, Counters, Flow, Flows, Segment};
use maglev_model::plan::{Live, Step};
use zerocopy::FromZeros as _;

use super::control::backend;
use super::{Millis, SECOND};

/// The flow tables of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// CPUs.
    pub(super) cpus: u32,
    /// Sets of each CPU's flow table: a power of two.
    pub(super) sets: u32,
}

/// How often a flow could not be recorded, or its entry was evicted.
#[derive(Clone, Debug, Default)]
pub(super) struct Shortages {
    /// Flows that found their bucket full.
    pub(super) full: Cell<u32>,
    /// Recent entries that were evicted by another flow.
    pub(super) evicted: Cell<u32>,
}

/// A node's maps.
pub(super) struct Node {
    forwarding: Box<Forwarding>,
    tables: Vec<Table>,
    /// A region for each CPU.
    buckets: Box<[Bucket]>,
    geometry: Geometry,
    /// The reading of its clock when the others show zero.
    clock: Millis,
    table_only: bool,
    pub(super) shortages: Shortages,
}

impl Node {
    /// Maps of zeroes.
    pub(super) fn new(geometry: Geometry, clock: Millis, table_only: bool) -> Self {
        let mut forwarding = Forwarding::new_box_zeroed().expect("memory for a node's tables");
        forwarding.interfaces[0] = InterfaceRecord::new([2, 0, 0, 0, 0, 1], 1, 1_600);
        let length = (geometry.cpus * geometry.sets) as usize;
        let buckets = <[Bucket]>::new_box_zeroed_with_elems(length).expect("memory for flow tables");
        let tables = Table::new_vec_zeroed((DEFAULT_POOLS + SPARE_TABLES) as usize).expect("memory for tables");
        Self { forwarding, tables, buckets, geometry, clock, table_only, shortages: Shortages::default() }
    }

    /// Forgets everything, as a machine that starts anew.
    pub(super) fn wipe(&mut self) {
        let shortages = std::mem::take(&mut self.shortages);
        *self = Self { shortages, ..Self::new(self.geometry, self.clock, self.table_only) };
    }

    /// The time by which flows age.
    pub(super) fn seconds(&self, now: Millis) -> Seconds {
        Seconds(((self.clock + now) / SECOND) as u16)
    }

    /// Sends a packet along the real path, as far as it chooses a member.
    #[inline]
    pub(super) fn choose(
        &self,
        cpu: usize,
        now: Millis,
        pool: PoolIndex,
        hash: FlowHash,
        segment: Segment,
    ) -> MemberId {
        let sets = self.geometry.sets as usize;
        let region = &self.buckets[cpu * sets..][..sets];
        let view = View { node: self, region, now: self.seconds(now) };
        view.choose(Flow { pool, word: self.forwarding.pool(pool), hash }, || segment).0
    }

    /// The published state of a member.
    #[inline]
    pub(super) fn state(&self, member: MemberId) -> MemberState {
        self.forwarding.template(member).state()
    }

    /// Which backend a member is; `None` if packets for it are dropped.
    #[inline]
    pub(super) fn backend(&self, member: MemberId) -> Option<u16> {
        let exists = self.forwarding.template(member).exit().exists();
        let [a, b, c, d, ..] = self.forwarding.member(member).destination[0].get().to_le_bytes();
        (exists && !member.is_nobody()).then_some(backend([a, b, c, d]))
    }

    /// The published state of a slot.
    #[inline]
    pub(super) fn slot(&self, pool: PoolIndex, slot: Slot) -> SlotWord {
        self.slot_of(self.forwarding.pool(pool).current(), slot)
    }

    #[inline]
    fn slot_of(&self, TableStart(start): TableStart, slot: Slot) -> SlotWord {
        let word = self.tables.as_flattened().get(start as usize + slot.index());
        word.map_or(SlotWord::default(), |word| SlotWord(word.get()))
    }

    /// The state that a daemon finds that starts over these maps.
    pub(super) fn live(&self) -> Live {
        let alive = |id: MemberId| {
            let record = self.forwarding.member(id);
            record.state().is_alive().then(|| (id, record.clone()))
        };
        Live {
            pools: self.forwarding.pools.iter().map(|word| PoolWord(word.get())).collect(),
            members: (1..=MemberId::MAX).filter_map(MemberId::new).filter_map(alive).collect(),
        }
    }

    /// Carries out a step of a plan. No packet comes meanwhile, so that barriers have nothing to wait for; and directories
    /// are not read.
    pub(super) fn carry_out(&self, step: &Step) {
        let Forwarding { pools, .. } = &*self.forwarding;
        match step {
            Step::WriteMember { id, record } => self.write_member(*id, record),
            Step::SetNextHop { id, next_hop } => self.change(*id, |member| member.next_hop.set(next_hop.0)),
            Step::SetEncap { id, kind } => self.change(*id, |member| member.set_encap_kind(*kind)),
            Step::FillTable { table, slots } | Step::UpdateTable { table, slots } => {
                let table = &self.tables[usize::from(table.0)];
                table.iter().zip(slots.words().iter()).for_each(|(slot, word)| slot.set(word.0));
            }
            Step::SetIdle { pool, seconds } => self.forwarding.set_idle(*pool, *seconds),
            Step::SwitchPool { pool, word } => pools[usize::from(pool.0)].set(word.0),
            Step::RemoveMember { id } => self.change(*id, |member| member.state.set(MemberState::NONE.0)),
            Step::KillMember { id } => self.change(*id, |member| member.state.set(member.state().dead().0)),
            Step::ReviveMember { id } => self.change(*id, |member| member.state.set(member.state().living().0)),
            Step::PurgeFlows { ids } => self.clear(|entry| ids.contains(&entry.member())),
            Step::Barrier | Step::ResetVip { .. } | Step::SwitchDirectory4 { .. } | Step::SwitchDirectory6 { .. } => {}
        }
    }

    fn write_member(&self, id: MemberId, record: &MemberRecord) {
        let MemberRecord { next_hop, state, destination, source, source_hash_mask } = record;
        self.change(id, |member| {
            member.next_hop.set(next_hop.get());
            member.state.set(state.get());
            let pairs = [(&member.destination, destination), (&member.source, source)];
            for (word, value) in pairs.into_iter().chain([(&member.source_hash_mask, source_hash_mask)]) {
                word.iter().zip(value).for_each(|(word, value)| word.set(value.get()));
            }
        });
    }

    fn change(&self, id: MemberId, change: impl FnOnce(&MemberRecord)) {
        change(self.forwarding.member(id));
        self.forwarding.renew(id);
    }

    /// Examines all entries of all CPUs and clears those that match.
    pub(super) fn clear(&self, mut matches: impl FnMut(FlowEntry) -> bool) {
        // A bucket without way tags never held a flow.
        let used = self.buckets.iter().filter(|bucket| bucket.tags().0 != 0);
        for word in used.flat_map(Bucket::entries) {
            let entry = FlowEntry(word.get());
            if !entry.is_empty() && matches(entry) {
                word.set(FlowEntry::EMPTY.0);
            }
        }
    }
}

/// A node's maps as one CPU sees them.
struct View<'a> {
    node: &'a Node,
    region: &'a [Bucket],
    now: Seconds,
}

impl env::Forwarding for View<'_> {
    #[inline(always)]
    fn forwarding(&self) -> &Forwarding {
        &self.node.forwarding
    }

    #[inline(always)]
    fn slot(&self, start: TableStart, slot: Slot) -> SlotWord {
        self.node.slot_of(start, slot)
    }
}

impl Clock for View<'_> {
    #[inline(always)]
    fn now(&self) -> Seconds {
        self.now
    }
}

impl Flows for View<'_> {
    #[inline(always)]
    fn bucket(&self, hash: FlowHash) -> Option<&Bucket> {
        self.region.get(hash.set(self.region.len() as u32 - 1) as usize)
    }

    #[inline(always)]
    fn choose(&self, flow: Flow, segment: impl Fn() -> Segment) -> (MemberId, Choice) {
        if self.node.table_only {
            return (affinity::owner(self, flow), Choice::Table);
        }
        affinity::choose(self, flow, segment)
    }

    #[inline(always)]
    fn resolve(&self, flow: Flow, segment: Segment) -> (MemberId, Choice) {
        affinity::resolve(self, flow, segment)
    }

    fn choose_for_error(&self, flow: Flow, segment: Segment) -> (MemberId, Choice) {
        affinity::choose_for_error(self, flow, segment)
    }
}

impl Counters for View<'_> {
    #[inline(always)]
    fn count(&self, counter: Counter) {
        let Shortages { full, evicted } = &self.node.shortages;
        match counter {
            Counter::FlowTableFull => full.set(full.get() + 1),
            Counter::FlowEvicted => evicted.set(evicted.get() + 1),
            _ => {}
        }
    }

    fn count_vip(&self, _: VipTraffic, _: u64) {}

    fn count_member(&self, _: MemberId, _: u64) {}
}
