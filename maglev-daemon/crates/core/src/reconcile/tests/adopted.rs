//! A daemon is killed, at any point, and another one continues with its saved state and the maps as they are.

use maglev_model::plan::{Planner, Saved};

use super::*;

impl Node {
    /// Collects changes and begins to publish them, and is killed after so many steps of the plan. Returns the state saved
    /// before the first of them.
    fn killed_after(&mut self, changes: Vec<Change>, steps_done: usize) -> String {
        for change in changes {
            self.run(Event::Change { request: RequestId(0), change, force: true });
        }
        let mut kept = serde_json::to_string(&self.reconciler.save()).unwrap();
        let mut events = std::collections::VecDeque::from([Event::Flush]);
        while let Some(event) = events.pop_front() {
            for effect in self.reconciler.handle(event, self.now) {
                match effect {
                    Effect::Persist(Draft { services, .. }) => {
                        self.disk = Arc::unwrap_or_clone(services);
                        events.push_back(Event::Persisted(Ok(())));
                    }
                    Effect::Publish(steps) => {
                        kept = serde_json::to_string(&self.reconciler.save()).unwrap();
                        self.maps.begin(&self.disk, false);
                        steps.iter().take(steps_done).for_each(|step| self.maps.carry_out(step));
                        return kept;
                    }
                    _ => {}
                }
            }
        }
        kept
    }

    /// Another daemon adopts the maps. It does not know the next hops yet.
    pub(super) fn adopt(&mut self, kept: &str) {
        self.maps.outlive();
        let Settings { rules: Rules { limits, outer }, .. } = self.reconciler.settings;
        let saved: Saved = serde_json::from_str(kept).unwrap();
        let planner = Planner::restore(limits, outer, &saved, &self.maps.live(limits.pools)).unwrap();
        self.reconciler = Reconciler::adopt(settings(limits), planner, self.now);
        self.reconciler.recall(saved.in_use());
        (self.replies, self.surveys) = (Vec::new(), Vec::new());
        self.run(Event::Load { request: RequestId(0), services: self.disk.clone() });
        self.run(Event::Flush);
        assert_eq!(self.replies, [(RequestId(0), Ok(()))]);
        for pool in self.disk.pools.keys().filter_map(|name| self.reconciler.planner.pool(name)) {
            self.maps.check_tables(pool.index(), pool.transition());
        }
        let known = self.reconciler.view().pools.into_iter().flat_map(|pool| pool.backends);
        let known: BTreeSet<MemberId> = known.filter_map(|backend| backend.id).collect();
        let alive: BTreeSet<MemberId> = self.maps.live(limits.pools).members.into_keys().collect();
        assert_eq!(alive, known, "every live member is known");
    }

    fn progress(&self) -> Vec<Progress> {
        self.reconciler.view().pools.iter().map(|pool| pool.progress.clone()).collect()
    }
}

#[test]
fn a_transition_goes_on_where_it_was() {
    let mut node = reached();
    node.change(order("a", DRAIN)).unwrap();
    node.wait(30);
    let kept = node.killed_after(Vec::new(), 0);
    let (before, backends) = (node.progress(), node.backends());
    assert!(before[0].learning > 0 && kept.len() < 70_000, "{} bytes", kept.len());
    node.now += Duration::from_secs(60);
    node.adopt(&kept);
    assert_eq!((node.progress(), node.backends()), (before, backends));
    (1..3).for_each(|host| node.reach(host, true));
    node.run(Event::Flush);
    node.wait(29);
    assert!(node.phases().0 > 0, "learning ends when it would have");
    node.answers_surveys = false;
    node.wait(1);
    assert_eq!((node.phases().0, node.phases().1 > 0), (0, true));
    node.answers_surveys = true;
    let surveys = std::mem::take(&mut node.surveys);
    node.run(Event::Surveyed(found(&surveys, &Pinned::default())));
    node.wait(10);
    assert_eq!(node.phases(), (0, 0));
}

#[test]
fn a_deadline_that_passed_meanwhile_has_passed() {
    let mut node = reached();
    node.change(order("a", DRAIN)).unwrap();
    let kept = node.killed_after(Vec::new(), 0);
    node.now += Duration::from_secs(120);
    node.answers_surveys = false;
    node.adopt(&kept);
    assert_eq!((node.phases().0, node.phases().1 > 0), (0, true));
}

#[test]
fn a_settled_node_leaves_little_to_be_known() {
    let mut node = reached();
    let kept = node.killed_after(Vec::new(), 0);
    assert!(kept.len() < 500, "{kept}");
    let tables = node.tables();
    node.adopt(&kept);
    assert_eq!((node.tables(), node.phases()), (tables, (0, 0)));
}

#[test]
fn backends_count_as_reached_until_it_is_known_that_they_are_not() {
    let mut node = reached();
    let (kept, tables) = (node.killed_after(Vec::new(), 0), node.tables());
    node.adopt(&kept);
    node.reach(1, false);
    node.run(Event::Flush);
    node.reach(2, true);
    node.run(Event::Flush);
    node.wait(4);
    assert_eq!(node.tables(), tables, "the neighbor may only not have been asked yet");
    node.wait(2);
    assert_eq!(node.tables()[0].2, [0, SLOTS as u32]);
    node.reach(1, true);
    node.run(Event::Flush);
    assert_eq!(node.tables(), tables);
}

