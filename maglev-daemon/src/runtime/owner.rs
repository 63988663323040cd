//! The owner: the one task that holds the reconciler. It turns requests, signals and reports into events, carries out
//! effects in their order, and publishes the status from which reads are answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use maglev_api::{Answer, view};
use maglev_bgp::speaker;
use maglev_core::announce::Node;
use maglev_core::drain;
use maglev_core::health::News;
use maglev_core::reconcile::{Effect, Event, Needed, Reconciler, RequestId, Settings, View};
use maglev_model::plan::{InUse, Planner, Saved, Step};
use maglev_model::{Change, Name, Refusal, Resolution, Services};
use maglev_net::next_hop::{Found, Resolver};
use maglev_probe::scheduler::Scheduler;
use tokio::sync::{oneshot, watch};

use super::announcer::Announcer;
use super::clock::Clock;
use super::drainer::Drainer;
use super::files::{Disk, Files};
use super::flood::Flood;
use super::inputs::{Input, Inputs};
use super::plane::{ActiveFlows, End, Plane, Refreshed};
use super::release::Release;
use super::status::{self, Facts};
use super::teller::Teller;
use super::turn::Turn;
use super::{log, systemd};
use crate::http::{Caller, Flow, Journal, Made, Request, Shown};

mod reload;

use reload::Reload;

/// What is taken into one plan at most: a flood of requests must not keep the first one waiting.
const BATCH: usize = 4_096;

/// How long the status may be behind checks that change nothing else.
const SHOW_CHECKS: Duration = Duration::from_millis(500);

/// How long the start waits for backends' next hops.
const WAYS: Duration = Duration::from_millis(500);

/// Who awaits the outcome of a request to the reconciler.
#[derive(Debug)]
enum Waiting {
    Start(oneshot::Sender<Result<(), Refusal>>),
    Change(Change, Caller, oneshot::Sender<Answer<()>>),
    Reload(Reload, view::Reloaded),
    /// What was ordered of the node, in words.
    Node(&'static str, Caller, oneshot::Sender<Answer<()>>),
}

/// What carries out effects.
pub(super) struct Tools {
    pub(super) plane: Plane,
    pub(super) disk: Disk,
    pub(super) resolver: Resolver,
    pub(super) drainer: Drainer,
    pub(super) scheduler: Scheduler,
    pub(super) journal: Journal,
}

/// A plan, and what it leads to.
type Plan = (Vec<Step>, Option<Saved>);

/// The owner and its tools.
pub(super) struct Owner {
    reconciler: Reconciler,
    files: Files,
    facts: Arc<Facts>,
    interfaces: Arc<Refreshed>,
    plane: Plane,
    disk: Disk,
    resolver: Resolver,
    scheduler: Scheduler,
    announcer: Announcer,
    teller: Teller,
    drainer: Drainer,
    /// A plan that is carried out once it is known what is announced meanwhile.
    held: Option<Plan>,
    /// A plan that waits until neighbors know what it removes.
    release: Release<Plan>,
    status: watch::Sender<Arc<Shown>>,
    /// What the status was last made from.
    view: Arc<View>,
    /// How many statuses were published.
    generation: u64,
    clock: Clock,
    /// Whether what plans lead to is written down.
    keeps: bool,
    waiting: BTreeMap<RequestId, Waiting>,
    last_request: u64,
    /// Reloads that wait until no change is in flight: the file they read must hold every change acknowledged.
    reloads: VecDeque<Reload>,
    last_reload: Option<view::LastReload>,
    /// Outcomes to tell once the status shows them.
    outcomes: Vec<(RequestId, Result<(), Refusal>)>,
    /// When the status is to show checks that changed nothing else, if there were any.
    stale: Option<Instant>,
    turn: Turn,
    flood: Flood,
}

impl Owner {
    /// Goes on with the planner of an adopted data plane, if there is one.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the daemon that is started elsewhere")]
    pub(super) fn new(
        files: Files,
        facts: Facts,
        interfaces: Refreshed,
        needed: Needed,
        tools: Tools,
        status: watch::Sender<Arc<Shown>>,
        clock: Clock,
        adopted: Option<Planner>,
    ) -> Self {
        let Tools { plane, disk, resolver, drainer, scheduler, journal } = tools;
        let settings = Settings {
            rules: files.running().rules(),
            interfaces: status::known_interfaces(&interfaces),
            needed,
            common_failure: files.running().common_failure,
        };
        let reconciler = match adopted {
            Some(planner) => Reconciler::adopt(settings, planner, clock.now()),
            None => Reconciler::new(settings),
        };
        let keeps = files.running().pin.is_some();
        let hold_down = files.running().hold_down;
        let view = Arc::new(reconciler.view());
        let announcer = Announcer::new(hold_down);
        let teller = Teller::new(journal);
        Self {
            reconciler,
            files,
            facts: Arc::new(facts),
            interfaces: Arc::new(interfaces),
            plane,
            disk,
            resolver,
            scheduler,
            announcer,
            teller,
            drainer,
            held: None,
            release: Release::default(),
            status,
            view,
            generation: 0,
            clock,
            keeps,
            waiting: BTreeMap::new(),
            last_request: 0,
            reloads: VecDeque::new(),
            last_reload: None,
            outcomes: Vec::new(),
            stale: None,
            turn: Turn::default(),
            flood: Flood::starting(),
        }
    }

