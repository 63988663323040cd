//! Tests of [`super`]: single histories, and random ones whose steps are carried out on maps of the test's own.

use super::*;
use maglev_common::backend::{InterfaceSlot, MemberId};
use maglev_common::flow::{FlowEntry, Seconds};
use maglev_common::maps::SPARE_TABLES;
use maglev_common::settings::Tracking;
use maglev_common::table::SLOTS;
use maglev_model::plan::{Step, SurveyOrder};
use maglev_model::transition::{Pinned, Progress, Survey};
use maglev_model::{
    AdminState, Backend, Limits, Mtu, Name, OuterSources, Pool, Service, StateChange, UnixTime, Vip, Weight,
};
use maglev_model::{HealthChange, SettingsChange};
use maps::Maps;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

mod admission;
mod adopted;
mod check_paths;
mod faults;
mod health;
pub(crate) mod maps;
mod succession;
mod transitions;

const NOW: Duration = Duration::ZERO;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn settings(limits: Limits) -> Settings {
    let outer = OuterSources { v4: Some("10.64.0.0/24".parse().unwrap()), v6: Some("2001:db8::/64".parse().unwrap()) };
    let names = [(2, "eth2".to_owned()), (5, "eth5".to_owned())].into();
    let (slots, mtus) = ([(2, InterfaceSlot(0))].into(), [(2, 1_500)].into());
    let interfaces = Interfaces { slots, names, mtus, ..Interfaces::default() };
    Settings { rules: Rules { limits, outer }, interfaces, common_failure: 3, ..Settings::default() }
}

fn add_pool(pool: &str) -> Change {
    Change::AddPool(Pool::new(name(pool)))
}

fn add_backend(pool: &str, backend: &str, host: u8) -> Change {
    Change::AddBackend { pool: name(pool), backend: active(name(backend), host, Weight(100)) }
}

fn active(name: Name, host: u8, weight: Weight) -> Backend {
    Backend { name, address: IpAddr::from([10, 0, 1, host]), weight, state: AdminState::Active, mtu: None }
}

fn remove_backend(pool: &str, backend: &str) -> Change {
    Change::RemoveBackend { pool: name(pool), backend: name(backend), force: false }
}

const DRAIN: StateChange = StateChange::Drain { now: UnixTime(1_700_000_000) };
const DISABLE: StateChange = StateChange::Disable { now: UnixTime(1_700_000_000) };

/// An order about a backend of pool `web`.
fn order(backend: &str, change: StateChange) -> Change {
    Change::SetState { pool: name("web"), backend: name(backend), change }
}

fn add_vip(vip: &str, host: u8, pool: &str) -> Change {
    let service = Service::parse(&format!("203.0.113.{host}"), "80", "tcp").unwrap();
    Change::AddVip(Vip {
        name: name(vip),
        service,
        pool: name(pool),
        announce: maglev_model::Announce::default(),
        when_empty: maglev_model::Unserved::Drop,
        affinity: maglev_model::Affinity::default(),
    })
}

/// A reconciler whose effects are carried out at once, on maps that check every step.
struct Node {
    reconciler: Reconciler,
    maps: Maps,
    disk: Services,
    replies: Vec<(RequestId, Result<(), Refusal>)>,
    followed: BTreeSet<IpAddr>,
    checked: Orders,
    now: Duration,
    /// Whether surveys are answered, by finding nothing; else they are kept here.
    answers_surveys: bool,
    surveys: Vec<SurveyOrder>,
    /// Fail after this many steps of the next plan.
    fail_after: Option<usize>,
}

impl Node {
    fn start(limits: Limits, services: Services) -> Self {
        Self::start_after(limits, services, InUse::new())
    }

    /// After another one, whose maps are gone, that used these backends.
    fn start_after(limits: Limits, services: Services, in_use: InUse) -> Self {
        let mut node = Self {
            reconciler: Reconciler::new(settings(limits)),
            maps: Maps::default(),
            disk: services.clone(),
            replies: Vec::new(),
            followed: BTreeSet::new(),
            checked: Orders::new(),
            now: NOW,
            answers_surveys: true,
            surveys: Vec::new(),
            fail_after: None,
        };
        node.reconciler.recall(in_use);
        node.run(Event::Load { request: RequestId(0), services });
        node.run(Event::Flush);
        assert_eq!(node.replies, [(RequestId(0), Ok(()))]);
        node
    }

