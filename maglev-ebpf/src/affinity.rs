//! Which member a flow goes to: the table's owner of its slot, or the member that the flow table remembers.
//!
//! The flow table is set-associative, one cache line a set, and belongs to one CPU. An entry that was seen in one
//! second only is *unconfirmed* and never takes the place of a confirmed, recently active one: floods of first packets
//! displace each other.

use maglev_common::backend::MemberId;
use maglev_common::counters::Counter;
use maglev_common::flow::{Bucket, FlowEntry, Seconds, WAYS, WayTags};
use maglev_common::hash::FlowHash;
use maglev_common::settings::Tracking;
use maglev_common::table::PoolIndex;
use maglev_common::template::Template;

use crate::env::Tables;
use crate::packet::l4::Segment;

/// A confirmed entry that was active within this many seconds is never displaced.
pub const IDLE: u16 = 15 * 60;

/// A SYN moves a flow to the slot's owner only if the flow was silent for this many seconds: a retransmitted or
/// spoofed SYN must not move a live flow, while a reused port starts afresh.
pub const SYN_GUARD: u16 = 3;

/// Why a flow goes to its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The member owns the flow's slot.
    Table,
    /// The flow table remembers the member.
    FlowTable,
}

/// What a choice depends on beside the flow table.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// The VIP's pool.
    pub pool: PoolIndex,
    /// When the pool's flows are looked up.
    pub tracking: Tracking,
    /// The flow's hash.
    pub hash: FlowHash,
    /// The owner of the flow's slot, or nobody.
    pub owner: MemberId,
}

/// What the flow table says of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// It goes to this member; the entry is in this way.
    Known(usize, FlowEntry),
    /// An entry in this way is the flow's but no longer binds it.
    Stale(usize),
    /// There is no entry.
    Unknown,
}

/// Chooses a flow's member, perhaps nobody, and keeps the flow table.
///
/// A flow that is remembered stays with its member even if its slot has no owner any more. A RST never makes an entry:
/// whoever sends one has no flow to keep.
#[inline(always)]
pub fn choose<T: Tables>(tables: &T, flow: Flow, segment: impl Fn() -> Segment) -> (MemberId, Choice) {
    match flow.tracking {
        Tracking::None => (flow.owner, Choice::Table),
        Tracking::Always => remember(tables, flow, segment()),
    }
}

#[inline(always)]
fn remember<T: Tables>(tables: &T, flow: Flow, segment: Segment) -> (MemberId, Choice) {
    let Some(bucket) = tables.bucket(flow.hash) else {
        tables.count(Counter::FlowTableMissing);
        return (flow.owner, Choice::Table);
    };
    let now = tables.now();
    match recall(tables, bucket, flow, segment, now) {
        Memory::Known(way, entry) => {
            tables.count(Counter::FlowHit);
            if entry.last_seen() != now {
                bucket.renew(way, entry.seen_again(now));
            }
            return (entry.member(), Choice::FlowTable);
        }
        Memory::Stale(way) => write(tables, bucket, Some(way), flow, segment, now),
        Memory::Unknown => {
            tables.count(Counter::FlowMiss);
            write(tables, bucket, free_way(bucket, flow.hash, now), flow, segment, now);
        }
    }
    (flow.owner, Choice::Table)
}

/// What the flow table says of a flow, for `maglev flow explain`: reads only.
pub fn peek<T: Tables>(tables: &T, bucket: &Bucket, pool: PoolIndex, hash: FlowHash) -> Option<FlowEntry> {
    let entry = bucket.entry(find(bucket, hash)?);
    tables.forwarding().template(entry.member()).state().serves(pool).then_some(entry)
}

#[inline(always)]
fn recall<T: Tables>(tables: &T, bucket: &Bucket, flow: Flow, segment: Segment, now: Seconds) -> Memory {
    let Some(way) = find(bucket, flow.hash) else { return Memory::Unknown };
    let entry = bucket.entry(way);
    // A collision can never cross services: the member's pool must be the VIP's.
    let template = tables.forwarding().template(entry.member());
    if !template.state().serves(flow.pool) {
        tables.count(Counter::FlowMemberDead);
        return Memory::Stale(way);
    }
    if begins_anew(segment, entry, template, now) && !flow.owner.is_nobody() {
        return Memory::Stale(way);
    }
    Memory::Known(way, entry)
}

/// Whether a packet of a known flow is to be treated as the first of a new one.
///
/// While its member cannot be reached, a flow that can begin anew elsewhere does so. An established TCP connection
/// cannot: another backend would reset it, while what is dropped is sent again.
#[inline(always)]
fn begins_anew(segment: Segment, entry: FlowEntry, template: &Template, now: Seconds) -> bool {
    let unreachable = || !template.exit().exists();
    (segment.is_syn() && (now.since(entry.last_seen()) >= SYN_GUARD || unreachable()))
        || (segment.is_datagram() && unreachable())
}

