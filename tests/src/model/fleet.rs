//! Events of backends and nodes, and when each node learns of them: never all at the same moment. It must not know
//! flows.

use std::fmt;
use std::ops::Range;

use maglev_model::Name;

use super::random::{mix, scale};
use super::{Millis, SECOND};

/// A backend's ordered state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not configured.
    Absent,
    /// It takes new connections.
    Active,
    /// It keeps those that it has.
    Draining,
    /// It takes no packets.
    Disabled,
}

/// A node's information about a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) pool: u8,
    pub(super) backend: u16,
    pub(super) standing: Standing,
    /// Whether its neighbor answers.
    pub(super) reachable: bool,
    pub(super) weight: u16,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Event {
    /// A backend is added to its pool.
    Add(u16),
    /// A backend is drained.
    Drain(u16),
    /// A drain is taken back.
    Undrain(u16),
    /// A backend is disabled, and its process ends.
    Stop(u16),
    /// A backend dies; after some seconds nodes find that it cannot be reached.
    Die(u16),
    /// A backend that was stopped or died is back, and knows none of its connections.
    Return(u16),
    /// A backend gets another weight.
    Weigh(u16, u16),
    /// A node's routes are withdrawn; it still receives changes.
    Leave(usize),
    /// A node's routes are announced again.
    Join(usize),
    /// A node's daemon starts anew over its maps; for ten seconds changes are not processed.
    RestartWithMaps(usize),
    /// A node starts anew without its maps.
    RestartWithout(usize),
    /// A node's network card deals flows to CPUs anew.
    DealCpus(usize),
    /// A flood comes by that is so large that it takes the place of every unconfirmed entry of a node.
    Flood(usize),
}

/// An act of the simulation at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// It happens, where it happens.
    Happen(Event),
    /// A node receives changes, which it processes at once.
    Report(usize, Vec<News>),
}

/// Backends, nodes and pools at the beginning.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    pub(super) nodes: usize,
    /// The backends of each pool, by number.
    pub(super) pools: Vec<Range<u16>>,
    /// How many of each pool's backends are there from the beginning.
    pub(super) present: u16,
    pub(super) seed: u64,
}

/// The weight of a backend that was given no other.
pub(super) const WEIGHT: u16 = 100;
/// By how much one node receives a change later than another.
const SKEW: Millis = 3 * SECOND;
/// Until a neighbor that does not answer is given up.
const UNNOTICED: Millis = 2 * SECOND;
/// How long a daemon takes to start anew.
pub(super) const RESTART: Millis = 10 * SECOND;
/// So many backends of a pool stay active.
const LEAST_ACTIVE: usize = 2;

/// A script in the making.
struct Director<'a> {
    fleet: &'a Fleet,
    /// By number, the nodes' information about each backend.
    backends: Vec<News>,
    live: Vec<bool>,
    /// By node, when it next receives a change at the earliest: it receives changes in their order.
    next_report: Vec<Millis>,
    acts: Vec<(Millis, Act)>,
}

impl Fleet {
    /// The backends that exist from the beginning, as every node knows them.
    pub(super) fn beginning(&self) -> Vec<News> {
        self.backends().into_iter().filter(|news| news.standing == Standing::Active).collect()
    }

    /// All backends that there can be, as they are at the beginning.
    fn backends(&self) -> Vec<News> {
        let of_pool = |(pool, backends): (u8, &Range<u16>)| {
            let first_absent = backends.start + self.present;
            let standing = move |backend| if backend < first_absent { Standing::Active } else { Standing::Absent };
            let news =
                move |backend| News { pool, backend, standing: standing(backend), reachable: true, weight: WEIGHT };
            backends.clone().map(news)
        };
        (0..).zip(&self.pools).flat_map(of_pool).collect()
    }

    /// What is done when, if these events happen. What is not possible as things stand is left out: so any part of a
    /// history is one.
    pub(super) fn acts(&self, events: &[(Millis, Event)]) -> Vec<(Millis, Act)> {
        let (live, next_report) = (vec![true; self.nodes], vec![0; self.nodes]);
        let mut director = Director { fleet: self, backends: self.backends(), live, next_report, acts: Vec::new() };
        events.iter().for_each(|&(at, event)| director.take(at, event));
        director.in_order()
    }
}

