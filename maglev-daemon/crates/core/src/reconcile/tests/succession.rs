//! Another data plane of the same process takes over, in the middle of what goes on.

use super::*;

/// The same settings with another outer source and other slots.
fn successor(node: &Node) -> Successor {
    let Settings { rules, packets, interfaces, .. } = node.reconciler.settings.clone();
    let outer = OuterSources { v4: Some("10.65.0.0/24".parse().unwrap()), ..rules.outer };
    let interfaces = Interfaces { slots: [(2, InterfaceSlot(7)), (5, InterfaceSlot(0))].into(), ..interfaces };
    Successor { rules: Rules { outer, ..rules }, packets, interfaces }
}

impl Node {
    fn succeed(&mut self, successor: Successor) -> Result<(), Refusal> {
        let request = RequestId(self.replies.len() as u64);
        self.run(Event::Succeed { request, successor: Box::new(successor) });
        self.replies.last().unwrap().1.clone()
    }

    /// Every member has this slot and outer source.
    fn check_members(&self, slot: u16, source: &str) {
        let live = self.maps.live(9).members;
        assert_eq!(live.len(), 2);
        for record in live.values() {
            let next_hop = record.next_hop();
            assert!(next_hop.is_resolved() && next_hop.interface() == InterfaceSlot(slot), "{next_hop:?}");
            let outer = OuterSources { v4: Some(source.parse().unwrap()), v6: None };
            let pool = self.reconciler.planner.pool(&name("web")).unwrap().index();
            let kind = record.state().encap().kind();
            let made = |host: u8| {
                maglev_model::plan::member_record(pool, IpAddr::from([10, 0, 1, host]), kind, &outer, next_hop)
            };
            assert!([1, 2].map(made).contains(record), "{record:?}");
        }
    }
}

#[test]
fn transitions_and_members_go_on_in_another_data_plane() {
    let mut node = reached();
    node.change(order("a", DRAIN)).unwrap();
    node.wait(30);
    node.check_members(0, "10.64.0.0/24");
    let before = (node.phases(), node.backends(), node.tables());
    assert!(before.0.0 > 0);
    let next = successor(&node);
    assert_eq!(node.reconciler.review_successor(&next.rules, node.reconciler.services()), Ok(()));
    node.succeed(next).unwrap();
    assert_eq!((node.phases(), node.backends(), node.tables()), before);
    node.check_members(7, "10.65.0.0/24");
    node.maps.check_serves(&node.disk);
    let pool = node.reconciler.planner.pool(&name("web")).unwrap();
    node.maps.check_tables(pool.index(), pool.transition());
    node.wait(89);
    assert!(node.phases().0 > 0, "learning ends when it would have");
    node.wait(30);
    assert_eq!(node.phases(), (0, 0));
    node.change(add_backend("web", "c", 3)).unwrap();
}

#[test]
fn the_first_plan_of_another_data_plane_is_attempted_again() {
    let mut node = reached();
    node.maps.mortal = true;
    node.fail_after = Some(2);
    let next = successor(&node);
    let refused = node.succeed(next).unwrap_err().to_string();
    assert!(refused.starts_with("read, but not applied: the test says so; next try in 100 ms"), "{refused}");
    // A change waits for it.
    node.wait(1);
    assert_eq!(node.reconciler.out_of_sync(), None);
    node.check_members(7, "10.65.0.0/24");
    node.maps.check_serves(&node.disk);
}

#[test]
fn a_plan_that_is_under_way_or_failed_belongs_to_the_data_plane_before() {
    let mut node = reached();
    let change = Change::SetWeight { pool: name("web"), backend: name("a"), weight: Weight(7) };
    for (mac, outcome) in [(3, Ok(())), (4, Err("no memory".to_owned()))] {
        let resolution = Resolution::Resolved { interface: 2, mac: [mac; 6], gateway: None, mtu: None };
        node.run(Event::NextHop { address: IpAddr::from([10, 0, 1, 1]), resolution });
        let ordered = node.reconciler.handle(Event::Flush, node.now);
        assert!(matches!(ordered[..], [Effect::Publish(_)]), "{ordered:?}");
        let next = Box::new(successor(&node));
        let waits = node.reconciler.handle(Event::Succeed { request: RequestId(9), successor: next }, node.now);
        assert!(waits.is_empty() && !node.reconciler.is_idle(), "{waits:?}");
        node.run(Event::Published(outcome));
        if node.replies.last().unwrap().0 != RequestId(9) {
            node.wait(1);
        }
        assert_eq!(node.replies.last(), Some(&(RequestId(9), Ok(()))));
        assert_eq!(node.reconciler.out_of_sync(), None);
        node.check_members(7, "10.65.0.0/24");
    }
    node.change(change).unwrap();
    node.maps.check_serves(&node.disk);
}

#[test]
fn settings_that_do_not_fit_what_is_served_are_refused() {
    let node = reached();
    let Successor { rules, .. } = successor(&node);
    let review = |rules: Rules| node.reconciler.review_successor(&rules, node.reconciler.services()).unwrap_err();
    let Denied::Invalid(lines) = review(Rules { outer: OuterSources { v4: None, ..rules.outer }, ..rules }) else {
        panic!("a backend without an outer source")
    };
    assert!(lines[0].contains("encap"), "{lines:?}");
    let outer = OuterSources { v4: Some("203.0.113.0/24".parse().unwrap()), ..rules.outer };
    let Denied::Invalid(lines) = review(Rules { outer, ..rules }) else { panic!("a VIP within the outer source") };
    assert!(lines[0].contains("within the outer source"), "{lines:?}");
    let Denied::Invalid(lines) = review(Rules { limits: Limits { backends: 1, ..rules.limits }, ..rules }) else {
        panic!("more backends than the limit")
    };
    assert!(lines[0].contains("limits.backends"), "{lines:?}");
}

#[test]
fn a_number_beyond_the_limits_is_named_and_the_data_plane_goes_on() {
    let mut node = reached();
    node.change(add_pool("second")).unwrap();
    node.change(Change::RemoveVip(name("www"))).unwrap();
    for backend in ["a", "b"] {
        node.change(remove_backend("web", backend)).unwrap();
    }
    node.change(Change::RemovePool(name("web"))).unwrap();
    let next = successor(&node);
    let rules = Rules { limits: Limits { pools: 1, ..next.rules.limits }, ..next.rules };
    let Denied::Refused(refusal) = node.reconciler.review_successor(&rules, node.reconciler.services()).unwrap_err()
    else {
        panic!("a pool with a number beyond the limit")
    };
    assert!(refusal.to_string().ends_with("restart maglevd"), "{refusal}");
    assert_eq!(node.succeed(Successor { rules, ..next.clone() }).unwrap_err(), refusal);
    node.change(add_backend("second", "c", 3)).unwrap();
    node.succeed(next).unwrap();
    node.maps.check_serves(&node.disk);
}