    fn run(&mut self, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.reconciler.handle(event, self.now) {
                match effect {
                    Effect::Persist(Draft { services, .. }) => {
                        self.disk = Arc::unwrap_or_clone(services);
                        events.push_back(Event::Persisted(Ok(())));
                    }
                    Effect::Succeed(members) => self.maps = self.maps.succeed(members),
                    Effect::Publish(steps) => events.push_back(Event::Published(self.publish(&steps))),
                    Effect::Survey(orders) if self.answers_surveys => {
                        events.push_back(Event::Surveyed(found(&orders, &Pinned::default())));
                    }
                    Effect::Survey(orders) => self.surveys = orders,
                    Effect::Follow(delta) => {
                        self.followed.retain(|address| !delta.removed.contains(address));
                        self.followed.extend(delta.added);
                    }
                    Effect::Check(targets) => self.checked = targets,
                    Effect::News(_) => {}
                    Effect::Reply { request, outcome } => self.replies.push((request, outcome)),
                }
            }
        }
        if self.reconciler.is_idle() {
            self.maps.settle(&self.reconciler.target);
        }
    }

    fn publish(&mut self, steps: &[Step]) -> Result<(), String> {
        let fail_after = self.fail_after.take();
        let served = self.reconciler.target.clone();
        let roomy = self.reconciler.settings.rules.limits == Limits::default();
        self.maps.begin(&served, roomy);
        for (n, step) in steps.iter().enumerate() {
            if fail_after == Some(n) {
                return Err("the test says so".to_owned());
            }
            self.maps.carry_out(step);
        }
        self.maps.end();
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<(), Refusal> {
        let request = RequestId(self.replies.len() as u64);
        self.run(Event::Change { request, change, force: true });
        self.run(Event::Flush);
        self.replies.last().unwrap().1.clone()
    }

    /// Lets time pass, and all happen that is due by then.
    fn wait(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(deadline) = self.reconciler.deadline().filter(|&deadline| deadline <= end) {
            self.now = self.now.max(deadline);
            self.run(Event::Tick);
        }
        self.now = end;
    }

    /// The slots of the first pool in each phase: learning, tracked.
    fn phases(&self) -> (u32, u32) {
        let Progress { learning, tracked, .. } = self.reconciler.view().pools[0].progress;
        (learning, tracked)
    }

    /// The neighbor of a backend answers, or does not.
    fn reach(&mut self, host: u8, reachable: bool) {
        let resolution = if reachable { resolved(2) } else { Resolution::Unresolved("no answer".to_owned()) };
        self.run(Event::NextHop { address: IpAddr::from([10, 0, 1, host]), resolution });
    }

    /// The member ids of the first pool's backends.
    fn backends(&self) -> Vec<Option<MemberId>> {
        self.reconciler.view().pools[0].backends.iter().map(|backend| backend.id).collect()
    }

    /// Per pool the table's digest, and per backend its slots.
    fn tables(&self) -> Vec<(Name, Option<Digest>, Vec<u32>)> {
        let pools = self.reconciler.view().pools.into_iter();
        pools.map(|pool| (pool.name, pool.digest, pool.backends.iter().map(|b| b.slots).collect())).collect()
    }
}

/// What surveys answer that find this in each pool.
fn found(orders: &[SurveyOrder], pinned: &Pinned) -> Vec<Surveyed> {
    let found = |SurveyOrder { pool, transition, .. }: &SurveyOrder| Surveyed {
        pool: *pool,
        transition: Arc::clone(transition),
        pinned: pinned.clone(),
    };
    orders.iter().map(found).collect()
}

/// The same as [`web`], and both backends can be reached.
fn reached() -> Node {
    let mut node = web();
    (1..3).for_each(|host| node.reach(host, true));
    node.run(Event::Flush);
    node
}

