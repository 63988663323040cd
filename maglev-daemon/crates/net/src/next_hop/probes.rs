//! When each neighbor is asked again: pure; times are parameters. It must not know how a neighbor is asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::decide::{Neighbour, Place, Proof};

/// A neighbor that answered is asked again after this time, so that one that died is noticed.
pub(super) const KEEP_FRESH: Duration = Duration::from_secs(30);
/// One that did not answer is asked again after this time at first, then after twice as long each time …
const RETRY: Duration = Duration::from_secs(1);
/// … up to this time.
const RETRY_AT_MOST: Duration = Duration::from_secs(16);

#[derive(Debug)]
struct Probe {
    due: Instant,
    /// How long to wait after the next unanswered probe.
    retry: Duration,
    /// Whether the neighbor was usable at the last probe.
    usable: bool,
}

/// The neighbors that are kept known.
#[derive(Debug)]
pub(super) struct Probes {
    probes: BTreeMap<Place, Probe>,
    /// [`KEEP_FRESH`], but in tests.
    keep_fresh: Duration,
}

impl Probes {
    /// None yet.
    pub(super) fn new(keep_fresh: Duration) -> Self {
        Self { probes: BTreeMap::new(), keep_fresh }
    }

    /// Keeps exactly these; a new one is due now.
    pub(super) fn keep(&mut self, wanted: impl IntoIterator<Item = Place>, now: Instant) {
        let mut before = std::mem::take(&mut self.probes);
        self.probes = wanted
            .into_iter()
            .map(|place| {
                let new = Probe { due: now, retry: RETRY, usable: false };
                (place, before.remove(&place).unwrap_or(new))
            })
            .collect();
    }

    /// Whether a neighbor is kept known.
    pub(super) fn contains(&self, place: &Place) -> bool {
        self.probes.contains_key(place)
    }

    /// The earliest time at which some neighbor is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.probes.values().map(|probe| probe.due).min()
    }

    /// The neighbors to ask now; each is due again after its wait. `state` returns each one's state.
    pub(super) fn take_due(&mut self, now: Instant, state: impl Fn(&Place) -> Option<Neighbour>) -> Vec<Place> {
        let mut due = Vec::new();
        for (place, probe) in self.probes.iter_mut().filter(|(_, probe)| probe.due <= now) {
            match state(place) {
                Some(Neighbour::Usable { proof: Proof::Permanent, .. }) => probe.due = now + self.keep_fresh,
                Some(Neighbour::Usable { proof: Proof::Old | Proof::Answered, .. }) => {
                    (probe.due, probe.retry) = (now + self.keep_fresh, RETRY);
                    due.push(*place);
                }
                Some(Neighbour::Incomplete | Neighbour::Failed) | None => {
                    probe.due = now + probe.retry;
                    probe.retry = (probe.retry * 2).min(RETRY_AT_MOST);
                    due.push(*place);
                }
            }
        }
        due
    }

    /// A neighbor's state changed: one that is lost is asked for at once, one that is found rests.
    pub(super) fn changed(&mut self, place: &Place, usable: bool, now: Instant) {
        let Some(probe) = self.probes.get_mut(place) else { return };
        match (probe.usable, usable) {
            (false, true) => *probe = Probe { due: now + self.keep_fresh, retry: RETRY, usable },
            (true, false) => *probe = Probe { due: now, retry: RETRY, usable },
            (true, true) | (false, false) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USABLE: Neighbour = Neighbour::Usable { mac: [2; 6], proof: Proof::Old };

    fn place() -> Place {
        (3, "10.0.1.11".parse().unwrap())
    }

    #[test]
    fn an_unanswered_probe_is_repeated_ever_more_slowly() {
        let start = Instant::now();
        let mut probes = Probes::new(KEEP_FRESH);
        probes.keep([place()], start);
        let mut waits = Vec::new();
        let mut now = start;
        for _ in 0..7 {
            assert_eq!(probes.take_due(now, |_| Some(Neighbour::Failed)), [place()]);
            let next = probes.next().unwrap();
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 16, 16]);
    }

    #[test]
    fn a_found_neighbor_rests_and_a_lost_one_is_asked_for_at_once() {
        let now = Instant::now();
        let mut probes = Probes::new(KEEP_FRESH);
        probes.keep([place()], now);
        probes.changed(&place(), true, now);
        assert_eq!(probes.next(), Some(now + KEEP_FRESH));
        assert_eq!(probes.take_due(now + KEEP_FRESH, |_| Some(USABLE)), [place()]);
        let later = now + Duration::from_secs(40);
        probes.changed(&place(), false, later);
        assert_eq!(probes.next(), Some(later));
    }

    #[test]
    fn a_permanent_neighbor_is_not_asked_and_an_unwanted_one_is_dropped() {
        let now = Instant::now();
        let mut probes = Probes::new(KEEP_FRESH);
        probes.keep([place()], now);
        assert!(probes.take_due(now, |_| Some(Neighbour::Usable { mac: [2; 6], proof: Proof::Permanent })).is_empty());
        probes.keep([], now);
        assert_eq!(probes.next(), None);
        assert!(!probes.contains(&place()));
    }
}
