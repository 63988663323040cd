//! The owner: the one task that holds the node. It turns requests, signals and reports into events, and carries out effects in
//! their order. It must not decide anything itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use maglev_api::{Answer, view};
use maglev_bgp::speaker;
use maglev_core::announce::Prefix;
use maglev_core::node::{self, Event, Node};
use maglev_core::node_drain;
use maglev_core::reconcile::{self, Needed, RequestId};
use maglev_model::bgp::Wanted;
use maglev_model::plan::{InUse, Planner};
use maglev_model::{Change, Refusal, Resolution, Services, Vip};
use maglev_net::next_hop::{Found, Resolver};
use maglev_probe::scheduler::Scheduler;
use maglev_store::Edited;
use tokio::sync::{mpsc, oneshot, watch};

use super::clock::Clock;
use super::dataplane::{End, Refreshed, Worker};
use super::event_log::EventLog;
use super::files::{Disk, Files};
use super::inputs::{Input, Inputs};
use super::snapshot::Snapshots;
use super::status::{self, Facts};
use super::systemd;
use crate::http::{By, Caller, Journal, Request};

mod apply;
mod effects;
#[cfg(test)]
mod faults;
mod reload;
mod requests;
mod rollback;

use apply::Apply;
use reload::Reload;
use rollback::Rollback;

/// What is taken into one plan at most: a flood of requests must not keep the first one waiting.
const BATCH: usize = 4_096;

/// Changes that wait for a replacement of all services at most; beyond them, no request is taken.
const POSTPONED: usize = 1_024;

/// How long the start waits for backends' next hops.
const NEXT_HOPS: Duration = Duration::from_millis(500);

/// Who awaits the outcome of a request to the node.
#[derive(Debug)]
enum Waiting {
    Start(oneshot::Sender<Result<(), Refusal>>),
    Change(Change, By, oneshot::Sender<Answer<()>>),
    /// With the version of `services.yaml` that is taken over, until it is kept.
    Reload(Reload, view::Reloaded, Option<Edited>),
    Rollback(Rollback, view::Changes),
    Apply(Apply, view::Changes),
    /// What was ordered of the node, in words.
    Node(&'static str, Caller, oneshot::Sender<Answer<()>>),
}

/// Other services as a whole.
#[derive(Debug)]
enum Replacement {
    Reload(Reload),
    Rollback(Rollback),
    Apply(Apply),
}

/// What carries out effects.
pub(super) struct Tools {
    pub(super) dataplane: Worker,
    pub(super) disk: Disk,
    pub(super) resolver: Resolver,
    pub(super) scheduler: Scheduler,
    pub(super) journal: Journal,
    /// Takes what is to be saved of the node's drain.
    pub(super) records: mpsc::UnboundedSender<Option<node_drain::Record>>,
    /// Takes counters that the node's drain asked for.
    pub(super) counted: mpsc::UnboundedSender<node_drain::Event>,
}

/// What the daemon finds at its start.
pub(super) struct Beginning {
    pub(super) facts: Facts,
    pub(super) interfaces: Refreshed,
    pub(super) needed: Needed,
    /// The planner of an adopted data plane.
    pub(super) adopted: Option<Planner>,
    /// The backends that another daemon used.
    pub(super) in_use: InUse,
    /// The VIPs that another daemon served, if packets were forwarded until now.
    pub(super) served: Vec<Vip>,
}

/// The owner and its tools.
pub(super) struct Owner {
    node: Node,
    files: Files,
    facts: Arc<Facts>,
    interfaces: Arc<Refreshed>,
    tools: Tools,
    /// What neighbors are to know, for the speaker.
    wanted: watch::Sender<Arc<Wanted>>,
    /// Every prefix, for those who ask.
    prefixes: watch::Sender<Arc<Vec<Prefix>>>,
    /// The neighbors' tasks, once they run.
    neighbors: Option<speaker::Handle>,
    log: EventLog,
    snapshots: Snapshots,
    clock: Clock,
    waiting: BTreeMap<RequestId, Waiting>,
    last_request: u64,
    /// What replaces all services, once no change is in flight: the file that a reload reads must hold every change acknowledged.
    replacements: VecDeque<Replacement>,
    /// Changes that came after it, in their order.
    postponed: VecDeque<Request>,
    last_reload: Option<view::LastReload>,
}

impl Owner {
    /// Goes on with the planner of an adopted data plane, if there is one.
    pub(super) fn new(files: Files, found: Beginning, tools: Tools, snapshots: Snapshots, clock: Clock) -> Self {
        let Beginning { facts, interfaces, needed, adopted, in_use, served } = found;
        let running = files.running();
        let settings = node::Settings {
            reconcile: reconcile::Settings {
                rules: running.rules(),
                interfaces: status::known_interfaces(&interfaces),
                needed,
                common_failure: running.common_failure,
            },
            drain: running.drain,
            announces: running.bgp.is_some(),
            hold_down: running.hold_down,
            keeps: running.pin.is_some(),
        };
        let mut node = Node::new(settings, adopted, clock.now());
        node.recall(in_use);
        node.keep_serving(served);
        let log = EventLog::new(tools.journal.clone());
        let mut owner = Self {
            node,
            files,
            facts: Arc::new(facts),
            interfaces: Arc::new(interfaces),
            tools,
            wanted: watch::Sender::default(),
            prefixes: watch::Sender::default(),
            neighbors: None,
            log,
            snapshots,
            clock,
            waiting: BTreeMap::new(),
            last_request: 0,
            replacements: VecDeque::new(),
            postponed: VecDeque::new(),
            last_reload: None,
        };
        owner.tell_interfaces();
        owner
    }