fn web() -> Node {
    let mut node = Node::start(Limits::default(), Services::default());
    for change in [add_pool("web"), add_backend("web", "a", 1), add_backend("web", "b", 2), add_vip("www", 1, "web")] {
        node.change(change).unwrap();
    }
    node
}

#[test]
fn a_burst_is_one_plan_and_is_written_before_it_is_published() {
    let mut reconciler = Reconciler::new(settings(Limits::default()));
    let changes = [add_pool("web"), add_backend("web", "a", 1), add_backend("web", "b", 2), add_vip("www", 1, "web")];
    for (n, change) in changes.into_iter().enumerate() {
        assert!(reconciler.handle(Event::Change { request: RequestId(n as u64), change, force: true }, NOW).is_empty());
    }
    let effects = reconciler.handle(Event::Flush, NOW);
    assert!(matches!(&effects[..], [Effect::Persist(draft)] if draft.services.vips.len() == 1));
    let effects = reconciler.handle(Event::Persisted(Ok(())), NOW);
    let [Effect::Publish(steps), Effect::Follow(followed)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(steps.iter().filter(|step| matches!(step, Step::FillTable { .. })).count(), 1);
    assert_eq!((followed.added.len(), followed.removed.len()), (2, 0));
    let effects = reconciler.handle(Event::Published(Ok(())), NOW);
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Reply { outcome: Ok(()), .. })).count(), 4);
    assert!(reconciler.is_idle());
    assert!(reconciler.handle(Event::Flush, NOW).is_empty(), "nothing to do is nothing done");
}

#[test]
fn a_refusal_is_reported_at_once_and_changes_nothing() {
    let mut reconciler = Reconciler::new(settings(Limits::default()));
    let change = add_vip("www", 1, "web");
    let effects = reconciler.handle(Event::Change { request: RequestId(7), change, force: true }, NOW);
    assert!(matches!(&effects[..], [Effect::Reply { request: RequestId(7), outcome: Err(Refusal::Conflict(_)) }]));
    assert!(reconciler.handle(Event::Flush, NOW).iter().all(|effect| matches!(effect, Effect::Follow(_))));
}

#[test]
fn services_are_kept_once_while_nothing_changes() {
    let kept_once = |node: &Node| {
        let Reconciler { saved, working, target, .. } = &node.reconciler;
        Arc::ptr_eq(saved, working) && Arc::ptr_eq(saved, target)
    };
    let mut node = web();
    assert!(kept_once(&node));
    node.change(add_backend("web", "c", 3)).unwrap();
    assert!(kept_once(&node));
    node.change(add_backend("web", "c", 3)).unwrap_err();
    assert!(kept_once(&node), "what is refused leaves nothing");
    node.run(Event::Replace { request: RequestId(90), services: node.disk.clone() });
    node.run(Event::Flush);
    assert!(kept_once(&node), "services that are read again are the same");
}

