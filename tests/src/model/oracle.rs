//! The oracle: it knows where each connection really lives, and ends it when its backend stops. It must not know tables,
//! nodes or designs.

use super::traffic::Flow;
use super::{Millis, SECOND};

/// So soon after a flow was seen, a SYN never moves it: less than three seconds in whole seconds.
const STRAY_SYN: Millis = 2 * SECOND;

/// A backend's life, distinguished from its earlier and later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Home {
    backend: u16,
    life: u16,
}

/// The oracle's record of a flow.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    home: Option<Home>,
    last_at: Millis,
    established: bool,
    over: bool,
    /// Whether something happened to it that the guarantee leaves out.
    excused: bool,
    /// Whether its slot was in transition when it was seen last.
    was_moving: bool,
}

/// A packet that reached a backend, or none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) at: Millis,
    pub(super) syn: bool,
    /// Whether its slot was in transition, where it came by.
    pub(super) is_moving: bool,
    pub(super) to: Option<u16>,
}

/// The fate of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It came where it belongs, or opens a connection.
    Well,
    /// No backend took it; a dropped packet is sent again.
    Dropped,
    /// Its connection ended with its backend, or never came to be.
    Ended,
    /// It came to another backend than the connection's: the connection is broken. Whether the guarantee covers it.
    Broken { within_guarantee: bool },
}

/// Backends and flows, as they really are.
#[derive(Clone, Debug)]
pub(super) struct Oracle {
    fates: Vec<Fate>,
    /// By backend, whether it is up, and how many lives it had before.
    backends: Vec<(bool, u16)>,
    /// The longest silence that the guarantee covers.
    silence: Millis,
}

impl Oracle {
    /// No flow has begun yet.
    pub(super) fn new(flows: &[Flow], backends: u16, silence: Millis) -> Self {
        // Flows of equal hash take each other's place in flow tables.
        let fate = |flow: &Flow| Fate { excused: flow.twin, ..Fate::default() };
        Self { fates: flows.iter().map(fate).collect(), backends: vec![(false, 0); backends.into()], silence }
    }

    /// A backend begins to serve.
    pub(super) fn start(&mut self, backend: u16) {
        self.backends[usize::from(backend)].0 = true;
    }

    /// A backend's connections end.
    pub(super) fn stop(&mut self, backend: u16) {
        let (up, life) = &mut self.backends[usize::from(backend)];
        (*up, *life) = (false, *life + 1);
    }

    /// Whether a flow's packets matter no more.
    #[inline]
    pub(super) fn is_over(&self, flow: usize) -> bool {
        self.fates[flow].over
    }

    /// Whether a packet of a flow has reached a backend.
    pub(super) fn has_begun(&self, flow: usize) -> bool {
        self.fates[flow].home.is_some()
    }

    /// Whether a flow has begun and goes on.
    pub(super) fn is_alive(&self, flow: usize) -> bool {
        let fate = &self.fates[flow];
        !fate.over && fate.home.is_some_and(|home| self.lives(home))
    }

    /// Something happened to a flow that the guarantee leaves out.
    pub(super) fn excuse(&mut self, flow: usize) {
        self.fates[flow].excused = true;
    }

    /// The same, to all flows of a backend.
    pub(super) fn excuse_all(&mut self, backend: u16) {
        let here = |fate: &&mut Fate| fate.home.is_some_and(|home| home.backend == backend);
        self.fates.iter_mut().filter(here).for_each(|fate| fate.excused = true);
    }

    /// A packet of a flow has arrived.
    pub(super) fn deliver(&mut self, number: usize, flow: &Flow, arrival: Arrival) -> Verdict {
        let Arrival { at, syn, is_moving, to } = arrival;
        let fate = self.fates[number];
        let silent = fate.home.is_some() && at - fate.last_at > self.silence;
        // A SYN that begins nothing, spoofed or sent again before its answer came, moves no flow that was recorded
        // shortly before. Whether others live cannot be known.
        let stray = fate.home.is_some() && syn && (fate.established || flow.late_answer);
        let known = fate.was_moving && at - fate.last_at <= STRAY_SYN;
        let excused = fate.excused || silent || stray && is_moving && !known;
        let mut next = Fate { last_at: at, excused, was_moving: is_moving, ..fate };
        let verdict = self.judge(&mut next, flow, syn, to);
        next.over = matches!(verdict, Verdict::Ended | Verdict::Broken { .. });
        self.fates[number] = next;
        verdict
    }

