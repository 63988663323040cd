//! Which prefixes routers are told of, and why not the others. Pure: it must not know sessions, nor who asks.
//!
//! A prefix is announced while the node can forward, is not drained, and every VIP on it has enough backends. What may be
//! announced only once the packet path knows it is announced late; what may not is withdrawn at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use crate::bgp::Route;
use crate::health::fsm::Health;
use crate::model::{AdminState, Community, Name};
use crate::reconcile::{BackendView, PoolView, View, VipView};

/// Communities of one prefix, however many VIPs it holds: with those of node and neighbour they fit into a message.
const MAX_COMMUNITIES: usize = 96;

/// What the node as a whole allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Node {
    /// It serves.
    #[default]
    Serving,
    /// It serves still, and asks to be preferred least: it is about to go.
    Leaving,
    /// It is drained: nothing is announced.
    Drained,
    /// Packets for VIPs are not forwarded, and why.
    Unable(String),
}

/// A prefix, and whether routers are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The prefix.
    pub prefix: IpNet,
    /// The VIPs on it.
    pub vips: Vec<Name>,
    /// Its communities.
    pub communities: BTreeSet<Community>,
    /// Why it is not announced; `None`: it is.
    pub withheld: Option<String>,
}

/// Every prefix that VIPs ask for, in order. `before` is what this said the last time.
pub fn prefixes(view: &View, node: &Node, before: &[Prefix]) -> Vec<Prefix> {
    let mut by_prefix = BTreeMap::<IpNet, Vec<&VipView>>::new();
    for vip in &view.vips {
        if let Some(prefix) = vip.prefix {
            by_prefix.entry(prefix).or_default().push(vip);
        }
    }
    let announced: BTreeSet<IpNet> =
        before.iter().filter(|known| known.withheld.is_none()).map(|known| known.prefix).collect();
    by_prefix
        .into_iter()
        .map(|(prefix, vips)| {
            let withheld = withheld(view, node, &vips);
            let early = || (!announced.contains(&prefix)).then(|| early(view, &vips)).flatten();
            Prefix {
                prefix,
                communities: communities(node, &vips),
                withheld: withheld.or_else(early),
                vips: vips.iter().map(|vip| vip.name.clone()).collect(),
            }
        })
        .collect()
}

/// What is announced, as the speaker takes it.
pub fn routes(prefixes: &[Prefix]) -> BTreeMap<IpNet, Arc<Route>> {
    let announced = prefixes.iter().filter(|prefix| prefix.withheld.is_none());
    announced.map(|found| (found.prefix, Arc::new(Route { communities: found.communities.clone() }))).collect()
}

/// Why a prefix with these VIPs must not be announced.
fn withheld(view: &View, node: &Node, vips: &[&VipView]) -> Option<String> {
    match node {
        Node::Serving | Node::Leaving => {}
        Node::Drained => return Some("the node is drained".into()),
        Node::Unable(why) => return Some(why.clone()),
    }
    vips.iter().find_map(|vip| {
        let pool = view.pools.iter().find(|pool| pool.name == vip.pool)?;
        let least = pool.settings.min_healthy;
        let usable = pool.backends.iter().filter(|backend| is_usable(backend, least)).count();
        (usable < least as usize).then(|| short_of(pool, vip, usable))
    })
}

fn short_of(pool: &PoolView, vip: &VipView, usable: usize) -> String {
    let (name, least) = (&pool.name, pool.settings.min_healthy);
    format!("VIP {}: pool {name} has {usable} usable backends, fewer than its min_healthy {least}", vip.name)
}

/// Whether a backend takes new connections. A pool in panic uses those that its checks take for dead: one of them will do
/// where one backend is asked for, as it is unless an operator asks for more.
fn is_usable(backend: &BackendView, least: u32) -> bool {
    let healthy = || backend.health.as_ref().is_none_or(|health| health.health != Health::Unhealthy);
    let serves = backend.serves && (least <= 1 || healthy());
    backend.state == AdminState::Active && backend.weight.0 > 0 && serves
}

/// Why a prefix with these VIPs is not announced yet, that was not announced before.
fn early(view: &View, vips: &[&VipView]) -> Option<String> {
    if view.busy || view.not_published.is_some() {
        return Some("the packet path is being told".to_owned());
    }
    vips.iter().find_map(|vip| {
        let pool = view.pools.iter().find(|pool| pool.name == vip.pool && pool.awaited > 0)?;
        Some(format!("VIP {}: {} backends of pool {} are being checked first", vip.name, pool.awaited, pool.name))
    })
}

