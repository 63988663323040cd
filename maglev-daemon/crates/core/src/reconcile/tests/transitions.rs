//! Slots that get other owners: learning, surveys, deadlines, and backends that are added and removed.

use super::*;
use maglev_testing::matrix::Row;

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
fn learning_takes_its_time_from_when_the_packet_path_follows() {
    let mut node = reached();
    let owned = node.tables()[0].2[0];
    node.answers_surveys = false;
    node.fail_after = Some(0);
    node.change(order("a", DRAIN)).unwrap_err();
    // Longer than it learns, flows go to their old owner without a trace.
    node.now += Duration::from_secs(500);
    node.run(Event::Tick);
    assert_eq!(node.reconciler.out_of_sync(), None);
    assert_eq!(node.phases(), (owned, 0));
    node.wait(119);
    assert_eq!(node.phases(), (owned, 0));
    node.wait(1);
    assert_eq!(node.phases(), (0, owned));
}

#[test]
fn where_every_flow_is_tracked_nothing_is_learned_but_the_drained_are_looked_for() {
    let mut node = reached();
    let always = SettingsChange { tracking: Some(Tracking::Always), ..SettingsChange::default() };
    node.change(Change::SetPool { pool: name("web"), change: always, health: HealthChange::default() }).unwrap();
    node.change(order("a", DRAIN)).unwrap();
    assert_eq!(node.phases(), (0, 0));
    assert_eq!(node.reconciler.view().pools[0].backends[0].pinned, Some(0));
    assert!(node.reconciler.deadline().is_some(), "and again");
    let exception = SettingsChange { tracking: Some(Tracking::Exception), ..SettingsChange::default() };
    node.answers_surveys = false;
    node.wait(10);
    node.change(Change::SetPool { pool: name("web"), change: exception, health: HealthChange::default() }).unwrap();
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
    fresh.run(Event::Load { request: RequestId(0), services: fresh.disk.clone() });
    fresh.run(Event::Flush);
    assert_eq!(fresh.phases(), (node_slots(), 0));
}

/// The slots of backend `a` while both own some.
fn node_slots() -> u32 {
    reached().tables()[0].2[0]
}

/// A node without history, with backends `a`, `b` and `c`, of which these were reached before it published.
fn fresh(reached: &[u8]) -> Node {
    let mut known = web();
    known.change(add_backend("web", "c", 3)).unwrap();
    let mut node = Node {
        reconciler: Reconciler::new(settings(Limits::default())),
        ..Node::start(Limits::default(), Services::default())
    };
    node.disk = known.disk;
    reached.iter().for_each(|&host| node.reach(host, true));
    node.run(Event::Load { request: RequestId(0), services: node.disk.clone() });
    node.run(Event::Flush);
    node
}

#[test]
fn a_stand_in_at_the_start_hands_slots_back_and_keeps_its_flows() {
    for reached in [&[1, 2][..], &[1], &[]] {
        let mut node = fresh(reached);
        let awaited = (1..4).filter(|host| !reached.contains(host));
        for host in awaited {
            let somebody_stands_in = host > 1;
            assert_eq!(node.phases().1 > 0, somebody_stands_in, "{reached:?} are reached, not yet {host}");
            node.reach(host, true);
            node.run(Event::Flush);
            // But in the few slots that are its own only until all have arrived.
            assert!(node.phases().0 < SLOTS as u32 / 100, "{:?} are learning, tracked: {host} arrived", node.phases());
        }
        node.wait(2);
        assert_eq!(node.phases().1, 0, "{reached:?}");
    }
    let mut node = fresh(&[1, 2]);
    let stood_in = node.phases().1;
    node.answers_surveys = false;
    node.reach(3, true);
    node.run(Event::Flush);
    assert_eq!(node.phases(), (0, stood_in), "until their flows are known to be over");
}

#[test]
fn another_backend_that_is_drained_while_one_arrives_keeps_its_flows() {
    let mut node = fresh(&[1, 2]);
    let (before, stood_in) = (node.tables()[0].2[0], node.phases().1);
    node.reach(3, true);
    node.change(order("a", DRAIN)).unwrap();
    let (learning, tracked) = node.phases();
    // A third of its slots were of another backend, which has arrived.
    assert!(learning > before / 2, "{learning} of {before} slots learn");
    assert_eq!(tracked, stood_in);
}

#[test]
fn a_long_stand_in_is_a_previous_owner_like_any_other() {
    let mut node = fresh(&[1, 2]);
    assert!(node.phases().1 > 0);
    node.wait(10);
    assert_eq!(node.phases(), (0, 0), "no backend is awaited any more");
    node.reach(3, true);
    node.run(Event::Flush);
    assert!(node.phases().0 >= node.tables()[0].2[2], "{:?} are learning, tracked", node.phases());
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
    assert_eq!(node.phases(), (owned, 0), "its stand-ins are previous owners now");
}

#[test]
fn the_flow_tables_are_surveyed_though_next_hops_change_all_the_time() {
    let _row = Row::fault("R8", "a backend drains, and a next hop changes before each plan is carried out");
    let mut node = reached();
    node.change(order("a", DRAIN)).unwrap();
    let late = node.now + Duration::from_secs(600);
    let moved = |last| {
        let resolution = Resolution::Resolved { interface: 2, mac: [2, 0, 0, 0, 9, last], gateway: None, mtu: None };
        Event::NextHop { address: [10, 0, 1, 2].into(), resolution }
    };
    let mut surveyed = 0;
    for last in 0..10 {
        let now = late + Duration::from_secs(2 * last);
        let mut handle = |event| node.reconciler.handle(event, now);
        let mut effects: Vec<Effect> = [moved(last as u8), Event::Flush].into_iter().flat_map(&mut handle).collect();
        let next = [moved(last as u8 + 100), Event::Flush, Event::Published(Ok(()))];
        effects.extend(next.into_iter().flat_map(&mut handle));
        assert!(matches!(node.reconciler.phase, Phase::Publishing { .. }));
        if effects.iter().any(|effect| matches!(effect, Effect::Survey(_))) {
            surveyed += 1;
            node.reconciler.handle(Event::Surveyed(Vec::new()), now);
        }
    }
    assert_eq!(surveyed, 10);
}
