//! Reports backends whose next hop is lost or resolved again, by the names of all backends that have the address. It must not know
//! how reports are shown.

use std::collections::BTreeMap;
use std::net::IpAddr;

use maglev_model::digest::Digest;
use maglev_model::{Resolution, Services};

use super::News;
use crate::addresses::Addresses;

/// The last reports of addresses, as far as they decide whether a change is news.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Addresses of backends and VIPs, as far as their next hops are known.
    known: BTreeMap<IpAddr, State>,
    /// Addresses whose next hops changed.
    moved: BTreeMap<IpAddr, Resolution>,
    /// The services whose addresses these are.
    services: Option<Digest>,
    /// The addresses of these services.
    followed: Addresses,
}

/// Whether an address was reachable when that was last known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reached,
    Lost,
}

impl Reach {
    /// The next hop of an address changed. [`Self::news`] has it with the names of its backends.
    pub(super) fn moved(&mut self, address: IpAddr, resolution: &Resolution) {
        self.moved.insert(address, resolution.clone());
    }

    /// The backends of these services that are newly reachable or unreachable.
    pub(super) fn news(&mut self, services: &Services, digest: Digest) -> Vec<News> {
        let others = self.services.replace(digest) != Some(digest);
        if self.moved.is_empty() && !others {
            return Vec::new();
        }
        if others {
            let vips = services.vips.values().map(|vip| vip.service.address()).collect();
            let delta = self.followed.follow(services.pools.values(), vips);
            // An address that is removed and added again is a new one.
            for address in &delta.removed {
                self.known.remove(address);
            }
        }
        if self.moved.is_empty() || self.followed.is_empty() {
            // Next hops are looked up before the first services are published.
            return Vec::new();
        }
        let mut moved = std::mem::take(&mut self.moved);
        moved.retain(|address, resolution| self.followed.contains(address) && self.is_news(*address, resolution));
        if moved.is_empty() {
            return Vec::new();
        }
        let all = services.pools.values().flat_map(|pool| pool.backends.values().map(move |backend| (pool, backend)));
        let news = all.filter_map(|(pool, backend)| {
            let lost = match moved.get(&backend.address)? {
                Resolution::Resolved { .. } => None,
                Resolution::Unresolved(reason) => Some(reason.clone()),
            };
            let (pool, backend, address) = (pool.name.clone(), backend.name.clone(), backend.address);
            Some(News::Reach { pool, backend, address, lost })
        });
        news.collect()
    }

    /// Records the next hop of an address. The first one is no news, nor is a change of next hop, nor that it has to be resolved
    /// first.
    fn is_news(&mut self, address: IpAddr, resolution: &Resolution) -> bool {
        let before = self.known.get(&address).copied();
        let now = match resolution {
            Resolution::Resolved { .. } => State::Reached,
            Resolution::Unresolved(_) if before.is_none() && resolution.is_waiting() => return false,
            Resolution::Unresolved(_) => State::Lost,
        };
        self.known.insert(address, now);
        now != before.unwrap_or(State::Reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_model::{AdminState, Backend, Change, Name, OuterSources, Pool, Rules, Weight};

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    /// Services with these backends of pool `web`, and their digest.
    fn services(backends: &[(&str, u8)]) -> (Services, Digest) {
        let rules =
            Rules { outer: OuterSources { v4: Some("10.64.0.0/24".parse().unwrap()), v6: None }, ..Rules::default() };
        let mut services = Services::default();
        services.admit(Change::AddPool(Pool::new(name("web"))), &rules).unwrap();
        for (backend, host) in backends {
            let backend = Backend {
                name: name(backend),
                address: at(*host),
                weight: Weight::DEFAULT,
                state: AdminState::Active,
                mtu: None,
            };
            services.admit(Change::AddBackend { pool: name("web"), backend }, &rules).unwrap();
        }
        let digest = Digest::from_services(&services);
        (services, digest)
    }

    const BOTH: [(&str, u8); 2] = [("web1", 11), ("web2", 12)];

    fn at(host: u8) -> IpAddr {
        [10, 0, 1, host].into()
    }

    fn resolved(last: u8) -> Resolution {
        Resolution::Resolved { interface: 2, mac: [2, 0, 0, 0, 0, last], gateway: None, mtu: None }
    }

    fn lost(reason: &str) -> Resolution {
        Resolution::Unresolved(reason.to_owned())
    }

    /// The news of rounds of changed next hops: `web2 lost: why`, `web2 reached`.
    fn reports(reach: &mut Reach, rounds: &[&[(u8, Resolution)]]) -> Vec<String> {
        let (services, digest) = services(&BOTH);
        let mut reported = Vec::new();
        for round in rounds {
            round.iter().for_each(|(host, resolution)| reach.moved(at(*host), resolution));
            reported.extend(shown(reach.news(&services, digest)));
        }
        reported
    }

    fn shown(news: Vec<News>) -> Vec<String> {
        let one = |news| match news {
            News::Reach { backend, lost: Some(why), .. } => format!("{backend} lost: {why}"),
            News::Reach { backend, lost: None, .. } => format!("{backend} reached"),
            other => panic!("{other:?}"),
        };
        news.into_iter().map(one).collect()
    }

    #[test]
    fn backends_are_reported_when_they_are_lost_and_when_they_are_back() {
        let reported = reports(
            &mut Reach::default(),
            &[
                &[(11, resolved(1)), (12, lost("no route"))],
                &[(11, resolved(2)), (12, lost("no answer"))],
                &[(11, lost("no route")), (11, resolved(2)), (12, resolved(3))],
            ],
        );
        assert_eq!(reported, ["web2 lost: no route", "web2 reached"]);
    }

    #[test]
    fn a_backend_that_is_removed_and_added_again_is_another() {
        let mut reach = Reach::default();
        let ((with, with_digest), (without, without_digest)) = (services(&BOTH), services(&BOTH[1..]));
        let mut reported = Vec::new();
        for _ in 0..2 {
            reach.moved(at(11), &lost("no route"));
            reported.extend(shown(reach.news(&with, with_digest)));
            reported.extend(shown(reach.news(&without, without_digest)));
        }
        assert_eq!(reported, ["web1 lost: no route"; 2]);
    }

    #[test]
    fn next_hops_found_before_the_services_are_published_are_reported_then() {
        let mut reach = Reach::default();
        reach.moved(at(11), &lost("no route"));
        let none = Services::default();
        assert_eq!(shown(reach.news(&none, Digest::from_services(&none))), [""; 0]);
        assert_eq!(reports(&mut reach, &[&[]]), ["web1 lost: no route"]);
    }

    #[test]
    fn that_a_next_hop_has_to_be_resolved_first_is_no_alarm() {
        let waiting = Resolution::waiting("neighbor");
        let reported = reports(
            &mut Reach::default(),
            &[
                &[(11, waiting.clone()), (12, waiting.clone())],
                &[(11, resolved(1)), (12, lost("neighbor does not answer"))],
                &[(11, waiting.clone()), (12, waiting)],
            ],
        );
        assert_eq!(reported, ["web2 lost: neighbor does not answer", "web1 lost: waiting for neighbor"]);
    }
}
