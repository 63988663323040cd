//! When each route is asked for again although no notice came: pure; times are parameters. Notices report most changes at once;
//! this finds the rest, for which the kernel sends none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Each route is asked for again after this time at the earliest …
pub(super) const EARLIEST: Duration = Duration::from_secs(10);
/// … and this time at the latest, spread evenly, so that neither the routes of one node nor the nodes ask together. An
/// answer takes some 25 µs of CPU: for 32,767 backends that is 4 % of one.
const SPREAD: Duration = Duration::from_secs(20);
/// The pause between two rounds: routes that are due within it are asked for together.
const ROUND: Duration = Duration::from_millis(100);

/// When each address is due.
#[derive(Debug)]
pub(super) struct Recheck {
    due: BTreeSet<(Instant, IpAddr)>,
    by_address: BTreeMap<IpAddr, Instant>,
    rng: fastrand::Rng,
    earliest: Duration,
    /// When the next round may begin.
    rested: Option<Instant>,
}

impl Recheck {
    /// None yet. `earliest` is [`EARLIEST`], but in tests; the latest is three times as long.
    pub(super) fn new(earliest: Duration, rng: fastrand::Rng) -> Self {
        let (due, by_address) = (BTreeSet::new(), BTreeMap::new());
        Self { due, by_address, rng, earliest, rested: None }
    }

    /// The route to an address was just asked for.
    pub(super) fn asked(&mut self, address: IpAddr, now: Instant) {
        self.forget(&address);
        let spread = self.earliest * (SPREAD.as_secs() / EARLIEST.as_secs()) as u32;
        let due = now + self.earliest + spread.mul_f64(self.rng.f64());
        self.due.insert((due, address));
        self.by_address.insert(address, due);
    }

    /// An address is not followed any more.
    pub(super) fn forget(&mut self, address: &IpAddr) {
        if let Some(due) = self.by_address.remove(address) {
            self.due.remove(&(due, *address));
        }
    }

    /// When the next round is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| self.rested.map_or(*due, |rested| rested.max(*due)))
    }

    /// The addresses whose routes are to be asked for now, `most` at most. Each is due again once it was asked for.
    pub(super) fn take_due(&mut self, now: Instant, most: usize) -> Vec<IpAddr> {
        if self.next().is_none_or(|next| next > now) {
            return Vec::new();
        }
        self.rested = Some(now + ROUND);
        let due: Vec<IpAddr> =
            self.due.iter().take_while(|(due, _)| *due <= now).take(most).map(|(_, at)| *at).collect();
        due.iter().for_each(|address| self.forget(address));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_due_again_within_the_time_and_not_all_at_once() {
        let start = Instant::now();
        let mut recheck = Recheck::new(EARLIEST, fastrand::Rng::with_seed(1));
        let all: BTreeSet<IpAddr> = (0..32_767_u32).map(|n| std::net::Ipv4Addr::from(n).into()).collect();
        all.iter().for_each(|address| recheck.asked(*address, start));
        assert!(recheck.take_due(start + EARLIEST - Duration::from_millis(1), 1_000).is_empty());
        let (mut found, mut most, mut now) = (BTreeSet::new(), 0, start + EARLIEST);
        while let Some(next) = recheck.next() {
            now = now.max(next);
            let due = recheck.take_due(now, 1_000);
            most = most.max(due.len());
            found.extend(due);
        }
        assert_eq!(found, all);
        assert!(now - start <= EARLIEST + SPREAD + ROUND, "{:?}", now - start);
        assert!(most < 400, "{most} in one round");
    }

    #[test]
    fn an_address_that_is_not_followed_any_more_is_not_due() {
        let now = Instant::now();
        let mut recheck = Recheck::new(EARLIEST, fastrand::Rng::with_seed(1));
        recheck.asked([10, 0, 0, 1].into(), now);
        recheck.forget(&[10, 0, 0, 1].into());
        assert_eq!(recheck.next(), None);
    }
}
