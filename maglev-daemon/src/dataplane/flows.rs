//! Clearing the flow tables under the program that writes them. It must not know why a member died.

use maglev_common::backend::MemberId;
use maglev_common::flow::{Bucket, FlowEntry, Seconds};

use super::maps::Maps;

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

/// Clears every entry whose age can no longer be told. To be done more often than each nine hours.
pub(super) fn sweep(maps: &Maps, now: Seconds) {
    clear(maps, |entry| now.since(entry.last_seen()) > HALF_A_WRAP);
}

/// Clears the entries that match, unless the kernel rewrites one in that moment: then it is looked at again.
fn clear(maps: &Maps, matches: impl Fn(FlowEntry) -> bool) {
    for word in maps.flows.values().iter().flat_map(Bucket::entries) {
        let mut found = FlowEntry(word.get());
        while !found.is_empty() && matches(found) && !word.replace(found.0, FlowEntry::EMPTY.0) {
            found = FlowEntry(word.get());
        }
    }
}