/// The way that holds a flow. Nearly always the first candidate is the one, or there is none.
#[inline(always)]
fn find(bucket: &Bucket, hash: FlowHash) -> Option<usize> {
    let mut candidates = bucket.tags().candidates(hash.way_tag());
    for _ in 0..WAYS {
        if candidates == 0 {
            return None;
        }
        let way = WayTags::lowest(candidates);
        let entry = bucket.entry(way);
        if entry.tag() == hash.tag() && !entry.is_empty() {
            return Some(way);
        }
        candidates &= candidates - 1;
    }
    None
}

/// The way a new flow may take: an empty one, else one that is idle or unconfirmed, whichever comes first from where the
/// flow's hash says. Floods meet full buckets, so that the search must be short; where it begins is as good as random.
#[inline(always)]
fn free_way(bucket: &Bucket, hash: FlowHash, now: Seconds) -> Option<usize> {
    let empty = bucket.tags().empty();
    if empty != 0 {
        return Some(WayTags::lowest(empty));
    }
    let first = hash.first_way();
    let is_free = |way: usize| {
        let entry = bucket.entry(way);
        entry.is_empty() || !entry.is_confirmed() || now.since(entry.last_seen()) > IDLE
    };
    // From the first on, then the ones before: old verifiers do not follow an index that wraps.
    let from_first = (0..WAYS).find(|&way| way >= first && is_free(way));
    from_first.or_else(|| (0..WAYS).find(|&way| way < first && is_free(way)))
}

