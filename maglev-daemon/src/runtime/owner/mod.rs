//! The owner: the one task that holds the node. It turns requests, signals and reports into events, and carries out effects in
//! their order. It must not decide anything itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use maglev_api::{Answer, view};
use maglev_bgp::speaker::Speaker;
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
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use super::captures::Captures;
use super::clock::Clock;
use super::dataplane::{End, Worker};
use super::event_log::EventLog;
use super::files::{Disk, Files, Forwarding};
use super::heartbeat::Heartbeat;
use super::inputs::{Input, Inputs};
use super::lost_packets::LostPackets;
use super::refreshed::Refreshed;
use super::snapshot::Snapshots;
use super::status::{self, Facts};
use super::systemd::{self, Manager};
use crate::http::{By, Caller, Journal, Request};

mod apply;
mod effects;
#[cfg(test)]
mod faults;
mod live;
mod manager;
mod reload;
mod requests;
mod rollback;
mod succession;

use apply::Apply;
use live::Prepared;
use reload::Reload;
use rollback::Rollback;
pub(super) use succession::Prepared as PreparedPlane;
use succession::Succession;

/// The largest number of inputs in one plan: a flood of requests must not delay the first one.
const BATCH: usize = 4_096;

/// The largest number of changes that wait for a replacement of all services; beyond it, no request is received.
const POSTPONED: usize = 1_024;

/// How long one step of the first publication may take; the service manager waits so long for the next one.
const PUBLISHED: Duration = Duration::from_secs(30);

/// How long the start waits for backends' next hops.
const NEXT_HOPS: Duration = Duration::from_millis(500);

