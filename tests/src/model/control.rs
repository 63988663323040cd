//! A node's control plane: the daemon's own reconciler, which receives changes as the daemon does, and whose plans and
//! surveys are carried out on the model's maps. A daemon that restarts goes on with these maps and with what the last one
//! saved. It must not know what other nodes know, nor which backends really live.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use maglev_common::backend::InterfaceSlot;
use maglev_common::table::PoolIndex;
use maglev_core::reconcile::{Effect, Event, Interfaces, Needed, Reconciler, RequestId, Settings};
use maglev_model::Resolution;
use maglev_model::plan::{Planner, SurveyOrder, Surveyed};
use maglev_model::transition::Survey;
use maglev_model::{
    AdminState, Affinity, Announce, Backend, Limits, PacketSettings, Pool, PoolSettings, Rules, Service, Services,
    TransitionSettings, UdpPolicy, Unserved, Vip, Weight,
};

use super::design::{Design, Fresh};
use super::fleet::{News, Standing, name};
use super::node::Node;
use super::{Millis, NEVER};

/// The interface by which all packets leave.
const INTERFACE: u32 = 1;

/// The properties of a control plane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) design: Design,
    /// Seconds for which a flow entry counts that nothing renews.
    pub(super) idle: u16,
    /// How long a survey of all flow tables takes.
    pub(super) survey: Millis,
    /// Member ids that there are.
    pub(super) ids: u32,
}

/// The control plane of one node.
pub(super) struct Control {
    manner: Manner,
    /// Its last order for each backend.
    known: BTreeMap<u16, News>,
    /// When it received that.
    received_at: BTreeMap<u16, Millis>,
    reconciler: Reconciler,
    survey: Option<Walk>,
    /// When it starts again, while it is not running, and what it left to be known.
    down: Option<(Millis, String)>,
}

/// A survey of the flow tables that is under way.
struct Walk {
    pools: Vec<(PoolIndex, Survey)>,
    done_at: Millis,
}

impl Control {
    /// It starts over maps of zeroes, with these backends; the pools are theirs.
    pub(super) fn new(manner: Manner, node: &Node, beginning: &[News]) -> Self {
        let known = beginning.iter().map(|news| (news.backend, *news)).collect();
        let mut control = Self {
            manner,
            known,
            received_at: BTreeMap::new(),
            reconciler: Reconciler::new(settings(manner.ids)),
            survey: None,
            down: None,
        };
        control.start(node, 0);
        control
    }

    /// Processes an order at once; while the daemon is down, its files and neighbors deliver it later.
    pub(super) fn receive(&mut self, node: &Node, news: &[News], now: Millis) {
        self.known.extend(news.iter().map(|news| (news.backend, *news)));
        self.received_at.extend(news.iter().map(|news| (news.backend, now)));
        self.come_up(node, now);
        if self.down.is_none() {
            self.resolve_next_hops(node, now);
            self.replace(node, self.services(), now);
        }
    }

    /// The daemon's process ends; until the time given, nothing is taken in and no deadline minded.
    pub(super) fn stop_until(&mut self, time: Millis) {
        let save = || serde_json::to_string(&self.reconciler.save()).expect("what is saved is text");
        let saved = self.down.take().map_or_else(save, |(_, saved)| saved);
        (self.down, self.survey) = (Some((time, saved)), None);
    }

    /// Starts anew over maps of zeroes: history is lost.
    pub(super) fn start_fresh(&mut self, node: &Node, now: Millis) {
        (self.reconciler, self.survey, self.down) = (Reconciler::new(settings(self.manner.ids)), None, None);
        self.start(node, now);
    }

    /// When there is something to do next.
    pub(super) fn due(&self) -> Millis {
        if let Some((start, _)) = self.down {
            return start;
        }
        let deadline = self.reconciler.deadline().map_or(NEVER, |deadline| deadline.as_millis() as Millis);
        let done = self.survey.as_ref().map_or(NEVER, |walk| walk.done_at);
        deadline.min(done)
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, node: &Node, now: Millis) {
        self.come_up(node, now);
        if self.down.is_some() {
            return;
        }
        if let Some(walk) = self.survey.take_if(|walk| walk.done_at <= now) {
            let found = walk.through(node);
            self.handle(node, Event::Surveyed(found), now);
        }
        if self.reconciler.deadline().is_some_and(|deadline| deadline <= time(now)) {
            self.handle(node, Event::Tick, now);
        }
    }

