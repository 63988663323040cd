//! The scenarios that are compared: what happens, and what the design must reach in it.

use maglev_common::maps::DEFAULT_FLOW_SETS;

use super::fleet::{Event, Fleet};
use super::node::Geometry;
use super::router::Ecmp;
use super::simulation::Setting;
use super::traffic::Shape;
use super::{Millis, SECOND};

/// Backends that are there from the beginning.
pub(super) const BACKENDS: u16 = 20;
/// Nodes.
pub(super) const NODES: usize = 4;
/// CPUs of a node.
pub(super) const CPUS: u32 = 2;
/// Seconds for which a flow entry counts: the shipped default.
const IDLE: u16 = 15 * 60;
/// Traffic flows for so long before anything happens.
const WARM: Millis = 600 * SECOND;
/// For so long in all.
const HORIZON: Millis = 2_400 * SECOND;
/// One backend after the other: drained, stopped a minute later, back ten seconds later, and the next one.
const TURN: Millis = 75 * SECOND;
/// So many sets that no flow ever finds its bucket full.
pub(super) const UNLIMITED_SETS: u32 = 1 << 20;

/// The target of connections by exception, learning 120 s, without the silent tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// None may break.
    None,
    /// At most half of what `always` breaks.
    HalfOfAlways,
    /// Shown for comparison.
    Shown,
}

/// Something that happens to a fleet.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) title: &'static str,
    pub(super) bound: Bound,
    pub(super) events: Vec<(Millis, Event)>,
}

/// All of them.
pub(super) fn all() -> Vec<Scenario> {
    let scenario = |title, bound, events| Scenario { title, bound, events };
    let at = |seconds: u32, event| (WARM + seconds * SECOND, event);
    let drain = || at(0, Event::Drain(7));
    let rolling = |more: &[(Millis, Event)]| {
        let mut events: Vec<_> = (0..BACKENDS).flat_map(turn).chain(more.iter().copied()).collect();
        events.sort_by_key(|(at, _)| *at);
        events
    };
    let midst = 10 * TURN / SECOND + 30;
    vec![
        scenario("drain one backend", Bound::None, vec![drain()]),
        scenario(
            "four drains, 20 s apart",
            Bound::None,
            (0..4).map(|n| at(20 * u32::from(n), Event::Drain(5 * n))).collect(),
        ),
        scenario("add a backend", Bound::None, vec![at(0, Event::Add(BACKENDS))]),
        scenario(
            "halve a backend's weight, and back 300 s later",
            Bound::None,
            vec![at(0, Event::Weigh(7, 50)), at(300, Event::Weigh(7, 100))],
        ),
        scenario("rolling restart of every backend, 60 s drain each", Bound::None, rolling(&[])),
        scenario(
            "drain a backend, a node lost 60 s later",
            Bound::HalfOfAlways,
            vec![drain(), at(60, Event::Leave(2))],
        ),
        scenario(
            "drain a backend, a node out 10 min later and back",
            Bound::Shown,
            vec![drain(), at(600, Event::Leave(2)), at(660, Event::Join(2))],
        ),
        scenario(
            "rolling restart, a node out and back in the midst",
            Bound::HalfOfAlways,
            rolling(&[at(midst, Event::Leave(2)), at(midst + 60, Event::Join(2))]),
        ),
        scenario(
            "drain a backend, a node restarts without its maps 60 s later",
            Bound::Shown,
            vec![drain(), at(60, Event::RestartWithout(2))],
        ),
        scenario(
            "drain a backend, all cards deal flows anew 60 s later",
            Bound::Shown,
            std::iter::once(drain()).chain((0..NODES).map(|node| at(60, Event::DealCpus(node)))).collect(),
        ),
        scenario("drain a backend, floods for 60 s while it is learned", Bound::Shown, flooded(&drain(), 30..90)),
        scenario("drain a backend, floods for 180 s from 60 s on", Bound::Shown, flooded(&drain(), 60..240)),
    ]
}

/// A drain, and within these seconds after it floods so large that nothing unconfirmed outlives a second.
fn flooded(drain: &(Millis, Event), seconds: std::ops::Range<u32>) -> Vec<(Millis, Event)> {
    let floods = |second| (0..NODES).map(move |node| (WARM + second * SECOND, Event::Flood(node)));
    std::iter::once(*drain).chain(seconds.flat_map(floods)).collect()
}

/// A backend's turn in a rolling restart.
fn turn(backend: u16) -> [(Millis, Event); 3] {
    let begin = WARM + u32::from(backend) * TURN;
    [
        (begin, Event::Drain(backend)),
        (begin + 60 * SECOND, Event::Stop(backend)),
        (begin + 70 * SECOND, Event::Return(backend)),
    ]
}

/// A node that starts without history so many seconds after a drain began.
pub(super) fn fresh_node(after: u32) -> Vec<(Millis, Event)> {
    vec![(WARM, Event::Drain(7)), (WARM + after * SECOND, Event::RestartWithout(2))]
}

/// The traffic that all of them meet.
pub(super) fn shape(flows: u32, silent_tail: bool) -> Shape {
    Shape {
        flows,
        horizon: HORIZON,
        silence: 60 * SECOND,
        long_life: (600 * SECOND, 3_600 * SECOND),
        silent_tail: silent_tail.then_some((200 * SECOND, 400 * SECOND)),
        odd: false,
    }
}

/// The fleet that all of them happen to.
pub(super) fn setting(seed: u64, ecmp: Ecmp, unlimited: bool) -> Setting {
    let sets = if unlimited { UNLIMITED_SETS } else { DEFAULT_FLOW_SETS };
    Setting {
        fleet: Fleet { nodes: NODES, pools: std::iter::once(0..BACKENDS + 1).collect(), present: BACKENDS, seed },
        geometry: Geometry { cpus: CPUS, sets },
        ecmp,
        idle: IDLE,
        // Shorter looks would show the same, later.
        survey: 10 * SECOND,
        ids: 1_000,
        covered_silence: 0,
    }
}
