//! Tells operators what happened, as events. It must not know who listens; the log is written where things happen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use maglev_api::view::{HealthState, What};
use maglev_core::announced;
use maglev_core::health::News;
use maglev_core::reconcile::{View, VipView};
use maglev_model::digest::Digest;
use maglev_model::{Name, Resolution};

use super::plane::Refreshed;
use crate::http::{Caller, Journal};

/// What was told, as far as it decides what is news.
#[derive(Debug)]
pub(super) struct Teller {
    journal: Journal,
    /// Addresses of backends and VIPs, as far as the way to them is known.
    reach: BTreeMap<IpAddr, Reach>,
    /// Addresses whose next hops changed.
    moved: BTreeMap<IpAddr, Resolution>,
    /// The services whose addresses these are.
    services: Option<Digest>,
    /// The VIPs that cannot be served, and why.
    conflicts: BTreeMap<Name, String>,
}

/// Whether an address could be reached when it was last known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// It could.
    Reached,
    /// It could not, which was told.
    Lost,
}

impl Teller {
    pub(super) fn new(journal: Journal) -> Self {
        Self { journal, reach: BTreeMap::new(), moved: BTreeMap::new(), services: None, conflicts: BTreeMap::new() }
    }

    pub(super) fn tell(&self, what: What) {
        self.journal.tell(what);
    }

    /// What checks say.
    pub(super) fn health(&self, news: &News) {
        self.tell(match news {
            News::Health { pool, backend, health, reason } => What::BackendHealth {
                pool: pool.to_string(),
                backend: backend.to_string(),
                health: HealthState::from(*health),
                reason: reason.as_deref().map(str::to_owned),
            },
            News::Panic { pool, on, healthy, of } => {
                What::PoolPanic { pool: pool.to_string(), on: *on, healthy: *healthy, of: *of }
            }
            News::CommonFailure { on, healthy } => What::CommonFailure { on: *on, healthy: *healthy },
        });
    }

    /// The way to an address changed: told with the names of its backends, by [`Self::look`].
    pub(super) fn moved(&mut self, address: IpAddr, resolution: &Resolution) {
        self.moved.insert(address, resolution.clone());
    }

    /// A prefix is announced to a first neighbor, or to none any more.
    pub(super) fn announced(&self, announced::News { prefix, vips, withdrawn }: announced::News) {
        self.tell(What::Prefix { prefix, announced: withdrawn.is_none(), vips, reason: withdrawn });
    }

    /// Tells what is new in the state as it is now: backends in and out of reach, and VIPs in conflict.
    pub(super) fn look(&mut self, view: &View) {
        self.look_at_ways(view);
        self.look_at_conflicts(view);
    }

    fn look_at_conflicts(&mut self, view: &View) {
        let found = |vip: &VipView| Some((vip.name.clone(), vip.conflict.clone()?));
        let now: BTreeMap<Name, String> = view.vips.iter().filter_map(found).collect();
        let before = std::mem::replace(&mut self.conflicts, now);
        for (vip, reason) in self.conflicts.iter().filter(|(vip, reason)| before.get(*vip) != Some(*reason)) {
            tracing::error!(%vip, "a VIP is not served: {reason}");
            self.tell(What::VipError { vip: vip.to_string(), reason: Some(reason.clone()) });
        }
        for vip in before.into_keys().filter(|vip| !self.conflicts.contains_key(vip)) {
            tracing::info!(%vip, "a VIP is served again: its address is needed by nothing else any more");
            self.tell(What::VipError { vip: vip.to_string(), reason: None });
        }
    }

