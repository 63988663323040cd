//! From what netlink told to what is known of the way to an address: pure. It must not know sockets, tasks or a clock.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::net::links::Link;
use crate::reconcile::Resolution;

/// The kernel's answer for one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Through an interface, to the destination itself or to a gateway.
    Unicast {
        /// The outgoing interface's index.
        interface: u32,
        /// The gateway, unless the destination is on-link.
        gateway: Option<IpAddr>,
    },
    /// The destination is this host.
    Local,
    /// The route says that packets go nowhere.
    Refused,
    /// There is no route.
    Missing,
    /// The kernel could not be asked.
    Unknown(String),
}

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Neighbour {
    /// Its MAC address, known or at least not disproved.
    Usable {
        /// The address.
        mac: [u8; 6],
        /// Entered by hand: it needs no probe.
        permanent: bool,
    },
    /// Asked for.
    Incomplete,
    /// It did not answer.
    Failed,
}

/// A neighbour by interface index and address.
pub(super) type Place = (u32, IpAddr);

/// The interfaces and neighbours of this host.
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    /// By index.
    pub(super) links: BTreeMap<u32, Link>,
    neighbours: BTreeMap<Place, Neighbour>,
}

/// What follows for one address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// What is known of the way.
    pub(super) resolution: Resolution,
    /// The neighbour that has to be kept known.
    pub(super) probe: Option<Place>,
}

impl Knowledge {
    /// A neighbour's new state; `None` if the kernel forgot it. One that failed stays so until it answers, however
    /// often it is asked again.
    pub(super) fn neighbour_changed(&mut self, place: Place, state: Option<Neighbour>) {
        let failed = self.neighbours.get(&place) == Some(&Neighbour::Failed);
        match state {
            Some(Neighbour::Incomplete) | None if failed => {}
            Some(state) => {
                self.neighbours.insert(place, state);
            }
            None => {
                self.neighbours.remove(&place);
            }
        }
    }

    /// All neighbours anew.
    pub(super) fn replace_neighbours(&mut self, neighbours: impl IntoIterator<Item = (Place, Neighbour)>) {
        let before = std::mem::take(&mut self.neighbours);
        self.neighbours.extend(before.into_iter().filter(|(_, state)| *state == Neighbour::Failed));
        for (place, state) in neighbours {
            self.neighbour_changed(place, Some(state));
        }
    }

    /// Forgets failures of neighbours nobody asks for.
    pub(super) fn forget_failed(&mut self, wanted: impl Fn(&Place) -> bool) {
        self.neighbours.retain(|place, state| *state != Neighbour::Failed || wanted(place));
    }

    /// What is known of a neighbour.
    pub(super) fn neighbour(&self, place: &Place) -> Option<Neighbour> {
        self.neighbours.get(place).copied()
    }

