//! Clearing the flow tables under the program that writes them, and counting their flows. It must not know why a
//! member died.

use std::time::Duration;

use maglev_common::backend::MemberId;
use maglev_common::flow::{Bucket, FlowEntry, Seconds, WAYS};
use maglev_common::hash::FlowHash;
use maglev_common::settings::Tracking;
use maglev_common::table::PoolIndex;

use super::error::DataplaneError;
use super::maps::Maps;
use super::shared::Mapped;
use super::{Dataplane, explain};

/// The longest time between two sweeps of the flow tables.
pub(super) const SWEEP: Duration = Duration::from_secs(3_600);

/// Entries that were last seen longer ago are cleared: their age is about to look young again, being seconds modulo
/// 2^16.
const HALF_A_WRAP: u16 = 1 << 15;

/// Clears every entry that names one of the members. Since they are dead, the kernel never writes their ids anew.
pub(super) fn purge(maps: &Maps, ids: &[MemberId]) {
    let mut dead = vec![false; usize::from(MemberId::MAX) + 1];
    for id in ids {
        dead[usize::from(id.get())] = true;
    }
    clear(maps.buckets(), |entry| dead[usize::from(entry.member().get())]);
}

/// Clears every entry of a pool's flows that were silent for longer than this. Where every flow is tracked they bind all the same.
pub(super) fn clear_idle(maps: &Maps, now: Seconds, pool: PoolIndex, idle: u16) {
    if maps.forwarding().pool(pool).tracking() == Tracking::Always {
        return;
    }
    let is_idle = |entry: FlowEntry| {
        let age = now.since(entry.last_seen());
        age > idle && age <= HALF_A_WRAP && maps.forwarding().member(entry.member()).state().serves(pool)
    };
    clear(maps.buckets(), is_idle);
}

/// Clears every entry whose age is about to become ambiguous, and those of the flow table before that are not taken over any more:
/// returns whether there is none left, so that a successor has no use for it. To be called at least every nine hours.
pub(super) fn sweep(maps: &Maps, now: Seconds) -> bool {
    let age = |entry: FlowEntry| now.since(entry.last_seen());
    clear(maps.flows.values(), |entry| age(entry) > HALF_A_WRAP);
    let Some(before) = &maps.flows_before else { return false };
    let idle = maps.forwarding().longest_idle();
    clear(before.values(), |entry| age(entry) > idle);
    before.values().iter().flat_map(Bucket::entries).all(|word| word.get() == 0)
}

/// Counts the flows seen within `idle` seconds on these slots of a pool. One that several CPUs know counts once: they keep
/// it in the same set.
pub(super) fn active(maps: &Maps, now: Seconds, pool: PoolIndex, slots: &[bool], idle: u16) -> u64 {
    let is_active = |entry: &FlowEntry| {
        // What was seen a moment after `now` is recent too.
        let age = now.since(entry.last_seen());
        (age <= idle || age > HALF_A_WRAP)
            && slots.get(entry.slot().index()) == Some(&true)
            && maps.forwarding().member(entry.member()).state().serves(pool)
    };
    // A set of the larger table holds flows of one set of the smaller one.
    let before = maps.flows_before.as_ref().map(Mapped::values).unwrap_or_default();
    let sets = match maps.sizes.sets_before {
        0 => maps.sizes.flow_sets,
        before => maps.sizes.flow_sets.min(before),
    } as usize;
    let (mut tags, mut count) = (Vec::new(), 0);
    for set in 0..sets {
        let buckets = [maps.flows.values(), before].into_iter().flat_map(|all| all.iter().skip(set).step_by(sets));
        let entries = buckets.flat_map(Bucket::entries).map(|word| FlowEntry(word.get()));
        tags.extend(entries.filter(is_active).map(FlowEntry::tag));
        tags.sort_unstable();
        tags.dedup();
        count += tags.len() as u64;
        tags.clear();
    }
    count
}

/// Whether the flow of an entry in this set of the flow table before has one in the flow table itself.
pub(super) fn is_promoted(maps: &Maps, set: usize, entry: FlowEntry) -> bool {
    let before = Table { buckets: &[], sets: maps.sizes.sets_before as usize };
    Table { buckets: maps.flows.values(), sets: maps.sizes.flow_sets as usize }.knows(entry, before.place(set))
}