    /// What neighbors are to know, as it changes.
    pub(super) fn wanted(&self) -> watch::Receiver<Arc<Wanted>> {
        self.wanted.subscribe()
    }

    /// Every prefix, and why it is withheld if it is, as that changes.
    pub(super) fn prefixes(&self) -> watch::Receiver<Arc<Vec<Prefix>>> {
        self.prefixes.subscribe()
    }

    /// From here on neighbors are sent what is wanted.
    pub(super) fn announce_to(&mut self, neighbors: speaker::Handle) {
        self.neighbors = Some(neighbors);
        self.sessions_changed();
    }

    /// The reason that neighbors are sent when the daemon stops, and whether all prefixes must be withdrawn.
    pub(super) fn last_words(&self) -> (String, bool) {
        self.node.last_words()
    }

    /// Goes on with a drain that was ordered before the daemon was started.
    pub(super) fn resume_drain(&mut self, record: node_drain::Record, kept: bool) {
        self.handle(Event::Drain(node_drain::Event::Resume { record, kept }));
    }

    /// What the node does, for the service manager.
    pub(super) fn in_short(&self) -> String {
        match self.interfaces.refresh.detached.as_slice() {
            [] => self.interfaces.trouble().unwrap_or_else(|| "serving".to_owned()),
            waited_for => format!("waiting for interface {}", waited_for.join(", ")),
        }
    }

