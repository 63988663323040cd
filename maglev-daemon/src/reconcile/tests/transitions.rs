//! Slots that change hands: learning, surveys, deadlines, and backends that come and go.

use super::*;

#[test]
fn a_drained_backends_flows_are_learned_then_looked_for_until_none_is_left() {
    let mut node = reached();
    let owned = node.tables()[0].2[0];
    node.answers_surveys = false;
    node.change(order("a", DRAIN)).unwrap();
    assert_eq!(node.phases(), (owned, 0));
    let backend = |node: &Node| {
        let backend = node.reconciler.view().pools[0].backends[0].clone();
        (backend.learning, backend.pinned)
    };
    assert_eq!(backend(&node), (owned, None), "not known before the first survey");
    let early = std::mem::take(&mut node.surveys);
    node.run(Event::Surveyed(found(&early, &Pinned::default())));
    assert_eq!(backend(&node), (owned, Some(0)));

    node.wait(119);
    assert_eq!(node.phases(), (owned, 0));
    let late = std::mem::take(&mut node.surveys);
    node.wait(1);
    assert_eq!((node.phases(), backend(&node)), ((0, owned), (0, None)));
    node.run(Event::Surveyed(found(&late, &Pinned::default())));
    assert_eq!((node.phases(), backend(&node)), ((0, owned), (0, None)), "it began while slots were learning");

    node.wait(2);
    let surveys = std::mem::take(&mut node.surveys);
    let slot = (0..SLOTS).find(|&slot| surveys[0].transition.is_moving(slot)).unwrap();
    let mut survey = Survey::new(Arc::clone(&surveys[0].transition), Seconds(0), 900);
    let tag = ((slot as u64) << 32).div_ceil(SLOTS as u64) as u32;
    survey.look(FlowEntry::new(tag, node.backends()[0].unwrap(), Seconds(0)));
    node.run(Event::Surveyed(found(&surveys, &survey.end().1)));
    assert_eq!((node.phases(), backend(&node)), ((0, 1), (0, Some(1))));

    node.answers_surveys = true;
    node.wait(2);
    let surveys = std::mem::take(&mut node.surveys);
    node.run(Event::Surveyed(found(&surveys, &Pinned::default())));
    assert_eq!((node.phases(), backend(&node)), ((0, 0), (0, Some(0))));
    assert_eq!(node.reconciler.deadline(), None, "nothing is left to do");
}

#[test]
fn where_every_flow_is_tracked_nothing_is_learned_but_the_drained_are_looked_for() {
    let mut node = reached();
    let always = SettingsChange { tracking: Some(Tracking::Always), ..SettingsChange::default() };
    node.change(Change::SetPool { pool: name("web"), change: always }).unwrap();
    node.change(order("a", DRAIN)).unwrap();
    assert_eq!(node.phases(), (0, 0));
    assert_eq!(node.reconciler.view().pools[0].backends[0].pinned, Some(0));
    assert!(node.reconciler.deadline().is_some(), "and again");
    let exception = SettingsChange { tracking: Some(Tracking::Exception), ..SettingsChange::default() };
    node.answers_surveys = false;
    node.wait(10);
    node.change(Change::SetPool { pool: name("web"), change: exception }).unwrap();
    assert_eq!(node.phases(), (0, SLOTS as u32), "what was written down is minded until it is known to be over");
}

#[test]
fn a_removed_backend_is_no_previous_owner() {
    let mut node = reached();
    node.change(order("a", DRAIN)).unwrap();
    assert!(node.phases().0 > 0);
    node.change(remove_backend("web", "a")).unwrap();
    assert_eq!(node.phases().0, 0);
}

#[test]
fn a_node_without_history_learns_the_flows_of_draining_backends() {
    let mut node = reached();
    node.change(order("a", DRAIN)).unwrap();
    let mut fresh = Node {
        reconciler: Reconciler::new(settings(Limits::default())),
        maps: Maps::default(),
        replies: Vec::new(),
        surveys: Vec::new(),
        ..node
    };
    (1..3).for_each(|host| fresh.reach(host, true));
    fresh.run(Event::Reload { request: RequestId(0), services: fresh.disk.clone() });
    fresh.run(Event::Flush);
    assert_eq!(fresh.phases(), (node_slots(), 0));
}

/// The slots of backend `a` while both own some.
fn node_slots() -> u32 {
    reached().tables()[0].2[0]
}

#[test]
fn a_backend_that_the_start_waited_for_takes_its_slots_at_once() {
    let mut node = Node::start(Limits::default(), web().disk);
    node.reach(1, true);
    node.run(Event::Flush);
    node.reach(2, true);
    node.run(Event::Flush);
    assert_eq!(node.phases(), (0, 0));
}

#[test]
fn the_flows_of_a_backend_that_is_lost_wait_for_it_for_a_while() {
    let mut node = reached();
    let owned = node.tables()[0].2[1];
    node.reach(2, false);
    node.run(Event::Flush);
    assert_eq!((node.tables()[0].2[1], node.phases()), (0, (owned, 0)), "others own its slots; its flows are held");
    node.wait(4);
    assert_eq!(node.phases(), (owned, 0));
    node.reach(2, true);
    node.run(Event::Flush);
    assert_eq!((node.tables()[0].2[1], node.phases()), (owned, (owned, 0)), "as if nothing had been");

    node.wait(200);
    node.reach(2, false);
    node.run(Event::Flush);
    node.wait(5);
    assert_eq!(node.phases(), (0, owned), "and then no more");
    node.wait(5);
    assert_eq!(node.phases(), (0, 0));
    node.reach(2, true);
    node.run(Event::Flush);
    assert_eq!(node.phases(), (owned, 0), "whoever stood in for it is a previous owner now");
}
