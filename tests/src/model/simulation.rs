//! One run: traffic and a script, through nodes that keep connections by one design, under the oracle's eyes.

use maglev_common::table::PoolIndex;
use maglev_ebpf::packet::l4::Segment;

use super::control::{Control, Standing};
use super::design::Design;
use super::fleet::{Act, Event, Fleet, RESTART};
use super::node::{Geometry, Node};
use super::oracle::{Oracle, Verdict};
use super::ownership::{self, Ownership};
use super::random::mix;
use super::router::{Ecmp, Place, Router};
use super::traffic::{Packet, Traffic};
use super::{Millis, NEVER};

/// What a run takes place in.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) fleet: Fleet,
    pub(super) geometry: Geometry,
    pub(super) ecmp: Ecmp,
    /// Member ids that a node has to give out.
    pub(super) ids: u16,
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
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Connections that broke while their backend lived.
    pub(super) broken: u32,
    /// Connections that ended with their backend, or found none.
    pub(super) ended: u32,
    /// Flows that found their bucket full.
    pub(super) full: u32,
    /// Recent entries that gave way to another flow.
    pub(super) evicted: u32,
    /// The first rule that was broken, when, and by which flow's packet.
    pub(super) fault: Option<(Fault, Millis, usize)>,
    /// How many were.
    pub(super) faults: u32,
    /// What happened, if that was asked for.
    pub(super) log: Vec<(Millis, String)>,
}

/// Runs it. With `log`, what happened is told as well: for few packets.
pub(super) fn simulate(
    setting: &Setting,
    traffic: &Traffic,
    acts: &[(Millis, Act)],
    design: Design,
    tables: &mut Ownership,
    log: bool,
) -> Outcome {
    let mut simulation = Simulation::new(setting, traffic, design, tables, log);
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
    tables: &'a mut Ownership,
    nodes: Vec<(Node, Control)>,
    router: Router,
    oracle: Oracle,
    /// When some node has something to do next.
    due: Millis,
    log: bool,
    outcome: Outcome,
}

impl<'a> Simulation<'a> {
    fn new(setting: &Setting, traffic: &'a Traffic, design: Design, tables: &'a mut Ownership, log: bool) -> Self {
        let Setting { fleet, geometry, ecmp, ids, covered_silence } = setting;
        let backends = fleet.pools.iter().map(|pool| pool.end).max().unwrap_or(0);
        let mut oracle = Oracle::new(&traffic.flows, backends, covered_silence * super::SECOND);
        let beginning = fleet.beginning();
        beginning.iter().for_each(|news| oracle.start(news.backend));
        let node = |number: usize| {
            // Clocks differ, and some wrap soon.
            let node = Node::new(*geometry, (mix(fleet.seed ^ number as u64) % 0x400_0000) as Millis);
            let mut control = Control::new(design, &fleet.pools, *ids);
            control.told(&node, tables, &beginning, 0);
            (node, control)
        };
        let nodes: Vec<_> = (0..fleet.nodes).map(node).collect();
        let router = Router::new(*ecmp, fleet.nodes, geometry.cpus);
        Self { design, traffic, tables, nodes, router, oracle, due: NEVER, log, outcome: Outcome::default() }
    }

    fn packet(&mut self, packet: Packet) {
        let number = packet.flow();
        if self.oracle.is_over(number) {
            return;
        }
        let flow = &self.traffic.flows[number];
        let segment = match (flow.datagram, packet.is_syn()) {
            (true, _) => Segment::DATAGRAM,
            (false, true) => Segment::SYN,
            (false, false) => Segment::OTHER,
        };
        let place = self.router.place(flow.route);
        let (node, control) = &self.nodes[place.node];
        let full = node.shortages.full.get();
        let pool = PoolIndex(flow.pool.into());
        let member = node.choose(place.cpu, packet.at(), pool, flow.hash, segment);
        let state = node.state(member);
        let to = control.backend(member);
        let ran_full = node.shortages.full.get() != full;
        if !member.is_nobody() && !state.is_alive() {
            self.fault(Fault::DeadMember, packet);
        } else if !member.is_nobody() && state.pool() != pool {
            self.fault(Fault::OtherPool, packet);
        }
        if ran_full {
            self.oracle.excuse(number);
        }
        let verdict = self.oracle.deliver(packet.at(), number, flow, packet.is_syn(), to);
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
            self.tell_of(packet, place, to, verdict);
        }
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
            Act::Tell(node, news) => {
                // A node that hears of a death when the backend is back already: it is not the backends' change that cuts.
                let dead = news.iter().filter(|news| news.standing == Standing::Down);
                dead.for_each(|news| self.oracle.excuse_all(news.backend));
                let (node, control) = &mut self.nodes[*node];
                control.told(node, self.tables, news, at);
            }
            Act::Happen(event) => self.happen(at, *event),
        }
        if self.log {
            self.tell_of_act(at, act);
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
            Event::RestartWithMaps(node) => self.nodes[node].1.stop_until(at + RESTART),
            Event::RestartWithout(number) => {
                self.excuse_forgotten(number);
                let (node, control) = &mut self.nodes[number];
                node.wipe();
                control.start_fresh(node, self.tables, at);
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
            let slot = flow.hash.slot().index();
            let owner = |place: Place| self.nodes[place.node].1.owner(flow.pool, slot);
            let is_moving = |place: Place| self.nodes[place.node].1.is_moving(flow.pool, slot);
            if old != new && (is_moving(old) || is_moving(new) || owner(old) != owner(new)) {
                self.oracle.excuse(number);
            }
        }
    }

    /// So are flows whose node forgets what it knows of their slot.
    fn excuse_forgotten(&mut self, node: usize) {
        let control = &self.nodes[node].1;
        for (number, flow) in self.traffic.flows.iter().enumerate() {
            let is_here = self.router.place(flow.route).node == node;
            if is_here && control.is_moving(flow.pool, flow.hash.slot().index()) && self.oracle.is_alive(number) {
                self.oracle.excuse(number);
            }
        }
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

    fn tell_of(&mut self, packet: Packet, place: Place, to: Option<u16>, verdict: Verdict) {
        let flow = &self.traffic.flows[packet.flow()];
        let what = match (flow.datagram, packet.is_syn()) {
            (true, _) => "a datagram",
            (false, true) => "a SYN",
            (false, false) => "a segment",
        };
        let to = to.map_or("nobody".to_owned(), |backend| ownership::name(backend).to_string());
        let (number, Place { node, cpu }) = (packet.flow(), place);
        let end = match verdict {
            Verdict::Well => "",
            Verdict::Dropped => ": dropped",
            Verdict::Ended => ": its backend has stopped",
            Verdict::Broken { .. } => ": broken",
        };
        self.outcome.log.push((packet.at(), format!("{what} of flow {number} → node {node}, CPU {cpu} → {to}{end}")));
    }

    fn tell_of_act(&mut self, at: Millis, act: &Act) {
        let line = match act {
            Act::Happen(event) => event.to_string(),
            Act::Tell(node, news) => {
                let names: Vec<String> = news.iter().map(|news| ownership::name(news.backend).to_string()).collect();
                format!("  node {node} hears of {}; {}", names.join(", "), self.nodes[*node].1.progress())
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