    /// Publishes the services the daemon starts with, once the next hops of their backends are known.
    pub(super) async fn start(&mut self, services: Services, inputs: &mut Inputs) -> anyhow::Result<()> {
        self.resolve(&services, inputs).await;
        let (reply, mut outcome) = oneshot::channel();
        let request = self.expect(Waiting::Start(reply));
        self.reconcile(reconcile::Event::Load { request, services });
        self.settle();
        loop {
            match outcome.try_recv() {
                Ok(outcome) => {
                    outcome.map_err(|refusal| anyhow!("cannot publish the services: {refusal}"))?;
                    self.log.started(self.clock.now());
                    return self.tools.dataplane.orders().outlive().await?.map_err(anyhow::Error::msg);
                }
                Err(oneshot::error::TryRecvError::Closed) => return Err(anyhow!("the start was not answered")),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            tokio::select! {
                Some(event) = inputs.finished.recv() => self.reconcile(event),
                () = inputs.stop.wait() => return Err(anyhow!("stopped by a signal before it was ready")),
            }
            self.settle();
        }
    }

    /// Waits until every backend in use can be reached, but not for long: were tables published at once, whichever backend is
    /// found first would own all slots for a moment.
    async fn resolve(&mut self, services: &Services, inputs: &mut Inputs) {
        let backends = services.pools.values().flat_map(|pool| pool.backends.values());
        let in_use = backends.filter(|backend| !backend.is_disabled());
        let mut awaited: BTreeSet<IpAddr> = in_use.map(|backend| backend.address).collect();
        self.tools.resolver.follow(awaited.clone());
        let deadline = tokio::time::sleep(NEXT_HOPS);
        tokio::pin!(deadline);
        while !awaited.is_empty() {
            tokio::select! {
                Some(Found { address, resolution }) = inputs.next_hops.recv() => {
                    if matches!(resolution, Resolution::Resolved { .. }) {
                        awaited.remove(&address);
                    }
                    self.reconcile(reconcile::Event::NextHop { address, resolution });
                }
                () = &mut deadline => return,
            }
        }
    }

    /// Handles what comes in until a signal ends it.
    pub(super) async fn run(&mut self, mut inputs: Inputs) {
        loop {
            self.log.pass(self.clock.now());
            let deadlines = [self.node.deadline(), self.log.deadline()];
            let deadline = deadlines.into_iter().flatten().min().map(|deadline| self.clock.instant(deadline));
            let first = inputs.next(self.takes_requests(), deadline).await;
            if !self.take(first) {
                return;
            }
            // A burst becomes one plan: what has arrived by now belongs to it.
            for _ in 1..BATCH {
                let Some(more) = inputs.ready(self.takes_requests()) else { break };
                if !self.take(more) {
                    return;
                }
            }
            self.settle();
        }
    }

    /// Tells that the daemon stops.
    pub(super) fn tell_stop(&self) {
        self.log.tell(view::What::Stopping);
    }

    /// Ends disk and data plane after what they were ordered to do. Sessions have ended; `kept`: neighbors keep what they hold. Else
    /// plans that waited for them are carried out, so that what stays pinned is what is saved.
    pub(super) fn stop(mut self, end: End, kept: bool) {
        self.handle(Event::SessionsEnded { kept });
        let Tools { dataplane, disk, .. } = self.tools;
        disk.stop();
        dataplane.stop(end);
    }

    /// Takes one input in; tells whether to go on.
    fn take(&mut self, input: Input) -> bool {
        match input {
            Input::Stop => return false,
            Input::Hangup => {
                let reload = Reload { force: false, by: By::default(), reply: None };
                self.replacements.push_back(Replacement::Reload(reload));
            }
            Input::Request(request) => self.request(request),
            Input::Snapshot(reply) => {
                // The reader may have gone.
                let _ = reply.send(self.snapshot().shown);
            }
            Input::Event(event) => self.reconcile(event),
            Input::Interfaces(refreshed) => self.interfaces_changed(refreshed),
            Input::Drain(event) => self.handle(Event::Drain(event)),
            Input::Sessions => self.sessions_changed(),
            Input::Due => self.handle(Event::Tick),
        }
        true
    }

    fn interfaces_changed(&mut self, refreshed: Refreshed) {
        refreshed.refresh.log_news(&self.interfaces.refresh);
        self.log.interfaces(&self.interfaces, &refreshed);
        let before = self.in_short();
        self.interfaces = Arc::new(refreshed);
        self.tell_interfaces();
        let now = self.in_short();
        if now != before {
            systemd::notify(&format!("STATUS={now}"));
        }
    }

    fn tell_interfaces(&mut self) {
        let interfaces = status::known_interfaces(&self.interfaces);
        self.handle(Event::Interfaces { interfaces, trouble: self.interfaces.trouble() });
    }

    fn sessions_changed(&mut self) {
        if let Some(neighbors) = &self.neighbors {
            self.handle(Event::Sessions(neighbors.neighbors()));
        }
    }

    /// Gives a request a number under which it is answered.
    fn expect(&mut self, waiting: Waiting) -> RequestId {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        self.waiting.insert(request, waiting);
        request
    }

    fn reconcile(&mut self, event: reconcile::Event) {
        if let reconcile::Event::NextHop { address, resolution } = &event {
            self.log.next_hop(*address, resolution, self.clock.now());
        }
        self.handle(Event::Reconcile(event));
    }

    /// Has the node handle an event, and carries out what it asks for.
    fn handle(&mut self, event: Event) {
        let effects = self.node.handle(event, self.clock.now());
        // An answer is given only once readers are shown what it says.
        self.snapshots.outdate(self.node.generation());
        effects.into_iter().for_each(|effect| self.carry_out(effect));
    }

    /// Whether requests are taken: those that change no services do not wait for a replacement.
    fn takes_requests(&self) -> bool {
        self.postponed.len() < POSTPONED
    }

    /// Ends a burst. What replaces all services has its turn once no change is in flight.
    fn settle(&mut self) {
        self.handle(Event::Flush);
        while self.go_on() {
            self.handle(Event::Flush);
        }
    }

    /// Begins with the next replacement, or takes the changes that came after the last one. Tells whether there was something.
    fn go_on(&mut self) -> bool {
        let is_changing = self.waiting.values().any(|waiting| !matches!(waiting, Waiting::Node(..)));
        match self.replacements.pop_front_if(|_| !is_changing) {
            Some(Replacement::Reload(reload)) => self.reload(reload),
            Some(Replacement::Rollback(rollback)) => self.roll_back(rollback),
            Some(Replacement::Apply(apply)) => self.apply(apply),
            None if !self.replacements.is_empty() || self.postponed.is_empty() => return false,
            None => std::mem::take(&mut self.postponed).into_iter().for_each(|request| self.request(request)),
        }
        true
    }
}