/// Takes over what is left in a flow table from before the one that this one follows: no program reads that one any more, and none
/// runs on this one yet. An entry whose set depends on more of the hash than is known is put into each set that it may be.
pub(super) fn take_over(maps: &Maps, earlier: &[Bucket]) {
    let of = |buckets, sets: usize| Table { buckets, sets };
    let earlier = of(earlier, earlier.len() / maps.sizes.cpus as usize);
    let before = maps.flows_before.as_ref().map(Mapped::values).unwrap_or_default();
    let (before, ours) =
        (of(before, maps.sizes.sets_before as usize), of(maps.flows.values(), maps.sizes.flow_sets as usize));
    for (n, bucket) in earlier.buckets.iter().enumerate() {
        for way in 0..WAYS {
            let (entry, tag, place) = (bucket.entry(way), bucket.tags().of(way), earlier.place(n));
            if entry.is_empty() || before.knows(entry, place) {
                continue;
            }
            for bucket in ours.sets_of(place) {
                let home = FlowHash(u64::from(entry.tag()) << 32).home_way();
                let free = std::iter::once(home).chain(0..WAYS).find(|&way| bucket.entry(way).is_empty());
                free.into_iter().for_each(|free| bucket.put(free, entry, tag));
            }
        }
    }
}

/// A flow table: a region of as many sets for each CPU.
#[derive(Clone, Copy)]
struct Table<'a> {
    buckets: &'a [Bucket],
    sets: usize,
}

/// A set of a CPU, in a table with so many.
#[derive(Clone, Copy)]
struct Place {
    cpu: usize,
    set: usize,
    sets: usize,
}

impl<'a> Table<'a> {
    fn place(&self, bucket: usize) -> Place {
        Place { cpu: bucket / self.sets, set: bucket % self.sets, sets: self.sets }
    }

    /// The sets in which a flow may be that was in this place of another table.
    fn sets_of(&self, Place { cpu, set, sets }: Place) -> impl Iterator<Item = &'a Bucket> {
        let apart = sets.min(self.sets);
        self.buckets.iter().skip(cpu * self.sets).take(self.sets).skip(set % apart).step_by(apart)
    }

    fn knows(&self, entry: FlowEntry, place: Place) -> bool {
        let mut entries = self.sets_of(place).flat_map(Bucket::entries).map(|word| FlowEntry(word.get()));
        entries.any(|known| !known.is_empty() && known.is_of(entry.tag()))
    }
}

/// Clears the entries that match, unless the kernel rewrites one in that moment: then it is examined again.
fn clear<'a>(buckets: impl IntoIterator<Item = &'a Bucket>, matches: impl Fn(FlowEntry) -> bool) {
    for word in buckets.into_iter().flat_map(Bucket::entries) {
        let mut found = FlowEntry(word.get());
        while !found.is_empty() && matches(found) && !word.replace(found.0, FlowEntry::EMPTY.0) {
            found = FlowEntry(word.get());
        }
    }
}

impl Dataplane {
    /// Clears flow entries whose age is about to become ambiguous, and those of a flow table before that are not taken over any more.
    /// Returns whether nothing is left in that one: a successor of this data plane goes without it.
    ///
    /// # Errors
    /// The clock cannot be read.
    pub fn sweep(&self) -> Result<bool, DataplaneError> {
        Ok(sweep(&self.maps, explain::now()?))
    }

    /// How often [`Self::sweep`] is to be called: less than every nine hours, and while there is a flow table before as often as its
    /// entries get idle.
    pub fn sweep_interval(&self) -> Duration {
        let idle = Duration::from_secs(self.maps.forwarding().longest_idle().into());
        self.maps.flows_before.as_ref().map_or(SWEEP, |_| idle.clamp(Duration::from_secs(1), SWEEP))
    }

    /// How many flows the flow tables know that were seen within `idle` seconds on these slots of a pool.
    ///
    /// # Errors
    /// The clock cannot be read.
    pub fn active_flows(&self, pool: PoolIndex, slots: &[bool], idle: u16) -> Result<u64, DataplaneError> {
        Ok(active(&self.maps, explain::now()?, pool, slots, idle))
    }
}