    /// What is known of the way to an address.
    pub(super) fn decide(&self, address: IpAddr, route: &Route) -> Decision {
        let without_probe = |resolution| Decision { resolution, probe: None };
        let unresolved = |text| without_probe(Resolution::Unresolved(text));
        let (interface, gateway) = match route {
            Route::Unicast { interface, gateway } => (*interface, *gateway),
            Route::Local => return unresolved(format!("{address} is an address of this host")),
            Route::Refused => {
                return unresolved(format!("the route to {address} is unreachable, blackhole or prohibit"));
            }
            Route::Missing => return unresolved(format!("no route to {address}")),
            Route::Unknown(reason) => return unresolved(format!("cannot look up the route to {address}: {reason}")),
        };
        let Some(link) = self.links.get(&interface) else {
            let what = format_args!("interface {interface} on the route to {address}");
            return without_probe(Resolution::waiting(what));
        };
        let name = &link.name;
        if !link.up {
            return unresolved(format!("interface {name} is down"));
        }
        if link.mac.is_none() {
            return unresolved(format!("interface {name} on the route to {address} is not Ethernet"));
        }
        let neighbour = gateway.unwrap_or(address);
        let place = (interface, neighbour);
        let resolution = match self.neighbour(&place) {
            Some(Neighbour::Usable { mac, .. }) => Resolution::Resolved { interface, mac, gateway },
            Some(Neighbour::Failed) => {
                Resolution::Unresolved(format!("neighbour {neighbour} on {name} does not answer"))
            }
            Some(Neighbour::Incomplete) | None => Resolution::waiting(format_args!("neighbour {neighbour} on {name}")),
        };
        Decision { resolution, probe: Some(place) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const USABLE: Neighbour = Neighbour::Usable { mac: MAC, permanent: false };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn knowledge(up: bool) -> Knowledge {
        let link = Link { index: 3, name: "eth1".to_owned(), mac: Some([2; 6]), mtu: 1_500, up, xdp: None };
        Knowledge { links: BTreeMap::from([(3, link)]), neighbours: BTreeMap::new() }
    }

    fn text(knowledge: &Knowledge, route: &Route) -> String {
        match knowledge.decide(address("10.0.1.11"), route).resolution {
            Resolution::Unresolved(text) => text,
            resolved @ Resolution::Resolved { .. } => panic!("{resolved:?}"),
        }
    }

    const ON_LINK: Route = Route::Unicast { interface: 3, gateway: None };

    #[test]
    fn every_way_to_wait_says_what_is_awaited() {
        let mut known = knowledge(true);
        assert_eq!(text(&known, &Route::Missing), "no route to 10.0.1.11");
        assert_eq!(text(&known, &Route::Local), "10.0.1.11 is an address of this host");
        assert!(text(&known, &Route::Refused).contains("blackhole"));
        assert!(text(&known, &Route::Unknown("no memory".to_owned())).contains("no memory"));
        assert!(text(&known, &Route::Unicast { interface: 4, gateway: None }).contains("interface 4"));
        assert_eq!(text(&known, &ON_LINK), "waiting for neighbour 10.0.1.11 on eth1");
        let gateway = Some(address("10.0.0.1"));
        assert_eq!(text(&known, &Route::Unicast { interface: 3, gateway }), "waiting for neighbour 10.0.0.1 on eth1");
        known.neighbour_changed((3, address("10.0.1.11")), Some(Neighbour::Failed));
        assert_eq!(text(&known, &ON_LINK), "neighbour 10.0.1.11 on eth1 does not answer");
        assert_eq!(text(&knowledge(false), &ON_LINK), "interface eth1 is down");
        known.links.get_mut(&3).unwrap().mac = None;
        assert!(text(&known, &ON_LINK).contains("not Ethernet"));
    }

    #[test]
    fn a_usable_gateway_resolves() {
        let (gateway, mut known) = (address("10.0.0.1"), knowledge(true));
        known.neighbour_changed((3, gateway), Some(USABLE));
        let decision = known.decide(address("10.0.1.11"), &Route::Unicast { interface: 3, gateway: Some(gateway) });
        let resolution = Resolution::Resolved { interface: 3, mac: MAC, gateway: Some(gateway) };
        assert_eq!(decision, Decision { resolution, probe: Some((3, gateway)) });
    }

    #[test]
    fn a_failed_neighbour_stays_failed_until_it_answers() {
        let (place, mut known) = ((3, address("10.0.1.11")), knowledge(true));
        known.neighbour_changed(place, Some(Neighbour::Incomplete));
        assert_eq!(known.neighbour(&place), Some(Neighbour::Incomplete));
        known.neighbour_changed(place, Some(Neighbour::Failed));
        known.neighbour_changed(place, Some(Neighbour::Incomplete));
        known.neighbour_changed(place, None);
        known.replace_neighbours([(place, Neighbour::Incomplete)]);
        assert_eq!(known.neighbour(&place), Some(Neighbour::Failed));
        known.neighbour_changed(place, Some(USABLE));
        assert_eq!(known.neighbour(&place), Some(USABLE));
        known.neighbour_changed(place, None);
        assert_eq!(known.neighbour(&place), None);
    }

    #[test]
    fn the_same_address_on_another_interface_is_another_neighbour() {
        let mut known = knowledge(true);
        known.neighbour_changed((4, address("10.0.1.11")), Some(USABLE));
        assert_eq!(text(&known, &ON_LINK), "waiting for neighbour 10.0.1.11 on eth1");
    }
}