fn communities(node: &Node, vips: &[&VipView]) -> BTreeSet<Community> {
    let of_vips = vips.iter().flat_map(|vip| vip.communities.iter().copied()).collect::<BTreeSet<_>>();
    let mut communities: BTreeSet<Community> = of_vips.into_iter().take(MAX_COMMUNITIES).collect();
    if *node == Node::Leaving {
        communities.insert(Community::GRACEFUL_SHUTDOWN);
    }
    communities
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Announce, AnnounceBy, Backend, Change, OuterSources, Pool, PoolSettings};
    use crate::model::{Rules, Service, Services, Vip, Weight};
    use crate::reconcile::{Event, Reconciler, RequestId, Settings};
    use std::time::Duration;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn rules() -> Rules {
        Rules { outer: OuterSources { v4: Some("10.64.0.0/24".parse().unwrap()), v6: None }, ..Rules::default() }
    }

    /// Pools `web` and `dns`, and VIPs `www` on web, `dns` on dns.
    fn services(web: &[AdminState], min_healthy: u32, by: [&str; 2]) -> Services {
        let mut services = Services::default();
        let mut admit = |change| services.admit(change, &rules()).unwrap();
        for (pool, states, address, by) in
            [("web", web, "203.0.113.10", by[0]), ("dns", &[AdminState::Active][..], "203.0.113.20", by[1])]
        {
            let settings = PoolSettings { min_healthy, ..PoolSettings::default() };
            admit(Change::AddPool(Pool { settings, ..Pool::new(name(pool)) }));
            for (n, state) in (1_u8..).zip(states) {
                let address = [10, 0, u8::from(pool == "web"), n].into();
                let backend = Backend { name: name(&format!("b{n}")), address, weight: Weight::DEFAULT, state: *state };
                admit(Change::AddBackend { pool: name(pool), backend });
            }
            let service = Service::parse(address, "443", "tcp").unwrap();
            let communities = [format!("65010:{}", address.len() + usize::from(pool == "web")).parse().unwrap()];
            let announce = Announce { by: by.parse::<AnnounceBy>().unwrap(), communities: communities.into() };
            admit(Change::AddVip(Vip { name: name(pool), service, pool: name(pool), announce }));
        }
        services
    }

    /// What the reconciler shows of services that are published.
    fn view(services: Services) -> View {
        let mut reconciler = Reconciler::new(Settings { rules: rules(), ..Settings::default() });
        reconciler.handle(Event::Reload { request: RequestId(1), services }, Duration::ZERO);
        reconciler.handle(Event::Flush, Duration::ZERO);
        View { busy: false, not_published: None, ..reconciler.view() }
    }

    /// `prefix` or `prefix: why not`.
    fn told(prefixes: &[Prefix]) -> Vec<String> {
        let one = |found: &Prefix| match &found.withheld {
            None => found.prefix.to_string(),
            Some(why) => format!("{}: {why}", found.prefix),
        };
        prefixes.iter().map(one).collect()
    }

    const OUT: AdminState = AdminState::Disabled { since: None };
    const BY_ADDRESS: [&str; 2] = ["true", "true"];

    #[test]
    fn a_prefix_needs_enough_backends_behind_every_vip_on_it() {
        let few = "VIP web: pool web has 0 usable backends, fewer than its min_healthy 1";
        let rows = [
            (
                &[AdminState::Active, OUT][..],
                1,
                BY_ADDRESS,
                vec!["203.0.113.10/32".to_owned(), "203.0.113.20/32".into()],
            ),
            (&[OUT, OUT], 1, BY_ADDRESS, vec![format!("203.0.113.10/32: {few}"), "203.0.113.20/32".into()]),
            (&[AdminState::Draining { since: None }], 1, ["203.0.113.0/24"; 2], vec![format!("203.0.113.0/24: {few}")]),
            (&[OUT], 0, BY_ADDRESS, vec!["203.0.113.10/32".into(), "203.0.113.20/32".into()]),
            (&[OUT], 1, ["false", "203.0.113.0/24"], vec!["203.0.113.0/24".into()]),
        ];
        for (web, min_healthy, by, expected) in rows {
            let view = view(services(web, min_healthy, by));
            assert_eq!(told(&prefixes(&view, &Node::Serving, &[])), expected);
        }
    }

    #[test]
    fn a_node_that_cannot_or_may_not_serve_announces_nothing() {
        let view = view(services(&[AdminState::Active], 1, ["203.0.113.0/24"; 2]));
        let of = |node| prefixes(&view, &node, &[]);
        assert_eq!(told(&of(Node::Drained)), ["203.0.113.0/24: the node is drained"]);
        assert_eq!(told(&of(Node::Unable("eth0 is detached".into()))), ["203.0.113.0/24: eth0 is detached"]);
        assert!(routes(&of(Node::Drained)).is_empty());
        let (serving, leaving) = (routes(&of(Node::Serving)), routes(&of(Node::Leaving)));
        let prefix = "203.0.113.0/24".parse().unwrap();
        assert_eq!(serving[&prefix].communities.len(), 2, "those of both VIPs");
        let more: Vec<_> = leaving[&prefix].communities.difference(&serving[&prefix].communities).collect();
        assert_eq!(more, [&Community::GRACEFUL_SHUTDOWN]);
    }

    #[test]
    fn what_is_new_waits_for_the_packet_path_and_what_must_go_does_not() {
        let settled = view(services(&[AdminState::Active], 1, BY_ADDRESS));
        let known: Vec<Prefix> = prefixes(&settled, &Node::Serving, &[]).split_off(1);
        let busy = View { busy: true, ..settled };
        let wait = "203.0.113.10/32: the packet path is being told";
        assert_eq!(told(&prefixes(&busy, &Node::Serving, &known)), [wait, "203.0.113.20/32"]);
        let failed = View { busy: false, not_published: Some("no memory".into()), ..busy };
        assert_eq!(told(&prefixes(&failed, &Node::Serving, &known)), [wait, "203.0.113.20/32"]);
        let gone = View { busy: true, ..view(services(&[OUT], 1, BY_ADDRESS)) };
        let all = prefixes(&failed, &Node::Serving, &prefixes(&failed, &Node::Serving, &known));
        assert!(told(&prefixes(&gone, &Node::Serving, &all))[0].contains("min_healthy 1"));
    }

    #[test]
    fn a_prefix_that_is_new_waits_for_the_first_round_of_checks_and_one_that_is_known_does_not() {
        let mut checking = view(services(&[AdminState::Active; 2], 1, BY_ADDRESS));
        let known = prefixes(&checking, &Node::Serving, &[]);
        let web = checking.pools.iter_mut().find(|pool| pool.name == name("web")).unwrap();
        web.awaited = 2;
        let wait = "203.0.113.10/32: VIP web: 2 backends of pool web are being checked first";
        assert_eq!(told(&prefixes(&checking, &Node::Serving, &[])), [wait, "203.0.113.20/32"]);
        assert_eq!(told(&prefixes(&checking, &Node::Serving, &known)), ["203.0.113.10/32", "203.0.113.20/32"]);
        assert!(!checking.is_checked());
    }

    #[test]
    fn in_panic_one_backend_will_do_and_more_must_be_healthy() {
        let with = |min_healthy, panic: bool| {
            let mut view = view(services(&[AdminState::Active; 2], min_healthy, BY_ADDRESS));
            let web = view.pools.iter_mut().find(|pool| pool.name == name("web")).unwrap();
            for backend in &mut web.backends {
                let (since, last, waiting, percent) = (Duration::ZERO, None, None, 100);
                let counts = crate::health::fsm::Counts::default();
                let health = Health::Unhealthy;
                backend.health =
                    Some(crate::health::fsm::MemberHealth { health, since, last, waiting, percent, counts });
                backend.serves = panic;
            }
            told(&prefixes(&view, &Node::Serving, &[]))[0].clone()
        };
        assert_eq!(with(1, true), "203.0.113.10/32");
        assert_eq!(with(0, false), "203.0.113.10/32");
        let short = |least| {
            format!("203.0.113.10/32: VIP web: pool web has 0 usable backends, fewer than its min_healthy {least}")
        };
        assert_eq!((with(1, false), with(2, true)), (short(1), short(2)));
    }
}
