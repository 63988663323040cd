//! Random histories in virtual time: changes, drains, failing disks and plans, neighbors that are slow or stuck, stops, kills and
//! restarts. After each effect it is checked that every announced VIP is served by the packet path, and that no VIP is
//! forgotten while a neighbor may still send packets for it.

use super::*;
use ipnet::IpNet;
use std::net::IpAddr;

use crate::reconcile::Draft;
use maglev_model::plan::{Planner, Saved};
use proptest::prelude::*;

/// A neighbor: what it holds, and when it lost what it held before.
#[derive(Debug, Default)]
struct Neighbor {
    /// It reads nothing from us.
    stuck: bool,
    /// It has a session with this daemon. Without one, it keeps what it held.
    up: bool,
    sent: u64,
    holds: BTreeSet<IpNet>,
    lost: BTreeMap<IpNet, Duration>,
}

impl Neighbor {
    fn take(&mut self, wanted: &maglev_model::bgp::Wanted, now: Duration) {
        let new: BTreeSet<_> = wanted.routes.keys().copied().collect();
        self.lost.extend(self.holds.difference(&new).map(|prefix| (*prefix, now)));
        (self.holds, self.sent) = (new, wanted.version);
    }

    fn status(&self) -> NeighborStatus {
        NeighborStatus {
            name: "tor".into(),
            state: if self.up { "established" } else { "connect" }.into(),
            // It cannot be sent anything without a session.
            sent: if self.up { self.sent } else { u64::MAX },
            announced: Arc::new(if self.up { self.holds.clone() } else { BTreeSet::new() }),
            ..NeighborStatus::default()
        }
    }
}

/// Results that reach the node later.
#[derive(Debug)]
enum Report {
    Event(Event),
    /// The data plane begins with the plan.
    Plan(Plan),
    /// The next hop of an address is looked up.
    NextHop(IpAddr),
    /// A neighbor receives the wanted prefixes of that time.
    Taken(usize),
    /// A neighbor has a session again, and receives the wanted prefixes.
    Back(usize),
}

/// The node and all that it acts on.
struct World {
    node: Node,
    now: Duration,
    maps: Maps,
    disk: Services,
    drain: Option<node_drain::Record>,
    /// The planner's state that the next daemon finds.
    state: Option<String>,
    reports: Vec<(Duration, Report)>,
    neighbors: Vec<Neighbor>,
    wanted: Arc<maglev_model::bgp::Wanted>,
    withdrawn: BTreeMap<IpNet, Duration>,
    /// Neighbors are sent the wanted prefixes.
    speaks: bool,
    followed: BTreeSet<IpAddr>,
    /// Backends whose next hop is lost.
    lost: BTreeSet<u8>,
    /// When the daemon was started.
    started: Duration,
    /// The VIPs that the one before served.
    recalled: Vec<Vip>,
    /// Prefixes of those that it could not go on serving: their pools, or their names, were taken while no neighbor was sent anything.
    displaced: BTreeSet<IpNet>,
    open: BTreeSet<u64>,
    requests: u64,
    /// The next plans and writes that fail.
    failing_plans: u32,
    failing_writes: u32,
    /// How long things take, in milliseconds.
    delays: Vec<u64>,
    turn: usize,
}

impl World {
    fn start(delays: Vec<u64>) -> Self {
        let mut world = Self {
            node: Node::new(settings(), None, NOW),
            now: NOW,
            maps: Maps::default(),
            disk: services(&[1]),
            drain: None,
            state: None,
            reports: Vec::new(),
            neighbors: vec![Neighbor::default(), Neighbor::default()],
            wanted: Arc::default(),
            withdrawn: BTreeMap::new(),
            speaks: false,
            followed: BTreeSet::new(),
            lost: BTreeSet::new(),
            started: NOW,
            recalled: Vec::new(),
            displaced: BTreeSet::new(),
            open: BTreeSet::new(),
            requests: 0,
            failing_plans: 0,
            failing_writes: 0,
            delays,
            turn: 0,
        };
        world.begin();
        world
    }

    fn delay(&mut self) -> Duration {
        self.turn += 1;
        Duration::from_millis(self.delays[self.turn % self.delays.len()])
    }

