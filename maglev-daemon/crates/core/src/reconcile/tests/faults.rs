//! Faults that were found by running the product and by reading: plans that fail, reloads that share a batch, and pools that
//! nothing uses.

use maglev_testing::matrix::Row;

use super::*;

/// How many plans a node begins that cannot carry out any, from now on and for so long, while inputs keep coming; and the
/// refusals of changes.
fn attempts(reconciler: &mut Reconciler, from: Duration, milliseconds: u64) -> usize {
    let mut attempts = 0;
    for passed in 0..milliseconds {
        let now = from + Duration::from_millis(passed);
        let resolution = if passed % 2 == 0 { resolved(2) } else { Resolution::Unresolved("flaps".to_owned()) };
        let mut events = vec![Event::NextHop { address: IpAddr::from([10, 0, 1, 1]), resolution }, Event::Flush];
        events.extend(reconciler.deadline().filter(|due| *due <= now).map(|_| Event::Tick));
        for event in events {
            for effect in reconciler.handle(event, now) {
                if let Effect::Publish(_) = effect {
                    attempts += 1;
                    reconciler.handle(Event::Published(Err("no memory".to_owned())), now);
                }
            }
        }
    }
    attempts
}

#[test]
fn a_plan_that_keeps_failing_is_tried_again_with_growing_pauses() {
    let mut row = Row::fault("R1", "a plan that keeps failing while a next hop flaps each millisecond");
    let mut node = reached();
    let found = attempts(&mut node.reconciler, node.now, 63_000);
    // After 0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 12.7, 25.5, 51.1 seconds and then each 30.
    assert!((9..=12).contains(&found), "{found}");
    row.says(format!("{found} attempts in 63 s"));
}

#[test]
fn a_failed_plan_is_carried_out_once_it_can_be_and_the_pause_begins_anew() {
    let _row = Row::fault("R1", "the next try is shown, and succeeds by time alone");
    let mut node = reached();
    node.fail_after = Some(0);
    let refused = node.change(remove_backend("web", "a")).unwrap_err().to_string();
    assert_eq!(refused, "saved, but not applied: the test says so; next try in 100 ms, see `maglev status`");
    let shown = node.reconciler.view().not_published.unwrap();
    assert_eq!((shown.reason.as_str(), shown.next), ("the test says so", Some(node.now + Duration::from_millis(100))));
    assert_eq!(node.reconciler.deadline(), shown.next);
    node.wait(1);
    assert_eq!(node.reconciler.view().not_published, None);
    assert_eq!(node.tables()[0].2, [SLOTS as u32]);
    node.fail_after = Some(0);
    let refused = node.change(add_backend("web", "c", 3)).unwrap_err().to_string();
    assert!(refused.contains("next try in 100 ms"), "{refused}");
}

#[test]
fn an_order_is_tried_at_once() {
    let _row = Row::fault("R1", "a change or a reload is tried at once, and its answer says that it is saved");
    let mut node = reached();
    node.fail_after = Some(0);
    node.change(remove_backend("web", "a")).unwrap_err();
    node.change(add_backend("web", "c", 3)).unwrap();
    assert_eq!(node.reconciler.out_of_sync(), None);
    node.fail_after = Some(0);
    let services = Services::default();
    node.run(Event::Replace { request: RequestId(50), services });
    node.run(Event::Flush);
    let Some((RequestId(50), Err(refused))) = node.replies.last() else { panic!("{:?}", node.replies) };
    assert!(refused.to_string().starts_with("saved, but not applied: the test says so"), "{refused}");
}

/// The outcomes of requests among effects.
fn replies(effects: &[Effect]) -> Vec<(u64, bool)> {
    let reply = |effect: &Effect| match effect {
        Effect::Reply { request: RequestId(request), outcome } => Some((*request, outcome.is_ok())),
        _ => None,
    };
    effects.iter().filter_map(reply).collect()
}

#[test]
fn an_edited_file_and_a_change_that_share_a_batch_are_saved_or_refused_together() {
    let _row = Row::fault("R2", "an edited file and a change that share a batch: saved together, or neither");
    for saved in [true, false] {
        let mut reconciler = reached().reconciler;
        let before = Arc::clone(&reconciler.target);
        let mut read = (*before).clone();
        read.admit(add_backend("web", "d", 4), &reconciler.settings.rules).unwrap();
        reconciler.handle(Event::Replace { request: RequestId(2), services: read.clone() }, NOW);
        reconciler.handle(Event::Change { request: RequestId(3), change: add_pool("api"), force: false }, NOW);
        let effects = reconciler.handle(Event::Flush, NOW);
        let [Effect::Persist(Draft { services, revisions })] = &effects[..] else { panic!("{effects:?}") };
        let requests: Vec<_> = revisions.iter().map(|(request, delta)| (request.0, delta.counts)).collect();
        assert_eq!(
            (requests.len(), requests[0].0, requests[0].1.backends.added, requests[1].1.pools.added),
            (2, 2, 1, 1)
        );
        assert_eq!((services.pools.len(), services.backend_count()), (2, 3));
        let outcome = if saved { Ok(()) } else { Err("no space".to_owned()) };
        let effects = reconciler.handle(Event::Persisted(outcome), NOW);
        assert_eq!(replies(&effects), if saved { vec![] } else { vec![(2, false), (3, false)] });
        assert_eq!(effects.iter().any(|effect| matches!(effect, Effect::Publish(_))), saved, "{effects:?}");
        assert_eq!(reconciler.target == before, !saved);
        assert_eq!(reconciler.saved == before, !saved);
    }
}

