//! The rules, case by case: pools that are always tracked, slots in transition, and buckets that are full.

use std::vec::Vec;

use super::*;
use crate::env::Clock as _;
use crate::testing::{FakeTables, IDLE, POOL, member};

/// A flow whose hash has this tag, all in set 0 with way tag `tag & 127`.
fn hash(tag: u32) -> FlowHash {
    FlowHash(u64::from(tag) << 32 | u64::from(tag & 0x7f) << 25)
}

fn choose_other(tables: &FakeTables, tag: u32, owner: u16) -> (u16, Choice) {
    choose_segment(tables, tag, owner, Segment::OTHER)
}

/// The choice for a packet whose slot `owner` owns, in a pool that is always tracked.
fn choose_segment(tables: &FakeTables, tag: u32, owner: u16, segment: Segment) -> (u16, Choice) {
    let slot = hash(tag).slot().index();
    tables.tables[1][slot].set(owner);
    choose_in(tables, tag, segment)
}

/// The choice for a packet, as the tables are.
fn choose_in(tables: &FakeTables, tag: u32, segment: Segment) -> (u16, Choice) {
    let (member, choice) = choose(tables, Flow { pool: POOL, word: tables.word(), hash: hash(tag) }, || segment);
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
fn a_flow_that_began_anew_while_its_member_could_not_be_reached_does_not_go_back() {
    let mut tables = learning(UdpPolicy::Keep);
    choose_in(&tables, 7, Segment::DATAGRAM);
    tables.move_slots(2, 0, UdpPolicy::Keep);
    let next_hop = tables.forwarding.members[1].next_hop.get();
    tables.forwarding.members[1].next_hop.set(0);
    tables.renew(2);
    assert_eq!(choose_in(&tables, 7, Segment::DATAGRAM), (2, Choice::Table), "learning is over");
    tables.forwarding.members[1].next_hop.set(next_hop);
    tables.renew(2);
    assert_eq!(choose_in(&tables, 7, Segment::DATAGRAM), (2, Choice::FlowTable));
}

#[test]
fn sets_do_not_share_flows() {
    let mut tables = FakeTables::with_members(2);
    tables.buckets.push(Bucket::default());
    let go = |set: u64, owner| {
        let hash = FlowHash(5 << 32 | 5 << 25 | set);
        tables.tables[1][hash.slot().index()].set(owner);
        choose(&tables, Flow { pool: POOL, word: tables.word(), hash }, || Segment::OTHER)
    };
    go(0, 1);
    assert_eq!(go(1, 2), (member(2), Choice::Table));
    assert_eq!(go(0, 2), (member(1), Choice::FlowTable));
}

/// A flow table with one set that knew flow 5 is followed by one with two.
fn enlarged() -> FakeTables {
    let mut tables = FakeTables::with_members(2);
    assert_eq!(choose_segment(&tables, 5, 1, Segment::SYN), (1, Choice::Table));
    tables.buckets_before = core::mem::take(&mut tables.buckets);
    tables.buckets.resize_with(2, Bucket::default);
    tables
}

#[test]
fn a_flow_table_of_another_size_takes_over_the_entries_of_flows_that_come() {
    let tables = enlarged();
    let error = |tables: &FakeTables| {
        choose_for_error(tables, Flow { pool: POOL, word: tables.word(), hash: hash(5) }, Segment::SYN).0
    };
    tables.tables[1][hash(5).slot().index()].set(2);
    assert_eq!((error(&tables), tables.counted(Counter::FlowPromoted)), (member(1), 0), "errors move nothing");
    tables.advance(1);
    for known in [Some(Counter::FlowPromoted), None] {
        assert_eq!(choose_other(&tables, 5, 2), (1, Choice::FlowTable));
        assert_eq!(tables.counted(Counter::FlowPromoted), 1, "once: {known:?}");
    }
    let entry = tables.buckets[0].entry(find(&tables.buckets[0], hash(5)).unwrap());
    assert!(entry.is_confirmed() && entry.last_seen() == tables.now());
    assert_eq!(choose_other(&tables, 6, 2), (2, Choice::Table), "others are not known");
    let before = tables.buckets_before[0].entry(find(&tables.buckets_before[0], hash(5)).unwrap());
    assert!(!before.is_confirmed(), "it is read only");
}

#[test]
fn what_was_idle_too_long_or_is_dead_is_not_taken_over() {
    let tables = enlarged();
    tables.advance(IDLE + 1);
    assert_eq!(choose_other(&tables, 5, 2), (2, Choice::Table));
    let tables = enlarged();
    tables.kill(1);
    assert_eq!(choose_other(&tables, 5, 2), (2, Choice::Table));
    assert_eq!([Counter::FlowMemberDead, Counter::FlowPromoted].map(|counter| tables.counted(counter)), [1, 0]);
    assert_eq!(choose_other(&tables, 5, 1), (2, Choice::FlowTable), "written over");
}

#[test]
fn a_flow_is_found_before_even_if_its_bucket_is_full() {
    let tables = enlarged();
    // Seven other flows of the same set, seen in two seconds.
    for _ in 0..2 {
        for n in 1..=7 {
            choose_other(&tables, 5 + 128 * n, 2);
        }
        tables.advance(1);
    }
    for _ in 0..2 {
        assert_eq!(choose_other(&tables, 5, 2), (1, Choice::FlowTable));
    }
    assert_eq!(tables.counted(Counter::FlowPromoted), 0);
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
fn a_new_flow_displaces_the_one_that_was_silent_longest() {
    for waits in [1, IDLE + 1] {
        let tables = learning(UdpPolicy::New);
        fill_bucket(&tables, Segment::SYN);
        tables.advance(waits);
        // Connections that began lately, and whose second packet is still to come, all with the same home.
        let begun: Vec<_> = (100..).filter(|&tag| hash(tag).home_way() == 3).take(WAYS).collect();
        for &tag in &begun {
            assert_eq!(choose_in(&tables, tag, Segment::SYN), (2, Choice::Table));
            tables.advance(1);
        }
        for &tag in &begun {
            assert_eq!(choose_in(&tables, tag, Segment::OTHER), (2, Choice::FlowTable), "flow {tag} after {waits} s");
        }
        // They are confirmed now: nothing may go.
        assert_eq!(choose_in(&tables, 99, Segment::SYN).1, Choice::Previous);
        assert_eq!(tables.counted(Counter::FlowTableFull), 1);
    }
}

#[test]
fn of_flows_that_were_silent_for_as_long_the_one_at_home_is_displaced() {
    let tables = learning(UdpPolicy::New);
    fill_bucket(&tables, Segment::SYN);
    tables.advance(1);
    choose_in(&tables, 200, Segment::SYN);
    let home = hash(200).home_way();
    assert_eq!(tables.bucket(hash(200)).unwrap().entry(home).tag(), 200);
}

#[test]
fn an_entry_that_another_clock_wrote_a_moment_later_is_not_the_oldest() {
    let tables = learning(UdpPolicy::New);
    fill_bucket(&tables, Segment::SYN);
    let bucket = tables.bucket(hash(0)).unwrap();
    let later = FlowEntry::new(5, member(2), Seconds(tables.now().0.wrapping_add(1)));
    bucket.put(5, later, 5);
    tables.advance(2);
    let with_home = (200..).find(|&tag| hash(tag).home_way() == 5).unwrap();
    choose_in(&tables, with_home, Segment::SYN);
    assert_eq!(bucket.entry(5), later);
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

/// As many flows as the bucket has ways.
fn fill_bucket(tables: &FakeTables, segment: Segment) {
    for tag in 0..WAYS as u32 {
        choose_in(tables, tag, segment);
    }
}

/// Members 1 and 2; every slot went from 1 to 2 and is learning.
fn learning(udp: UdpPolicy) -> FakeTables {
    let mut tables = FakeTables::with_members(2);
    tables.move_slots(2, 1, udp);
    tables
}

/// The same when learning is over.
fn tracked() -> FakeTables {
    let mut tables = FakeTables::with_members(2);
    tables.move_slots(2, 0, UdpPolicy::New);
    tables
}

#[test]
fn a_stable_slot_keeps_no_state() {
    let mut tables = FakeTables::with_members(2);
    tables.move_slots(2, 1, UdpPolicy::Keep);
    tables.set_owner(1);
    for segment in [Segment::SYN, Segment::OTHER, Segment::RST, Segment::DATAGRAM] {
        assert_eq!(choose_in(&tables, 5, segment), (1, Choice::Table));
    }
    assert!(tables.buckets[0].entries().iter().all(|entry| entry.get() == 0));
    assert!(tables.all_counted().0.is_empty());
}

#[test]
fn while_a_slot_learns_what_is_old_stays_and_what_begins_is_the_owners() {
    let tables = learning(UdpPolicy::New);
    assert_eq!(choose_in(&tables, 5, Segment::OTHER), (1, Choice::Previous));
    assert_eq!(choose_in(&tables, 6, Segment::SYN), (2, Choice::Table));
    assert_eq!(choose_in(&tables, 7, Segment::DATAGRAM), (2, Choice::Table));
    for (tag, member) in [(5, 1), (6, 2), (7, 2)] {
        assert_eq!(choose_in(&tables, tag, Segment::OTHER), (member, Choice::FlowTable), "written down");
    }
    assert_eq!(tables.counted(Counter::FlowPrevious), 1);
}

#[test]
fn datagrams_that_are_kept_stay_with_the_previous_owner() {
    let tables = learning(UdpPolicy::Keep);
    assert_eq!(choose_in(&tables, 5, Segment::DATAGRAM), (1, Choice::Previous));
    assert_eq!(choose_in(&tables, 5, Segment::DATAGRAM), (1, Choice::FlowTable));
}

#[test]
fn when_learning_is_over_only_what_is_written_down_stays() {
    let mut tables = learning(UdpPolicy::New);
    choose_in(&tables, 5, Segment::OTHER);
    tables.move_slots(2, 0, UdpPolicy::New);
    assert_eq!(choose_in(&tables, 5, Segment::OTHER), (1, Choice::FlowTable));
    for segment in [Segment::OTHER, Segment::DATAGRAM, Segment::RST] {
        assert_eq!(choose_in(&tables, 6, segment), (2, Choice::Table));
    }
    assert_eq!(tables.counted(Counter::FlowWritten), 1, "and nothing else is, but for what begins");
    assert_eq!(choose_in(&tables, 6, Segment::SYN), (2, Choice::Table));
    assert_eq!(choose_in(&tables, 6, Segment::OTHER), (2, Choice::FlowTable));
}

#[test]
fn a_rst_follows_a_learning_flow_and_writes_nothing() {
    let tables = learning(UdpPolicy::New);
    assert_eq!(choose_in(&tables, 5, Segment::RST), (1, Choice::Previous));
    assert_eq!(tables.counted(Counter::FlowWritten), 0);
}

#[test]
fn a_syn_takes_a_silent_flow_to_the_owner_and_leaves_a_live_one() {
    let tables = learning(UdpPolicy::New);
    choose_in(&tables, 5, Segment::OTHER);
    assert_eq!(choose_in(&tables, 5, Segment::SYN), (1, Choice::FlowTable));
    tables.advance(SYN_GUARD);
    assert_eq!(choose_in(&tables, 5, Segment::SYN), (2, Choice::Table));
    assert_eq!(choose_in(&tables, 5, Segment::OTHER), (2, Choice::FlowTable), "the entry was rewritten");
}

#[test]
fn an_idle_entry_of_an_earlier_connection_with_the_same_ports_does_not_bind_a_later_one() {
    let mut tables = learning(UdpPolicy::New);
    assert_eq!(choose_in(&tables, 5, Segment::OTHER), (1, Choice::Previous));
    // It is settled: no entry that names another member than the owner is younger than this.
    tables.set_owner(2);
    tables.advance(IDLE + 1);
    assert_eq!(choose_in(&tables, 5, Segment::SYN), (2, Choice::Table), "nothing is recorded");
    tables.advance(1);
    tables.move_slots(1, 2, UdpPolicy::New);
    assert_eq!(
        choose_for_error(&tables, Flow { pool: POOL, word: tables.word(), hash: hash(5) }, Segment::RST).0,
        member(2)
    );
    assert_eq!(choose_in(&tables, 5, Segment::OTHER), (2, Choice::Previous));
    assert_eq!(choose_in(&tables, 5, Segment::OTHER), (2, Choice::FlowTable), "the entry was rewritten");
}

#[test]
fn an_entry_binds_for_as_long_as_flows_may_be_idle_and_longer_where_every_flow_is_tracked() {
    for (age, member) in [(IDLE, 1), (IDLE + 1, 2)] {
        let mut tables = learning(UdpPolicy::New);
        choose_in(&tables, 5, Segment::OTHER);
        tables.move_slots(2, 0, UdpPolicy::New);
        tables.advance(age);
        assert_eq!(choose_in(&tables, 5, Segment::OTHER).0, member, "after {age} s");
        let tables = FakeTables::with_members(2);
        choose_other(&tables, 5, 1);
        tables.advance(age);
        assert_eq!(choose_other(&tables, 5, 2), (1, Choice::FlowTable), "always, after {age} s");
    }
}

#[test]
fn an_entry_binds_by_the_idle_time_of_its_own_pool() {
    for (age, member) in [(IDLE, 1), (IDLE + 1, 2)] {
        let mut tables = learning(UdpPolicy::New);
        tables.forwarding.set_idle(PoolIndex(POOL.0 + 1), 10 * IDLE);
        choose_in(&tables, 5, Segment::OTHER);
        tables.move_slots(2, 0, UdpPolicy::New);
        tables.advance(age);
        assert_eq!(choose_in(&tables, 5, Segment::OTHER).0, member, "after {age} s");
    }
}

#[test]
fn a_dead_previous_owner_takes_no_flow() {
    let tables = learning(UdpPolicy::Keep);
    choose_in(&tables, 5, Segment::OTHER);
    tables.kill(1);
    assert_eq!(choose_in(&tables, 5, Segment::OTHER), (2, Choice::Table), "its entry is ignored");
    assert_eq!(choose_in(&tables, 6, Segment::OTHER), (2, Choice::Table));
}

#[test]
fn a_previous_owner_outlives_the_last_owner() {
    let mut tables = FakeTables::with_members(1);
    tables.move_slots(0, 1, UdpPolicy::New);
    assert_eq!(choose_in(&tables, 5, Segment::OTHER), (1, Choice::Previous));
    assert_eq!(choose_in(&tables, 6, Segment::SYN), (0, Choice::Table));
    tables.advance(60);
    assert_eq!(choose_in(&tables, 5, Segment::SYN), (1, Choice::FlowTable), "nobody else is there to begin anew with");
}

#[test]
fn what_cannot_be_written_goes_where_its_next_packets_will() {
    let mut tables = learning(UdpPolicy::New);
    for second in 0..2 {
        tables.advance(second);
        fill_bucket(&tables, Segment::OTHER);
    }
    assert_eq!(choose_in(&tables, 50, Segment::SYN), (1, Choice::Previous));
    assert_eq!(choose_in(&tables, 50, Segment::OTHER), (1, Choice::Previous));
    assert_eq!(tables.counted(Counter::FlowTableFull), 2);
    tables.buckets.clear();
    assert_eq!(choose_in(&tables, 51, Segment::SYN), (1, Choice::Previous));
    assert_eq!(tables.counted(Counter::FlowTableMissing), 1);
}

#[test]
fn a_recent_entry_that_gives_way_is_counted_if_its_flow_moves_by_it() {
    let tables = learning(UdpPolicy::New);
    fill_bucket(&tables, Segment::OTHER);
    choose_in(&tables, 50, Segment::SYN);
    assert_eq!(tables.counted(Counter::FlowEvicted), 1);
    let tables = tracked();
    fill_bucket(&tables, Segment::SYN);
    choose_in(&tables, 50, Segment::SYN);
    assert_eq!(tables.counted(Counter::FlowEvicted), 0, "these name the owner");
}

#[test]
fn where_every_flow_is_tracked_flows_that_displace_each_other_are_counted_and_floods_are_not() {
    let tables = FakeTables::with_members(2);
    for tag in 0..1_000 {
        choose_segment(&tables, tag, 1, Segment::SYN);
    }
    assert_eq!(tables.counted(Counter::FlowEvicted), 0, "a flood of first packets");
    // Twice as many flows as there is room for: many are forgotten before they speak again.
    for tag in (0..2 * WAYS as u32).cycle().take(100) {
        choose_other(&tables, tag, 1);
    }
    assert!(tables.counted(Counter::FlowEvicted) > 40, "{:?}", tables.all_counted());
    assert_eq!(tables.counted(Counter::FlowTableFull), 0, "nothing was ever confirmed");
}

#[test]
fn where_every_flow_is_tracked_an_entry_that_kept_its_flow_is_counted_whatever_displaces_it() {
    let tables = FakeTables::with_members(2);
    for tag in 0..2 * WAYS as u32 {
        choose_segment(&tables, tag, 1, Segment::SYN);
    }
    assert_eq!(tables.counted(Counter::FlowEvicted), 0, "these name the owner");
    // All are of one slot, which another member takes.
    choose_segment(&tables, 50, 2, Segment::SYN);
    assert_eq!(tables.counted(Counter::FlowEvicted), 1);
}