    fn judge(&self, fate: &mut Fate, flow: &Flow, syn: bool, to: Option<u16>) -> Verdict {
        if fate.home.is_some_and(|home| !self.lives(home)) {
            return Verdict::Ended;
        }
        let is_first = fate.home.is_none() && (syn || flow.datagram);
        // The handshake is completed with the backend that answered: with the one that the last SYN reached, unless the answer
        // to the first one is under way.
        let asks_again = syn && !fate.established && !flow.late_answer;
        if is_first || asks_again {
            fate.home = to.filter(|&backend| self.backends[usize::from(backend)].0).map(|backend| self.home(backend));
            return Verdict::Well;
        }
        fate.established |= !syn;
        let Some(home) = fate.home else { return Verdict::Ended };
        match to {
            None => Verdict::Dropped,
            Some(backend) if backend == home.backend || syn => Verdict::Well,
            Some(_) => Verdict::Broken { within_guarantee: !fate.excused },
        }
    }

    fn home(&self, backend: u16) -> Home {
        Home { backend, life: self.backends[usize::from(backend)].1 }
    }

    fn lives(&self, home: Home) -> bool {
        self.home(home.backend) == home
    }
}

#[cfg(test)]
mod tests {
    use maglev_common::hash::FlowHash;

    use super::*;

    const FLOW: Flow =
        Flow { hash: FlowHash(0), route: 0, pool: 0, datagram: false, late_answer: false, twin: false, again: false };

    const BROKEN: Verdict = Verdict::Broken { within_guarantee: true };

    fn oracle() -> Oracle {
        let mut oracle = Oracle::new(&[FLOW], 3, 100);
        (0..3).for_each(|backend| oracle.start(backend));
        oracle
    }

    /// The fate of packets: when, whether a SYN, and the backend they reach.
    fn verdicts(oracle: &mut Oracle, flow: &Flow, packets: &[(Millis, bool, Option<u16>)]) -> Vec<Verdict> {
        packets
            .iter()
            .map(|&(at, syn, to)| oracle.deliver(0, flow, Arrival { at, syn, is_moving: false, to }))
            .collect()
    }

    #[test]
    fn a_connection_breaks_once_where_it_does_not_live() {
        let packets = [(0, true, Some(1)), (1, false, Some(1)), (2, false, None), (3, false, Some(2))];
        let mut oracle = oracle();
        let found = verdicts(&mut oracle, &FLOW, &packets);
        assert_eq!(found, [Verdict::Well, Verdict::Well, Verdict::Dropped, BROKEN]);
        assert!(oracle.is_over(0));
    }

    #[test]
    fn a_connection_ends_with_its_backend_even_if_that_comes_back() {
        let mut oracle = oracle();
        verdicts(&mut oracle, &FLOW, &[(0, true, Some(1)), (1, false, Some(1))]);
        assert!(oracle.is_alive(0));
        oracle.stop(1);
        oracle.start(1);
        assert!(!oracle.is_alive(0));
        assert_eq!(verdicts(&mut oracle, &FLOW, &[(2, false, Some(2))]), [Verdict::Ended]);
    }

    #[test]
    fn the_last_syn_decides_where_a_connection_lives_unless_the_first_ones_answer_is_under_way() {
        let packets =
            [(0, true, Some(1)), (1, true, Some(2)), (2, false, Some(2)), (3, true, Some(1)), (4, false, Some(1))];
        let found = verdicts(&mut oracle(), &FLOW, &packets);
        assert_eq!(found[2..], [Verdict::Well, Verdict::Well, BROKEN]);
        let late = Flow { late_answer: true, ..FLOW };
        assert_eq!(verdicts(&mut oracle(), &late, &packets)[2], BROKEN);
    }

    #[test]
    fn a_dead_backend_answers_no_syn() {
        let mut oracle = oracle();
        oracle.stop(1);
        let found = verdicts(&mut oracle, &FLOW, &[(0, true, Some(1)), (1, true, Some(2)), (2, false, Some(2))]);
        assert_eq!(found, [Verdict::Well; 3]);
        let mut oracle = Oracle::new(&[FLOW], 3, 100);
        assert_eq!(verdicts(&mut oracle, &FLOW, &[(0, true, Some(1)), (1, false, Some(1))])[1], Verdict::Ended);
    }

    #[test]
    fn a_flow_silent_for_too_long_is_excused() {
        let broken =
            |last| *verdicts(&mut oracle(), &FLOW, &[(0, true, Some(1)), (last, false, Some(2))]).last().unwrap();
        assert_eq!(broken(100), BROKEN);
        assert_eq!(broken(101), Verdict::Broken { within_guarantee: false });
    }
}