/// The requester that awaits the outcome of a request to the node.
#[derive(Debug)]
enum Waiting {
    Start(oneshot::Sender<Result<(), Refusal>>),
    Change(Change, By, oneshot::Sender<Answer<()>>),
    /// With the version of `services.yaml` that is applied, until it is saved.
    /// With the settings of `maglev.yaml` that apply with it.
    Reload(Reload, view::Reloaded, Option<Edited>, Box<Prepared>),
    /// With the settings of the data plane that takes over; and the reload, if there is one, whose services were replaced before.
    Succession(Option<Box<(Reload, view::Reloaded)>>, Box<(Forwarding, Facts, Refreshed)>),
    Rollback(Rollback, view::Changes),
    Apply(Apply, view::Changes),
    /// An order for the node, in words.
    Node(&'static str, Caller, oneshot::Sender<Answer<()>>),
}

/// A replacement of all services, or of the data plane.
#[derive(Debug)]
enum Replacement {
    /// By one without the flow table before.
    Spent,
    Reload(Reload),
    Rollback(Rollback),
    Apply(Apply),
}

/// The tools that carry out effects.
pub(super) struct Tools {
    pub(super) dataplane: Worker,
    pub(super) disk: Disk,
    pub(super) resolver: Resolver,
    pub(super) scheduler: Scheduler,
    pub(super) journal: Journal,
    /// The sender of drains to save.
    pub(super) records: mpsc::UnboundedSender<Option<node_drain::Record>>,
    /// The sender of counters that the node's drain requested.
    pub(super) counted: mpsc::UnboundedSender<node_drain::Event>,
    /// The sender of data planes for reloads.
    pub(super) prepared: mpsc::UnboundedSender<PreparedPlane>,
    /// The service manager.
    pub(super) manager: Manager,
    /// The signs of life for the packet path.
    pub(super) heartbeat: Heartbeat,
}

/// The state that the daemon finds at its start.
pub(super) struct Beginning {
    pub(super) facts: Facts,
    pub(super) interfaces: Refreshed,
    pub(super) needed: Needed,
    /// The planner of an adopted data plane.
    pub(super) adopted: Option<Planner>,
    /// The backends that the previous daemon used.
    pub(super) in_use: InUse,
    /// The VIPs that the previous daemon served, if packets were forwarded until now.
    pub(super) served: Vec<Vip>,
}

/// The owner and its tools.
pub(super) struct Owner {
    node: Node,
    files: Files,
    facts: Arc<Facts>,
    interfaces: Arc<Refreshed>,
    tools: Tools,
    /// The prefixes to announce, for the speaker.
    wanted: watch::Sender<Arc<Wanted>>,
    /// Every prefix, for readers.
    prefixes: watch::Sender<Arc<Vec<Prefix>>>,
    /// The BGP sessions, once they run.
    speaker: Option<Speaker>,
    /// Receives the socket that is served to scrapers, once any is.
    scraped: Option<mpsc::UnboundedSender<Option<TcpListener>>>,
    log: EventLog,
    snapshots: Snapshots,
    /// Packets lost at interfaces, for readers.
    lost: LostPackets,
    captures: Arc<Captures>,
    clock: Clock,
    waiting: BTreeMap<RequestId, Waiting>,
    last_request: u64,
    /// Replacements of all services, which wait until no change is in flight: the file that a reload reads must hold every
    /// acknowledged change.
    replacements: VecDeque<Replacement>,
    /// Changes that came after it, in their order.
    postponed: VecDeque<Request>,
    succession: Succession,
    last_reload: Option<view::LastReload>,
    /// An order to stop, and whether the program is detached then.
    stopping: Option<bool>,
}

impl Owner {
    /// Creates an owner, with the planner of an adopted data plane if there is one.
    pub(super) fn new(files: Files, found: Beginning, tools: Tools, snapshots: Snapshots, clock: Clock) -> Self {
        let Beginning { facts, interfaces, needed, adopted, in_use, served } = found;
        let running = files.running();
        let settings = node::Settings {
            reconcile: reconcile::Settings {
                rules: running.rules(),
                interfaces: status::known_interfaces(&interfaces),
                needed,
                common_failure: running.common_failure,
                packets: running.packets,
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
            succession: Succession::new(files.running().rules()),
            files,
            lost: LostPackets::default(),
            captures: Arc::default(),
            facts: Arc::new(facts),
            interfaces: Arc::new(interfaces),
            tools,
            wanted: watch::Sender::default(),
            prefixes: watch::Sender::default(),
            speaker: None,
            scraped: None,
            log,
            snapshots,
            clock,
            waiting: BTreeMap::new(),
            last_request: 0,
            replacements: VecDeque::new(),
            postponed: VecDeque::new(),
            last_reload: None,
            stopping: None,
        };
        owner.log_interfaces();
        owner
    }

    /// The prefixes to announce, as they change.
    pub(super) fn wanted(&self) -> watch::Receiver<Arc<Wanted>> {
        self.wanted.subscribe()
    }

    /// Every prefix, with the reason if it is withheld, as they change.
    pub(super) fn prefixes(&self) -> watch::Receiver<Arc<Vec<Prefix>>> {
        self.prefixes.subscribe()
    }

    /// Starts the announcements.
    pub(super) fn announce_by(&mut self, speaker: Speaker) {
        self.speaker = Some(speaker);
        self.sessions_changed();
    }

    /// From now on, another socket may be served to scrapers.
    pub(super) fn scraped_by(&mut self, scraped: mpsc::UnboundedSender<Option<TcpListener>>) {
        self.scraped = Some(scraped);
    }

    /// Gives up the sessions, to end them.
    pub(super) const fn take_speaker(&mut self) -> Option<Speaker> {
        self.speaker.take()
    }

    /// The reason for neighbors when the daemon stops, and whether all prefixes must be withdrawn.
    pub(super) fn last_words(&self) -> (String, bool) {
        self.node.last_words()
    }

    /// Resumes a drain that was ordered before the daemon was started.
    pub(super) fn resume_drain(&mut self, record: node_drain::Record, kept: bool) {
        self.handle(Event::Drain(node_drain::Event::Resume { record, kept }));
    }

    /// Publishes the services the daemon starts with, once the next hops of their backends are known.
    pub(super) async fn start(&mut self, services: Services, inputs: &mut Inputs) -> anyhow::Result<()> {
        systemd::phase("publishing the services", PUBLISHED);
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
                    self.tools.dataplane.orders().beat();
                    return self.tools.dataplane.orders().outlive().await?.map_err(anyhow::Error::msg);
                }
                Err(oneshot::error::TryRecvError::Closed) => return Err(anyhow!("the start has no answer")),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            tokio::select! {
                Some(event) = inputs.finished.recv() => self.reconcile(event),
                () = inputs.stop.wait() => return Err(anyhow!("stopped by a signal before it was ready")),
            }
            systemd::phase("publishing the services", PUBLISHED);
            self.settle();
        }
    }

    /// Waits for the next hops of all backends in use, but not for long. Without the wait the first backend with a next hop would own
    /// all slots for a moment.
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

    /// Handles inputs until a signal.
    pub(super) async fn run(&mut self, mut inputs: Inputs) {
        loop {
            self.log.pass(self.clock.now());
            let deadlines = [self.node.deadline(), self.log.deadline()];
            let deadline = deadlines.into_iter().flatten().min().map(|deadline| self.clock.instant(deadline));
            let tools = [self.tools.manager.deadline(), self.tools.heartbeat.deadline()];
            let deadline = deadline.into_iter().chain(tools.into_iter().flatten()).min();
            let first = inputs.next(self.takes_requests(), deadline).await;
            if !self.take(first) {
                return;
            }
            // A burst becomes one plan: it includes all inputs that have arrived by now.
            for _ in 1..BATCH {
                let Some(more) = inputs.ready(self.takes_requests()) else { break };
                if !self.take(more) {
                    return;
                }
            }
            self.settle();
            self.turned();
        }
    }