    /// Begins with the backends that another daemon used.
    pub(super) fn recall(&mut self, in_use: InUse) {
        self.reconciler.recall(in_use);
    }

    /// What is to be announced.
    pub(super) const fn announcer(&self) -> &Announcer {
        &self.announcer
    }

    /// From here on neighbours are told what is announced.
    pub(super) fn announce_to(&mut self, neighbors: speaker::Handle) {
        self.announcer.follow(neighbors);
        self.drainer.await_told(&self.announcer);
    }

    /// What neighbours are told when the daemon stops, and whether they must be.
    pub(super) fn last_words(&self) -> (String, bool) {
        self.drainer.last_words()
    }

    /// Goes on with a drain that was ordered before the daemon was started.
    pub(super) fn resume_drain(&mut self, record: drain::Record, kept: bool) {
        self.drain(drain::Event::Resume { record, kept });
    }

    /// Whether the node as a whole may announce anything.
    fn node(&self) -> Node {
        match (self.drainer.node(), self.interfaces.trouble()) {
            (Some(Node::Drained), _) => Node::Drained,
            (_, Some(trouble)) => Node::Unable(trouble),
            (drain, None) => drain.unwrap_or_default(),
        }
    }

    /// What the node does, for the service manager.
    pub(super) fn in_short(&self) -> String {
        match self.interfaces.refresh.detached.as_slice() {
            [] => self.interfaces.trouble().unwrap_or_else(|| "serving".to_owned()),
            waited_for => format!("waiting for interface {}", waited_for.join(", ")),
        }
    }

