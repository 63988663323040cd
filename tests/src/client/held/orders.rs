//! The orders to held connections, and when each of them is to speak next. Pure.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::Plan;
use crate::bytes::Words;

/// Over how long those that leave spread themselves: a thousand new connections at once would overflow the links.
pub(super) const LEAVING: Duration = Duration::from_secs(1);

/// The orders for all from now on.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders {
    /// Every second connection keeps silent, and speaks again at some moment between these two.
    pub(super) hushed: Option<[Instant; 2]>,
    /// Connections that live on these backends, since before that moment, move elsewhere.
    pub(super) leaving: BTreeMap<Arc<str>, Instant>,
    /// Everyone comes to an end.
    pub(super) over: bool,
}

/// One held connection's own rhythm: the same numbers in the same order for the same plan and place.
#[derive(Clone, Debug)]
pub(super) struct Rhythm {
    place: usize,
    gaps: [Duration; 2],
    chance: Words,
}

impl Rhythm {
    /// Every fifth is silent for all of the plan's silence at a time; the others speak at the plan's pace, more or less.
    pub(super) fn new(plan: &Plan, place: usize) -> Self {
        let Plan { targets: _, held: _, arrivals: _, pace, silence, seed } = plan;
        let gaps = if place.is_multiple_of(5) { [*silence; 2] } else { [*pace / 2, *pace * 3 / 2] };
        Self { place, gaps, chance: Words(seed.wrapping_add(place as u64).wrapping_mul(0x2545_f491_4f6c_dd1d)) }
    }

    /// How many bytes to say.
    pub(super) fn length(&mut self) -> usize {
        16 + (self.chance.next_word() % 256) as usize
    }

    /// How long to be silent now.
    pub(super) fn gap(&mut self) -> Duration {
        let [from, to] = self.gaps;
        from + (to - from).mul_f64(self.fraction())
    }

    /// The first silence after its opening: some part of a whole one, so that those opened together part.
    pub(super) fn first_gap(&mut self) -> Duration {
        self.gap().mul_f64(self.fraction())
    }

    /// Some part of a whole.
    pub(super) fn fraction(&mut self) -> f64 {
        (self.chance.next_word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// When to speak, if it were `due` without orders; `part` is this connection's place in what is spread out.
    pub(super) fn speaks(&self, due: Instant, part: f64, orders: &Orders) -> Instant {
        match orders.hushed {
            Some([from, to]) if !self.place.is_multiple_of(2) => due.max(from + (to - from).mul_f64(part)),
            _ => due,
        }
    }
}

impl Orders {
    /// When a connection of this backend that was opened then is to leave, if it is.
    pub(super) fn leaves(&self, home: &str, born: Instant, part: f64) -> Option<Instant> {
        self.leaving.get(home).filter(|since| born < **since).map(|since| *since + LEAVING.mul_f64(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            targets: Vec::new(),
            held: 10,
            arrivals: 0,
            pace: Duration::from_secs(2),
            silence: Duration::from_secs(9),
            seed: 7,
        }
    }

    #[test]
    fn a_fifth_is_silent_and_the_others_talk_at_their_pace() {
        for place in 0..10 {
            let mut rhythm = Rhythm::new(&plan(), place);
            let gaps: Vec<Duration> = (0..100).map(|_| rhythm.gap()).collect();
            let seconds = if place % 5 == 0 { [9, 9] } else { [1, 3] }.map(Duration::from_secs);
            assert!(gaps.iter().all(|gap| (seconds[0]..=seconds[1]).contains(gap)), "{place}: {gaps:?}");
        }
    }

    #[test]
    fn the_hushed_half_speaks_no_sooner_than_ordered() {
        let now = Instant::now();
        let [from, to] = [8, 9].map(|seconds| now + Duration::from_secs(seconds));
        let orders = Orders { hushed: Some([from, to]), ..Orders::default() };
        let speaks = |place, due| Rhythm::new(&plan(), place).speaks(due, 0.5, &orders);
        assert_eq!(speaks(2, now), now);
        assert_eq!(speaks(3, now), from + Duration::from_millis(500));
        assert_eq!(speaks(3, to + Duration::from_secs(1)), to + Duration::from_secs(1));
    }

    #[test]
    fn only_earlier_connections_leave() {
        let now = Instant::now();
        let orders = Orders { leaving: [("web1".into(), now)].into(), ..Orders::default() };
        let before = now.checked_sub(Duration::from_millis(1)).expect("this machine has run for a millisecond");
        assert_eq!(orders.leaves("web1", before, 0.5), Some(now + LEAVING / 2));
        assert_eq!(orders.leaves("web1", now, 0.5), None);
        assert_eq!(orders.leaves("web2", before, 0.5), None);
    }
}