    /// Whether it was ordered that nothing stays attached.
    pub(super) fn detaches(&self) -> bool {
        self.stopping == Some(true)
    }

    /// Records that the daemon stops.
    pub(super) fn log_stop(&self) {
        self.log.record(view::What::Stopping);
    }

    /// Ends disk and data plane after their orders. Sessions have ended; with `kept`, neighbors keep the prefixes. Else plans that
    /// waited for neighbors are carried out, so that a pinned data plane is in sync with the saved services.
    pub(super) fn stop(mut self, end: End, kept: bool) {
        self.handle(Event::SessionsEnded { kept });
        let Tools { dataplane, disk, .. } = self.tools;
        disk.stop();
        dataplane.stop(end);
    }

    /// Handles one input; returns whether to continue.
    fn take(&mut self, input: Input) -> bool {
        match input {
            Input::Stop => return false,
            Input::Hangup => {
                let reload = Reload { force: false, by: By::default(), reply: None };
                self.replacements.push_back(Replacement::Reload(reload));
            }
            Input::Request(request) => {
                self.request(request);
                return self.stopping.is_none();
            }
            Input::Snapshot(reply) => {
                // The reader may have disconnected.
                let _ = reply.send(self.snapshot().shown);
            }
            Input::Event(event) => self.reconcile(event),
            Input::Interfaces(refreshed) => self.interfaces_changed(refreshed),
            Input::Prepared(prepared) => self.prepared(*prepared),
            Input::Spent => self.replacements.push_back(Replacement::Spent),
            Input::Drain(event) => self.handle(Event::Drain(event)),
            Input::Sessions => self.sessions_changed(),
            Input::Due => self.handle(Event::Tick),
        }
        true
    }

    fn interfaces_changed(&mut self, refreshed: Refreshed) {
        // Slots of another data plane mean nothing here: the present one is refreshed as it takes over.
        if !self.succession.is_of(&refreshed) {
            return;
        }
        refreshed.refresh.log_news(&self.interfaces.refresh);
        self.log.interfaces(&self.interfaces, &refreshed);
        self.interfaces = Arc::new(refreshed);
        self.log_interfaces();
    }

    fn log_interfaces(&mut self) {
        let interfaces = status::known_interfaces(&self.interfaces);
        self.handle(Event::Interfaces { interfaces, trouble: self.interfaces.trouble() });
    }

    fn sessions_changed(&mut self) {
        if let Some(speaker) = &self.speaker {
            let sessions = speaker.handle().neighbors();
            self.handle(Event::Sessions(sessions));
        }
    }

    /// Registers a request, and returns its number for the answer.
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

    /// Lets the node handle an event, and carries out its effects.
    fn handle(&mut self, event: Event) {
        let effects = self.node.handle(event, self.clock.now());
        // An answer is sent only once readers see its outcome.
        self.snapshots.outdate(self.node.generation());
        effects.into_iter().for_each(|effect| self.carry_out(effect));
    }

    /// Whether requests are received: those that change no services do not wait for a replacement.
    fn takes_requests(&self) -> bool {
        self.postponed.len() < POSTPONED
    }

    /// Ends a burst. A replacement of all services begins once no change is in flight.
    fn settle(&mut self) {
        self.handle(Event::Flush);
        while self.go_on() {
            self.handle(Event::Flush);
        }
    }

    /// Begins the next replacement, or handles the changes that came after the last one. Returns whether there was one.
    fn go_on(&mut self) -> bool {
        if self.succession.is_preparing() {
            return false;
        }
        let is_changing = self.waiting.values().any(|waiting| !matches!(waiting, Waiting::Node(..)));
        match self.replacements.pop_front_if(|_| !is_changing) {
            Some(Replacement::Spent) => self.go_without_flows_before(),
            Some(Replacement::Reload(reload)) => self.reload(reload),
            Some(Replacement::Rollback(rollback)) => self.roll_back(rollback),
            Some(Replacement::Apply(apply)) => self.apply(apply),
            None if !self.replacements.is_empty() || self.postponed.is_empty() => return false,
            None => std::mem::take(&mut self.postponed).into_iter().for_each(|request| self.request(request)),
        }
        true
    }
}