impl Director<'_> {
    fn take(&mut self, at: Millis, event: Event) {
        if !self.is_possible(event) {
            return;
        }
        self.acts.push((at, Act::Happen(event)));
        match event {
            Event::Add(backend) | Event::Undrain(backend) => {
                self.report(at, event, backend, |news| news.standing = Standing::Active);
            }
            Event::Drain(backend) => self.report(at, event, backend, |news| news.standing = Standing::Draining),
            Event::Stop(backend) => self.report(at, event, backend, |news| news.standing = Standing::Disabled),
            Event::Die(backend) => self.report(at, event, backend, |news| news.reachable = false),
            Event::Return(backend) => self.report(at, event, backend, |news| {
                news.reachable = true;
                // A draining backend that was unreachable continues to drain.
                if news.standing == Standing::Disabled {
                    news.standing = Standing::Active;
                }
            }),
            Event::Weigh(backend, weight) => self.report(at, event, backend, |news| news.weight = weight),
            Event::Leave(node) => self.live[node] = false,
            Event::Join(node) => self.live[node] = true,
            Event::RestartWithMaps(node) => self.next_report[node] = self.next_report[node].max(at + RESTART),
            Event::RestartWithout(_) | Event::DealCpus(_) | Event::Flood(_) => {}
        }
    }

    fn is_possible(&self, event: Event) -> bool {
        use Standing::{Absent, Active, Disabled, Draining};
        let of = |backend: u16| &self.backends[usize::from(backend)];
        match event {
            Event::Add(backend) => of(backend).standing == Absent,
            Event::Drain(backend) => of(backend).standing == Active && self.can_spare(backend),
            Event::Undrain(backend) => of(backend).standing == Draining,
            Event::Stop(backend) => matches!(of(backend).standing, Active | Draining) && self.can_spare(backend),
            Event::Die(backend) => {
                matches!(of(backend).standing, Active | Draining) && of(backend).reachable && self.can_spare(backend)
            }
            Event::Return(backend) => of(backend).standing == Disabled || !of(backend).reachable,
            Event::Weigh(backend, weight) => weight != of(backend).weight && of(backend).standing != Absent,
            Event::Leave(node) => self.live[node] && self.live.iter().filter(|live| **live).count() > 1,
            Event::Join(node) => !self.live[node],
            Event::RestartWithMaps(_) | Event::RestartWithout(_) | Event::DealCpus(_) | Event::Flood(_) => true,
        }
    }

    /// Whether enough others of its pool take new connections.
    fn can_spare(&self, backend: u16) -> bool {
        let pool = self.backends[usize::from(backend)].pool;
        let takes = |news: &&News| news.standing == Standing::Active && news.reachable;
        let others = self.backends.iter().filter(|news| news.pool == pool && news.backend != backend);
        others.filter(takes).count() >= LEAST_ACTIVE
    }

    /// In the order of time. Events of a moment come before the reports of it, and a node's reports are one.
    fn in_order(mut self) -> Vec<(Millis, Act)> {
        let key = |(at, act): &(Millis, Act)| (*at, if let Act::Report(node, _) = act { Some(*node) } else { None });
        self.acts.sort_by_key(key);
        let mut acts: Vec<(Millis, Act)> = Vec::new();
        for (at, act) in self.acts {
            match (acts.last_mut(), &act) {
                (Some((then, Act::Report(last, all))), Act::Report(node, news)) if *then == at && last == node => {
                    all.extend(news);
                }
                _ => acts.push((at, act)),
            }
        }
        acts
    }

    fn report(&mut self, at: Millis, event: Event, backend: u16, change: impl FnOnce(&mut News)) {
        let news = &mut self.backends[usize::from(backend)];
        change(news);
        let unnoticed = if matches!(event, Event::Die(_)) { UNNOTICED } else { 0 };
        for (node, next_report) in self.next_report.iter_mut().enumerate() {
            // A function of the event alone: leaving out another one changes nothing here.
            let draw = mix(self.fleet.seed ^ mix(u64::from(at) << 32 | u64::from(backend) << 8 | node as u64));
            *next_report = (*next_report).max(at + unnoticed + scale(draw, SKEW));
            self.acts.push((*next_report, Act::Report(node, vec![*news])));
        }
    }
}