    /// The start of a daemon, up to where neighbors are sent anything.
    fn begin(&mut self) {
        let interfaces = settings().reconcile.interfaces;
        self.handle(Event::Interfaces { interfaces, trouble: None });
        if let Some(record) = self.drain.clone() {
            self.handle(Event::Drain(node_drain::Event::Resume { record, kept: true }));
        }
        self.followed.clear();
        let request = self.expect();
        self.handle(Event::Reconcile(reconcile::Event::Load { request, services: self.disk.clone() }));
        self.handle(Event::Flush);
        while self.open.contains(&request.0) {
            assert!(self.step(self.now + Duration::from_secs(120)), "the start is answered");
        }
        self.speaks = true;
        for n in 0..self.neighbors.len() {
            let at = self.now + self.delay();
            self.reports.push((at, Report::Back(n)));
        }
        self.sessions();
    }

    /// Ends the daemon and starts another one; in between, an operator may remove a VIP from the file.
    fn restart(&mut self, end: End, removed: Option<u8>) {
        self.speaks = false;
        if end != End::Killed {
            let kept = end == End::Kept;
            if !kept {
                self.neighbors.iter_mut().for_each(|neighbor| neighbor.take(&Default::default(), self.now));
                self.now += release::TURNED;
            }
            self.handle(Event::SessionsEnded { kept });
            // Disk and data plane end what they were ordered to do.
            let reports = std::mem::take(&mut self.reports);
            for (_, report) in reports {
                if let Report::Plan(plan) = report {
                    let _ = self.carry_out(&plan);
                }
            }
        }
        self.maps.outlive();
        self.neighbors.iter_mut().for_each(|neighbor| (neighbor.up, neighbor.stuck) = (false, false));
        self.open.clear();
        (self.failing_plans, self.failing_writes) = (0, 0);
        self.reports.clear();
        if let Some(n) = removed {
            self.disk.vips.remove(&vip(n).name);
        }
        let saved: Saved = serde_json::from_str(self.state.as_ref().unwrap()).unwrap();
        let rules = rules();
        let live = self.maps.live(rules.limits.pools);
        let planner = Planner::restore(rules.limits, rules.outer, &saved, &live).unwrap();
        self.node = Node::new(settings(), Some(planner), self.now);
        self.node.recall(saved.in_use());
        let has_no_pool = |vip: &&Vip| !self.disk.pools.contains_key(&vip.pool);
        self.displaced = saved.served().iter().filter(has_no_pool).map(|vip| vip.service.network).collect();
        self.recalled = saved.served();
        self.node.keep_serving(saved.served());
        self.wanted = Arc::default();
        self.started = self.now;
        self.begin();
    }

    fn expect(&mut self) -> RequestId {
        self.requests += 1;
        self.open.insert(self.requests);
        RequestId(self.requests)
    }

    fn sessions(&mut self) {
        let sessions = self.neighbors.iter().map(Neighbor::status).collect();
        self.handle(Event::Sessions(sessions));
        self.handle(Event::Flush);
    }

    fn handle(&mut self, event: Event) {
        for effect in self.node.handle(event, self.now) {
            self.effect(effect);
        }
    }

    fn effect(&mut self, effect: Effect) {
        let at = self.now + self.delay();
        let mut later = |report| self.reports.push((at, report));
        match effect {
            Effect::Persist(Draft { services, .. }) => {
                let fails = self.failing_writes > 0;
                self.failing_writes = self.failing_writes.saturating_sub(1);
                let outcome = if fails { Err("disk full".to_owned()) } else { Ok(()) };
                if !fails {
                    self.disk = (*services).clone();
                }
                later(Report::Event(Event::Reconcile(reconcile::Event::Persisted(outcome))));
            }
            Effect::Publish(plan) => {
                later(Report::Plan(plan.clone()));
                self.check_forgets(&plan);
            }
            Effect::Survey(orders) => {
                let found = orders.iter().map(|order| maglev_model::plan::Surveyed {
                    pool: order.pool,
                    transition: Arc::clone(&order.transition),
                    pinned: maglev_model::transition::Pinned::default(),
                });
                let found = found.collect();
                later(Report::Event(Event::Reconcile(reconcile::Event::Surveyed(found))));
            }
            Effect::Announce { wanted, .. } => self.announce(wanted),
            Effect::SaveDrain(record) => {
                self.drain = record;
                later(Report::Event(Event::Drain(node_drain::Event::Saved(Ok(())))));
            }
            Effect::Count(_) => {
                later(Report::Event(Event::Drain(node_drain::Event::Counted(node_drain::Traffic::default()))));
            }
            Effect::News(News::Stage { stage: Stage::Waiting, .. }) => self.check_withdrawn(),
            Effect::Follow(delta) => {
                // Next hops of addresses that are new are looked up.
                for address in delta.added {
                    assert!(self.followed.insert(address), "{address} is followed already");
                    self.reports.push((at, Report::NextHop(address)));
                }
                for address in delta.removed {
                    assert!(self.followed.remove(&address), "{address} is not followed");
                }
            }
            Effect::News(_) | Effect::Check(_) => {}
            Effect::Reply { request, outcome: _ } => {
                assert!(self.open.remove(&request.0), "request {} is answered once", request.0);
            }
        }
    }

