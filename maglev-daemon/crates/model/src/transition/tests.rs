//! Tests of [`super`]: the phases of a slot, case by case, and invariants after any history.

use std::sync::Arc;

use maglev_common::flow::{FlowEntry, Seconds};
use proptest::prelude::*;

use super::*;

const LEARNING: Duration = Duration::from_secs(120);

fn member(id: u16) -> MemberId {
    MemberId::from_low_bits(id)
}

/// All slots owned by one member.
fn all(id: u16) -> Vec<SlotWord> {
    vec![SlotWord::settled(member(id)); SLOTS]
}

/// Slots 0, 1, 2, … owned by these, the rest without an owner.
fn slots(ids: &[u16]) -> Vec<SlotWord> {
    let mut owners = all(0);
    owners.iter_mut().zip(ids).for_each(|(owner, &id)| *owner = SlotWord::settled(member(id)));
    owners
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn change(transition: &mut Transition, owners: &[SlotWord], dead: &[u16], now: u64) {
    let lives = |id: MemberId| !dead.contains(&id.get());
    let before = transition.owners().to_vec();
    let outdated =
        transition.change(Change { owners, lives: &lives, now: at(now), learning: LEARNING, stand_ins: false });
    assert_eq!(outdated.both, before != owners);
}

fn learning(previous: u16, deadline: u64) -> Phase {
    Phase::Learning { previous: member(previous), deadline: at(deadline) }
}

#[test]
fn the_first_owners_come_without_a_transition() {
    let mut transition = Transition::new();
    change(&mut transition, &all(1), &[], 0);
    assert!(transition.is_settled());
    assert!(!transition.is_learning());
}

#[test]
fn a_settled_slot_takes_two_bytes() {
    let transition = Transition::new();
    assert_eq!(size_of_val(transition.owners()), 2 * SLOTS, "a full node has 64 pools or more");
    assert!(transition.moving.is_none());
}

#[test]
fn a_slot_learns_then_is_tracked_then_settles() {
    let mut transition = Transition::new();
    change(&mut transition, &slots(&[1, 2]), &[], 0);
    change(&mut transition, &slots(&[1, 3]), &[], 10);
    assert_eq!((transition.phase(0), transition.phase(1)), (Phase::Settled, learning(2, 130)));
    let words: Vec<_> = transition.words().take(2).collect();
    assert_eq!(words, [SlotWord::settled(member(1)), SlotWord::moving(member(3))]);
    assert!(transition.is_learning());
    let previous: Vec<_> = transition.previous_words().take(2).collect();
    assert_eq!(previous, [SlotWord::settled(MemberId::NOBODY), SlotWord::settled(member(2))]);

    assert!(!transition.expire(at(129)));
    assert_eq!(transition.deadline(), Some(at(130)));
    assert!(transition.expire(at(130)));
    assert_eq!(transition.phase(1), Phase::Tracked);
    assert!(!transition.is_learning());

    assert!(transition.settle(&Pinned::default()));
    assert!(transition.is_settled());
}

#[test]
fn a_dead_owners_slot_is_not_in_transition() {
    let mut transition = Transition::new();
    change(&mut transition, &all(1), &[], 0);
    change(&mut transition, &all(2), &[1], 10);
    assert!(transition.is_settled());
}

#[test]
fn overlapping_changes_keep_the_oldest_living_owner_and_its_deadline() {
    let mut transition = Transition::new();
    change(&mut transition, &all(1), &[], 0);
    change(&mut transition, &all(2), &[], 10);
    change(&mut transition, &all(3), &[], 50);
    assert_eq!(transition.phase(7), learning(1, 130));
    change(&mut transition, &all(4), &[3], 60);
    assert_eq!(transition.phase(7), learning(1, 130), "the owner's death leaves the previous owner");
    change(&mut transition, &all(5), &[1], 70);
    assert_eq!(transition.phase(7), learning(4, 190), "once it died it is gone; the owner lives and learns anew");
    change(&mut transition, &all(5), &[4], 80);
    assert_eq!(transition.phase(7), Phase::Tracked);
    change(&mut transition, &all(5), &[], 90);
    assert_eq!(transition.phase(7), Phase::Tracked, "even if it comes back");
}

#[test]
fn a_tracked_slot_learns_again_when_its_owner_changes() {
    let mut transition = Transition::new();
    change(&mut transition, &all(1), &[], 0);
    change(&mut transition, &all(2), &[], 0);
    transition.expire(at(120));
    change(&mut transition, &all(3), &[], 150);
    assert_eq!(transition.phase(0), learning(2, 270));
    change(&mut transition, &all(4), &[3, 2], 160);
    assert_eq!(transition.phase(0), Phase::Tracked, "flows of the first owner are still written down");
}

#[test]
fn a_draining_pool_without_owners_keeps_its_flows() {
    let mut transition = Transition::new();
    change(&mut transition, &all(1), &[], 0);
    change(&mut transition, &all(0), &[], 10);
    assert_eq!(transition.words().next(), Some(SlotWord::moving(MemberId::NOBODY)));
    assert_eq!(transition.progress().learning_for, [(member(1), SLOTS as u32)].into());
}

#[test]
fn a_node_without_history_derives_the_previous_owners_of_draining_members() {
    let mut transition = Transition::new();
    change(&mut transition, &slots(&[1, 1, 3]), &[], 0);
    transition.derive(&slots(&[1, 2, 4]), &|id| id.get() == 2, at(120));
    let phases = [0, 1, 2].map(|slot| transition.phase(slot));
    assert_eq!(phases, [Phase::Settled, learning(2, 120), Phase::Settled]);
}

#[test]
fn a_survey_counts_recent_flows_that_belong_elsewhere() {
    let mut transition = Transition::new();
    change(&mut transition, &all(1), &[], 0);
    change(&mut transition, &all(2), &[], 0);
    transition.expire(at(120));
    let tag = |slot: u64| ((slot << 32) / SLOTS as u64 + 1) as u32;
    let mut survey = Survey::new(Arc::new(transition.clone()), Seconds(10), 900);
    let mut look = |slot, id, seen| survey.look(FlowEntry::new(tag(slot), member(id), Seconds(seen)));
    assert!(!look(5, 1, 10));
    assert!(!look(6, 2, 10));
    assert!(look(7, 1, 10_u16.wrapping_sub(901)), "to be cleared");
    assert!(!look(9, 1, 11));
    assert!(!look(9, 3, 10_u16.wrapping_sub(900)));
    let (_, pinned) = survey.end();
    assert_eq!([5, 6, 7, 9].map(|slot| pinned.holds(slot)), [true, false, false, true]);
    assert_eq!((pinned.to(member(1)), pinned.to(member(3)), pinned.total()), (2, 1, 3));
    assert!(transition.settle(&pinned));
    assert_eq!((transition.phase(5), transition.phase(6)), (Phase::Tracked, Phase::Settled));
    assert_eq!(transition.progress(), Progress { tracked: 2, ..Progress::default() });
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Event {
    /// The slots turn over to this member, except for one in so many.
    Owners(u16, usize),
    /// A member dies, and lives again later.
    Die(u16),
    Live(u16),
    Wait(u64),
    Settle,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_u16..5, 1_usize..4).prop_map(|(id, step)| Event::Owners(id, step)),
        (1_u16..5).prop_map(Event::Die),
        (1_u16..5).prop_map(Event::Live),
        (1_u64..200).prop_map(Event::Wait),
        Just(Event::Settle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// After any history: a previous owner lives and is not past its deadline; a slot is in transition if it has one; a
    /// slot that got another owner while its owner lived is in transition until it settles.
    #[test]
    fn any_history_leaves_slots_consistent(history in prop::collection::vec(event(), 1..40)) {
        let mut transition = Transition::new();
        let mut dead: Vec<u16> = Vec::new();
        let mut now = 0;
        for event in history {
            let before = transition.clone();
            match event {
                Event::Owners(id, step) => {
                    let mut owners = transition.owners().to_vec();
                    owners.iter_mut().step_by(step).for_each(|owner| *owner = SlotWord::settled(member(id)));
                    change(&mut transition, &owners, &dead, now);
                }
                Event::Die(id) => {
                    dead.push(id);
                    let owners = transition.owners().to_vec();
                    change(&mut transition, &owners, &dead, now);
                }
                Event::Live(id) => dead.retain(|&other| other != id),
                Event::Wait(seconds) => {
                    now += seconds;
                    transition.expire(at(now));
                }
                Event::Settle => {
                    transition.settle(&Pinned::default());
                }
            }
            for slot in 0..12 {
                if let Phase::Learning { previous, deadline } = transition.phase(slot) {
                    prop_assert!(!dead.contains(&previous.get()) && !previous.is_nobody());
                    prop_assert!(deadline > at(now) && deadline <= at(now) + LEARNING);
                }
                let [old, new] = [&before, &transition].map(|of| of.owners()[slot].owner());
                if old != new && !old.is_nobody() && !dead.contains(&old.get()) {
                    prop_assert!(transition.is_moving(slot));
                }
            }
            prop_assert_eq!(transition.is_settled(), (0..SLOTS).all(|slot| !transition.is_moving(slot)));
        }
    }
}