    /// How many slots are in which phase, in words.
    pub(super) fn progress(&self) -> String {
        let pools = self.reconciler.view().pools;
        let sum = |count: fn(&maglev_model::transition::Progress) -> u32| -> u32 {
            pools.iter().map(|pool| count(&pool.progress)).sum()
        };
        format!("{} slots learn, {} are tracked", sum(|progress| progress.learning), sum(|progress| progress.tracked))
    }

    /// Whether it has taken in that a backend is to take no new connections.
    pub(super) fn is_draining(&self, backend: u16) -> bool {
        self.down.is_none() && self.known.get(&backend).is_some_and(|news| news.standing == Standing::Draining)
    }

    /// Its services, as services.yaml would hold them.
    fn services(&self) -> Services {
        let mut services = Services::default();
        for &News { pool, backend, standing, weight, reachable: _ } in self.known.values() {
            // Slots of a pool without a VIP do not learn.
            let vip = vip(pool);
            services.vips.entry(vip.name.clone()).or_insert(vip);
            let new = || Pool { settings: self.manner.settings(), ..Pool::new(name("pool", pool.into())) };
            let pool = Arc::make_mut(services.pools.entry(name("pool", pool.into())).or_insert_with(|| new().into()));
            let state = match standing {
                Standing::Absent => continue,
                Standing::Active => AdminState::Active,
                Standing::Draining => AdminState::Draining { since: None },
                Standing::Disabled => AdminState::Disabled { since: None },
            };
            let (name, address) = (name("web", backend), address(backend));
            pool.backends.insert(name.clone(), Backend { name, address, weight: Weight(weight), state, mtu: None });
        }
        services
    }

    /// If it is time to, goes on with the maps as they are.
    fn come_up(&mut self, node: &Node, now: Millis) {
        let Some((_, saved)) = self.down.take_if(|(start, _)| *start <= now) else { return };
        let saved = serde_json::from_str(&saved).expect("what was saved can be read");
        let settings = settings(self.manner.ids);
        let Rules { limits, outer } = settings.rules;
        let planner = Planner::restore(limits, outer, &saved, &node.live()).expect("a planner that fits the maps");
        self.reconciler = Reconciler::adopt(settings, planner, time(now));
        self.resolve_next_hops(node, now);
        self.load(node, self.services(), now);
    }

    /// As the daemon starts: ways first.
    fn start(&mut self, node: &Node, now: Millis) {
        self.resolve_next_hops(node, now);
        let learning = Duration::from_secs(self.manner.design.learning().into());
        let left = match self.manner.design.fresh() {
            Fresh::FromStart => learning,
            Fresh::SinceTheDrain => learning.saturating_sub(time(now - self.last_drain())),
            Fresh::NotAtAll => Duration::ZERO,
        };
        let mut services = self.services();
        services.pools.values_mut().for_each(|pool| Arc::make_mut(pool).settings.transition.learning = left);
        // A backend that drains without having been active owned nothing.
        let first = if left.is_zero() { without_drains(services) } else { services };
        self.load(node, first, now);
        self.replace(node, self.services(), now);
    }

    /// When it last received the order that a backend drains.
    fn last_drain(&self) -> Millis {
        let drains = self.received_at.iter().filter(|(backend, _)| self.is_draining(**backend));
        drains.map(|(_, at)| *at).max().unwrap_or(0)
    }

    fn resolve_next_hops(&mut self, node: &Node, now: Millis) {
        for News { backend, reachable, .. } in self.known.clone().into_values() {
            let address = address(backend);
            let resolution = match reachable {
                true => {
                    Resolution::Resolved { interface: INTERFACE, mac: [2, 0, 0, 0, 0, 9], gateway: None, mtu: None }
                }
                false => Resolution::Unresolved("it does not answer".to_owned()),
            };
            self.handle(node, Event::NextHop { address, resolution }, now);
        }
    }

    fn load(&mut self, node: &Node, services: Services, now: Millis) {
        self.handle(node, Event::Load { request: RequestId(0), services }, now);
        self.handle(node, Event::Flush, now);
    }