    fn announce(&mut self, wanted: Arc<maglev_model::bgp::Wanted>) {
        let services = self.node.reconciler().services();
        for prefix in wanted.routes.keys().filter(|prefix| !self.wanted.routes.contains_key(*prefix)) {
            for vip in services.vips.values().filter(|vip| vip.prefix() == Some(*prefix)) {
                assert!(self.maps.finds_backend(vip.service), "{prefix} is announced, and {} is not served", vip.name);
            }
            self.withdrawn.remove(prefix);
        }
        for prefix in self.wanted.routes.keys().filter(|prefix| !wanted.routes.contains_key(*prefix)) {
            self.withdrawn.insert(*prefix, self.now);
        }
        assert!(wanted.version > self.wanted.version || wanted.routes == self.wanted.routes);
        self.wanted = wanted;
        for n in 0..self.neighbors.len() {
            let at = self.now + self.delay();
            self.reports.push((at, Report::Taken(n)));
        }
    }

    /// No neighbor sends packets for a VIP that the plan forgets, or it had the time to turn elsewhere.
    fn check_forgets(&mut self, plan: &Plan) {
        let last = plan.steps.iter().rev().find_map(|step| match step {
            Step::SwitchDirectory4 { contents } => Some(contents),
            _ => None,
        });
        let Some(contents) = last else { return };
        let mut after = Maps::default();
        after.carry_out(&Step::SwitchDirectory4 { contents: contents.clone() });
        let services = self.node.reconciler().services();
        let is_other = |vip: &&Vip| services.vips.get(&vip.name).is_some_and(|found| found.service != vip.service);
        self.displaced.extend(self.recalled.iter().filter(is_other).map(|vip| vip.service.network));
        for vip in (1..5).map(vip).filter(|vip| self.maps.takes(vip.service) && !after.takes(vip.service)) {
            let prefix = vip.prefix().unwrap();
            assert!(!self.wanted.routes.contains_key(&prefix), "{prefix} is announced, and forgotten");
            let most = release::SENT + release::TURNED;
            let had_time = self.displaced.contains(&prefix)
                || self.withdrawn.get(&prefix).is_some_and(|withdrawn| *withdrawn + most <= self.now)
                || self.started + Duration::from_secs(120) <= self.now;
            for neighbor in &self.neighbors {
                let turned = !neighbor.holds.contains(&prefix)
                    && neighbor.lost.get(&prefix).is_none_or(|lost| *lost + release::TURNED <= self.now);
                assert!(turned || had_time, "{prefix} is forgotten at {:?}: {neighbor:?}", self.now);
            }
        }
    }

    /// A drain waits for packets to stop only once neighbors have received the withdrawal, or had the time to.
    fn check_withdrawn(&self) {
        assert!(self.wanted.routes.is_empty());
        let had_time = self.withdrawn.values().all(|at| *at + Duration::from_secs(2) <= self.now);
        // A neighbor that is not back after a restart is noticed by its packets.
        let hold = self.neighbors.iter().any(|neighbor| neighbor.up && !neighbor.holds.is_empty());
        assert!(had_time || !hold || !self.speaks, "{:?}", self.neighbors);
    }

    fn carry_out(&mut self, plan: &Plan) -> Result<(), String> {
        if let Some(saved) = &plan.saved {
            self.state = Some(serde_json::to_string(saved).unwrap());
        }
        self.maps.begin(self.node.reconciler().services(), false);
        let fails = self.failing_plans > 0;
        self.failing_plans = self.failing_plans.saturating_sub(1);
        let most = if fails { plan.steps.len() / 2 } else { plan.steps.len() };
        plan.steps.iter().take(most).for_each(|step| self.maps.carry_out(step));
        if fails {
            return Err("no memory".to_owned());
        }
        self.maps.end();
        Ok(())
    }

