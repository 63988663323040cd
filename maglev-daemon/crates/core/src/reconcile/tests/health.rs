//! Tests of the effects of checks: plans, on maps that check every step.

use super::*;
use crate::health::{Failure, Last, Target};
use maglev_model::{Check, Health, Hysteresis, Percent, PoolHealth, Probe, Via};
use std::num::NonZeroU16;

fn check() -> Check {
    Check {
        probe: Probe::Tcp,
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        jitter: NOW,
        hysteresis: Hysteresis { fall: 2, rise: 3 },
        port: NonZeroU16::new(80),
        via: Via::Direct,
    }
}

/// Pool `web` of `a`, `b`, `c`, whose backends are checked, and VIP `www`. All can be reached.
fn web(panic: u8, slow_start: u64) -> Node {
    let mut services = Services::default();
    let rules = settings(Limits::default()).rules;
    let health = PoolHealth {
        check: Some(Arc::new(check())),
        panic: Percent(panic),
        slow_start: Duration::from_secs(slow_start),
        ..PoolHealth::default()
    };
    services.admit(Change::AddPool(Pool { health, ..Pool::new(name("web")) }), &rules).unwrap();
    for change in
        [add_backend("web", "a", 1), add_backend("web", "b", 2), add_backend("web", "c", 3), add_vip("www", 1, "web")]
    {
        services.admit(change, &rules).unwrap();
    }
    let mut node = Node::start(Limits::default(), services);
    node.maps.mortal = true;
    (1..4).for_each(|host| node.reach(host, true));
    node.run(Event::Flush);
    node
}

/// The same, and all are healthy.
fn healthy(panic: u8, slow_start: u64) -> Node {
    let mut node = web(panic, slow_start);
    (1..4).for_each(|host| assert!(node.checked(host, true)));
    node
}

/// Slots that may move among backends that stay, when another one is added or removed.
const FEW: u32 = 200;

impl Node {
    /// A check of a backend ends; its effects, if any, are carried out. Returns whether its backend serves now.
    fn checked(&mut self, host: u8, good: bool) -> bool {
        let address = IpAddr::from([10, 0, 1, host]);
        let targets: Vec<Arc<Target>> =
            self.checked.keys().filter(|target| target.address == address).cloned().collect();
        for target in targets {
            let outcome = if good { Ok(()) } else { Err(Failure::Dead("connect: refused".into())) };
            let last = Last { at: self.now, latency: Duration::from_millis(1), outcome };
            self.run(Event::Checked { target, last });
        }
        if self.reconciler.is_restless() {
            self.run(Event::Flush);
        }
        let view = self.reconciler.view();
        view.pools[0].backends.iter().any(|backend| backend.address == address && backend.serves)
    }

    /// So many checks of a backend end like this.
    fn checks(&mut self, times: u32, host: u8, good: bool) {
        for _ in 0..times {
            self.checked(host, good);
        }
    }

    /// The slots of the first pool's backends.
    fn slots(&self) -> Vec<u32> {
        self.tables()[0].2.clone()
    }

    /// The slots that learn for each of them.
    fn learning(&self) -> Vec<u32> {
        self.reconciler.view().pools[0].backends.iter().map(|backend| backend.learning).collect()
    }

    fn health(&self, at: usize) -> Health {
        self.reconciler.view().pools[0].backends[at].health.as_ref().unwrap().health
    }
}

#[test]
fn a_backend_that_dies_leaves_in_one_plan_without_transition() {
    let mut node = healthy(0, 0);
    let before = node.slots();
    assert!(before.iter().all(|slots| *slots > 20_000));
    let dead = node.backends()[0].unwrap();
    assert!(node.checked(1, false), "once is not enough");
    assert!(!node.checked(1, false));
    assert_eq!((node.slots()[0], node.learning()[0]), (0, 0));
    assert!(node.phases().0 < FEW, "its slots are settled at once; few move among those that live");
    assert!(!node.maps.is_alive(dead) && !node.maps.may_be_in_flows(dead), "its flow entries are ignored, and cleared");
    assert_eq!(node.backends()[0], Some(dead), "it keeps its number");
    let now = node.slots();
    assert!(now[1] > before[1] && now[2] > before[2]);
}

#[test]
fn a_backend_that_lives_again_gets_its_slots_by_a_transition() {
    let mut node = healthy(0, 0);
    let before = node.slots();
    (0..2).for_each(|_| assert!(node.checked(1, true) && node.checked(2, true)));
    node.checks(2, 1, false);
    assert!(!node.checked(1, true) && !node.checked(1, true) && node.checked(1, true));
    assert_eq!(node.slots(), before);
    let learning = node.learning();
    assert!((before[0]..before[0] + FEW).contains(&(learning[1] + learning[2])), "the others live: flows are theirs");
    assert!(node.maps.is_alive(node.backends()[0].unwrap()));
}

