//! From routes, links and neighbors to the next hop of an address: pure. It must not know sockets, tasks or a clock.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use maglev_model::Resolution;

use super::gateways::Trust;
use crate::links::{Link, LinkState};

/// The kernel's answer for one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To the destination itself or to gateways.
    Unicast {
        /// The paths, at least one, sorted.
        paths: Vec<Path>,
        /// The route's own MTU, if it has one.
        mtu: Option<u32>,
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

/// One path of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path {
    /// The outgoing interface's index.
    pub(super) interface: u32,
    /// The gateway, unless the destination is on-link.
    pub(super) gateway: Option<IpAddr>,
    /// Its share among the route's paths, at least 1.
    pub(super) weight: u16,
}

impl Path {
    const fn place(&self, destination: IpAddr) -> Place {
        match self.gateway {
            Some(gateway) => (self.interface, gateway),
            None => (self.interface, destination),
        }
    }
}

impl Route {
    /// The neighbors that packets to a destination may be sent to.
    pub(super) fn places(&self, destination: IpAddr) -> impl Iterator<Item = Place> + '_ {
        let paths = if let Self::Unicast { paths, .. } = self { paths.as_slice() } else { &[] };
        paths.iter().map(move |path| path.place(destination))
    }

    /// Whether there is more than one path.
    pub(super) fn has_choice(&self) -> bool {
        matches!(self, Self::Unicast { paths, .. } if paths.len() > 1)
    }
}

/// The kernel's knowledge of a neighbor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Neighbour {
    /// Its MAC address, known or at least not disproved.
    Usable {
        /// The address.
        mac: [u8; 6],
        /// How sure that is.
        proof: Proof,
    },
    /// Asked for.
    Incomplete,
    /// It did not answer.
    Failed,
}

impl Neighbour {
    /// Its MAC address, if it is usable.
    pub(super) const fn mac(self) -> Option<[u8; 6]> {
        match self {
            Self::Usable { mac, .. } => Some(mac),
            Self::Incomplete | Self::Failed => None,
        }
    }

    /// Whether it answered a moment ago, or need not.
    pub(super) const fn is_proven(self) -> bool {
        matches!(self, Self::Usable { proof: Proof::Answered | Proof::Permanent, .. })
    }
}

/// How sure a neighbor's MAC address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// It answered a while ago.
    Old,
    /// It answered a moment ago.
    Answered,
    /// Entered by hand: it needs no probe.
    Permanent,
}

/// A neighbor by interface index and address.
pub(super) type Place = (u32, IpAddr);

/// The interfaces and neighbors of this host.
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    /// By index.
    pub(super) links: BTreeMap<u32, Link>,
    neighbours: BTreeMap<Place, Neighbour>,
}

impl Knowledge {
    /// A neighbor's new state; `None` if the kernel forgot it. One that failed stays so until it answers, however
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

    /// All neighbors anew.
    pub(super) fn replace_neighbours(&mut self, neighbours: impl IntoIterator<Item = (Place, Neighbour)>) {
        let before = std::mem::take(&mut self.neighbours);
        self.neighbours.extend(before.into_iter().filter(|(_, state)| *state == Neighbour::Failed));
        for (place, state) in neighbours {
            self.neighbour_changed(place, Some(state));
        }
    }

    /// Forgets failures of neighbors that are no longer followed.
    pub(super) fn forget_failed(&mut self, wanted: impl Fn(&Place) -> bool) {
        self.neighbours.retain(|place, state| *state != Neighbour::Failed || wanted(place));
    }

    /// The state of a neighbor.
    pub(super) fn neighbour(&self, place: &Place) -> Option<Neighbour> {
        self.neighbours.get(place).copied()
    }

    /// Whether the interface is up and has neighbors: only there can one be asked.
    pub(super) fn has_neighbours(&self, (interface, _): &Place) -> bool {
        self.links.get(interface).is_some_and(|link| link.state.is_up() && link.mac.is_some())
    }

