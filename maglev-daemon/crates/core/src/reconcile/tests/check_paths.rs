//! Tests of the paths of checks: to which member, on which interface, from when on, and why not.

use maglev_common::mark::Mark;
use maglev_model::{Check, Hysteresis, PoolHealth, Probe, Via};

use crate::health::{CheckPath, Order};

use super::*;

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));

/// Pool `web` of `a` and `b`, which are checked through the encapsulation, and VIP `www`. Both can be reached.
fn encapsulated() -> Node {
    let check = Check {
        probe: Probe::Tcp,
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        jitter: NOW,
        hysteresis: Hysteresis { fall: 2, rise: 3 },
        port: None,
        via: Via::Encap { vip: None },
    };
    let health = PoolHealth { check: Some(Arc::new(check)), ..PoolHealth::default() };
    let mut services = Services::default();
    let rules = settings(Limits::default()).rules;
    services.admit(Change::AddPool(Pool { health, ..Pool::new(name("web")) }), &rules).unwrap();
    for change in [add_backend("web", "a", 1), add_backend("web", "b", 2), add_vip("www", 1, "web")] {
        services.admit(change, &rules).unwrap();
    }
    let mut node = Node::start(Limits::default(), services);
    (1..3).for_each(|host| node.reach(host, true));
    node.run(Event::Flush);
    node
}

impl Node {
    fn route_vip(&mut self, resolution: Resolution) {
        self.run(Event::NextHop { address: VIP, resolution });
        self.run(Event::Flush);
    }

    /// The paths that were ordered, by backend.
    fn check_paths(&self) -> Vec<(String, Result<CheckPath, String>)> {
        let path = |order: &Order| order.path.clone().map_err(|why| why.to_string());
        self.checked.iter().map(|(target, order)| (target.backend.to_string(), path(order))).collect()
    }

    /// The path to `backend`, the `at`th of the pool, without faults.
    fn good(&self, at: usize, backend: &str) -> (String, Result<CheckPath, String>) {
        let mark = Mark::from_member(self.backends()[at].unwrap());
        (backend.to_owned(), Ok(CheckPath { mark: Some(mark.0), interface: Some(2) }))
    }
}

#[test]
fn a_check_goes_to_its_member_by_the_interface_that_the_vip_is_routed_by() {
    let mut node = encapsulated();
    assert!(node.followed.contains(&VIP));
    assert_eq!(node.check_paths(), [], "the route is being looked up");
    node.route_vip(resolved(2));
    assert_eq!(node.check_paths(), [node.good(0, "a"), node.good(1, "b")]);
    let destinations = node.checked.keys().map(|target| target.destination);
    assert!(destinations.eq([(VIP, 80).into(); 2]));
}

#[test]
fn without_a_path_a_check_has_the_reason() {
    let mut node = encapsulated();
    let all = |node: &Node, expected: &str| {
        assert_eq!(node.check_paths(), ["a", "b"].map(|backend| (backend.to_owned(), Err(expected.to_owned()))));
    };
    node.route_vip(Resolution::Unresolved("no route to 203.0.113.1".to_owned()));
    all(&node, "VIP www: no route to 203.0.113.1");
    node.route_vip(resolved(5));
    all(&node, "VIP 203.0.113.1 is routed via eth5, which is not listed in `interfaces`");
    node.route_vip(resolved(2));
    node.reach(1, false);
    node.run(Event::Flush);
    assert_eq!(node.check_paths(), [("a".to_owned(), Err("no answer".to_owned())), node.good(1, "b")]);
    node.reach(1, true);
    let Settings { interfaces, .. } = settings(Limits::default());
    node.run(Event::Interfaces(Interfaces { unguarded: [2].into(), ..interfaces.clone() }));
    node.run(Event::Flush);
    all(&node, "checks via eth2 are not encapsulated: see the daemon's log");
    node.run(Event::Interfaces(interfaces));
    node.run(Event::Flush);
    assert_eq!(node.check_paths(), [node.good(0, "a"), node.good(1, "b")]);
}

#[test]
fn a_member_is_checked_once_its_record_is_published() {
    let mut node = encapsulated();
    node.route_vip(resolved(2));
    node.run(Event::NextHop { address: IpAddr::from([10, 0, 1, 3]), resolution: resolved(2) });
    let names = |effects: &[Effect]| {
        let orders = effects.iter().filter_map(|effect| match effect {
            Effect::Check(orders) => Some(orders.keys().map(|target| target.backend.to_string()).collect::<Vec<_>>()),
            _ => None,
        });
        orders.collect::<Vec<_>>()
    };
    let reconciler = &mut node.reconciler;
    let mut handle = |event| reconciler.handle(event, NOW);
    assert!(
        handle(Event::Change { request: RequestId(9), change: add_backend("web", "c", 3), force: true }).is_empty()
    );
    assert!(matches!(handle(Event::Flush)[..], [Effect::Persist(_)]));
    let planned = handle(Event::Persisted(Ok(())));
    assert!(planned.iter().any(|effect| matches!(effect, Effect::Publish(_))) && names(&planned).is_empty());
    handle(Event::NextHop { address: IpAddr::from([10, 0, 1, 3]), resolution: resolved(2) });
    assert_eq!(names(&handle(Event::Published(Ok(())))), [["a", "b", "c"]]);
}

#[test]
fn a_plan_that_fails_leaves_checks_as_they_were() {
    let mut node = encapsulated();
    node.route_vip(resolved(2));
    let before = node.check_paths();
    node.fail_after = Some(0);
    assert!(node.change(add_backend("web", "c", 3)).is_err());
    node.reach(3, true);
    assert_eq!(node.check_paths(), before);
    node.wait(1);
    assert_eq!(node.check_paths().len(), 3);
}

mod faults {
    use super::*;
    use crate::health::Orders;
    use maglev_testing::matrix::Row;

    #[test]
    fn a_check_waits_until_the_packet_path_knows_its_next_hop() {
        let names = |effects: &[Effect]| {
            let of = |orders: &Orders| orders.values().map(|order| order.path.is_ok()).collect::<Vec<_>>();
            effects
                .iter()
                .filter_map(|effect| if let Effect::Check(orders) = effect { Some(of(orders)) } else { None })
                .collect::<Vec<_>>()
        };
        let mut node = encapsulated();
        node.route_vip(resolved(2));
        node.reach(1, false);
        node.run(Event::Flush);
        let row = Row::fault("R10", "a next hop is found: checked once the packet path has it");
        let backend = IpAddr::from([10, 0, 1, 1]);
        node.reconciler.handle(Event::NextHop { address: backend, resolution: resolved(2) }, NOW);
        let planned = node.reconciler.handle(Event::Flush, NOW);
        assert!(planned.iter().any(|effect| matches!(effect, Effect::Publish(_))) && names(&planned).is_empty());
        let published = node.reconciler.handle(Event::Published(Ok(())), NOW);
        assert_eq!(names(&published), [[true, true]]);
        drop(row);
        let _row =
            Row::fault("R10", "a next hop that is being resolved again is pending, one that does not answer is not");
        let mut node = encapsulated();
        for (resolution, pending) in
            [(Resolution::waiting("neighbor"), true), (Resolution::Unresolved("no answer".to_owned()), false)]
        {
            node.route_vip(resolution);
            let all: Vec<_> = node.checked.values().map(|order| order.path.clone().unwrap_err().pending).collect();
            assert_eq!(all, [pending; 2]);
        }
    }
}