#[test]
fn a_previous_owner_that_dies_is_forgotten() {
    let mut node = healthy(0, 0);
    let owned = node.slots()[0];
    node.change(order("a", DRAIN)).unwrap();
    assert_eq!(node.learning()[0], owned);
    node.checks(2, 1, false);
    assert_eq!(node.learning()[0], 0, "nothing of it is learned any more");
}

#[test]
fn checks_that_confirm_the_health_plan_nothing() {
    let mut node = healthy(0, 0);
    let target = Arc::clone(node.checked.keys().next().unwrap());
    for outcome in [Ok(()), Err(Failure::Unready("HTTP 503".into())), Ok(())] {
        let last = Last { at: NOW, latency: NOW, outcome };
        let effects = node.reconciler.handle(Event::Checked { target: Arc::clone(&target), last }, NOW);
        assert!(effects.is_empty() && !node.reconciler.is_restless(), "{effects:?}");
    }
}

#[test]
fn targets_follow_the_services() {
    let mut node = web(0, 0);
    let checked = |node: &Node| -> Vec<String> {
        node.checked.keys().map(|target| format!("{} {}", target.backend, target.destination)).collect()
    };
    assert_eq!(checked(&node), ["a 10.0.1.1:80", "b 10.0.1.2:80", "c 10.0.1.3:80"]);
    assert_eq!(node.reconciler.view().pools[0].awaited, 3);
    node.change(order("a", DISABLE)).unwrap();
    node.change(remove_backend("web", "b")).unwrap();
    node.change(add_backend("web", "d", 4)).unwrap();
    assert_eq!(checked(&node), ["c 10.0.1.3:80", "d 10.0.1.4:80"]);
}

#[test]
fn a_pool_in_panic_uses_all_again() {
    let mut node = healthy(50, 0);
    let before = node.slots();
    node.checks(2, 1, false);
    assert_eq!(node.slots()[0], 0);
    node.checks(2, 2, false);
    assert_eq!(node.slots(), before, "one of three is too few");
    let view = node.reconciler.view();
    assert!(view.pools[0].panic && view.pools[0].backends.iter().all(|backend| backend.serves));
    assert_eq!([0, 1, 2].map(|at| node.health(at)), [Health::Unhealthy, Health::Unhealthy, Health::Healthy]);
    assert!(node.backends().into_iter().all(|id| node.maps.is_alive(id.unwrap())));
}

#[test]
fn slow_start_is_a_few_small_transitions() {
    let mut node = healthy(0, 30);
    let full = node.slots()[0];
    node.checks(2, 1, false);
    node.checks(3, 1, true);
    let mut steps = vec![node.slots()[0]];
    for second in 0..=30 {
        // With two others of full weight, a part p of the weight is p / (p + 2) of the slots.
        let part = (f64::from(second) / 30.0).max(0.1);
        let ramp = 65_537.0 * part / (part + 2.0);
        let owned = f64::from(node.slots()[0]);
        assert!((owned - ramp).abs() <= 0.2 * ramp, "after {second} s: {owned} of {ramp}");
        node.wait(1);
        steps.push(node.slots()[0]);
    }
    steps.dedup();
    assert_eq!((steps.len(), *steps.last().unwrap()), (10, full));
    assert!(steps.is_sorted(), "{steps:?}");
}

#[test]
fn a_backend_without_a_next_hop_is_not_sent_to_however_healthy() {
    let mut node = healthy(0, 0);
    node.reach(1, false);
    node.run(Event::Flush);
    assert_eq!(node.slots()[0], 0);
    node.checks(2, 1, false);
    node.reach(1, true);
    node.run(Event::Flush);
    assert_eq!(node.slots()[0], 0, "nor one that can be reached and is not healthy");
    node.checks(3, 1, true);
    assert!(node.slots()[0] > 0);
}

#[test]
fn an_adopted_node_uses_the_same_backends_until_it_has_checked() {
    let mut node = healthy(0, 0);
    node.checks(2, 1, false);
    let slots = node.slots();
    let kept = serde_json::to_string(&node.reconciler.save()).unwrap();
    node.adopt(&kept);
    assert_eq!((node.slots(), node.reconciler.view().pools[0].awaited), (slots, 2));
    assert!(node.checked(1, true), "the first check decides");
    assert!(node.checked(2, false), "one failure of one that is in use does not");
    assert!(node.checked(3, true) && !node.checked(2, false));
}

