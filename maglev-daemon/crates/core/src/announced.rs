//! To which neighbors a prefix is announced, and why not to the others: the routes that sessions hold, not the wanted ones. Pure.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use maglev_model::bgp::NeighborStatus;

use crate::announce::Prefix;

/// Neighbors whose reasons are listed; of others only the number.
const LISTED: usize = 2;

/// To which neighbors a prefix is announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// To so many.
    pub to: usize,
    /// Of those that are configured for its family.
    pub of: usize,
    /// Why not to all; or why it is being withdrawn.
    pub reason: Option<String>,
}

impl Announced {
    /// The announcement of a prefix to these neighbors.
    pub fn new(prefix: &Prefix, neighbors: &[NeighborStatus]) -> Self {
        let Prefix { prefix, withheld, .. } = prefix;
        let family: Vec<&NeighborStatus> = neighbors.iter().filter(|neighbor| neighbor.is_for(prefix)).collect();
        let (to, of) = (family.iter().filter(|neighbor| neighbor.announced.contains(prefix)).count(), family.len());
        let reason = match withheld {
            Some(why) if to > 0 => Some(format!("being withdrawn: {why}")),
            Some(why) => Some(why.clone()),
            None => missing(prefix, &family),
        };
        Self { to, of, reason }
    }
}

/// Why a prefix that is wanted is not announced to all of these neighbors.
fn missing(prefix: &IpNet, neighbors: &[&NeighborStatus]) -> Option<String> {
    if neighbors.is_empty() {
        let family = if matches!(prefix, IpNet::V4(_)) { "IPv4" } else { "IPv6" };
        return Some(format!("no neighbor is configured for {family} prefixes"));
    }
    if !neighbors.iter().any(|neighbor| neighbor.is_established()) {
        return Some("no BGP session is established".to_owned());
    }
    let reasons =
        neighbors.iter().filter_map(|neighbor| Some(format!("{} {}", neighbor.name, neighbor.reason(prefix)?)));
    let reasons: Vec<String> = reasons.collect();
    let more = reasons.len().saturating_sub(LISTED);
    let listed = reasons.iter().take(LISTED).cloned().chain((more > 0).then(|| format!("and {more} more")));
    (!reasons.is_empty()).then(|| listed.collect::<Vec<_>>().join("; "))
}

/// A prefix that is announced to a first neighbor, or to none any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The prefix.
    pub prefix: IpNet,
    /// The VIPs on it.
    pub vips: Vec<String>,
    /// Why it is withdrawn; `None`: it is announced.
    pub withdrawn: Option<String>,
}

/// The prefixes that are announced to any neighbor, and the VIPs on each.
#[derive(Clone, Debug, Default)]
pub struct Known(BTreeMap<IpNet, Vec<String>>);

impl Known {
    /// Records the neighbors' routes, and returns the changes.
    pub fn update(&mut self, prefixes: &[Prefix], neighbors: &[NeighborStatus]) -> Vec<News> {
        let wanted = |prefix: &IpNet| {
            let at = prefixes.binary_search_by_key(prefix, |found| found.prefix).ok()?;
            prefixes.get(at)
        };
        let vips = |found: &Prefix| found.vips.iter().map(ToString::to_string).collect::<Vec<_>>();
        let now: BTreeSet<IpNet> = neighbors.iter().flat_map(|neighbor| neighbor.announced.iter().copied()).collect();
        let gone =
            self.0.extract_if(.., |prefix, _| !now.contains(prefix)).map(|(prefix, before)| match wanted(&prefix) {
                None => News { prefix, vips: before, withdrawn: Some("no VIP asks for it any more".to_owned()) },
                Some(found) => {
                    let reason = Announced::new(found, neighbors).reason;
                    News { prefix, vips: vips(found), withdrawn: Some(reason.unwrap_or_default()) }
                }
            });
        let mut news: Vec<News> = gone.collect();
        for prefix in now {
            if let Entry::Vacant(new) = self.0.entry(prefix) {
                let vips = new.insert(wanted(&prefix).map(vips).unwrap_or_default()).clone();
                news.push(News { prefix, vips, withdrawn: None });
            }
        }
        news
    }
}

#[cfg(test)]
mod faults {
    use std::sync::Arc;

    use super::*;
    use maglev_model::Name;
    use maglev_model::bgp::Carried;
    use maglev_testing::matrix::Row;

    fn prefix(text: &str, withheld: Option<&str>) -> Prefix {
        let vips = vec![Name::parse("www").unwrap()];
        let withheld = withheld.map(str::to_owned);
        Prefix { prefix: text.parse().unwrap(), vips, communities: [].into(), withheld, shortage: None }
    }

