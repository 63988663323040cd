//! One gate for every source of changes: a change that the command line is refused is refused to a plan and a reload as well.

use super::*;

/// The answers to each source that removes backend `a` of pool `web`: a change, a plan of it, a reload.
fn removals(node: &mut Node, force: bool) -> [Result<(), String>; 3] {
    let change = remove_backend("web", "a");
    let planned = node.reconciler.preview(change.clone(), force).map(drop).map_err(|refusal| refusal.to_string());
    let mut services = Services::clone(&node.reconciler.saved);
    services.admit(change.clone(), &settings(Limits::default()).rules).unwrap();
    let reloaded = match node.reconciler.review(&services, force) {
        Ok(_) => Ok(()),
        Err(Denied::Refused(refusal)) => Err(refusal.to_string()),
        Err(Denied::Invalid(problems)) => panic!("{problems:?}"),
    };
    let request = RequestId(u64::MAX);
    let effects = node.reconciler.handle(Event::Change { request, change, force }, node.now);
    let made = match &effects[..] {
        [] => Ok(()),
        [Effect::Reply { outcome: Err(refusal), .. }] => Err(refusal.to_string()),
        others => panic!("{others:?}"),
    };
    [made, planned, reloaded]
}

#[test]
fn a_draining_backend_with_something_left_is_removed_by_force_alone() {
    let mut node = reached();
    node.change(add_backend("web", "c", 3)).unwrap();
    node.reach(3, true);
    node.run(Event::Flush);
    node.answers_surveys = false;
    node.change(order("a", DRAIN)).unwrap();
    let learning = node.reconciler.view().pools[0].backends[0].learning;
    assert!(learning > 0);
    let line = |left: &str| {
        let wait = "wait (maglev backend drain web a --wait) or --force";
        Err(format!("backend a of pool web is not drained: {left}; {wait}"))
    };
    let learning = format!("{learning} slots are learning for it");
    let uncounted = line(&format!("{learning} and the flows pinned to it are not counted yet"));
    assert_eq!(removals(&mut node, false), [uncounted.clone(), uncounted.clone(), uncounted]);
    node.wait(2);
    let surveys = std::mem::take(&mut node.surveys);
    node.run(Event::Surveyed(found(&surveys, &Pinned::default())));
    let counted = line(&format!("{learning} and 0 flows are pinned to it"));
    assert_eq!(removals(&mut node, false), [counted.clone(), counted.clone(), counted]);
    assert_eq!(removals(&mut node, true), [Ok(()), Ok(()), Ok(())]);
}

#[test]
fn a_drained_backend_is_removed_and_one_that_does_not_drain_too() {
    let mut node = reached();
    for backend in ["c", "d", "e"] {
        node.change(add_backend("web", backend, backend.as_bytes()[0])).unwrap();
        node.reach(backend.as_bytes()[0], true);
    }
    node.run(Event::Flush);
    node.wait(300);
    let mut active = reached();
    active.change(add_backend("web", "c", 3)).unwrap();
    active.wait(300);
    assert_eq!(removals(&mut active, false), [Ok(()), Ok(()), Ok(())], "only a drain promises to keep connections");
    node.change(order("a", DRAIN)).unwrap();
    node.wait(300);
    assert_eq!(node.phases(), (0, 0));
    assert_eq!(removals(&mut node, false), [Ok(()), Ok(()), Ok(())]);
}

#[test]
fn a_vip_on_an_address_that_the_node_needs_is_refused_by_every_source() {
    let mut node = reached();
    let host =
        maglev_model::Host { own: [(IpAddr::from([203, 0, 113, 9]), "eth0".to_owned())].into(), ..Default::default() };
    node.run(Event::Host(host));
    let change = add_vip("own", 9, "web");
    let mut services = Services::clone(&node.reconciler.saved);
    services.admit(change.clone(), &settings(Limits::default()).rules).unwrap();
    for force in [false, true] {
        let Err(Denied::Invalid(problems)) = node.reconciler.review(&services, force) else { panic!() };
        assert!(problems[0].contains("an address of this node, on eth0"), "{problems:?}");
        let effects =
            node.reconciler.handle(Event::Change { request: RequestId(7), change: change.clone(), force }, node.now);
        let [Effect::Reply { outcome: Err(Refusal::Conflict(line)), .. }] = &effects[..] else { panic!("{effects:?}") };
        assert!(line.contains("an address of this node, on eth0"), "{line}");
    }
}