#[test]
fn changes_that_cannot_be_saved_are_undone_with_later_ones() {
    let mut reconciler = web().reconciler;
    reconciler.handle(Event::Change { request: RequestId(1), change: add_pool("api"), force: true }, NOW);
    reconciler.handle(Event::Flush, NOW);
    reconciler.handle(Event::Change { request: RequestId(2), change: add_backend("api", "x", 9), force: true }, NOW);
    reconciler.handle(Event::Change { request: RequestId(3), change: add_backend("web", "c", 3), force: true }, NOW);
    let effects = reconciler.handle(Event::Persisted(Err("disk full".to_owned())), NOW);
    let refused: Vec<_> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Reply { request, outcome: Err(refusal) } => (request.0, refusal.to_string()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(refused[0], (1, "not saved, nothing changed: disk full".to_owned()));
    assert_eq!(refused[1], (2, "unknown pool api; known: web".to_owned()));
    let effects = reconciler.handle(Event::Flush, NOW);
    assert!(
        matches!(&effects[..], [Effect::Persist(Draft { services: s, .. })] if s.pools.len() == 1 && s.backend_count() == 3)
    );
}

#[test]
fn changes_during_a_batch_wait_for_the_next() {
    let mut reconciler = web().reconciler;
    reconciler.handle(Event::Change { request: RequestId(1), change: add_pool("api"), force: true }, NOW);
    assert_eq!(reconciler.handle(Event::Flush, NOW).len(), 1);
    reconciler.handle(Event::Change { request: RequestId(2), change: add_pool("dns"), force: true }, NOW);
    assert!(reconciler.handle(Event::Flush, NOW).is_empty());
    // A pool without backends and VIPs needs no step: its batch is done, and the next one starts.
    let effects = reconciler.handle(Event::Persisted(Ok(())), NOW);
    assert!(matches!(&effects[..], [Effect::Reply { request: RequestId(1), outcome: Ok(()) }, Effect::Persist(_)]));
}

#[test]
fn a_plan_that_failed_is_carried_out_again() {
    for fail_after in 0..12 {
        let mut node = web();
        node.fail_after = Some(fail_after);
        let outcome = node.change(remove_backend("web", "a"));
        let Err(refusal) = outcome else { continue };
        assert!(refusal.to_string().starts_with("saved, but not applied: the test says so"));
        assert_eq!(node.reconciler.view().not_published.map(|found| found.reason).as_deref(), Some("the test says so"));
        node.change(add_backend("web", "c", 3)).unwrap();
        assert_eq!(node.reconciler.view().not_published, None);
        assert_eq!(node.tables(), Node::start(Limits::default(), node.disk.clone()).tables());
    }
}

#[test]
fn a_replacement_is_a_full_difference_and_refuses_changes_that_it_undoes() {
    let mut node = web();
    let mut services = node.disk.clone();
    services.admit(Change::RemoveVip(name("www")), &node.reconciler.settings.rules).unwrap();
    services.admit(Change::RemovePool(name("web")), &node.reconciler.settings.rules).unwrap();
    node.run(Event::Change { request: RequestId(90), change: add_pool("late"), force: true });
    node.run(Event::Replace { request: RequestId(91), services: services.clone() });
    node.run(Event::Flush);
    assert!(matches!(&node.replies[node.replies.len() - 2], (RequestId(90), Err(Refusal::Conflict(_)))));
    assert_eq!(node.replies.last(), Some(&(RequestId(91), Ok(()))));
    assert_eq!(node.disk, services);
    assert!(node.followed.is_empty());
    assert!(node.reconciler.view().pools.is_empty());
}

fn resolved(interface: u32) -> Resolution {
    Resolution::Resolved { interface, mac: [2; 6], gateway: None, mtu: None }
}

#[test]
fn a_backend_owns_slots_once_it_can_be_reached_and_as_long_as_it_can() {
    let mut node = web();
    let (a, b) = (IpAddr::from([10, 0, 1, 1]), IpAddr::from([10, 0, 1, 2]));
    let slots = |node: &Node| node.tables()[0].2.clone();
    let both = slots(&node);
    assert!(both.iter().all(|&slots| slots > 0), "where none can be reached, all stay: {both:?}");

    node.run(Event::NextHop { address: a, resolution: resolved(2) });
    node.run(Event::Flush);
    assert_eq!(slots(&node), [65_537, 0], "only what can be reached");
    node.run(Event::NextHop { address: b, resolution: resolved(2) });
    node.run(Event::Flush);
    assert_eq!(slots(&node), both);
    node.run(Event::NextHop { address: a, resolution: Resolution::Unresolved("no route".to_owned()) });
    node.run(Event::Flush);
    assert_eq!(slots(&node), [0, 65_537]);
}

#[test]
fn next_hops_are_words_of_their_own_and_named_when_they_miss() {
    let mut node = web();
    let (a, b) = (IpAddr::from([10, 0, 1, 1]), IpAddr::from([10, 0, 1, 2]));
    let hops =
        |node: &Node| node.reconciler.view().pools[0].backends.iter().map(|b| b.next_hop.clone()).collect::<Vec<_>>();
    assert!(hops(&node).iter().all(|hop| matches!(hop, NextHopView::Unresolved(_))));
    node.run(Event::NextHop { address: a, resolution: resolved(2) });
    node.run(Event::NextHop { address: b, resolution: resolved(5) });
    let effects = node.reconciler.handle(Event::Flush, NOW);
    let [Effect::Publish(steps)] = &effects[..] else { panic!("{effects:?}") };
    let expected = NextHop::new([2; 6], InterfaceSlot(0));
    assert!(matches!(&steps[..], [Step::SetNextHop { next_hop, .. }, ..] if *next_hop == expected), "{steps:?}");
    assert!(matches!(&hops(&node)[0], NextHopView::Resolved { interface: 2, mtu: Some(1_500), .. }));
    assert_eq!(
        hops(&node)[1],
        NextHopView::Unresolved("routed via eth5, which is not listed in `interfaces`".to_owned())
    );
}

#[test]
fn a_path_has_the_mtu_of_its_route_or_of_its_interface() {
    let mut node = web();
    let address = IpAddr::from([10, 0, 1, 1]);
    let mut mtu_by = |route: Option<u32>, interface: u32| {
        let resolution = Resolution::Resolved { interface: 2, mac: [2; 6], gateway: None, mtu: route };
        node.run(Event::NextHop { address, resolution });
        let interfaces = Interfaces { mtus: [(2, interface)].into(), ..node.reconciler.settings.interfaces.clone() };
        node.run(Event::Interfaces(interfaces));
        match &node.reconciler.view().pools[0].backends[0].next_hop {
            NextHopView::Resolved { mtu, .. } => *mtu,
            NextHopView::Unresolved(reason) => panic!("{reason}"),
        }
    };
    assert_eq!(mtu_by(None, 1_500), Some(1_500));
    assert_eq!(mtu_by(Some(1_400), 1_500), Some(1_400));
    assert_eq!(mtu_by(Some(1_400), 1_300), Some(1_300));
}

#[test]
fn the_mtu_that_an_operator_names_bounds_that_of_the_path() {
    let mut node = web();
    let (at, named) = (IpAddr::from([10, 0, 1, 9]), Mtu::new(1_400));
    let backend = Backend { mtu: named, ..active(name("named"), 9, Weight(100)) };
    node.change(Change::AddBackend { pool: name("web"), backend }).unwrap();
    for (route, expected) in [(None, 1_400), (Some(1_450), 1_400), (Some(1_350), 1_350)] {
        let resolution = Resolution::Resolved { interface: 2, mac: [2; 6], gateway: None, mtu: route };
        node.run(Event::NextHop { address: at, resolution });
        node.run(Event::Flush);
        let view = node.reconciler.view();
        let shown = view.pools[0].backends.iter().find(|backend| backend.address == at).unwrap();
        assert!(matches!(shown.next_hop, NextHopView::Resolved { mtu: Some(mtu), .. } if mtu == expected), "{shown:?}");
        let published = node.maps.members.values().filter(|record| record.next_hop().1.within(1_500) == expected);
        assert_eq!(published.count(), 1, "{route:?}");
    }
}

#[test]
fn a_draining_backend_leaves_the_table_and_stays_alive() {
    let mut node = web();
    let before = (node.backends(), node.tables());
    node.change(order("a", DRAIN)).unwrap();
    assert_eq!(node.tables()[0].2, [0, 65_537]);
    assert_eq!(node.backends(), before.0, "its member is the same");
    let id = node.backends()[0].unwrap();
    assert!(node.maps.is_alive(id));
    node.change(order("a", StateChange::Undrain)).unwrap();
    assert_eq!((node.backends(), node.tables()), before);
}

#[test]
fn a_disabled_backend_has_no_member_and_gets_a_new_one() {
    let mut node = web();
    let (ids, tables) = (node.backends(), node.tables());
    for prior in [None, Some(DRAIN)] {
        prior.into_iter().for_each(|prior| node.change(order("a", prior)).unwrap());
        let id = node.backends()[0].unwrap();
        node.change(order("a", DISABLE)).unwrap();
        assert_eq!((node.tables()[0].2.clone(), node.backends()), (vec![0, 65_537], vec![None, ids[1]]));
        assert!(!node.maps.is_alive(id) && !node.maps.may_be_in_flows(id));
        node.change(order("a", StateChange::Enable)).unwrap();
        assert_eq!(node.tables(), tables);
        let back = node.backends()[0].unwrap();
        assert!(node.maps.is_alive(back) && back != id, "{back:?}");
    }
}

#[test]
fn a_node_that_starts_with_states_serves_like_one_that_was_ordered() {
    let mut node = web();
    node.change(add_backend("web", "c", 3)).unwrap();
    node.change(order("a", DRAIN)).unwrap();
    node.change(order("b", DISABLE)).unwrap();
    let fresh = Node::start(Limits::default(), node.disk.clone());
    assert_eq!(fresh.tables(), node.tables());
    let [Some(draining), None, Some(_)] = fresh.backends()[..] else { panic!("{:?}", fresh.backends()) };
    assert!(fresh.maps.is_alive(draining), "it takes the flows it has");
    assert_eq!(node.followed.len(), 3, "the next hop of a disabled backend is known once it is enabled");
}

#[test]
fn a_full_node_gives_a_draining_backend_its_id_after_those_that_serve() {
    let limits = Limits { vips: 1, pools: 1, backends: 2 };
    let build = |names: [&str; 2]| {
        let mut services = Services::default();
        let changes = [add_pool("web"), add_backend("web", names[0], 1), add_backend("web", names[1], 2)];
        for change in changes.into_iter().chain([add_vip("v", 1, "web"), order(names[0], DRAIN)]) {
            services.admit(change, &settings(limits).rules).unwrap();
        }
        services
    };
    let mut node = Node::start(limits, build(["a", "b"]));
    node.run(Event::Replace { request: RequestId(1), services: build(["c", "d"]) });
    node.run(Event::Flush);
    assert_eq!(node.replies.last(), Some(&(RequestId(1), Ok(()))));
    assert_eq!(node.tables()[0].2, [0, 65_537]);
    assert!(node.backends().iter().all(|id| id.is_some_and(|id| node.maps.is_alive(id))));
}

#[test]
fn a_full_node_exchanges_everything_it_has() {
    let limits = Limits { vips: 2, pools: 2, backends: 2 };
    let build = |offset: u8| {
        let mut services = Services::default();
        for n in [offset, offset + 1] {
            let pool = format!("p{n}");
            for change in [add_pool(&pool), add_backend(&pool, "a", n), add_vip(&format!("v{n}"), n, &pool)] {
                services.admit(change, &settings(limits).rules).unwrap();
            }
        }
        services
    };
    let mut node = Node::start(limits, build(1));
    node.run(Event::Replace { request: RequestId(1), services: build(11) });
    node.run(Event::Flush);
    assert_eq!(node.replies.last(), Some(&(RequestId(1), Ok(()))));
    assert_eq!(node.tables(), Node::start(limits, build(11)).tables());
}

#[test]
fn more_pools_than_spare_tables_change_in_one_plan() {
    let mut services = Services::default();
    const POOLS: u8 = SPARE_TABLES as u8 + 4;
    let limits = Limits { pools: u32::from(POOLS), ..Limits::default() };
    let rules = settings(limits).rules;
    for n in 0..POOLS {
        let pool = format!("p{n}");
        for change in [add_pool(&pool), add_backend(&pool, "a", 1), add_vip(&format!("v{n}"), n + 1, &pool)] {
            services.admit(change, &rules).unwrap();
        }
    }
    let mut node = Node::start(limits, services.clone());
    for n in 0..POOLS {
        services.admit(add_backend(&format!("p{n}"), "b", 2), &rules).unwrap();
    }
    node.run(Event::Replace { request: RequestId(1), services });
    node.run(Event::Flush);
    assert_eq!(node.replies.last(), Some(&(RequestId(1), Ok(()))));
}

#[test]
fn pools_that_learn_leave_tables_to_those_that_are_yet_to_come() {
    const POOLS: u32 = 2 * SPARE_TABLES;
    const MORE: u8 = 20;
    let limits = Limits { pools: POOLS + u32::from(MORE), ..Limits::default() };
    let rules = settings(limits).rules;
    let mut services = Services::default();
    for n in 0..POOLS {
        let pool = format!("p{n}");
        for change in [add_pool(&pool), add_backend(&pool, "a", 1)] {
            services.admit(change, &rules).unwrap();
        }
        // Slots of a pool without a VIP do not learn.
        let service = Service::parse("198.51.100.1", &(n + 1).to_string(), "tcp").unwrap();
        let announce = maglev_model::Announce::default();
        let vip = Vip {
            name: name(&format!("w{n}")),
            service,
            pool: name(&pool),
            announce,
            when_empty: maglev_model::Unserved::Drop,
            affinity: maglev_model::Affinity::default(),
        };
        services.admit(Change::AddVip(vip), &rules).unwrap();
    }
    let mut node = Node::start(limits, services.clone());
    (1..3).for_each(|host| node.reach(host, true));
    node.run(Event::Flush);
    for n in 0..POOLS {
        services.admit(add_backend(&format!("p{n}"), "b", 2), &rules).unwrap();
    }
    for n in 0..MORE {
        let pool = format!("q{n}");
        for change in [add_pool(&pool), add_backend(&pool, "a", 1), add_vip(&format!("v{n}"), n + 1, &pool)] {
            services.admit(change, &rules).unwrap();
        }
    }
    node.run(Event::Replace { request: RequestId(1), services: services.clone() });
    node.run(Event::Flush);
    assert_eq!(node.replies.last(), Some(&(RequestId(1), Ok(()))));
    node.maps.check_serves(&services);
    let learning = node.reconciler.view().pools.iter().filter(|pool| pool.progress.learning > 0).count();
    assert!(learning > SPARE_TABLES as usize - 10 && learning < SPARE_TABLES as usize, "{learning}");
}

/// Changes over a few names, so that many meet.
fn any_change() -> impl Strategy<Value = Change> {
    let pool = prop_oneof!["p1", "p2", "p3"];
    let backend = (prop_oneof!["a", "b", "c", "d"], 1_u8..7, prop_oneof![Just(0), Just(1), Just(100)]);
    (0..12, pool, backend, prop_oneof!["v1", "v2", "v3"], 1_u8..4).prop_map(
        |(kind, pool, (backend, host, weight), vip, at)| {
            let (pool, backend, weight) = (name(&pool), name(&backend), Weight(weight));
            match kind {
                0 => Change::AddPool(Pool::new(pool)),
                1 => Change::RemovePool(pool),
                2 => add_vip(&vip, at, pool.as_str()),
                3 => Change::RemoveVip(name(&vip)),
                4 => Change::RemoveBackend { pool, backend, force: false },
                5 => Change::SetWeight { pool, backend, weight },
                6 => Change::SetState { pool, backend, change: DRAIN },
                7 => Change::SetState { pool, backend, change: StateChange::Undrain },
                8 => Change::SetState { pool, backend, change: DISABLE },
                9 => Change::SetState { pool, backend, change: StateChange::Enable },
                _ => Change::AddBackend { pool, backend: active(backend, host, weight) },
            }
        },
    )
}

/// The slots of each backend of the first pool.
fn shares(node: &Node) -> Vec<(Name, u32)> {
    let backends = &node.reconciler.view().pools[0].backends;
    backends.iter().map(|backend| (backend.name.clone(), backend.slots)).collect()
}

#[test]
fn a_preview_shows_the_effect_of_the_change_and_changes_nothing() {
    let weigh = |weight| Change::SetWeight { pool: name("web"), backend: name("a"), weight: Weight(weight) };
    let changes = [
        add_backend("web", "c", 3),
        remove_backend("web", "a"),
        weigh(7),
        weigh(100),
        order("a", DRAIN),
        order("a", DISABLE),
        order("a", StateChange::Undrain),
        remove_backend("web", "z"),
        add_backend("api", "c", 3),
        add_backend("web", "a", 3),
    ];
    for change in changes {
        let mut node = reached();
        let before = shares(&node);
        let previewed = node.reconciler.preview(change.clone(), true);
        assert_eq!((shares(&node), node.reconciler.is_idle()), (before.clone(), true));
        let made = node.change(change.clone());
        let preview = match previewed {
            Ok(previewed) => previewed.preview,
            Err(refusal) => {
                assert_eq!(made, Err(refusal));
                continue;
            }
        };
        assert_eq!(made, Ok(()), "{change}");
        node.reach(3, true);
        node.run(Event::Flush);
        let slots = |owned: &[(Name, u32)], name: &Name| owned.iter().find(|(n, _)| n == name).map_or(0, |(_, s)| *s);
        let after = shares(&node);
        for share in &preview.shares {
            let (had, has) = (slots(&before, &share.name), slots(&after, &share.name));
            assert_eq!((share.before, share.after), (had, has), "{} after {change}", share.name);
        }
        let named: BTreeSet<_> = preview.shares.iter().map(|share| &share.name).collect();
        assert!(before.iter().chain(&after).all(|(name, _)| named.contains(name)), "all are named: {change}");
        assert_eq!(preview.moved.iter().any(|moved| *moved), before != after, "{change}");
    }
}

#[test]
fn a_preview_treats_an_unreachable_backend_as_out() {
    let mut node = reached();
    node.reach(1, false);
    node.run(Event::Flush);
    let previewed = node.reconciler.preview(add_backend("web", "c", 3), true).unwrap();
    let after = previewed.preview.shares.iter().map(|share| share.after).collect::<Vec<_>>();
    assert_eq!(after, [0, 32_769, 32_768]);
    let refused = node.reconciler.preview(Change::RemovePool(name("api")), true).unwrap_err();
    assert!(matches!(refused, Refusal::Conflict(_)), "{refused}");
    node.change(add_pool("api")).unwrap();
    let refused = node.reconciler.preview(Change::RemovePool(name("api")), true).unwrap_err();
    assert_eq!(refused, Refusal::Invalid("cannot plan to remove pool api; allowed: changes to backends".to_owned()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_packet_sees_a_half_state_in_any_history(
        batches in prop::collection::vec(
            (
                prop::collection::vec(any_change(), 1..6),
                prop::option::weighted(0.2, 0_usize..8),
                (1_u8..7, any::<bool>(), prop_oneof![Just(0), 0_u64..200]),
            ),
            1..14,
        ),
        small in any::<bool>(),
    ) {
        let limits = if small { Limits { vips: 3, pools: 3, backends: 5 } } else { Limits::default() };
        let mut node = Node::start(limits, Services::default());
        let mut requests = 1;
        let mut reached = BTreeSet::new();
        for (batch, fail_after, (host, reachable, seconds)) in batches {
            node.fail_after = fail_after;
            node.reach(host, reachable);
            if reachable { reached.insert(host) } else { reached.remove(&host) };
            for change in batch {
                node.run(Event::Change { request: RequestId(requests), change, force: true });
                requests += 1;
            }
            node.run(Event::Flush);
            node.fail_after = None;
            node.wait(seconds);
        }
        node.fail_after = None;
        // As long as the next try of a plan that failed may take.
        node.wait(31);
        node.run(Event::Flush);
        prop_assert_eq!(node.replies.len() as u64, requests, "each request is answered once");
        prop_assert!(node.reconciler.is_idle());
        (1..7).for_each(|host| node.reach(host, true));
        node.run(Event::Flush);
        node.maps.check_serves(&node.disk);
        let mut fresh = Node::start(limits, node.disk.clone());
        for node in [&mut node, &mut fresh] {
            (1..7).for_each(|host| node.reach(host, reached.contains(&host)));
            node.run(Event::Flush);
        }
        prop_assert_eq!(node.tables(), fresh.tables());
    }
}