    fn look_at_ways(&mut self, view: &View) {
        let others = self.services.replace(view.services) != Some(view.services);
        if self.moved.is_empty() && !others {
            return;
        }
        let backends = view.pools.iter().flat_map(|pool| &pool.backends).map(|backend| backend.address);
        let followed: BTreeSet<IpAddr> = backends.chain(view.vips.iter().map(|vip| vip.service.address)).collect();
        // Whoever goes and comes again is new.
        self.reach.retain(|address, _| followed.contains(address));
        if followed.is_empty() {
            // Ways are looked for before the first services are published.
            return;
        }
        let mut moved = std::mem::take(&mut self.moved);
        moved.retain(|address, resolution| followed.contains(address) && self.is_news(*address, resolution));
        let all = view.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
        for (pool, backend) in all {
            let reason = match moved.get(&backend.address) {
                None => continue,
                Some(Resolution::Resolved { .. }) => None,
                Some(Resolution::Unresolved(reason)) => Some(reason.clone()),
            };
            self.tell(What::BackendReach {
                pool: pool.name.to_string(),
                backend: backend.name.to_string(),
                address: backend.address,
                reachable: reason.is_none(),
                reason,
            });
        }
    }

    /// Takes in the way to an address. Who is reached for the first time, or by another way than before, is no news; nor is
    /// that a way has to be found first.
    fn is_news(&mut self, address: IpAddr, resolution: &Resolution) -> bool {
        let before = self.reach.get(&address).copied();
        let now = match resolution {
            Resolution::Resolved { .. } => Reach::Reached,
            Resolution::Unresolved(_) if before.is_none() && resolution.is_waiting() => return false,
            Resolution::Unresolved(_) => Reach::Lost,
        };
        self.reach.insert(address, now);
        now != before.unwrap_or(Reach::Reached)
    }

    /// A change that an operator made.
    pub(super) fn changed(&self, change: String, Caller { uid, pid }: Caller) {
        self.tell(What::Changed { change, uid, pid });
    }

    /// What became of the interfaces: the program came off them, or is on them again; they have other names.
    pub(super) fn interfaces(&self, before: &Refreshed, now: &Refreshed) {
        let owned = |(name, now): (&str, &str)| (name.to_owned(), now.to_owned());
        let names = |all: &Refreshed| all.renamed().map(owned).collect::<BTreeMap<_, _>>();
        let (names_before, names_now) = (names(before), names(now));
        for (interface, name) in names_now.iter().filter(|(name, now)| names_before.get(*name) != Some(*now)) {
            tracing::error!(interface, renamed_to = name, "an interface was renamed; the next start would wait for it");
            self.tell(What::InterfaceName { interface: interface.clone(), renamed_to: Some(name.clone()) });
        }
        for interface in names_before.into_keys().filter(|name| !names_now.contains_key(name)) {
            tracing::info!(interface, "an interface has the name again that maglev.yaml gives it");
            self.tell(What::InterfaceName { interface, renamed_to: None });
        }
        self.attached(&before.refresh.detached, &now.refresh.detached);
    }