#[test]
fn services_that_changed_meanwhile_are_a_change() {
    let mut node = reached();
    let owned = node.tables()[0].2[0];
    let kept = node.killed_after(Vec::new(), 0);
    let StateChange::Drain { now } = DRAIN else { panic!() };
    let backends = &mut node.disk.pool_mut(&name("web")).unwrap().backends;
    backends.get_mut(&name("a")).unwrap().state = AdminState::Draining { since: Some(now) };
    node.adopt(&kept);
    assert_eq!(node.phases(), (owned, 0));
    let kept = node.killed_after(Vec::new(), 0);
    node.disk = Services::default();
    node.adopt(&kept);
    node.maps.check_serves(&Services::default());
    assert!(node.maps.live(512).members.is_empty());
}

#[test]
fn inconsistent_state_is_rejected_with_the_reason() {
    let mut node = reached();
    let kept = node.killed_after(Vec::new(), 0);
    let live = node.maps.live(512);
    let Rules { limits, outer } = settings(Limits::default()).rules;
    let refused = |limits, outer, kept: &str| {
        let saved: Saved = serde_json::from_str(kept).unwrap();
        Planner::restore(limits, outer, &saved, &live).unwrap_err()
    };
    assert!(refused(limits, OuterSources::default(), &kept).contains("member 1 is no longer a of pool web"));
    assert!(refused(Limits { pools: 0, ..limits }, outer, &kept).contains("pool 0"));
    assert!(refused(Limits { vips: 0, ..limits }, outer, &kept).contains("VIP 0"));
    assert!(
        refused(limits, outer, &kept.replace("10.0.1.1", "10.0.1.9")).contains("member 1 is no longer a of pool web")
    );
}

/// Per pool and slot of VIPs in service, the backend of a segment without a flow entry. A pool whose VIPs the packet path does not take
/// yet has no flows to keep.
fn routes(node: &Node) -> BTreeMap<(Name, usize), IpAddr> {
    let view = node.reconciler.view();
    let of_pool = |pool: &PoolView| {
        let (name, index) = (pool.name.clone(), pool.index?);
        let route = move |(slot, address)| ((name.clone(), slot), address);
        Some(node.maps.routes(index).into_iter().map(route).collect::<Vec<_>>())
    };
    let is_served = |pool: &&PoolView| node.disk.vips_of(&pool.name).any(|vip| node.maps.takes(vip.service));
    view.pools.iter().filter(is_served).filter_map(of_pool).flatten().collect()
}

/// Orders about the backends that are there from the start: what brings slots into transition.
fn any_order() -> impl Strategy<Value = Change> {
    let order = prop_oneof![Just(Some(DRAIN)), Just(Some(StateChange::Undrain)), Just(None)];
    let weight = prop_oneof![Just(1), Just(50), Just(100)];
    (prop_oneof!["p1", "p2"], prop_oneof!["a", "b", "c"], order, weight).prop_map(|(pool, backend, order, weight)| {
        let (pool, backend) = (name(&pool), name(&backend));
        match order {
            Some(change) => Change::SetState { pool, backend, change },
            None => Change::SetWeight { pool, backend, weight: Weight(weight) },
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Killed between any two steps of any plan, with any slots in transition: packets without a flow
    /// entry still go to the same backend, as long as it exists.
    #[test]
    fn in_any_history_a_killed_daemon_is_followed_by_one_that_goes_on(
        batches in prop::collection::vec(
            (
                prop::collection::vec(prop_oneof![any_change(), any_order()], 0..4),
                0_usize..14,
                (1_u8..7, any::<bool>(), prop_oneof![Just(0), 0_u64..200]),
            ),
            1..10,
        ),
        small in any::<bool>(),
    ) {
        let limits = if small { Limits { vips: 3, pools: 3, backends: 5 } } else { Limits::default() };
        let mut node = Node::start(limits, Services::default());
        let mut reached = BTreeSet::from([1, 2, 3]);
        reached.iter().for_each(|&host| node.reach(host, true));
        for (at, pool) in [(1, "p1"), (2, "p2")] {
            node.change(add_pool(pool)).unwrap();
            for (host, backend) in (1..).zip(["a", "b", "c"]).take(if small { 2 } else { 3 }) {
                node.change(add_backend(pool, backend, host)).unwrap();
            }
            node.change(add_vip(&format!("v{at}"), at, pool)).unwrap();
        }
        for (batch, steps_done, (host, reachable, seconds)) in batches {
            node.reach(host, reachable);
            if reachable { reached.insert(host) } else { reached.remove(&host) };
            let kept = node.killed_after(batch, steps_done);
            let before = routes(&node);
            node.adopt(&kept);
            let stays = |(pool, _): &(Name, usize), address: &IpAddr| {
                let backends = node.disk.pools.get(pool).into_iter().flat_map(|pool| pool.backends.values());
                let mut living = backends.filter(|backend| !backend.is_disabled());
                living.any(|b| b.address == *address) && reached.iter().any(|&host| *address == IpAddr::from([10, 0, 1, host]))
            };
            let after = routes(&node);
            let served = |(pool, _): &(Name, usize)| node.disk.vips_of(pool).next().is_some();
            for (slot, address) in before.iter().filter(|(slot, address)| served(slot) && stays(slot, address)) {
                prop_assert_eq!(after.get(slot), Some(address), "slot {:?}", slot);
            }
            (1..7).for_each(|host| node.reach(host, reached.contains(&host)));
            node.run(Event::Flush);
            node.wait(seconds);
        }
        node.wait(10);
        (1..7).for_each(|host| node.reach(host, true));
        node.run(Event::Flush);
        node.maps.check_serves(&node.disk);
        let mut fresh = Node::start(limits, node.disk.clone());
        (1..7).for_each(|host| fresh.reach(host, true));
        fresh.run(Event::Flush);
        prop_assert_eq!(node.tables(), fresh.tables());
    }
}
