//! Withdraw before forgetting: a removed VIP is served until neighbors have moved traffic away from the prefixes that
//! held it. It must not know why a prefix was withdrawn.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use maglev_model::{Name, Vip};

/// How long neighbors may take to be sent a withdrawal. For one that reads nothing the wait ends then.
pub(super) const SENT: Duration = Duration::from_secs(1);

/// How long neighbors that were sent it take to move traffic to other nodes.
pub(super) const TURNED: Duration = Duration::from_millis(100);

/// Prefixes that neighbors move traffic away from, and the VIPs that are served until they have.
#[derive(Debug, Default)]
pub(super) struct Release {
    withdrawn: BTreeMap<IpNet, Turning>,
    departing: BTreeMap<Name, Turning>,
}

/// A withdrawal that neighbors may not have applied yet.
#[derive(Clone, Copy, Debug)]
struct Turning {
    /// The version of the wanted routes that withdraws.
    version: u64,
    sent: bool,
    /// When it is over, whatever neighbors have received.
    until: Duration,
}

impl Release {
    /// This version of the wanted routes withdraws these prefixes.
    pub(super) fn withdraw(&mut self, prefixes: Vec<IpNet>, version: u64, now: Duration) {
        let turning = Turning { version, sent: false, until: now + SENT + TURNED };
        self.withdrawn.extend(prefixes.into_iter().map(|prefix| (prefix, turning)));
    }

    /// Neighbors were sent more. `is_sent`: every neighbor was sent this version of the routes.
    pub(super) fn sent(&mut self, is_sent: impl Fn(u64) -> bool, now: Duration) {
        let all = self.withdrawn.values_mut().chain(self.departing.values_mut());
        for turning in all.filter(|turning| !turning.sent && is_sent(turning.version)) {
            turning.sent = true;
            turning.until = turning.until.min(now + TURNED);
        }
    }

    /// When [`Self::due`] has a VIP, if no other event comes before.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.departing.values().map(|turning| turning.until).min()
    }

    /// Of these VIPs, which are all that are removed and still served: those that need not be served any longer. Each waits for
    /// the withdrawals before its removal, and for none after it.
    pub(super) fn due<'a>(&mut self, departing: impl Iterator<Item = &'a Vip>, now: Duration) -> BTreeSet<Name> {
        self.withdrawn.retain(|_, turning| now < turning.until);
        let mut known = std::mem::take(&mut self.departing);
        let mut due = BTreeSet::new();
        for vip in departing {
            let turning = known.remove(&vip.name).or_else(|| self.last_withdrawal(vip));
            match turning.filter(|turning| now < turning.until) {
                Some(turning) => drop(self.departing.insert(vip.name.clone(), turning)),
                None => drop(due.insert(vip.name.clone())),
            }
        }
        due
    }

    /// The last withdrawal of a prefix with the VIP's addresses.
    fn last_withdrawal(&self, vip: &Vip) -> Option<Turning> {
        let found = self.withdrawn.iter().filter(|(prefix, _)| prefix.contains(&vip.service.network));
        found.map(|(_, turning)| *turning).max_by_key(|turning| turning.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_model::{Announce, Service};
    use maglev_testing::matrix::Row;

    const NOW: Duration = Duration::from_secs(100);

    fn vip(n: u8) -> Vip {
        let service = Service::parse(&format!("203.0.113.{n}"), "80", "tcp").unwrap();
        let name = |text: &str| Name::parse(text).unwrap();
        Vip {
            name: name(&format!("v{n}")),
            service,
            pool: name("web"),
            announce: Announce::default(),
            when_empty: maglev_model::Unserved::Drop,
            affinity: maglev_model::Affinity::default(),
        }
    }

    fn prefix(n: u8) -> IpNet {
        vip(n).prefix().unwrap()
    }

    /// Which of these VIPs need not be served any longer.
    fn due(release: &mut Release, vips: &[u8], now: Duration) -> Vec<String> {
        let vips: Vec<Vip> = vips.iter().copied().map(vip).collect();
        release.due(vips.iter(), now).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_vip_is_served_until_neighbors_turned_elsewhere() {
        {
            let _row = Row::fault("R8", "a removed VIP waits for neighbors to be sent its withdrawal, and is due");
            let mut release = Release::default();
            release.withdraw(vec![prefix(1)], 3, NOW);
            assert_eq!(due(&mut release, &[1], NOW), [""; 0]);
            release.sent(|version| version < 3, NOW);
            assert_eq!(release.deadline(), Some(NOW + SENT + TURNED));
            release.sent(|version| version <= 3, NOW);
            assert_eq!(release.deadline(), Some(NOW + TURNED));
            release.sent(|_| true, NOW + TURNED);
            assert_eq!(due(&mut release, &[1], NOW + TURNED), ["v1"], "being sent it again delays nothing");
            assert_eq!(release.deadline(), None);
        }
        let _row = Row::fault("R8", "a neighbor that is never sent it holds a removal up for a second");
        let mut release = Release::default();
        release.withdraw(vec![prefix(1)], 1, NOW);
        assert_eq!(due(&mut release, &[1], NOW + SENT), [""; 0]);
        assert_eq!(due(&mut release, &[1], NOW + SENT + TURNED), ["v1"]);
    }

    #[test]
    fn a_vip_waits_for_the_withdrawal_of_its_own_address_alone() {
        let _row = Row::fault("R8", "a removal that comes after the withdrawal it belongs to waits as well");
        let mut release = Release::default();
        release.withdraw(vec![prefix(1), "203.0.113.8/29".parse().unwrap()], 1, NOW);
        assert_eq!((due(&mut release, &[2], NOW), release.deadline()), (vec!["v2".to_owned()], None));
        let later = NOW + TURNED;
        assert_eq!(due(&mut release, &[1, 2, 9], later), ["v2"]);
        assert_eq!(release.deadline(), Some(NOW + SENT + TURNED));
        assert_eq!(due(&mut release, &[1, 9], NOW + SENT + TURNED), ["v1", "v9"]);
    }

    #[test]
    fn a_vip_waits_for_no_withdrawal_that_comes_after_its_removal() {
        let _row = Row::fault("R8", "prefixes are withdrawn one after the other: each removal waits for its own");
        let mut release = Release::default();
        release.withdraw(vec![prefix(1)], 1, NOW);
        assert_eq!(due(&mut release, &[1], NOW), [""; 0]);
        release.withdraw(vec![prefix(1), prefix(2)], 2, NOW + SENT);
        assert_eq!(due(&mut release, &[1, 2], NOW + SENT + TURNED), ["v1"]);
        assert_eq!(release.deadline(), Some(NOW + 2 * SENT + TURNED));
        release.sent(|version| version == 2, NOW + SENT + TURNED);
        assert_eq!(due(&mut release, &[2], NOW + SENT + 2 * TURNED), ["v2"]);
    }

    #[test]
    fn a_vip_that_is_there_again_and_goes_once_more_waits_anew() {
        let mut release = Release::default();
        release.withdraw(vec![prefix(1)], 1, NOW);
        assert_eq!(due(&mut release, &[1], NOW), [""; 0]);
        assert_eq!(due(&mut release, &[], NOW + TURNED), [""; 0]);
        release.withdraw(vec![prefix(1)], 3, NOW + SENT);
        assert_eq!(due(&mut release, &[1], NOW + SENT + TURNED), [""; 0]);
        assert_eq!(release.deadline(), Some(NOW + 2 * SENT + TURNED));
    }
}
