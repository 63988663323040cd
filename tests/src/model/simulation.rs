//! One run: traffic and a script, through nodes that keep connections by one design, under the oracle's eyes.

use maglev_common::table::PoolIndex;
use maglev_ebpf::env::Segment;

use super::control::{Control, Manner};
use super::design::Design;
use super::fleet::{Act, Event, Fleet, RESTART, Standing, name};
use super::node::{Geometry, Node};
use super::oracle::{Arrival, Oracle, Verdict};
use super::random::mix;
use super::router::{Ecmp, Place, Router};
use super::traffic::{Flow, Packet, Traffic};
use super::{Millis, NEVER, SECOND};

/// The setting of a run.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) fleet: Fleet,
    pub(super) geometry: Geometry,
    pub(super) ecmp: Ecmp,
    /// Seconds for which a flow entry counts that nothing renews.
    pub(super) idle: u16,
    /// How long a survey of all flow tables takes.
    pub(super) survey: Millis,
    /// Member ids that a node has to give out.
    pub(super) ids: u32,
    /// The longest silence, in seconds, that the guarantee covers.
    pub(super) covered_silence: u32,
}

/// A rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A connection broke that the guarantee covers.
    Connection,
    /// A packet was sent to a member that was published as dead.
    DeadMember,
    /// A packet was sent to another pool's member.
    OtherPool,
    /// A new connection was sent to a backend that its node was ordered to drain.
    Draining,
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Connections that broke while their backend lived.
    pub(super) broken: u32,
    /// Connections that ended with their backend, or found none.
    pub(super) ended: u32,
    /// Flows that found their bucket full.
    pub(super) full: u32,
    /// Recent entries that were evicted by another flow.
    pub(super) evicted: u32,
    /// The first rule that was broken, when, and by which flow's packet.
    pub(super) fault: Option<(Fault, Millis, usize)>,
    /// How many were.
    pub(super) faults: u32,
    /// The events, if they were requested.
    pub(super) log: Vec<(Millis, String)>,
}

/// Runs it. With `log`, events are shown as well: for few packets.
pub(super) fn simulate(
    setting: &Setting,
    traffic: &Traffic,
    acts: &[(Millis, Act)],
    design: Design,
    log: bool,
) -> Outcome {
    let mut simulation = Simulation::new(setting, traffic, design, log);
    let mut acts = acts.iter().peekable();
    for &packet in &traffic.packets {
        while simulation.due.min(acts.peek().map_or(NEVER, |(at, _)| *at)) <= packet.at() {
            match acts.next_if(|(at, _)| *at <= simulation.due) {
                Some((at, act)) => simulation.act(*at, act),
                None => simulation.tick(simulation.due),
            }
        }
        simulation.packet(packet);
    }
    simulation.end()
}

struct Simulation<'a> {
    design: Design,
    traffic: &'a Traffic,
    nodes: Vec<(Node, Control)>,
    router: Router,
    oracle: Oracle,
    /// When some node has something to do next.
    due: Millis,
    log: bool,
    outcome: Outcome,
}

/// A node's handling of a packet.
struct Sent {
    to: Option<u16>,
    /// Whether its slot is in transition.
    is_moving: bool,
    /// Whether it found its bucket full.
    ran_full: bool,
    /// The rule that was broken by it.
    fault: Option<Fault>,
}

impl<'a> Simulation<'a> {
    fn new(setting: &Setting, traffic: &'a Traffic, design: Design, log: bool) -> Self {
        let Setting { fleet, geometry, ecmp, idle, survey, ids, covered_silence } = setting;
        let backends = fleet.pools.iter().map(|pool| pool.end).max().unwrap_or(0);
        let mut oracle = Oracle::new(&traffic.flows, backends, covered_silence * SECOND);
        let beginning = fleet.beginning();
        beginning.iter().for_each(|news| oracle.start(news.backend));
        let manner = Manner { design, idle: *idle, survey: *survey, ids: *ids };
        let node = |number: usize| {
            // Clocks differ, and some wrap soon.
            let clock = (mix(fleet.seed ^ number as u64) % 0x400_0000) as Millis;
            let node = Node::new(*geometry, clock, design == Design::Table);
            let control = Control::new(manner, &node, &beginning);
            (node, control)
        };
        let nodes: Vec<_> = (0..fleet.nodes).map(node).collect();
        let router = Router::new(*ecmp, fleet.nodes, geometry.cpus);
        let mut simulation =
            Self { design, traffic, nodes, router, oracle, due: NEVER, log, outcome: Outcome::default() };
        simulation.mind();
        simulation
    }

