//! Random histories: whatever can happen to a small fleet, in any order, and what must hold all the same. No connection
//! that the guarantee covers breaks, no packet is sent to a member that was published as dead, none to another pool's.

use std::fmt::Write as _;

use super::compare::at_once;
use super::design::Design;
use super::fleet::{Event, Fleet};
use super::node::Geometry;
use super::random::Random;
use super::router::Ecmp;
use super::shrink::fewest;
use super::simulation::{Fault, Outcome, Setting, simulate};
use super::traffic::{Packet, Shape, Traffic};
use super::{Millis, SECOND};

/// Nodes of the fleet.
const NODES: usize = 3;
/// Backends that a pool can have, of which all but two are there from the beginning.
const BACKENDS: u16 = 7;
/// After its death a backend is not back before all nodes know of it, those included whose daemon restarts.
const RETURN: Millis = 20 * SECOND;

/// A history: all of it follows from its seed.
#[derive(Clone, Debug)]
pub(super) struct History {
    seed: u64,
    setting: Setting,
    /// The nodes' design, and the promise.
    design: Design,
    events: Vec<(Millis, Event)>,
    traffic: Traffic,
}

/// A history that breaks a promise, and what is left of it after shrinking.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// How many events and packets are left.
    pub(super) left: (usize, usize),
    /// The events in it, for people.
    pub(super) text: String,
}

/// The first history that breaks a promise, of as many as are asked for.
pub(super) fn search(seed: u64, count: u32) -> Option<Failure> {
    let seeds: Vec<u64> = (0..u64::from(count)).map(|number| seed.wrapping_add(number)).collect();
    let broken = at_once(&seeds, |&seed| History::new(seed).fault().is_some());
    let (&seed, _) = seeds.iter().zip(broken).find(|(_, broken)| *broken)?;
    History::new(seed).shrink()
}

impl History {
    /// The history that a seed stands for.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, 0);
        let learning = random.between(10, 60);
        let idle = random.between(2 * learning, 4 * learning) as u16;
        let horizon = random.between(300, 900) * SECOND;
        let shape = Shape {
            flows: random.between(100, 400),
            horizon,
            silence: learning * SECOND,
            long_life: (60 * SECOND, 600 * SECOND),
            // Beyond what is promised, and some beyond what entries outlive.
            silent_tail: Some((learning * SECOND, 2 * u32::from(idle) * SECOND)),
            odd: true,
        };
        let pools = vec![0..BACKENDS, BACKENDS..2 * BACKENDS];
        let setting = Setting {
            fleet: Fleet { nodes: NODES, pools, present: BACKENDS - 2, seed },
            geometry: Geometry { cpus: 2, sets: 256 },
            ecmp: if random.once_in(2) { Ecmp::Reshuffle } else { Ecmp::Resilient },
            idle,
            survey: random.below(6 * SECOND),
            // So few that ids are soon used again.
            ids: 2 * u32::from(BACKENDS) + 2,
            covered_silence: learning,
        };
        let events = events(&mut random, horizon);
        let traffic = Traffic::new(&shape, random.next());
        Self { seed, setting, design: Design::exception(learning), events, traffic }
    }

    fn run(&self, events: &[(Millis, Event)], traffic: &Traffic, log: bool) -> Outcome {
        let acts = self.setting.fleet.acts(events);
        simulate(&self.setting, traffic, &acts, self.design, log)
    }

    /// The promise that it breaks, if it does.
    pub(super) fn fault(&self) -> Option<Fault> {
        let outcome = self.run(&self.events, &self.traffic, false);
        outcome.fault.map(|(fault, ..)| fault)
    }

    /// The same promise broken by few events and few packets of few flows.
    fn shrink(&self) -> Option<Failure> {
        let wanted = self.fault()?;
        let fails = |events: &[(Millis, Event)], traffic: &Traffic| {
            self.run(events, traffic, false).fault.is_some_and(|(fault, ..)| fault == wanted)
        };
        let (_, at, flow) = self.run(&self.events, &self.traffic, false).fault?;
        // Nothing later matters, and seldom another flow.
        let mut packets: Vec<Packet> =
            self.traffic.packets.iter().copied().filter(|packet| packet.at() <= at).collect();
        let alone: Vec<Packet> = packets.iter().copied().filter(|packet| packet.flow() == flow).collect();
        if fails(&self.events, &self.traffic.only(alone.clone())) {
            packets = alone;
        }
        let traffic = self.traffic.only(packets.clone());
        let events = fewest(&self.events, |events| fails(events, &traffic));
        let packets = fewest(&packets, |packets| fails(&events, &self.traffic.only(packets.to_vec())));
        let outcome = self.run(&events, &self.traffic.only(packets.clone()), true);
        Some(Failure { left: (events.len(), packets.len()), text: self.text(wanted, &outcome.log) })
    }

    fn text(&self, fault: Fault, log: &[(Millis, String)]) -> String {
        let promise = match fault {
            Fault::Connection => "a connection breaks that the guarantee covers",
            Fault::DeadMember => "a packet is sent to a member that was published as dead",
            Fault::OtherPool => "a packet is sent to another pool's member",
            Fault::Draining => "a new connection is sent to a backend that drains",
        };
        let Setting { geometry, covered_silence, ecmp, idle, .. } = &self.setting;
        let mut text = format!(
            "history {}: {promise}\n{NODES} nodes of {} CPUs, ECMP {ecmp:?}; silences up to {covered_silence} s are covered, \
             slots learn for {} s, entries idle after {} s\n",
            self.seed,
            geometry.cpus,
            self.design.learning(),
            idle
        );
        for (at, line) in log {
            let (seconds, millis) = (at / SECOND, at % SECOND);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{seconds:5}.{millis:03}  {line}");
        }
        text
    }
}