    /// Publishes the services the daemon starts with, once the ways to their backends are known.
    pub(super) async fn start(&mut self, services: Services, inputs: &mut Inputs) -> anyhow::Result<()> {
        self.find_ways(&services, inputs).await;
        let (reply, mut outcome) = oneshot::channel();
        let request = self.expect(Waiting::Start(reply));
        self.handle(Event::Reload { request, services });
        self.settle();
        loop {
            match outcome.try_recv() {
                Ok(outcome) => {
                    outcome.map_err(|refusal| anyhow!("cannot publish the services: {refusal}"))?;
                    self.flood.started(self.clock.now()).into_iter().for_each(log::held);
                    return self.plane.orders().outlive().await?.map_err(anyhow::Error::msg);
                }
                Err(oneshot::error::TryRecvError::Closed) => return Err(anyhow!("the start was not answered")),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            tokio::select! {
                Some(event) = inputs.finished.recv() => self.handle(event),
                () = inputs.stop.wait() => return Err(anyhow!("stopped by a signal before it was ready")),
            }
            self.settle();
        }
    }

    /// Waits until every backend in use can be reached, but not for long: were tables published at once, whichever backend is
    /// found first would own all slots for a moment.
    async fn find_ways(&mut self, services: &Services, inputs: &mut Inputs) {
        let backends = services.pools.values().flat_map(|pool| pool.backends.values());
        let in_use = backends.filter(|backend| !backend.is_disabled());
        let mut awaited: BTreeSet<IpAddr> = in_use.map(|backend| backend.address).collect();
        self.resolver.follow(awaited.clone());
        let deadline = tokio::time::sleep(WAYS);
        tokio::pin!(deadline);
        while !awaited.is_empty() {
            tokio::select! {
                Some(Found { address, resolution }) = inputs.next_hops.recv() => {
                    if matches!(resolution, Resolution::Resolved { .. }) {
                        awaited.remove(&address);
                    }
                    self.handle(Event::NextHop { address, resolution });
                }
                () = &mut deadline => return,
            }
        }
    }

    /// Handles what comes in until a signal ends it.
    pub(super) async fn run(&mut self, mut inputs: Inputs) {
        loop {
            self.flood.pass(self.clock.now()).into_iter().for_each(log::held);
            let deadlines =
                [self.reconciler.deadline(), self.drainer.deadline(), self.announcer.deadline(), self.flood.deadline()];
            let deadline = deadlines
                .into_iter()
                .chain([self.release.deadline()])
                .flatten()
                .min()
                .map(|deadline| self.clock.instant(deadline));
            let deadline = deadline.into_iter().chain(self.stale).min();
            let first = inputs.next(self.reloads.is_empty(), deadline).await;
            let mut quiet = first.is_quiet();
            if !self.take(first) {
                return;
            }
            // A burst becomes one plan: what has arrived by now belongs to it.
            for _ in 1..BATCH {
                let Some(more) = inputs.ready(self.reloads.is_empty()) else { break };
                quiet &= more.is_quiet();
                if !self.take(more) {
                    return;
                }
            }
            let plan = self.release.due(self.clock.now());
            plan.into_iter().for_each(|plan| self.carry_out(plan));
            // Most checks and sessions say what is known: to plan and to show for each would be the most work of all.
            if quiet && !self.reconciler.is_restless() {
                self.stale.get_or_insert_with(|| Instant::now() + SHOW_CHECKS);
            } else {
                self.settle();
            }
        }
    }

    /// Tells that the daemon stops.
    pub(super) fn tell_stop(&self) {
        self.teller.tell(view::What::Stopping);
    }

    /// Ends disk and data plane after what they were ordered to do. Sessions have ended: a plan that waited for neighbors to be
    /// told is carried out, so that what stays pinned is what is saved.
    pub(super) fn stop(mut self, end: End) {
        let plans = [self.release.end(), self.held.take()];
        plans.into_iter().flatten().for_each(|plan| self.carry_out(plan));
        self.disk.stop();
        self.plane.stop(end);
    }

    /// Takes one input in; tells whether to go on.
    fn take(&mut self, input: Input) -> bool {
        match input {
            Input::Stop => return false,
            Input::Hangup => self.reloads.push_back(Reload { force: false, reply: None }),
            Input::Request(request) => self.request(request),
            Input::Event(event) => self.handle(event),
            Input::Interfaces(refreshed) => self.interfaces_changed(refreshed),
            Input::Drain(event) => self.drain(event),
            Input::Sessions => self.sessions_changed(),
            Input::Due => {
                self.handle(Event::Tick);
                self.drain(drain::Event::Tick);
            }
        }
        true
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Change { change, force, caller, reply } => {
                if let Err(refusal) = self.reconciler.check_change(&change) {
                    let _ = reply.send(Err(refusal.into()));
                    return;
                }
                let request = self.expect(Waiting::Change(change.clone(), caller, reply));
                self.handle(Event::Change { request, change, force });
            }
            Request::Reload { force, reply } => self.reloads.push_back(Reload { force, reply: Some(reply) }),
            Request::PlanReload { reply } => drop(reply.send(self.plan_reload())),
            Request::Counters { reply } => {
                let (snapshot, view) = (self.plane.orders().snapshot(), Arc::clone(&self.view));
                tokio::spawn(async move {
                    if let Ok(snapshot) = snapshot.await {
                        let _ = reply.send(Ok(Made::by(move || status::counters(&view, &snapshot))));
                    }
                });
            }
            Request::Explain { flow, reply } => self.explain(flow, reply),
            Request::Plan { change, force, reply } => self.plan(change, force, reply),
            Request::Check { pool, backend, reply } => {
                let _ = reply.send(self.check(&pool, &backend));
            }
            Request::DrainNode { order, caller, reply } => {
                let request = self.expect(Waiting::Node("drain", caller, reply));
                self.drain(drain::Event::Drain { request, order });
            }
            Request::UndrainNode { caller, reply } => {
                let request = self.expect(Waiting::Node("undrain", caller, reply));
                self.drain(drain::Event::Undrain { request });
            }
        }
    }

