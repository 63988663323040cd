//! A node: the maps that its packet path reads and writes, and the real path over them. It must not know why they hold
//! what they hold; [`super::control`] does.

use std::cell::Cell;

use maglev_common::backend::{Family, InterfaceRecord, InterfaceSlot, MemberId, MemberState, NextHop};
use maglev_common::counters::Counter;
use maglev_common::flow::{Bucket, FlowEntry, Seconds};
use maglev_common::forwarding::Forwarding;
use maglev_common::hash::{FlowHash, HashKey};
use maglev_common::table::{PoolIndex, PoolWord, SlotWord, TableIndex};
use maglev_common::vip::VipId;
use maglev_ebpf::affinity::{self, Choice};
use maglev_ebpf::env::Tables;
use maglev_ebpf::packet::l4::Segment;
use zerocopy::FromZeros as _;

use super::{Millis, SECOND};

/// What a node's flow tables are like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// CPUs.
    pub(super) cpus: u32,
    /// Sets of each CPU's flow table: a power of two.
    pub(super) sets: u32,
    /// Seconds for which an entry counts that nothing renews.
    pub(super) idle: u16,
}

/// How often a flow could not be written down, or its entry gave way.
#[derive(Clone, Debug, Default)]
pub(super) struct Shortages {
    /// Flows that found their bucket full.
    pub(super) full: Cell<u32>,
    /// Recent entries that gave way to another flow.
    pub(super) evicted: Cell<u32>,
}

/// A node's maps.
pub(super) struct Node {
    forwarding: Box<Forwarding>,
    /// A region for each CPU.
    buckets: Box<[Bucket]>,
    geometry: Geometry,
    /// What its clock shows when the others show zero.
    clock: Millis,
    pub(super) shortages: Shortages,
}

impl Node {
    /// Maps of zeroes.
    pub(super) fn new(geometry: Geometry, clock: Millis) -> Self {
        let mut forwarding = Forwarding::new_box_zeroed().expect("memory for a node's tables");
        forwarding.idle.set(geometry.idle.into());
        forwarding.interfaces[0] = InterfaceRecord::new([2, 0, 0, 0, 0, 1], 1, 1_600);
        let length = (geometry.cpus * geometry.sets) as usize;
        let buckets = <[Bucket]>::new_box_zeroed_with_elems(length).expect("memory for flow tables");
        Self { forwarding, buckets, geometry, clock, shortages: Shortages::default() }
    }

    /// Forgets everything, as a machine that starts anew.
    pub(super) fn wipe(&mut self) {
        let shortages = std::mem::take(&mut self.shortages);
        *self = Self { shortages, ..Self::new(self.geometry, self.clock) };
    }

    /// The time by which flows age.
    pub(super) fn seconds(&self, now: Millis) -> Seconds {
        Seconds(((self.clock + now) / SECOND) as u16)
    }

    /// Seconds for which an entry counts.
    pub(super) fn idle(&self) -> u16 {
        self.geometry.idle
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
        affinity::choose(&view, affinity::Flow { pool, word: self.forwarding.pool(pool), hash }, || segment).0
    }

    /// What is published of a member.
    #[inline]
    pub(super) fn state(&self, member: MemberId) -> MemberState {
        self.forwarding.template(member).state()
    }

    /// Publishes a living member of a pool.
    pub(super) fn write_member(&self, member: MemberId, pool: PoolIndex) {
        let record = self.forwarding.member(member);
        record.state.set(MemberState::alive(pool, Family::V4, 0).0);
        record.next_hop.set(NextHop::new([2, 0, 0, 0, 0, 9], InterfaceSlot(0)).0);
        self.forwarding.renew(member);
    }

    /// Publishes that a member is dead, and clears the entries that name it.
    pub(super) fn bury_member(&self, member: MemberId) {
        let record = self.forwarding.member(member);
        record.state.set(record.state().dead().0);
        self.forwarding.renew(member);
        self.clear(|entry| entry.member() == member);
    }

    /// Fills a table that no pool's word names, or whose readers have ended.
    pub(super) fn fill_table(&self, TableIndex(table): TableIndex, words: impl Iterator<Item = SlotWord>) {
        self.forwarding.tables[usize::from(table)].iter().zip(words).for_each(|(slot, word)| slot.set(word.0));
    }

    /// Switches a pool.
    pub(super) fn switch_pool(&self, PoolIndex(pool): PoolIndex, word: PoolWord) {
        self.forwarding.pools[usize::from(pool)].set(word.0);
    }

    /// Looks at all entries of all CPUs and clears those that match.
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

impl Tables for View<'_> {
    fn ingress(&self) -> u32 {
        1
    }

    #[inline(always)]
    fn now(&self) -> Seconds {
        self.now
    }

    fn hash_key(&self) -> HashKey {
        HashKey { k0: 0, k1: 0 }
    }

    #[inline(always)]
    fn forwarding(&self) -> &Forwarding {
        &self.node.forwarding
    }

    #[inline(always)]
    fn bucket(&self, hash: FlowHash) -> Option<&Bucket> {
        self.region.get(hash.set(self.region.len() as u32 - 1) as usize)
    }

    #[inline(always)]
    fn resolve(&self, flow: affinity::Flow, segment: Segment) -> (MemberId, Choice) {
        affinity::resolve(self, flow, segment)
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        let Shortages { full, evicted } = &self.node.shortages;
        match counter {
            Counter::FlowTableFull => full.set(full.get() + 1),
            Counter::FlowEvicted => evicted.set(evicted.get() + 1),
            _ => {}
        }
    }

    fn count_vip(&self, _: VipId, _: u64) {}

    fn count_member(&self, _: MemberId, _: u64) {}
}