#[inline(always)]
fn write<T: Tables>(tables: &T, bucket: &Bucket, way: Option<usize>, flow: Flow, segment: Segment, now: Seconds) {
    let Flow { pool: _, tracking: _, hash, owner } = flow;
    if segment.is_rst() || owner.is_nobody() {
        return;
    }
    match way {
        Some(way) => {
            bucket.put(way, FlowEntry::new(hash.tag(), owner, now), hash.way_tag());
            tables.count(Counter::FlowWritten);
        }
        None => tables.count(Counter::FlowTableFull),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeTables, POOL, member};
    use std::vec::Vec;

    /// A flow whose hash has this tag, all in set 0 with way tag `tag & 127`.
    fn hash(tag: u32) -> FlowHash {
        FlowHash(u64::from(tag) << 32 | u64::from(tag & 0x7f) << 25)
    }

    fn choose_other(tables: &FakeTables, tag: u32, owner: u16) -> (u16, Choice) {
        choose_segment(tables, tag, owner, Segment::OTHER)
    }

    fn choose_segment(tables: &FakeTables, tag: u32, owner: u16, segment: Segment) -> (u16, Choice) {
        let owner = MemberId::from_low_bits(owner);
        let flow = Flow { pool: POOL, tracking: tables.tracking, hash: hash(tag), owner };
        let (member, choice) = choose(tables, flow, || segment);
        (member.get(), choice)
    }

    #[test]
    fn a_known_flow_keeps_its_member_when_the_table_changes() {
        let tables = FakeTables::with_members(2);
        assert_eq!(choose_segment(&tables, 5, 1, Segment::SYN), (1, Choice::Table));
        assert_eq!(choose_other(&tables, 5, 2), (1, Choice::FlowTable));
        assert_eq!(choose_other(&tables, 6, 2), (2, Choice::Table));
    }

    #[test]
    fn without_tracking_the_table_alone_decides() {
        let mut tables = FakeTables::with_members(2);
        tables.track_nothing();
        assert_eq!(choose_other(&tables, 5, 1), (1, Choice::Table));
        assert_eq!(choose_other(&tables, 5, 2), (2, Choice::Table));
        assert_eq!(tables.counted(Counter::FlowWritten), 0);
    }

    #[test]
    fn a_dead_member_is_forgotten_at_once() {
        let tables = FakeTables::with_members(2);
        choose_other(&tables, 5, 1);
        tables.kill(1);
        assert_eq!(choose_other(&tables, 5, 2), (2, Choice::Table));
        assert_eq!(choose_other(&tables, 5, 1), (2, Choice::FlowTable));
        assert_eq!(tables.counted(Counter::FlowMemberDead), 1);
    }

    #[test]
    fn a_known_flow_outlives_its_slots_owner() {
        let tables = FakeTables::with_members(1);
        choose_other(&tables, 5, 1);
        assert_eq!(choose_other(&tables, 5, 0), (1, Choice::FlowTable));
        assert_eq!(choose_other(&tables, 6, 0), (0, Choice::Table), "a new one has nowhere to go");
        tables.advance(60);
        assert_eq!(choose_segment(&tables, 5, 0, Segment::SYN), (1, Choice::FlowTable));
    }

    #[test]
    fn while_a_member_cannot_be_reached_only_what_can_begin_anew_does() {
        let tables = FakeTables::with_members(2);
        for (tag, segment) in [(5, Segment::OTHER), (6, Segment::SYN), (7, Segment::DATAGRAM)] {
            choose_segment(&tables, tag, 1, segment);
        }
        tables.forwarding.members[1].next_hop.set(0);
        tables.renew(2);
        assert_eq!(choose_segment(&tables, 5, 2, Segment::OTHER), (1, Choice::FlowTable), "held, not reset");
        assert_eq!(choose_segment(&tables, 6, 2, Segment::SYN), (2, Choice::Table));
        assert_eq!(choose_segment(&tables, 7, 2, Segment::DATAGRAM), (2, Choice::Table));
        assert_eq!(choose_segment(&tables, 7, 1, Segment::DATAGRAM), (2, Choice::FlowTable), "for good");
    }

    #[test]
    fn sets_do_not_share_flows() {
        let mut tables = FakeTables::with_members(2);
        tables.buckets.push(Bucket::default());
        let in_set = |set: u64| FlowHash(5 << 32 | 5 << 25 | set);
        let go = |set, owner| {
            let flow = Flow { pool: POOL, tracking: Tracking::Always, hash: in_set(set), owner: member(owner) };
            choose(&tables, flow, || Segment::OTHER)
        };
        go(0, 1);
        assert_eq!(go(1, 2), (member(2), Choice::Table));
        assert_eq!(go(0, 2), (member(1), Choice::FlowTable));
    }

    #[test]
    fn an_entry_never_crosses_pools() {
        let tables = FakeTables::with_members(2);
        choose_other(&tables, 5, 1);
        tables.move_to_pool(1, PoolIndex(7));
        assert_eq!(choose_other(&tables, 5, 2), (2, Choice::Table));
    }

    #[test]
    fn a_rst_makes_no_entry_but_follows_one() {
        let tables = FakeTables::with_members(2);
        choose_segment(&tables, 5, 1, Segment::RST);
        assert_eq!(choose_other(&tables, 5, 2), (2, Choice::Table));
        assert_eq!(choose_segment(&tables, 5, 1, Segment::RST), (2, Choice::FlowTable));
    }

    #[test]
    fn a_syn_moves_a_flow_only_after_three_silent_seconds() {
        let tables = FakeTables::with_members(2);
        choose_other(&tables, 5, 1);
        tables.advance(2);
        assert_eq!(choose_segment(&tables, 5, 2, Segment::SYN), (1, Choice::FlowTable));
        tables.advance(3);
        assert_eq!(choose_segment(&tables, 5, 2, Segment::SYN), (2, Choice::Table));
        assert_eq!(choose_other(&tables, 5, 1), (2, Choice::FlowTable));
    }

    #[test]
    fn a_flood_of_first_packets_displaces_no_confirmed_flow() {
        let tables = FakeTables::with_members(2);
        let kept: Vec<u32> = (0..6).collect();
        for &tag in &kept {
            choose_other(&tables, tag, 1);
        }
        tables.advance(1);
        for &tag in &kept {
            choose_other(&tables, tag, 1);
        }
        for tag in 100..1_000 {
            choose_segment(&tables, tag, 2, Segment::SYN);
        }
        for &tag in &kept {
            assert_eq!(choose_other(&tables, tag, 2), (1, Choice::FlowTable), "flow {tag}");
        }
    }

    #[test]
    fn a_bucket_of_confirmed_flows_is_counted_as_full_until_one_is_idle() {
        let tables = FakeTables::with_members(2);
        for _ in 0..2 {
            for tag in 0..WAYS as u32 {
                choose_other(&tables, tag, 1);
            }
            tables.advance(1);
        }
        assert_eq!(choose_other(&tables, 50, 2), (2, Choice::Table));
        assert_eq!(choose_other(&tables, 50, 1), (1, Choice::Table), "not recorded");
        assert_eq!(tables.counted(Counter::FlowTableFull), 2);
        tables.advance(IDLE);
        choose_other(&tables, 3, 2);
        choose_other(&tables, 50, 2);
        assert_eq!(choose_other(&tables, 50, 1), (2, Choice::FlowTable));
        assert_eq!(choose_other(&tables, 3, 2), (1, Choice::FlowTable), "the active one stayed");
    }

    #[test]
    fn entries_differ_by_the_whole_tag_not_only_by_the_way_tag() {
        let tables = FakeTables::with_members(2);
        choose_other(&tables, 5, 1);
        assert_eq!(choose_other(&tables, 5 + 128, 2), (2, Choice::Table));
        assert_eq!(choose_other(&tables, 5, 2), (1, Choice::FlowTable));
    }

    #[test]
    fn an_unconfigured_cpu_falls_back_to_the_table_and_is_counted() {
        let mut tables = FakeTables::with_members(1);
        tables.buckets.clear();
        assert_eq!(choose_other(&tables, 5, 1), (1, Choice::Table));
        assert_eq!(tables.counted(Counter::FlowTableMissing), 1);
    }
}