    fn attached(&self, before: &[String], now: &[String]) {
        let changed = |one: &[String], other: &[String], attached| -> Vec<What> {
            let gone = one.iter().filter(|name| !other.contains(name));
            gone.map(|name| What::Interface { interface: name.clone(), attached }).collect()
        };
        changed(now, before, false).into_iter().chain(changed(before, now, true)).for_each(|what| self.tell(what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_core::reconcile::{Event, Reconciler, RequestId, Settings};
    use std::time::Duration;

    fn teller() -> (Teller, Journal) {
        let journal = Journal::start();
        (Teller::new(journal.clone()), journal)
    }

    /// What was told, in sentences.
    fn told(journal: &Journal) -> Vec<String> {
        journal.recent(None).events.into_iter().map(|event| event.text).collect()
    }

    /// The state with backends `web1` and `web2` of pool `web`.
    fn view() -> View {
        view_of(&["{ name: web1, address: 10.0.1.11 }", "{ name: web2, address: 10.0.1.12 }"])
    }

    /// The state with these backends of pool `web`.
    fn view_of(backends: &[&str]) -> View {
        let text = format!("pools: [{{ name: web, backends: [{}] }}]\nvips: []\n", backends.join(", "));
        let rules = maglev_model::Rules {
            outer: maglev_model::OuterSources { v4: Some("10.64.0.0/24".parse().unwrap()), v6: None },
            ..Default::default()
        };
        let services = maglev_config::decode_services(std::path::Path::new("services.yaml"), &text, &rules).unwrap();
        let mut reconciler = Reconciler::new(Settings { rules, ..Settings::default() });
        reconciler.handle(Event::Reload { request: RequestId(1), services }, Duration::ZERO);
        reconciler.handle(Event::Flush, Duration::ZERO);
        reconciler.view()
    }

    #[test]
    fn backends_are_told_when_they_are_lost_and_when_they_are_back() {
        let (mut teller, journal) = teller();
        let view = view();
        let [web1, web2]: [IpAddr; 2] = [[10, 0, 1, 11].into(), [10, 0, 1, 12].into()];
        let resolved =
            |last| Resolution::Resolved { interface: 2, mac: [2, 0, 0, 0, 0, last], gateway: None, mtu: None };
        let lost = |why: &str| Resolution::Unresolved(why.to_owned());
        let rounds = [
            vec![(web1, resolved(1)), (web2, lost("no route"))],
            vec![(web1, resolved(2)), (web2, lost("no answer"))],
            vec![(web1, lost("no route")), (web1, resolved(2)), (web2, resolved(3))],
        ];
        for round in rounds {
            round.iter().for_each(|(address, resolution)| teller.moved(*address, resolution));
            teller.look(&view);
        }
        let expected =
            ["backend web2 of pool web is out of reach: no route", "backend web2 of pool web can be reached again"];
        assert_eq!(told(&journal), expected);
    }

    #[test]
    fn a_backend_that_is_removed_and_added_again_is_another() {
        let (mut teller, journal) = teller();
        let address: IpAddr = [10, 0, 1, 11].into();
        let lost = Resolution::Unresolved("no route".to_owned());
        for _ in 0..2 {
            teller.moved(address, &lost);
            teller.look(&view());
            teller.look(&view_of(&["{ name: web2, address: 10.0.1.12 }"]));
        }
        assert_eq!(told(&journal), ["backend web1 of pool web is out of reach: no route"; 2]);
    }

    #[test]
    fn what_is_found_before_the_services_are_published_is_told_then() {
        let (mut teller, journal) = teller();
        teller.moved([10, 0, 1, 11].into(), &Resolution::Unresolved("no route".to_owned()));
        teller.look(&Reconciler::new(Settings::default()).view());
        teller.look(&view());
        assert_eq!(told(&journal), ["backend web1 of pool web is out of reach: no route"]);
    }

    #[test]
    fn that_a_way_has_to_be_found_first_is_no_alarm() {
        let (mut teller, journal) = teller();
        let view = view();
        let [web1, web2]: [IpAddr; 2] = [[10, 0, 1, 11].into(), [10, 0, 1, 12].into()];
        let waiting = Resolution::waiting("neighbour");
        let resolved = Resolution::Resolved { interface: 2, mac: [2, 0, 0, 0, 0, 1], gateway: None, mtu: None };
        let rounds = [
            [(web1, waiting.clone()), (web2, waiting.clone())],
            [(web1, resolved), (web2, Resolution::Unresolved("neighbour does not answer".to_owned()))],
            [(web1, waiting.clone()), (web2, waiting)],
        ];
        for round in rounds {
            round.iter().for_each(|(address, resolution)| teller.moved(*address, resolution));
            teller.look(&view);
        }
        let expected = [
            "backend web2 of pool web is out of reach: neighbour does not answer",
            "backend web1 of pool web is out of reach: waiting for neighbour",
        ];
        assert_eq!(told(&journal), expected);
    }

    #[test]
    fn interfaces_are_told_when_they_lose_the_program_and_when_they_have_it_again() {
        let (teller, journal) = teller();
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
        teller.attached(&[], &names(&["eth0", "eth1"]));
        teller.attached(&names(&["eth0", "eth1"]), &names(&["eth1"]));
        let [lost, other, back] = &told(&journal)[..] else { panic!() };
        assert_eq!([lost, other], ["the XDP program came off eth0", "the XDP program came off eth1"]);
        assert_eq!(back, "the XDP program is attached to eth0 again");
    }
}