    /// The next hop to an address. `trust` says how far each gateway of a multipath route is to be trusted.
    ///
    /// Of several paths, one that works is used: of those that are trusted alike, the destination's address chooses by
    /// weight, so that destinations spread, and only those of a gateway that dies or comes back move.
    pub(super) fn decide(&self, destination: IpAddr, route: &Route, trust: impl Fn(&Place) -> Trust) -> Resolution {
        let (paths, mtu) = match route {
            Route::Unicast { paths, mtu } => (paths, *mtu),
            Route::Local => return unresolved(format!("{destination} is an address of this host")),
            Route::Refused => {
                return unresolved(format!("the route to {destination} is unreachable, blackhole or prohibit"));
            }
            Route::Missing => return unresolved(format!("no route to {destination}")),
            Route::Unknown(reason) => {
                return unresolved(format!("cannot look up the route to {destination}: {reason}"));
            }
        };
        let judged = paths.iter().map(|path| (path, self.follow_path(destination, path, mtu)));
        let (usable, others): (Vec<_>, Vec<_>) =
            judged.partition(|(_, found)| matches!(found, Resolution::Resolved { .. }));
        let rank = |path: &Path| (trust(&path.place(destination)), Reverse(score(destination, path)));
        if let Some((_, found)) = usable.into_iter().min_by_key(|(path, _)| rank(path)) {
            return found;
        }
        // A next hop that may become known in a moment is more useful to report than one that failed.
        let waiting = others.iter().position(|(_, found)| found.is_waiting()).unwrap_or(0);
        match others.into_iter().nth(waiting) {
            Some((_, Resolution::Unresolved(reason))) if paths.len() > 1 && waiting == 0 => {
                unresolved(format!("no path of {} to {destination} works: {reason}", paths.len()))
            }
            Some((_, found)) => found,
            None => unresolved(format!("no route to {destination}")),
        }
    }

    /// The next hop, if this is the path.
    fn follow_path(&self, destination: IpAddr, path: &Path, mtu: Option<u32>) -> Resolution {
        let &Path { interface, gateway, weight: _ } = path;
        let Some(link) = self.links.get(&interface) else {
            return Resolution::waiting(format_args!("interface {interface} on the route to {destination}"));
        };
        let name = &link.name;
        if !link.state.is_up() {
            let state = if link.state == LinkState::NoCarrier { "has no carrier" } else { "is down" };
            return unresolved(format!("interface {name} {state}"));
        }
        if link.mac.is_none() {
            return unresolved(format!("interface {name} on the route to {destination} is not Ethernet"));
        }
        let place @ (_, neighbour) = path.place(destination);
        match self.neighbour(&place) {
            Some(Neighbour::Usable { mac, .. }) => Resolution::Resolved { interface, mac, gateway, mtu },
            Some(Neighbour::Failed) => unresolved(format!("neighbor {neighbour} on {name} does not answer")),
            Some(Neighbour::Incomplete) | None => Resolution::waiting(format_args!("neighbor {neighbour} on {name}")),
        }
    }
}

const fn unresolved(reason: String) -> Resolution {
    Resolution::Unresolved(reason)
}