    fn packet(&mut self, packet: Packet) {
        let number = packet.flow();
        if self.oracle.is_over(number) {
            return;
        }
        let flow = &self.traffic.flows[number];
        let place = self.router.place(flow.route);
        let sent = self.send(place, packet, flow);
        if sent.ran_full {
            self.oracle.excuse(number);
        }
        if let Some(fault) = sent.fault {
            self.fault(fault, packet);
        }
        let Sent { to, is_moving, .. } = sent;
        let arrival = Arrival { at: packet.at(), syn: packet.is_syn(), is_moving, to };
        let verdict = self.oracle.deliver(number, flow, arrival);
        match verdict {
            Verdict::Well | Verdict::Dropped => {}
            Verdict::Ended => self.outcome.ended += 1,
            Verdict::Broken { within_guarantee } => {
                self.outcome.broken += 1;
                if within_guarantee {
                    self.fault(Fault::Connection, packet);
                }
            }
        }
        if self.log {
            self.log_packet(packet, place, to, verdict);
        }
    }

    /// Sends a packet along a node's path.
    fn send(&self, place: Place, packet: Packet, flow: &Flow) -> Sent {
        let segment = match (flow.datagram, packet.is_syn()) {
            (true, _) => Segment::DATAGRAM,
            (false, true) => Segment::SYN,
            (false, false) => Segment::OTHER,
        };
        let (node, control) = &self.nodes[place.node];
        let pool = PoolIndex(flow.pool.into());
        let full = node.shortages.full.get();
        let member = node.choose(place.cpu, packet.at(), pool, flow.hash, segment);
        let ran_full = node.shortages.full.get() != full;
        let (state, to) = (node.state(member), node.backend(member));
        let begins = packet.is_syn() && !flow.again && !ran_full && !self.oracle.has_begun(packet.flow());
        let fault = if !member.is_nobody() && !state.is_alive() {
            Some(Fault::DeadMember)
        } else if !member.is_nobody() && state.pool() != pool {
            Some(Fault::OtherPool)
        } else if begins && to.is_some_and(|backend| control.is_draining(backend)) {
            Some(Fault::Draining)
        } else {
            None
        };
        Sent { to, is_moving: node.slot(pool, flow.hash.slot()).in_transition(), ran_full, fault }
    }

    /// Only transitions promise anything.
    fn fault(&mut self, fault: Fault, packet: Packet) {
        if fault != Fault::Connection || self.design.has_transitions() {
            self.outcome.faults += 1;
            self.outcome.fault.get_or_insert((fault, packet.at(), packet.flow()));
        }
    }

    fn act(&mut self, at: Millis, act: &Act) {
        match act {
            Act::Report(node, news) => {
                // A node that learns of a death when the backend is back already: it is not the backends' change that cuts.
                let dead = news.iter().filter(|news| news.standing == Standing::Disabled || !news.reachable);
                dead.for_each(|news| self.oracle.excuse_all(news.backend));
                let (node, control) = &mut self.nodes[*node];
                control.receive(node, news, at);
            }
            Act::Happen(event) => self.happen(at, *event),
        }
        if self.log {
            self.log_act(at, act);
        }
        self.mind();
    }