    /// A neighbor with this state that holds these prefixes.
    fn neighbor(name: &str, state: &str, holds: &[&str]) -> NeighborStatus {
        NeighborStatus {
            name: name.into(),
            state: state.into(),
            announced: Arc::new(holds.iter().map(|text| text.parse().unwrap()).collect()),
            ipv4: Carried::Yes,
            ipv6: Carried::Yes,
            ..NeighborStatus::default()
        }
    }

    const V4: &str = "203.0.113.10/32";
    const V6: &str = "2001:db8::10/128";

    #[test]
    fn announced_prefixes_are_those_that_sessions_hold() {
        let of = |text: &str, withheld, neighbors: &[NeighborStatus]| {
            let Announced { to, of, reason } = Announced::new(&prefix(text, withheld), neighbors);
            format!("{to} of {of}: {}", reason.unwrap_or_default())
        };
        let up = neighbor("tor1", "established", &[V4]);
        let down = neighbor("tor2", "active", &[]);
        let no_v6 = NeighborStatus { ipv6: Carried::NotTaken, ..up.clone() };
        let no_hop = NeighborStatus { name: "tor3".into(), ipv6: Carried::NoNextHop, ..up.clone() };
        let only_v4 = NeighborStatus { ipv6: Carried::No, ..up.clone() };
        let drained = Some("the node is drained");
        for (case, said, expected) in [
            (
                "the only session down",
                of(V4, None, std::slice::from_ref(&down)),
                "0 of 1: no BGP session is established",
            ),
            ("one of two sessions down", of(V4, None, &[up.clone(), down.clone()]), "1 of 2: tor2 no session (active)"),
            (
                "neighbors take only IPv4",
                of(V6, None, std::slice::from_ref(&no_v6)),
                "0 of 1: tor1 takes no IPv6 prefixes",
            ),
            (
                "every neighbor with another reason",
                of(V6, None, &[no_v6, no_hop, down]),
                "0 of 3: tor1 takes no IPv6 prefixes; tor3 no next hop for IPv6 prefixes; and 1 more",
            ),
            (
                "no neighbor for the family",
                of(V6, None, &[only_v4]),
                "0 of 0: no neighbor is configured for IPv6 prefixes",
            ),
            ("announced to all", of(V4, None, &[up.clone(), up.clone()]), "2 of 2: "),
            (
                "a withdrawal under way",
                of(V4, drained, std::slice::from_ref(&up)),
                "1 of 1: being withdrawn: the node is drained",
            ),
            ("withdrawn", of(V6, drained, &[up]), "0 of 1: the node is drained"),
        ] {
            let _row = Row::fault("C3", case);
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn events_follow_the_routes_that_sessions_hold() {
        let _row = Row::fault("C3", "events: announced and withdrawn by what sessions hold");
        let mut known = Known::default();
        let mut events = |prefixes: &[Prefix], neighbors: &[NeighborStatus]| -> Vec<String> {
            let news = known.update(prefixes, neighbors);
            let word = |news: News| match news.withdrawn {
                None => format!("{} announced for {}", news.prefix, news.vips.join(" ")),
                Some(why) => format!("{} withdrawn for {}: {why}", news.prefix, news.vips.join(" ")),
            };
            news.into_iter().map(word).collect()
        };
        let wanted = [prefix(V4, None)];
        let (up, down) = (neighbor("tor1", "established", &[V4]), neighbor("tor1", "active", &[]));
        assert_eq!(events(&wanted, &[]), [""; 0], "BGP is off");
        assert_eq!(events(&wanted, std::slice::from_ref(&down)), [""; 0]);
        assert_eq!(events(&wanted, &[up.clone(), down.clone()]), ["203.0.113.10/32 announced for www"]);
        assert_eq!(events(&wanted, &[up.clone(), up.clone()]), [""; 0]);
        let lost = "203.0.113.10/32 withdrawn for www: no BGP session is established";
        assert_eq!(events(&wanted, std::slice::from_ref(&down)), [lost]);
        events(&wanted, std::slice::from_ref(&up));
        let drained = [prefix(V4, Some("the node is drained"))];
        assert_eq!(events(&drained, std::slice::from_ref(&up)), [""; 0], "the neighbor holds it still");
        let empty = neighbor("tor1", "established", &[]);
        assert_eq!(
            events(&drained, std::slice::from_ref(&empty)),
            ["203.0.113.10/32 withdrawn for www: the node is drained"]
        );
        events(&wanted, &[up]);
        assert_eq!(events(&[], &[empty]), ["203.0.113.10/32 withdrawn for www: no VIP asks for it any more"]);
    }
}