/// A pool's or a backend's name; in the order of numbers.
pub(super) fn name(kind: &str, number: u16) -> Name {
    Name::parse(&format!("{kind}{number:03}")).expect("letters and digits are a name")
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |backend| name("web", backend);
        match *self {
            Self::Add(backend) => write!(f, "{} is added", name(backend)),
            Self::Drain(backend) => write!(f, "{} is drained", name(backend)),
            Self::Undrain(backend) => write!(f, "the drain of {} is taken back", name(backend)),
            Self::Stop(backend) => write!(f, "{} is stopped", name(backend)),
            Self::Die(backend) => write!(f, "{} dies", name(backend)),
            Self::Return(backend) => write!(f, "{} is back", name(backend)),
            Self::Weigh(backend, weight) => write!(f, "{} weighs {weight}", name(backend)),
            Self::Leave(node) => write!(f, "node {node} leaves"),
            Self::Join(node) => write!(f, "node {node} is back"),
            Self::RestartWithMaps(node) => write!(f, "node {node}'s daemon restarts"),
            Self::RestartWithout(node) => write!(f, "node {node} restarts without its maps"),
            Self::DealCpus(node) => write!(f, "node {node} deals flows to CPUs anew"),
            Self::Flood(node) => write!(f, "a flood comes by node {node}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: (Millis, Event) = (1_000, Event::Drain(1));

    fn fleet() -> Fleet {
        Fleet { nodes: 2, pools: vec![0..3, 3..6], present: 3, seed: 1 }
    }

    #[test]
    fn nodes_receive_a_change_within_three_seconds_and_in_order() {
        let acts = fleet().acts(&[DRAIN, (1_001, Event::Stop(1)), (1_002, Event::Return(1))]);
        let of_node = |wanted| {
            let news = |(at, act): &(Millis, Act)| match act {
                Act::Report(node, news) if *node == wanted => news.iter().map(|news| (*at, news.standing)).collect(),
                _ => Vec::new(),
            };
            acts.iter().flat_map(news).collect::<Vec<_>>()
        };
        for node in [0, 1] {
            let received = of_node(node);
            let standings: Vec<Standing> = received.iter().map(|(_, standing)| *standing).collect();
            assert_eq!(standings, [Standing::Draining, Standing::Disabled, Standing::Active]);
            assert!(received.iter().all(|(at, _)| (1_000..4_002).contains(at)), "{received:?}");
        }
        assert_ne!(of_node(0), of_node(1));
    }

    #[test]
    fn a_daemon_that_restarts_receives_it_later_and_everything_at_once() {
        let acts = fleet().acts(&[(900, Event::RestartWithMaps(1)), DRAIN, (2_000, Event::Add(2))]);
        let acts = [acts, fleet().acts(&[(900, Event::RestartWithMaps(1)), DRAIN, (2_000, Event::Undrain(1))])];
        let received = acts.map(|acts| match acts.last() {
            Some((10_900, Act::Report(1, news))) => news.len(),
            _ => 0,
        });
        assert_eq!(received, [1, 2], "what is there already is not added");
    }

    #[test]
    fn impossible_events_do_not_happen() {
        let happens = |events: &[(Millis, Event)]| {
            let acts = fleet().acts(events);
            acts.iter().filter(|(_, act)| matches!(act, Act::Happen(_))).count()
        };
        assert_eq!(happens(&[DRAIN, (2_000, Event::Drain(1)), (2_000, Event::Drain(2))]), 1, "two stay active");
        assert_eq!(happens(&[DRAIN, (2_000, Event::Undrain(1)), (2_500, Event::Drain(2))]), 3);
        assert_eq!(happens(&[(1, Event::Return(1)), (1, Event::Add(1)), (1, Event::Undrain(1))]), 0);
        assert_eq!(happens(&[(1, Event::Leave(0)), (2, Event::Leave(1)), (3, Event::Join(1))]), 1, "one stays");
    }

    #[test]
    fn the_rest_of_a_history_does_not_depend_on_what_is_left_out() {
        let both = fleet().acts(&[DRAIN, (60_000, Event::Drain(4))]);
        let one = fleet().acts(&[(60_000, Event::Drain(4))]);
        assert!(one.iter().all(|act| both.contains(act)));
    }
}