#[test]
fn an_unchanged_edited_file_is_accepted_though_the_change_beside_it_fails() {
    let _row = Row::fault("R2", "a file that says what is so, and a change that cannot be saved");
    let mut reconciler = reached().reconciler;
    let read = (*reconciler.saved).clone();
    reconciler.handle(Event::Replace { request: RequestId(2), services: read }, NOW);
    reconciler.handle(Event::Change { request: RequestId(3), change: add_pool("api"), force: false }, NOW);
    reconciler.handle(Event::Flush, NOW);
    let effects = reconciler.handle(Event::Persisted(Err("no space".to_owned())), NOW);
    assert_eq!(replies(&effects), [(3, false), (2, true)]);
    assert!(reconciler.is_idle());
}

#[test]
fn a_reload_is_reviewed_against_the_running_state() {
    let _row = Row::fault("C5", "a reload to nothing is refused without force, and counted with it");
    let node = reached();
    let Err(Denied::Refused(refused)) = node.reconciler.review(&Services::default(), false) else { panic!() };
    let refused = refused.to_string();
    assert_eq!(
        refused,
        "pool web: takes out 2 of 2 available backends and leaves none (limit: one must stay); --force does it"
    );
    let found = node.reconciler.review(&Services::default(), true).unwrap();
    assert_eq!((found.vips.removed, found.pools.removed, found.backends.removed), (1, 1, 2));
    let empty = Reconciler::new(settings(Limits::default()));
    assert_eq!(empty.review(&node.disk, false).unwrap().backends.added, 2, "the start takes the file as it is");
}

#[test]
fn a_plan_is_refused_as_the_change_would_be() {
    let _row =
        Row::fault("C9", "`plan` of the last available backend is refused as the change is, and forced as it is");
    let mut node = reached();
    node.change(order("a", DRAIN)).unwrap();
    for change in [order("b", DRAIN), order("b", DISABLE), remove_backend("web", "b")] {
        let refused = node.reconciler.preview(change.clone(), false).unwrap_err().to_string();
        assert!(refused.ends_with("--force does it"), "{refused}");
        let effects =
            node.reconciler.handle(Event::Change { request: RequestId(9), change: change.clone(), force: false }, NOW);
        assert!(
            matches!(&effects[..], [Effect::Reply { outcome: Err(error), .. }] if error.to_string() == refused),
            "{effects:?}"
        );
        node.reconciler.preview(change, true).unwrap();
    }
}

#[test]
fn nothing_is_learned_where_no_vip_uses_the_pool() {
    let _row = Row::fault("D10", "backends are added one by one to a pool without a VIP, then the VIP");
    let mut node = Node::start(Limits::default(), Services::default());
    node.change(add_pool("web")).unwrap();
    for (backend, host) in [("a", 1), ("b", 2), ("c", 3)] {
        node.change(add_backend("web", backend, host)).unwrap();
        node.reach(host, true);
        node.run(Event::Flush);
        assert_eq!(node.phases(), (0, 0), "{backend}");
    }
    node.change(add_vip("www", 1, "web")).unwrap();
    assert_eq!(node.phases(), (0, 0));
}

#[test]
fn a_pool_learns_from_the_change_after_its_vip_on() {
    let _row = Row::fault("D10", "a backend added beside the first VIP is not learned for; one added after it is");
    let mut node = Node::start(Limits::default(), Services::default());
    for change in [add_pool("web"), add_backend("web", "a", 1)] {
        node.change(change).unwrap();
    }
    for change in [add_backend("web", "b", 2), add_vip("www", 1, "web")] {
        node.run(Event::Change { request: RequestId(70), change, force: false });
    }
    node.run(Event::Flush);
    (1..5).for_each(|host| node.reach(host, true));
    assert_eq!(node.phases(), (0, 0));
    node.answers_surveys = false;
    node.change(add_backend("web", "c", 3)).unwrap();
    node.reach(3, true);
    node.run(Event::Flush);
    assert!(node.phases().0 > 0);
}

#[test]
fn a_pool_that_lost_its_vip_learns_no_more() {
    let _row = Row::fault("D10", "backends change after the pool's last VIP is gone");
    let mut node = reached();
    node.wait(200);
    node.change(Change::RemoveVip(name("www"))).unwrap();
    node.change(add_backend("web", "c", 3)).unwrap();
    node.change(order("a", DRAIN)).unwrap();
    node.reach(3, true);
    node.run(Event::Flush);
    assert_eq!(node.phases(), (0, 0));
}