/// Up to a dozen events, some at nearly the same time, some far apart.
fn events(random: &mut Random, horizon: Millis) -> Vec<(Millis, Event)> {
    let mut at = 0;
    let mut dead_since = [0; 2 * BACKENDS as usize];
    let mut events = Vec::new();
    for _ in 0..random.between(2, 14) {
        at += match random.below(3) {
            0 => random.between(0, 4 * SECOND),
            1 => random.between(0, 60 * SECOND),
            _ => random.between(0, horizon / 4),
        };
        let event = event(random);
        if let Event::Stop(backend) | Event::Die(backend) = event {
            dead_since[usize::from(backend)] = at;
        }
        let at = match event {
            Event::Return(backend) => at.max(dead_since[usize::from(backend)] + RETURN),
            _ => at,
        };
        events.push((at, event));
    }
    events.sort_by_key(|(at, _)| *at);
    events
}

/// Few backends and nodes, so that things meet.
fn event(random: &mut Random) -> Event {
    let pool = if random.once_in(4) { BACKENDS } else { 0 };
    let backend = pool + if random.once_in(2) { random.below(3) } else { random.below(BACKENDS.into()) } as u16;
    let node = random.below(NODES as u32) as usize;
    match random.below(20) {
        0..5 => Event::Drain(backend),
        5..7 => Event::Undrain(backend),
        7..9 => Event::Stop(backend),
        9 => Event::Die(backend),
        10..12 => Event::Return(backend),
        12 => Event::Add(pool + BACKENDS - 1 - random.below(2) as u16),
        13..15 => Event::Weigh(backend, [25, 50, 100, 150][random.below(4) as usize]),
        15 => Event::Leave(node),
        16 => Event::Join(node),
        17 => Event::RestartWithMaps(node),
        18 => Event::RestartWithout(node),
        _ => Event::DealCpus(node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shortest of some histories that break their promise once the nodes are changed like this. Not the first one: a
    /// flow that is covered only as long as it goes on needs all of its packets.
    fn failure(change: impl Fn(&mut History)) -> Failure {
        let histories = (0..20).filter_map(|seed| {
            let mut history = History::new(seed);
            change(&mut history);
            history.shrink()
        });
        histories.min_by_key(|failure| failure.left).expect("a history that breaks its promise")
    }

    #[test]
    fn random_histories_keep_their_promises() {
        assert!(search(1, 20).is_none_or(|failure| panic!("{}", failure.text)));
    }

    #[test]
    fn nodes_that_learn_for_less_than_they_promise_are_found_out() {
        let Failure { left, text } = failure(|history| history.design = Design::exception(3));
        assert!(left.0 <= 2 && left.1 <= 4, "{text}");
        assert!(text.contains("slots learn for 3 s") && text.contains(": broken"), "{text}");
    }

    #[test]
    fn nodes_that_settle_before_flows_have_ended_are_found_out() {
        let Failure { left, text } = failure(|history| history.setting.idle = 1);
        assert!(left.0 <= 3 && left.1 <= 6, "{text}");
    }

    #[test]
    fn a_history_repeats_itself() {
        let run = || {
            let history = History::new(5);
            let outcome = history.run(&history.events, &history.traffic, true);
            (outcome.broken, outcome.ended, outcome.log)
        };
        assert_eq!(run(), run());
    }
}