    /// Advances to the next result, if it is due by then.
    fn step(&mut self, end: Duration) -> bool {
        let next = self.reports.iter().enumerate().min_by_key(|(_, (at, _))| *at).map(|(n, (at, _))| (*at, n));
        let due = self.node.deadline();
        let Some(at) = next.map(|(at, _)| at).into_iter().chain(due).min().filter(|at| *at <= end) else {
            return false;
        };
        self.now = self.now.max(at);
        match next.filter(|(report, _)| due.is_none_or(|due| *report <= due)) {
            None => self.handle(Event::Tick),
            Some((_, n)) => match self.reports.remove(n).1 {
                Report::Event(event) => self.handle(event),
                Report::NextHop(address) => self.handle(self.resolution(address)),
                Report::Plan(plan) => {
                    let outcome = self.carry_out(&plan);
                    self.handle(Event::Reconcile(reconcile::Event::Published(outcome)));
                }
                Report::Taken(n) if self.neighbors[n].stuck || !self.neighbors[n].up => {}
                Report::Taken(n) | Report::Back(n) => {
                    self.neighbors[n].up = true;
                    let (wanted, now) = (Arc::clone(&self.wanted), self.now);
                    // Before everything is known, prefixes that a neighbor kept over a restart stay.
                    if wanted.complete {
                        self.neighbors[n].take(&wanted, now);
                    } else {
                        self.neighbors[n].sent = wanted.version;
                    }
                    self.sessions();
                }
            },
        }
        self.handle(Event::Flush);
        true
    }

    fn wait(&mut self, milliseconds: u64) {
        let end = self.now + Duration::from_millis(milliseconds);
        while self.step(end) {}
        self.now = end;
    }

    /// The resolver's result.
    fn resolution(&self, address: IpAddr) -> Event {
        let host = (1..5).find(|n| address == IpAddr::from([10, 0, 1, *n])).unwrap();
        if !self.lost.contains(&host) {
            return resolved(host);
        }
        let resolution = Resolution::Unresolved("no answer".to_owned());
        Event::Reconcile(reconcile::Event::NextHop { address, resolution })
    }

    fn order(&mut self, event: impl FnOnce(RequestId) -> Event) {
        let request = self.expect();
        self.handle(event(request));
    }

    fn replace(&mut self, services: Services) {
        self.order(|request| Event::Reconcile(reconcile::Event::Replace { request, services }));
    }

    fn renumber(&mut self, [a, b]: [Vip; 2]) {
        let mut services = self.disk.clone();
        for (own, other) in [(&a, &b), (&b, &a)] {
            if let Some(found) = services.vips.get_mut(&own.name) {
                found.service = if found.service == own.service { other.service } else { own.service };
            }
        }
        let places: BTreeSet<Service> = services.vips.values().map(|vip| vip.service).collect();
        if places.len() == services.vips.len() {
            self.replace(services);
        }
    }

    fn change_pools(&mut self, pools: [bool; 4]) {
        let mut services = self.disk.clone();
        let dns = Pool { name: name("dns"), ..Pool::clone(&services.pools[&name("web")]) };
        for (n, own) in (1..5).zip(pools) {
            if let Some(vip) = services.vips.get_mut(&vip(n).name) {
                vip.pool = name(if own { "dns" } else { "web" });
            }
        }
        if services.vips.values().any(|vip| vip.pool == dns.name) {
            services.pools.entry(dns.name.clone()).or_insert(dns.into());
        } else {
            services.pools.remove(&dns.name);
        }
        self.replace(services);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Change(change) => {
                self.order(|request| Event::Reconcile(reconcile::Event::Change { request, change, force: true }));
            }
            Action::Drain(on) => self.order(|request| {
                let order = node_drain::Order { since: UnixTime(7), reason: None, last_node: false };
                Event::Drain(if on {
                    node_drain::Event::Drain { request, order }
                } else {
                    node_drain::Event::Undrain { request }
                })
            }),
            Action::Flush => self.handle(Event::Flush),
            Action::Wait(milliseconds) => {
                self.handle(Event::Flush);
                self.wait(milliseconds);
            }
            Action::PlansFail(count) => self.failing_plans = count,
            Action::WritesFail(count) => self.failing_writes = count,
            Action::Stuck(n, stuck) => {
                self.neighbors[n].stuck = stuck;
                self.reports.push((self.now, Report::Taken(n)));
            }
            Action::Lose(n) | Action::Find(n) => {
                let address = IpAddr::from([10, 0, 1, n]);
                let _ = if matches!(action, Action::Lose(_)) { self.lost.insert(n) } else { self.lost.remove(&n) };
                if self.followed.contains(&address) {
                    self.handle(self.resolution(address));
                }
            }
            Action::Trouble(on) => {
                let interfaces = settings().reconcile.interfaces;
                self.handle(Event::Interfaces { interfaces, trouble: on.then(|| "eth0 is down".to_owned()) });
            }
            Action::Renumber(a, b) => self.renumber([vip(a), vip(b)]),
            Action::Pools(pools) => self.change_pools(pools),
            Action::Restart(end, removed) => self.restart(end, removed),
        }
    }
}

