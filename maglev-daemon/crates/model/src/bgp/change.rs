//! Another configuration of the speaker while it runs: the settings that apply at once, those that need a restart, and the sessions
//! that must begin anew. Pure: the protocol decides nothing here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Bgp, Neighbor};

/// What a neighbor's new settings mean for its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// No message depends on the setting.
    Local,
    /// The prefixes are sent again with other attributes.
    Routes,
    /// The connection or the OPEN depends on the setting: the session begins anew.
    Session,
}

/// A setting that differs, by its key in the configuration.
pub type Changed = (&'static str, Effect);

/// The fate of a neighbor's session at a change of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NeighborChange {
    /// The neighbor is new: a session begins.
    Added,
    /// The neighbor is gone: its session ends.
    Removed,
    /// Its session goes on; these keys changed.
    Kept(Vec<&'static str>),
    /// Its session begins anew, since these keys changed.
    Reset(Vec<&'static str>),
}

impl Bgp {
    /// This configuration with the settings of `file` that apply while the speaker runs, and the keys of those that differ and need a
    /// restart: the identity, and what neighbors and the packet path were promised at the start. Another `local_as` concerns every
    /// setting, so none applies beside it.
    pub fn with_live(&self, file: &Self) -> (Self, Vec<&'static str>) {
        let Self { local_as, router_id, communities, on_stop, on_drain, graceful_restart, neighbors } = file;
        let other_as = self.local_as != *local_as;
        let waiting = [
            ("bgp.local_as", other_as),
            ("bgp.router_id", self.router_id != *router_id),
            ("bgp.on_stop", self.on_stop != *on_stop),
            ("bgp.graceful_restart", self.graceful_restart != *graceful_restart),
            ("bgp.communities", other_as && self.communities != *communities),
            ("bgp.on_drain", other_as && self.on_drain != *on_drain),
            ("bgp.neighbors", other_as && self.neighbors != *neighbors),
        ];
        let waiting = waiting.into_iter().filter_map(|(key, waits)| waits.then_some(key)).collect();
        if other_as {
            return (self.clone(), waiting);
        }
        let (communities, neighbors) = (communities.clone(), neighbors.clone());
        (Self { communities, on_drain: *on_drain, neighbors, ..self.clone() }, waiting)
    }

    /// The neighbors whose settings differ in `next`, by name: its own, then those that are gone. A neighbor is known by its address.
    pub fn changes(&self, next: &Self) -> Vec<(String, NeighborChange)> {
        let mut before: BTreeMap<IpAddr, &Neighbor> =
            self.neighbors.iter().map(|neighbor| (neighbor.address, neighbor)).collect();
        let mut common = Vec::new();
        if self.communities != next.communities {
            common.push("bgp.communities");
        }
        if self.on_drain != next.on_drain {
            common.push("bgp.on_drain");
        }
        let mut changes = Vec::new();
        for neighbor in &next.neighbors {
            let change = match before.remove(&neighbor.address) {
                None => NeighborChange::Added,
                Some(old) => old.fate(neighbor, &common),
            };
            if change != NeighborChange::Kept(Vec::new()) {
                changes.push((neighbor.name.clone(), change));
            }
        }
        let gone = self.neighbors.iter().filter(|neighbor| before.contains_key(&neighbor.address));
        changes.extend(gone.map(|neighbor| (neighbor.name.clone(), NeighborChange::Removed)));
        changes
    }
}

impl Neighbor {
    /// The settings in which `next`, the same neighbor, differs, and what each means for the session.
    pub fn changes(&self, next: &Self) -> Vec<Changed> {
        let Self {
            name,
            address: _,
            remote_as,
            source,
            port,
            password,
            multihop,
            gtsm,
            hold_time,
            keepalive,
            ipv4,
            ipv6,
            next_hop,
            next_hop6,
            communities,
            med,
            prepend,
            local_pref,
            role,
            passive,
        } = next;
        // The capability is a part of the OPEN.
        let extended = self.wants_extended_next_hop() != next.wants_extended_next_hop();
        let of_next_hop = if extended { Effect::Session } else { Effect::Routes };
        let settings = [
            ("name", Effect::Local, self.name != *name),
            ("remote_as", Effect::Session, self.remote_as != *remote_as),
            ("source", Effect::Session, self.source != *source),
            ("port", Effect::Session, self.port != *port),
            ("password_file", Effect::Session, self.password != *password),
            ("multihop", Effect::Session, self.multihop != *multihop),
            ("gtsm", Effect::Session, self.gtsm != *gtsm),
            ("hold_time", Effect::Session, self.hold_time != *hold_time),
            ("keepalive", Effect::Local, self.keepalive != *keepalive),
            ("families", Effect::Session, (self.ipv4, self.ipv6) != (*ipv4, *ipv6)),
            ("next_hop", of_next_hop, self.next_hop != *next_hop),
            ("next_hop6", Effect::Routes, self.next_hop6 != *next_hop6),
            ("communities", Effect::Routes, self.communities != *communities),
            ("med", Effect::Routes, self.med != *med),
            ("prepend", Effect::Routes, self.prepend != *prepend),
            ("local_pref", Effect::Routes, self.local_pref != *local_pref),
            ("role", Effect::Session, self.role != *role),
            ("passive", Effect::Session, self.passive != *passive),
        ];
        settings.into_iter().filter_map(|(key, effect, differs)| differs.then_some((key, effect))).collect()
    }

    /// Whether IPv4 prefixes have an IPv6 next hop: by the settings, or since the session is over IPv6.
    pub fn wants_extended_next_hop(&self) -> bool {
        self.ipv4 && self.next_hop.unwrap_or(self.address).is_ipv6()
    }

    /// The fate of its session; `common`: keys of all neighbors that changed beside its own.
    fn fate(&self, next: &Self, common: &[&'static str]) -> NeighborChange {
        let own = self.changes(next);
        let resets: Vec<_> = own.iter().filter(|(_, effect)| *effect == Effect::Session).map(|(key, _)| *key).collect();
        if resets.is_empty() {
            return NeighborChange::Kept(own.iter().map(|(key, _)| *key).chain(common.iter().copied()).collect());
        }
        NeighborChange::Reset(resets)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{OnDrain, OnStop};
    use super::*;

    fn neighbor(last: u8) -> Neighbor {
        Neighbor::new([10, 0, 0, last].into(), 65_000)
    }

    fn bgp(neighbors: Vec<Neighbor>) -> Bgp {
        Bgp {
            local_as: 65_010,
            router_id: [10, 0, 0, 11].into(),
            communities: [].into(),
            on_stop: OnStop::Withdraw,
            on_drain: OnDrain::default(),
            graceful_restart: Some(120),
            neighbors,
        }
    }

    fn shown(before: &Bgp, next: &Bgp) -> Vec<String> {
        before.changes(next).into_iter().map(|(name, change)| format!("{name} {change:?}")).collect()
    }

    #[test]
    fn a_session_begins_anew_only_where_the_wire_needs_it() {
        let before = bgp(vec![neighbor(1)]);
        let changed = |change: &dyn Fn(&mut Neighbor)| {
            let mut next = before.clone();
            change(&mut next.neighbors[0]);
            shown(&before, &next).join("")
        };
        for (said, expected) in [
            (changed(&|_| {}), ""),
            (changed(&|it| it.name = "tor1".into()), "tor1 Kept([\"name\"])"),
            (changed(&|it| it.keepalive = Some(1)), "10.0.0.1 Kept([\"keepalive\"])"),
            (changed(&|it| it.med = Some(5)), "10.0.0.1 Kept([\"med\"])"),
            (changed(&|it| (it.prepend, it.med) = (2, None)), "10.0.0.1 Kept([\"prepend\"])"),
            (changed(&|it| it.next_hop = Some([10, 0, 0, 9].into())), "10.0.0.1 Kept([\"next_hop\"])"),
            (changed(&|it| it.next_hop = "fd00::9".parse().ok()), "10.0.0.1 Reset([\"next_hop\"])"),
            (changed(&|it| (it.hold_time, it.med) = (30, Some(1))), "10.0.0.1 Reset([\"hold_time\"])"),
            (changed(&|it| it.ipv6 = false), "10.0.0.1 Reset([\"families\"])"),
            (changed(&|it| it.passive = true), "10.0.0.1 Reset([\"passive\"])"),
        ] {
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn neighbors_are_known_by_their_addresses() {
        let before = bgp(vec![neighbor(1), neighbor(2)]);
        let mut next = bgp(vec![neighbor(3), neighbor(2)]);
        next.neighbors[0].name = "10.0.0.1".into();
        assert_eq!(shown(&before, &next), ["10.0.0.1 Added", "10.0.0.1 Removed"]);
        next = bgp(vec![neighbor(2), neighbor(1)]);
        assert_eq!(shown(&before, &next), [""; 0], "their order is nothing");
        next.communities = ["65010:1".parse().unwrap()].into();
        let both = ["10.0.0.2 Kept([\"bgp.communities\"])", "10.0.0.1 Kept([\"bgp.communities\"])"];
        assert_eq!(shown(&before, &next), both);
    }

    #[test]
    fn the_identity_needs_a_restart() {
        let before = bgp(vec![neighbor(1)]);
        let mut file = bgp(vec![neighbor(1), neighbor(2)]);
        assert_eq!(before.with_live(&file), (file.clone(), vec![]));
        (file.router_id, file.on_stop, file.graceful_restart) = ([10, 0, 0, 12].into(), OnStop::Keep, Some(60));
        let expected = vec!["bgp.router_id", "bgp.on_stop", "bgp.graceful_restart"];
        assert_eq!(before.with_live(&file), (Bgp { neighbors: file.neighbors.clone(), ..before.clone() }, expected));
        let file = Bgp { local_as: 65_011, ..bgp(vec![neighbor(2)]) };
        assert_eq!(before.with_live(&file), (before.clone(), vec!["bgp.local_as", "bgp.neighbors"]));
    }
}