    fn happen(&mut self, at: Millis, event: Event) {
        match event {
            Event::Add(backend) | Event::Return(backend) => self.oracle.start(backend),
            Event::Stop(backend) | Event::Die(backend) => self.oracle.stop(backend),
            Event::Drain(_) | Event::Undrain(_) | Event::Weigh(..) => {}
            Event::Leave(node) => self.reroute(|router| router.leave(node)),
            Event::Join(node) => self.reroute(|router| router.join(node)),
            Event::DealCpus(node) => self.reroute(|router| router.deal_anew(node)),
            Event::Flood(node) => {
                self.excuse_forgotten(node);
                self.nodes[node].0.clear(|entry| !entry.is_confirmed());
            }
            Event::RestartWithMaps(node) => self.nodes[node].1.stop_until(at + RESTART),
            Event::RestartWithout(number) => {
                self.excuse_forgotten(number);
                let (node, control) = &mut self.nodes[number];
                node.wipe();
                control.start_fresh(node, at);
                self.excuse_forgotten(number);
            }
        }
    }

    /// Packets come to other places from now on. The guarantee leaves out flows that move while their slot is in
    /// transition, or while the two nodes do not agree on its owner.
    fn reroute(&mut self, change: impl FnOnce(&mut Router)) {
        let before = self.router.clone();
        change(&mut self.router);
        for (number, flow) in self.traffic.flows.iter().enumerate() {
            if !self.oracle.is_alive(number) {
                continue;
            }
            let (old, new) = (before.place(flow.route), self.router.place(flow.route));
            let (before, after) = (self.published(flow, old.node), self.published(flow, new.node));
            if old != new && (before.0 || after.0 || before.1 != after.1) {
                self.oracle.excuse(number);
            }
        }
    }

    /// So are flows whose node forgets, or may forget, what it knows of their slot.
    fn excuse_forgotten(&mut self, node: usize) {
        for (number, flow) in self.traffic.flows.iter().enumerate() {
            let is_here = self.router.place(flow.route).node == node;
            if is_here && self.oracle.is_alive(number) && self.published(flow, node).0 {
                self.oracle.excuse(number);
            }
        }
    }

    /// Whether a flow's slot is in transition on a node, and which backend owns it there.
    fn published(&self, flow: &Flow, node: usize) -> (bool, Option<u16>) {
        let node = &self.nodes[node].0;
        let slot = node.slot(PoolIndex(flow.pool.into()), flow.hash.slot());
        (slot.in_transition(), node.backend(slot.owner()))
    }

    fn tick(&mut self, now: Millis) {
        for (node, control) in &mut self.nodes {
            if control.due() <= now {
                control.tick(node, now);
            }
        }
        self.mind();
    }

    fn mind(&mut self) {
        self.due = self.nodes.iter().map(|(_, control)| control.due()).min().unwrap_or(NEVER);
    }

    fn log_packet(&mut self, packet: Packet, place: Place, to: Option<u16>, verdict: Verdict) {
        let flow = &self.traffic.flows[packet.flow()];
        let what = match (flow.datagram, packet.is_syn()) {
            (true, _) => "a datagram",
            (false, true) => "a SYN",
            (false, false) => "a segment",
        };
        let to = to.map_or("no backend".to_owned(), |backend| name("web", backend).to_string());
        let (number, Place { node, cpu }) = (packet.flow(), place);
        let end = match verdict {
            Verdict::Well => "",
            Verdict::Dropped => ": dropped",
            Verdict::Ended => ": its backend has stopped",
            Verdict::Broken { .. } => ": broken",
        };
        self.outcome.log.push((packet.at(), format!("{what} of flow {number} → node {node}, CPU {cpu} → {to}{end}")));
    }

    fn log_act(&mut self, at: Millis, act: &Act) {
        let line = match act {
            Act::Happen(event) => event.to_string(),
            Act::Report(node, news) => {
                let names: Vec<String> = news.iter().map(|news| name("web", news.backend).to_string()).collect();
                format!("  node {node} receives {}; {}", names.join(", "), self.nodes[*node].1.progress())
            }
        };
        self.outcome.log.push((at, line));
    }

    fn end(mut self) -> Outcome {
        for (node, _) in &self.nodes {
            self.outcome.full += node.shortages.full.get();
            self.outcome.evicted += node.shortages.evicted.get();
        }
        self.outcome
    }
}