#[derive(Clone, Debug)]
enum Action {
    Change(Change),
    Drain(bool),
    Flush,
    Wait(u64),
    PlansFail(u32),
    WritesFail(u32),
    Stuck(usize, bool),
    Lose(u8),
    Find(u8),
    Trouble(bool),
    /// An edited file gives two VIPs each other's address, or one the address that the other would have.
    Renumber(u8, u8),
    /// An edited file gives these VIPs a pool of their own, which is removed once none has it.
    Pools([bool; 4]),
    /// How the daemon ends, and which VIP is gone when another one starts.
    Restart(End, Option<u8>),
}

/// How a daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    /// Neighbors keep what they hold.
    Kept,
    Withdrawn,
}

fn any_action() -> impl Strategy<Value = Action> {
    let pool = || name("web");
    let change = prop_oneof![
        4 => (1_u8..5).prop_map(|n| Change::AddVip(vip(n))),
        4 => (1_u8..5).prop_map(|n| Change::RemoveVip(vip(n).name)),
        2 => (1_u8..5).prop_map(move |n| Change::AddBackend { pool: pool(), backend: backend(n) }),
        1 => (1_u8..5)
            .prop_map(move |n| Change::RemoveBackend { pool: pool(), backend: backend(n).name, force: true }),
        1 => (1_u8..5, 0_u16..3)
            .prop_map(move |(n, weight)| Change::SetWeight { pool: pool(), backend: backend(n).name, weight: Weight(weight) }),
    ];
    prop_oneof![
        8 => change.prop_map(Action::Change),
        8 => prop_oneof![Just(1), 1_u64..200, 1_u64..3_000, Just(20_000)].prop_map(Action::Wait),
        2 => Just(Action::Flush),
        2 => any::<bool>().prop_map(Action::Drain),
        1 => (1_u32..4).prop_map(Action::PlansFail),
        1 => (1_u32..3).prop_map(Action::WritesFail),
        2 => (0_usize..2, any::<bool>()).prop_map(|(n, stuck)| Action::Stuck(n, stuck)),
        1 => (1_u8..5).prop_map(Action::Lose),
        2 => (1_u8..5).prop_map(Action::Find),
        1 => any::<bool>().prop_map(Action::Trouble),
        2 => (1_u8..5, 1_u8..5).prop_map(|(a, b)| Action::Renumber(a, b)),
        2 => any::<[bool; 4]>().prop_map(Action::Pools),
        2 => (prop_oneof![Just(End::Killed), Just(End::Kept), Just(End::Withdrawn)], prop::option::of(1_u8..5))
            .prop_map(|(end, removed)| Action::Restart(end, removed)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    #[test]
    fn nothing_is_announced_before_it_is_served_nor_forgotten_before_it_is_withdrawn(
        actions in prop::collection::vec(any_action(), 1..40),
        delays in prop::collection::vec(prop_oneof![Just(0), 0_u64..50, 0_u64..2_000], 1..12),
    ) {
        let mut world = World::start(delays);
        for action in actions {
            world.act(action);
        }
        // All obstacles end.
        (world.failing_plans, world.failing_writes) = (0, 0);
        for action in [Action::Trouble(false), Action::Drain(false), Action::Stuck(0, false), Action::Stuck(1, false)] {
            world.act(action);
        }
        (1..5).for_each(|n| world.act(Action::Find(n)));
        world.act(Action::Wait(300_000));
        prop_assert!(world.open.is_empty(), "each request is answered: {:?}", world.open);
        prop_assert!(world.node.reconciler().is_idle());
        prop_assert_eq!(world.node.reconciler().services(), &world.disk);
        for vip in (1..5).map(vip) {
            let found = world.disk.vips.values().find(|found| found.service == vip.service);
            let there = found.is_some();
            let used = found.is_some_and(|found| world.disk.pools[&found.pool].available() > 0);
            prop_assert_eq!(world.maps.takes(vip.service), there, "{}", &vip.name);
            let prefix = vip.prefix().unwrap();
            prop_assert_eq!(world.wanted.routes.contains_key(&prefix), there && used, "{}", &vip.name);
            for neighbor in &world.neighbors {
                prop_assert_eq!(neighbor.holds.contains(&prefix), there && used, "{}: {:?}", &vip.name, neighbor);
            }
        }
    }
}