    fn drain(&mut self, event: drain::Event) {
        let replies = self.drainer.handle(event, self.clock.now(), &self.view, self.plane.orders());
        self.outcomes.extend(replies);
    }

    /// Says what a change would move, and how many flows stand there.
    fn plan(&self, change: Change, force: bool, reply: oneshot::Sender<Answer<view::Plan>>) {
        let previewed = match self.reconciler.preview(change, force) {
            Ok(previewed) => previewed,
            Err(refusal) => {
                let _ = reply.send(Err(refusal.into()));
                return;
            }
        };
        let flows = ActiveFlows::of(&previewed).map(|flows| self.plane.orders().active_flows(flows));
        let view = Arc::clone(&self.view);
        tokio::spawn(async move {
            let counted = match flows {
                Some(flows) => flows.await,
                None => Ok(Ok(0)),
            };
            let Ok(counted) = counted else { return };
            let answer = counted.map(|flows| status::plan(&view, &previewed, flows)).map_err(view::Error::failed);
            let _ = reply.send(answer);
        });
    }

    /// Has a backend checked once, for as long as somebody awaits what comes of it.
    fn check(&mut self, pool: &Name, backend: &Name) -> Answer<oneshot::Receiver<view::CheckReport>> {
        let asked = self.scheduler.once(self.reconciler.to_check(pool, backend)?);
        let (mut reply, report) = oneshot::channel();
        let (pool, backend) = (pool.to_string(), backend.to_string());
        tokio::spawn(async move {
            tokio::select! {
                asked = asked => {
                    let targets = asked.iter().map(status::checked).collect();
                    let _ = reply.send(view::CheckReport { pool, backend, targets });
                }
                () = reply.closed() => {}
            }
        });
        Ok(report)
    }

    fn explain(&self, flow: Flow, reply: oneshot::Sender<Answer<view::Explanation>>) {
        let Flow { client, service, protocol } = flow;
        let asked =
            self.plane.orders().explain(maglev_dataplane::Asked { source: client, destination: service, protocol });
        let view = Arc::clone(&self.view);
        tokio::spawn(async move {
            let Ok(explained) = asked.await else { return };
            let answer = explained
                .map(|explanation| status::explanation(&view, flow, &explanation))
                .map_err(view::Error::failed);
            let _ = reply.send(answer);
        });
    }

    fn interfaces_changed(&mut self, refreshed: Refreshed) {
        refreshed.refresh.log_news(&self.interfaces.refresh);
        self.teller.interfaces(&self.interfaces, &refreshed);
        self.handle(Event::Interfaces(status::known_interfaces(&refreshed)));
        let before = self.in_short();
        self.interfaces = Arc::new(refreshed);
        let now = self.in_short();
        if now != before {
            systemd::notify(&format!("STATUS={now}"));
        }
    }

    /// Gives a request a number under which its outcome is told.
    fn expect(&mut self, waiting: Waiting) -> RequestId {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        self.waiting.insert(request, waiting);
        request
    }

    fn handle(&mut self, event: Event) {
        if let Event::NextHop { address, resolution } = &event {
            let shown = self.flood.admits(log::kind_of_next_hop(resolution), self.clock.now());
            log::next_hop(*address, resolution, shown);
            self.teller.moved(*address, resolution);
        }
        let checked = if let Event::Checked { last, .. } = &event { Some(last.at) } else { None };
        if matches!(event, Event::Published(Ok(()))) {
            self.turn.published(self.clock.now()).into_iter().for_each(log::turn);
        }
        let was = self.reconciler.out_of_sync();
        let effects = self.reconciler.handle(event, self.clock.now());
        log::sync(was.as_deref(), self.reconciler.out_of_sync().as_deref());
        checked.filter(|_| self.reconciler.is_restless()).into_iter().for_each(|at| self.turn.checked(at));
        for effect in effects {
            match effect {
                Effect::Persist(services) => self.disk.persist(services),
                Effect::Publish(steps) => {
                    self.turn.planned();
                    let saved = self.keeps.then(|| self.reconciler.save());
                    self.held = Some((steps, saved));
                }
                Effect::Survey(orders) => self.plane.orders().survey(orders),
                Effect::Follow(addresses) => self.resolver.follow(addresses),
                Effect::Check(orders) => self.scheduler.follow(orders),
                Effect::Tell(news) => self.tell(&news),
                Effect::Reply { request, outcome } => self.outcomes.push((request, outcome)),
            }
        }
    }

