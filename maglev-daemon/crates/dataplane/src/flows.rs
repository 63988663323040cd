//! Clearing the flow tables under the program that writes them, and counting their flows. It must not know why a
//! member died.

use maglev_common::backend::MemberId;
use maglev_common::flow::{Bucket, FlowEntry, Seconds};
use maglev_common::table::PoolIndex;

use super::maps::Maps;
use super::shared::Mapped;

/// Entries that were last seen longer ago are cleared: their age is about to look young again, being seconds modulo
/// 2^16.
const HALF_A_WRAP: u16 = 1 << 15;

/// Clears every entry that names one of the members. Since they are dead, the kernel never writes their ids anew.
pub(super) fn purge(maps: &Maps, ids: &[MemberId]) {
    let mut dead = vec![false; usize::from(MemberId::MAX) + 1];
    for id in ids {
        dead[usize::from(id.get())] = true;
    }
    clear(maps, |entry| dead[usize::from(entry.member().get())]);
}

/// Clears every entry whose age is about to become ambiguous. To be called at least every nine hours.
pub(super) fn sweep(maps: &Maps, now: Seconds) {
    clear(maps, |entry| now.since(entry.last_seen()) > HALF_A_WRAP);
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
    let (sets, before) = (maps.sizes.flow_sets as usize, maps.sizes.sets_before as usize);
    let (cpu, set, apart) = (set / before, set % before, before.min(sets));
    let buckets = maps.flows.values().iter().skip(cpu * sets).take(sets).skip(set % apart).step_by(apart);
    buckets.flat_map(Bucket::entries).any(|word| word.get() != 0 && FlowEntry(word.get()).is_of(entry.tag()))
}

/// Clears the entries that match, unless the kernel rewrites one in that moment: then it is examined again.
fn clear(maps: &Maps, matches: impl Fn(FlowEntry) -> bool) {
    for word in maps.buckets().flat_map(Bucket::entries) {
        let mut found = FlowEntry(word.get());
        while !found.is_empty() && matches(found) && !word.replace(found.0, FlowEntry::EMPTY.0) {
            found = FlowEntry(word.get());
        }
    }
}