    fn replace(&mut self, node: &Node, services: Services, now: Millis) {
        self.handle(node, Event::Replace { request: RequestId(0), services }, now);
        self.handle(node, Event::Flush, now);
    }

    /// Hands an event to the reconciler, and carries out all that comes of it.
    fn handle(&mut self, node: &Node, event: Event, now: Millis) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.reconciler.handle(event, time(now)) {
                match effect {
                    Effect::Persist(_) => events.push_back(Event::Persisted(Ok(()))),
                    Effect::Publish(steps) => {
                        steps.iter().for_each(|step| node.carry_out(step));
                        events.push_back(Event::Published(Ok(())));
                    }
                    Effect::Survey(orders) => self.survey = Some(Walk::new(orders, node, now, self.manner.survey)),
                    Effect::Reply { outcome, .. } => outcome.expect("services that are possible"),
                    Effect::Succeed(_) | Effect::Follow(_) | Effect::Check(_) | Effect::News(_) => {}
                }
            }
        }
    }
}

impl Walk {
    fn new(orders: Vec<SurveyOrder>, node: &Node, now: Millis, takes: Millis) -> Self {
        let survey = |SurveyOrder { pool, transition, idle, all_slots }| {
            let survey = Survey::new(transition, node.seconds(now), idle);
            (pool, if all_slots { survey.with_all_slots() } else { survey })
        };
        Self { pools: orders.into_iter().map(survey).collect(), done_at: now + takes }
    }

    fn through(mut self, node: &Node) -> Vec<Surveyed> {
        node.clear(|entry| {
            let state = node.state(entry.member());
            let pool = self.pools.iter_mut().find(|(pool, _)| *pool == state.pool());
            pool.is_some_and(|(_, survey)| state.is_alive() && survey.look(entry))
        });
        let found = |(pool, survey): (PoolIndex, Survey)| {
            let (transition, pinned) = survey.end();
            Surveyed { pool, transition, pinned }
        };
        self.pools.into_iter().map(found).collect()
    }
}

impl Manner {
    fn settings(&self) -> PoolSettings {
        let Self { design, idle, .. } = *self;
        let transition = TransitionSettings {
            learning: Duration::from_secs(design.learning().into()),
            idle: Duration::from_secs(idle.into()),
            udp: UdpPolicy::Keep,
        };
        PoolSettings { tracking: design.tracking(), transition, ..PoolSettings::default() }
    }
}

/// The VIP of a pool.
fn vip(pool: u8) -> Vip {
    let service = Service::parse("203.0.113.10", &(u16::from(pool) + 1).to_string(), "tcp").expect("a service");
    let (announce, when_empty, affinity) = (Announce::default(), Unserved::Drop, Affinity::FiveTuple);
    Vip { name: name("vip", pool.into()), service, pool: name("pool", pool.into()), announce, when_empty, affinity }
}

fn settings(ids: u32) -> Settings {
    let slots = BTreeMap::from([(INTERFACE, InterfaceSlot(0))]);
    let rules = Rules { limits: Limits { backends: ids, ..Limits::default() }, ..Rules::default() };
    let interfaces = Interfaces { slots, ..Interfaces::default() };
    Settings { rules, interfaces, needed: Needed::default(), common_failure: 0, packets: PacketSettings::default() }
}

/// The same services, in which draining backends own nothing and never did.
fn without_drains(mut services: Services) -> Services {
    let backends = services.pools.values_mut().flat_map(|pool| Arc::make_mut(pool).backends.values_mut());
    for backend in backends.filter(|backend| matches!(backend.state, AdminState::Draining { .. })) {
        (backend.state, backend.weight) = (AdminState::Active, Weight(0));
    }
    services
}

/// The address of a backend; the outer destination identifies it.
fn address(backend: u16) -> IpAddr {
    let [high, low] = backend.to_be_bytes();
    Ipv4Addr::new(10, 1, high, low).into()
}

/// The reverse, of the first four bytes of a packet's outer destination.
pub(super) const fn backend([_, _, high, low]: [u8; 4]) -> u16 {
    u16::from_be_bytes([high, low])
}

fn time(now: Millis) -> Duration {
    Duration::from_millis(now.into())
}