    fn tell(&mut self, news: &[News]) {
        let now = self.clock.now();
        for news in news {
            let shown = log::kind_of_news(news).is_none_or(|kind| self.flood.admits(kind, now));
            log::news(news, shown);
            self.teller.health(news);
        }
    }

    /// Ends a burst: acts on what was collected, shows it, and only then answers those who asked for it, so that who
    /// got an answer reads what it says.
    fn settle(&mut self) {
        self.handle(Event::Flush);
        self.show();
        self.answer();
        while self.waiting.is_empty()
            && let Some(reload) = self.reloads.pop_front()
        {
            self.reload(reload);
            self.handle(Event::Flush);
            self.show();
            self.answer();
        }
    }

    fn answer(&mut self) {
        for (request, outcome) in std::mem::take(&mut self.outcomes) {
            // Whoever asked may have gone.
            match self.waiting.remove(&request) {
                Some(Waiting::Start(reply)) => {
                    let _ = reply.send(outcome);
                }
                Some(Waiting::Change(change, caller, reply)) => {
                    log::change(&change, caller, &outcome);
                    if outcome.is_ok() {
                        self.teller.changed(change.to_string(), caller);
                    }
                    let _ = reply.send(outcome.map_err(view::Error::from));
                }
                Some(Waiting::Reload(reload, reloaded)) => {
                    self.reloaded(reload, outcome.map(|()| reloaded).map_err(view::Error::from));
                }
                Some(Waiting::Node(order, caller, reply)) => {
                    log::order(order, caller, &outcome);
                    if outcome.is_ok() {
                        self.teller.changed(format!("{order} the node"), caller);
                    }
                    let _ = reply.send(outcome.map_err(view::Error::from));
                }
                None => tracing::error!(?request, "an answer that nobody awaits"),
            }
        }
    }

    /// Publishes the status as it is now.
    fn show(&mut self) {
        self.stale = None;
        self.view = Arc::new(self.reconciler.view());
        let node = view::Node { unable: self.interfaces.trouble(), ..self.drainer.view(self.clock.now()) };
        self.publish(node);
        let removed = self.announcer.update(&self.view, &self.node(), self.clock.now());
        self.teller.look(&self.view);
        self.release(removed);
        self.drainer.await_told(&self.announcer);
    }

    /// Publishes the status. It is made by the first reader: with thousands of backends it is much work.
    fn publish(&mut self, node: view::Node) {
        self.generation += 1;
        let (facts, view, interfaces) = (Arc::clone(&self.facts), Arc::clone(&self.view), Arc::clone(&self.interfaces));
        let (last_reload, shown, now) = (self.last_reload.clone(), node.clone(), self.clock.now());
        let make = move || facts.status(&view, &interfaces, last_reload.as_ref(), shown, now);
        self.status.send_replace(Arc::new(Shown::new(self.generation, node, make)));
    }

    /// Has a plan carried out: at once, or, if a prefix is withdrawn because its VIPs are removed, once neighbors had time to turn
    /// elsewhere.
    fn release(&mut self, removed: bool) {
        let Some(plan) = self.held.take() else { return };
        if !removed || !self.announcer.has_neighbors() {
            return self.carry_out(plan);
        }
        let before = self.release.hold(plan, self.clock.now());
        before.into_iter().for_each(|plan| self.carry_out(plan));
        self.check_told();
    }

    fn carry_out(&self, (steps, saved): Plan) {
        self.plane.orders().publish(steps, saved);
    }

    /// What sessions hold changed: events follow, and what waits until neighbors are told.
    fn sessions_changed(&mut self) {
        let news = self.announcer.news();
        log::announced(&news);
        news.into_iter().for_each(|news| self.teller.announced(news));
        self.check_told();
        self.drainer.check_told(&self.announcer);
    }

    fn check_told(&mut self) {
        if self.release.awaits_told() && self.announcer.is_told(self.announcer.version()) {
            self.release.told(self.clock.now());
        }
    }
}

#[cfg(test)]
mod faults;