/// How well a path suits a destination: among paths, each is the best for a part of all destinations that is in
/// proportion to its weight, whichever others there are (weighted rendezvous hashing).
fn score(destination: IpAddr, path: &Path) -> u64 {
    let Path { interface, gateway, weight } = path;
    let mut hasher = DefaultHasher::new();
    (destination, interface, gateway).hash(&mut hasher);
    // Within (0, 1); the order of positive floating point numbers is that of their bits.
    let uniform = ((hasher.finish() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    (f64::from(*weight) / -uniform.ln()).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const USABLE: Neighbour = Neighbour::Usable { mac: MAC, proof: Proof::Old };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn knowledge(up: bool) -> Knowledge {
        let state = if up { LinkState::Up } else { LinkState::Down };
        let link = Link {
            index: 3,
            name: "eth1".to_owned(),
            mac: Some([2; 6]),
            mtu: 1_500,
            state,
            xdp: None,
            vlan: None,
            master: None,
        };
        Knowledge { links: BTreeMap::from([(3, link)]), neighbours: BTreeMap::new() }
    }

    fn text(knowledge: &Knowledge, route: &Route) -> String {
        match knowledge.decide(address("10.0.1.11"), route, |_| Trust::Lives) {
            Resolution::Unresolved(text) => text,
            resolved @ Resolution::Resolved { .. } => panic!("{resolved:?}"),
        }
    }

    fn via(interface: u32, gateway: Option<IpAddr>) -> Route {
        Route::Unicast { paths: vec![Path { interface, gateway, weight: 1 }], mtu: None }
    }

    fn on_link() -> Route {
        via(3, None)
    }

    #[test]
    fn every_unresolved_next_hop_has_its_reason() {
        let mut known = knowledge(true);
        assert_eq!(text(&known, &Route::Missing), "no route to 10.0.1.11");
        assert_eq!(text(&known, &Route::Local), "10.0.1.11 is an address of this host");
        assert!(text(&known, &Route::Refused).contains("blackhole"));
        assert!(text(&known, &Route::Unknown("no memory".to_owned())).contains("no memory"));
        assert!(text(&known, &via(4, None)).contains("interface 4"));
        assert_eq!(text(&known, &on_link()), "waiting for neighbor 10.0.1.11 on eth1");
        let gateway = Some(address("10.0.0.1"));
        assert_eq!(text(&known, &via(3, gateway)), "waiting for neighbor 10.0.0.1 on eth1");
        known.neighbour_changed((3, address("10.0.1.11")), Some(Neighbour::Failed));
        assert_eq!(text(&known, &on_link()), "neighbor 10.0.1.11 on eth1 does not answer");
        assert_eq!(text(&knowledge(false), &on_link()), "interface eth1 is down");
        known.links.get_mut(&3).unwrap().mac = None;
        assert!(text(&known, &on_link()).contains("not Ethernet"));
    }

    #[test]
    fn a_usable_gateway_resolves() {
        let (gateway, mut known) = (address("10.0.0.1"), knowledge(true));
        known.neighbour_changed((3, gateway), Some(USABLE));
        let route =
            Route::Unicast { paths: vec![Path { interface: 3, gateway: Some(gateway), weight: 1 }], mtu: Some(1_400) };
        let found = known.decide(address("10.0.1.11"), &route, |_| Trust::Lives);
        let expected = Resolution::Resolved { interface: 3, mac: MAC, gateway: Some(gateway), mtu: Some(1_400) };
        assert_eq!(found, expected);
    }

    /// Two gateways behind one interface, both answering.
    fn two_gateways() -> (Knowledge, [IpAddr; 2], Route) {
        let gateways = ["10.0.0.1", "10.0.0.2"].map(address);
        let mut known = knowledge(true);
        gateways.iter().for_each(|gateway| known.neighbour_changed((3, *gateway), Some(USABLE)));
        let paths = gateways.map(|gateway| Path { interface: 3, gateway: Some(gateway), weight: 1 }).to_vec();
        (known, gateways, Route::Unicast { paths, mtu: None })
    }

    fn chosen(known: &Knowledge, n: u32, route: &Route, trust: impl Fn(&Place) -> Trust) -> Option<IpAddr> {
        match known.decide(std::net::Ipv4Addr::from(0x0a09_0200 + n).into(), route, trust) {
            Resolution::Resolved { gateway, .. } => gateway,
            Resolution::Unresolved(_) => None,
        }
    }

    #[test]
    fn of_several_gateways_a_living_one_is_used_and_only_its_destinations_move() {
        let (mut known, [first, second], route) = two_gateways();
        let before: Vec<_> = (0..1_000).map(|n| chosen(&known, n, &route, |_| Trust::Lives)).collect();
        let on_first = before.iter().filter(|gateway| **gateway == Some(first)).count();
        assert!((400..600).contains(&on_first), "{on_first} of 1,000");
        for trust in [Trust::Silent, Trust::OnTrial] {
            let avoided = |place: &Place| if place.1 == first { trust } else { Trust::Lives };
            assert!((0..1_000).all(|n| chosen(&known, n, &route, avoided) == Some(second)));
        }
        // Where none is trusted more than the other, nothing moves.
        assert!((0..1_000).all(|n| chosen(&known, n, &route, |_| Trust::Silent) == before[n as usize]));
        known.neighbour_changed((3, second), Some(Neighbour::Failed));
        assert!((0..1_000).all(|n| chosen(&known, n, &route, |_| Trust::Silent) == Some(first)));
        known.neighbour_changed((3, first), Some(Neighbour::Failed));
        let text = text(&known, &route);
        assert_eq!(text, "no path of 2 to 10.0.1.11 works: neighbor 10.0.0.1 on eth1 does not answer");
    }

    #[test]
    fn weights_of_paths_count() {
        let (known, [first, _], route) = two_gateways();
        let Route::Unicast { mut paths, mtu } = route else { unreachable!() };
        paths[0].weight = 3;
        let route = Route::Unicast { paths, mtu };
        let on_first = (0..1_000).filter(|n| chosen(&known, *n, &route, |_| Trust::Lives) == Some(first)).count();
        assert!((700..800).contains(&on_first), "{on_first} of 1,000");
    }

    #[test]
    fn a_failed_neighbor_stays_failed_until_it_answers() {
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
    fn the_same_address_on_another_interface_is_another_neighbor() {
        let mut known = knowledge(true);
        known.neighbour_changed((4, address("10.0.1.11")), Some(USABLE));
        assert_eq!(text(&known, &on_link()), "waiting for neighbor 10.0.1.11 on eth1");
    }
}