#[test]
fn a_node_whose_maps_are_gone_uses_the_same_backends_until_it_has_checked() {
    let mut before = healthy(0, 0);
    before.checks(2, 1, false);
    let kept = before.reconciler.save().in_use();
    let mut node = Node::start_after(Limits::default(), before.disk.clone(), kept);
    node.maps.mortal = true;
    (1..4).for_each(|host| node.reach(host, true));
    node.run(Event::Flush);
    assert_eq!((node.slots(), node.reconciler.view().pools[0].awaited), (before.slots(), 2));
    assert!(node.checked(1, true) && node.slots()[0] > 0, "the first check decides");
}

#[derive(Clone, Debug)]
enum Happening {
    Checked(u8, bool),
    Reached(u8, bool),
    Changed(Change),
    Waited(u64),
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let host = || 1_u8..5;
    let named = |host: u8| ["a", "b", "c", "d"][usize::from(host) - 1];
    let state = prop::sample::select(vec![DRAIN, DISABLE, StateChange::Undrain, StateChange::Enable]);
    prop_oneof![
        6 => (host(), any::<bool>()).prop_map(|(host, good)| Happening::Checked(host, good)),
        1 => (host(), any::<bool>()).prop_map(|(host, reached)| Happening::Reached(host, reached)),
        1 => (host(), state).prop_map(move |(host, change)| Happening::Changed(order(named(host), change))),
        1 => host().prop_map(move |host| Happening::Changed(add_backend("web", named(host), host))),
        1 => host().prop_map(move |host| Happening::Changed(remove_backend("web", named(host)))),
        1 => (0_u64..200).prop_map(Happening::Waited),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// After any history, no dead backend owns slots, and every healthy reachable one does if it may.
    #[test]
    fn in_any_history_the_dead_own_nothing(
        history in prop::collection::vec(any_happening(), 1..60),
        panic in prop_oneof![Just(0_u8), Just(50)],
        slow_start in prop_oneof![Just(0_u64), Just(30)],
    ) {
        let mut node = web(panic, slow_start);
        for happening in history {
            match happening {
                Happening::Checked(host, good) => node.checks(1, host, good),
                Happening::Reached(host, reached) => {
                    node.reach(host, reached);
                    node.run(Event::Flush);
                }
                // Refused or not.
                Happening::Changed(change) => drop(node.change(change)),
                Happening::Waited(seconds) => node.wait(seconds),
            }
            let view = node.reconciler.view();
            for backend in &view.pools[0].backends {
                let alive = backend.id.is_some_and(|id| node.maps.is_alive(id));
                prop_assert!(backend.slots == 0 || (alive && backend.serves), "{:?}", backend);
                let unhealthy = backend.health.as_ref().is_some_and(|health| health.health == Health::Unhealthy);
                if let Some(id) = backend.id {
                    prop_assert_eq!(node.maps.is_alive(id), !unhealthy || view.pools[0].panic, "{:?}", backend);
                }
            }
        }
    }
}

#[test]
fn the_targets_of_a_backend_are_named_or_why_there_are_none() {
    let mut node = healthy(50, 0);
    let of = |node: &Node, pool: &str, backend: &str| node.reconciler.to_check(&name(pool), &name(backend));
    let refused = |line: &str| Err(Refusal::Conflict(line.to_owned()));
    let targets = of(&node, "web", "a").unwrap();
    assert_eq!(targets.len(), 1);
    assert!(targets.iter().all(|target| node.checked.get(target.0) == Some(target.1)), "as it is checked always");
    assert_eq!(of(&node, "nosuch", "a"), refused("unknown pool nosuch; known: web"));
    assert_eq!(of(&node, "web", "d"), refused("unknown backend d in pool web; known: a, b, c"));
    node.change(order("a", DISABLE)).unwrap();
    let line = "backend a of pool web is disabled (maglev backend enable web a); nothing was checked";
    assert_eq!(of(&node, "web", "a"), refused(line));
    let anywhere = Check { port: None, ..check() };
    let set = |check| Change::SetPool {
        pool: name("web"),
        change: SettingsChange::default(),
        health: HealthChange { check: Some(check), ..HealthChange::default() },
    };
    node.change(set(Some(Arc::new(anywhere)))).unwrap();
    node.change(Change::RemoveVip(name("www"))).unwrap();
    let line = "no VIP uses pool web: an encapsulated check needs one; nothing was checked";
    assert_eq!(of(&node, "web", "b"), refused(line));
    node.change(set(None)).unwrap();
    let Err(Refusal::Conflict(line)) = of(&node, "web", "b") else { panic!() };
    assert!(line.starts_with("pool web has no check: its backends count as healthy"), "{line}");
    assert!(node.checked.is_empty(), "from then on none is");
}
