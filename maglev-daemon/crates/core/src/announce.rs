//! Which prefixes are announced, and why not the others. Pure: it must not know sessions or callers.
//!
//! A prefix is announced while the node can forward, is not drained, and every VIP on it has enough backends. A new prefix is
//! announced only once the packet path serves it; a prefix that may no longer be announced is withdrawn at once. A prefix
//! withdrawn for lack of healthy backends stays so until there have been enough for a while, so that routers do not follow every
//! flap.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use maglev_model::bgp::Route;
use maglev_model::{Community, Name, OnAllDead};

use crate::reconcile::{PoolUse, ServedVip, Serving};

/// Communities of one prefix, however many VIPs it holds: with those of node and neighbor they fit into a message.
const MAX_COMMUNITIES: usize = 96;

/// The state of the node as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodeState {
    /// It serves.
    #[default]
    Serving,
    /// It still serves, but its prefixes are least preferred: they are about to be withdrawn.
    Leaving,
    /// It is drained: nothing is announced.
    Drained,
    /// Packets for VIPs are not forwarded, and why.
    Unable(String),
}

/// For how long there must be enough backends again before a prefix withdrawn for lack of healthy ones is announced; and
/// the present time.
#[derive(Clone, Copy, Debug, Default)]
pub struct HoldDown {
    /// For so long.
    pub lasts: Duration,
    /// By the caller's clock.
    pub now: Duration,
}

/// The hold-down of a withdrawal for lack of healthy backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// There are too few still.
    Lasts,
    /// There have been enough since then.
    Over(Duration),
}

/// A prefix, and whether it is announced.
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
    /// The hold-down after a withdrawal for lack of healthy backends.
    pub shortage: Option<Shortage>,
}

/// Every prefix that VIPs ask for, in order. `before` is the last result.
pub fn prefixes(serving: &Serving, node: &NodeState, before: &[Prefix], hold: HoldDown) -> Vec<Prefix> {
    let mut by_prefix = BTreeMap::<IpNet, Vec<&ServedVip>>::new();
    for vip in &serving.vips {
        by_prefix.entry(vip.prefix).or_default().push(vip);
    }
    let before: BTreeMap<IpNet, &Prefix> = before.iter().map(|known| (known.prefix, known)).collect();
    by_prefix
        .into_iter()
        .map(|(prefix, vips)| {
            let known = before.get(&prefix).copied();
            let announced = known.is_some_and(|known| known.withheld.is_none());
            let short = Short::new(serving, &vips);
            let shortage = shortage(known, announced && node.announces(), short.as_ref(), hold);
            let withheld = node.withheld().or_else(|| conflict(&vips)).or_else(|| short.map(|short| short.why));
            let withheld = withheld.or_else(|| shortage.and_then(|shortage| shortage.time_left(hold)));
            Prefix {
                prefix,
                communities: communities(node, &vips),
                withheld: withheld.or_else(|| (!announced).then(|| early(serving, &vips)).flatten()),
                shortage,
                vips: vips.iter().map(|vip| vip.name.clone()).collect(),
            }
        })
        .collect()
}

/// When time alone changes the announced prefixes.
pub fn deadline(prefixes: &[Prefix], lasts: Duration) -> Option<Duration> {
    let over = |prefix: &Prefix| match prefix.shortage? {
        Shortage::Lasts => None,
        Shortage::Over(since) => Some(since + lasts),
    };
    prefixes.iter().filter_map(over).min()
}

/// The announced routes, for the speaker.
pub fn routes(prefixes: &[Prefix]) -> BTreeMap<IpNet, Arc<Route>> {
    let announced = prefixes.iter().filter(|prefix| prefix.withheld.is_none());
    announced.map(|found| (found.prefix, Arc::new(Route { communities: found.communities.clone() }))).collect()
}

impl NodeState {
    /// Why it announces nothing.
    fn withheld(&self) -> Option<String> {
        match self {
            Self::Serving | Self::Leaving => None,
            Self::Drained => Some("the node is drained".into()),
            Self::Unable(why) => Some(why.clone()),
        }
    }

    const fn announces(&self) -> bool {
        matches!(self, Self::Serving | Self::Leaving)
    }
}

/// Why one of a prefix's VIPs cannot be served.
fn conflict(vips: &[&ServedVip]) -> Option<String> {
    vips.iter().find_map(|vip| Some(format!("VIP {}: {}", vip.name, vip.conflict.as_ref()?)))
}

/// The reason if one of a prefix's VIPs has too few backends.
struct Short {
    why: String,
    /// There would be enough if all were healthy: the shortage is not an operator's order.
    by_health: bool,
}

impl Short {
    fn new(serving: &Serving, vips: &[&ServedVip]) -> Option<Self> {
        let all = || vips.iter().filter_map(|vip| Self::from_vip(vip, serving.pools.get(&vip.pool)?));
        let by_health = all().any(|short| short.by_health);
        all().next().map(|short| Self { by_health, ..short })
    }

    fn from_vip(vip: &ServedVip, pool: &PoolUse) -> Option<Self> {
        let PoolUse { min_healthy: least, active, unreachable, long_dead, .. } = *pool;
        let usable = pool.counted();
        (!pool.is_enough()).then(|| {
            let ServedVip { name: vip, pool: name, .. } = vip;
            let away = if unreachable == 0 { String::new() } else { format!("; {unreachable} unreachable") };
            let dead = if long_dead { "; none has answered anything for 60 s" } else { "" };
            let why = format!(
                "VIP {vip}: pool {name} has {usable} usable backends, fewer than its min_healthy {least}{away}{dead}"
            );
            Self { why, by_health: active >= least as usize }
        })
    }
}

/// The hold-down of a prefix. It begins when the prefix falls short by its backends' health; neither an operator's order nor the
/// start begins it.
fn shortage(known: Option<&Prefix>, announced: bool, short: Option<&Short>, hold: HoldDown) -> Option<Shortage> {
    let known = known.and_then(|known| known.shortage);
    if let Some(short) = short {
        return (known.is_some() || announced && short.by_health).then_some(Shortage::Lasts);
    }
    let since = match known? {
        Shortage::Lasts => hold.now,
        Shortage::Over(since) => since,
    };
    (hold.now < since + hold.lasts).then_some(Shortage::Over(since))
}

impl Shortage {
    /// Why the prefix is not announced although there are enough backends.
    fn time_left(self, hold: HoldDown) -> Option<String> {
        let Self::Over(since) = self else { return None };
        let left = (since + hold.lasts).saturating_sub(hold.now).as_secs_f64().ceil();
        Some(format!("withdrawn for lack of healthy backends; enough are healthy again: announced in {left} s"))
    }
}

/// Why a prefix with these VIPs that was not announced before is not announced yet.
fn early(serving: &Serving, vips: &[&ServedVip]) -> Option<String> {
    if serving.pending || vips.iter().any(|vip| vip.pending) {
        return Some("the packet path does not serve it yet".to_owned());
    }
    vips.iter().find_map(|vip| {
        let PoolUse { min_healthy, awaited, resolving, dead, on_all_dead, .. } = *serving.pools.get(&vip.pool)?;
        let ServedVip { name: vip, pool: name, .. } = vip;
        if resolving > 0 {
            // Routers would send this node connections that other nodes gave to these backends.
            return Some(format!(
                "VIP {vip}: the next hops of {resolving} backends of pool {name} are being resolved first"
            ));
        }
        let withheld = dead && on_all_dead == OnAllDead::Withdraw && min_healthy > 0;
        match awaited {
            0 => withheld.then(|| format!("VIP {vip}: no backend of pool {name} answers anything")),
            _ => Some(format!("VIP {vip}: {awaited} backends of pool {name} are being checked first")),
        }
    })
}

fn communities(node: &NodeState, vips: &[&ServedVip]) -> BTreeSet<Community> {
    let of_vips = vips.iter().flat_map(|vip| vip.communities.iter().copied()).collect::<BTreeSet<_>>();
    let mut communities: BTreeSet<Community> = of_vips.into_iter().take(MAX_COMMUNITIES).collect();
    if *node == NodeState::Leaving {
        communities.insert(Community::GRACEFUL_SHUTDOWN);
    }
    communities
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Counts, MemberHealth};
    use crate::reconcile::{Event, PoolView, Reconciler, RequestId, Settings, View};
    use maglev_model::{
        AdminState, Announce, AnnounceBy, Backend, Change, Health, OuterSources, Pool, PoolSettings, Rules, Service,
        Services, Vip, Weight,
    };

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
                let backend = Backend {
                    name: name(&format!("b{n}")),
                    address,
                    weight: Weight::DEFAULT,
                    state: *state,
                    mtu: None,
                };
                admit(Change::AddBackend { pool: name(pool), backend });
            }
            let service = Service::parse(address, "443", "tcp").unwrap();
            let communities = [format!("65010:{}", address.len() + usize::from(pool == "web")).parse().unwrap()];
            let announce = Announce { by: by.parse::<AnnounceBy>().unwrap(), communities: communities.into() };
            admit(Change::AddVip(Vip {
                name: name(pool),
                service,
                pool: name(pool),
                announce,
                when_empty: maglev_model::Unserved::Drop,
                affinity: maglev_model::Affinity::default(),
            }));
        }
        services
    }

    /// The reconciler's view of published services.
    fn view(services: Services) -> View {
        let mut reconciler = Reconciler::new(Settings { rules: rules(), ..Settings::default() });
        reconciler.handle(Event::Load { request: RequestId(1), services }, Duration::ZERO);
        reconciler.handle(Event::Flush, Duration::ZERO);
        let mut view = View { busy: false, not_published: None, ..reconciler.view() };
        view.pools.iter_mut().flat_map(|pool| &mut pool.backends).for_each(|backend| backend.is_reached = true);
        view
    }

    /// `prefix` or `prefix: why not`.
    fn lines(prefixes: &[Prefix]) -> Vec<String> {
        let one = |found: &Prefix| match &found.withheld {
            None => found.prefix.to_string(),
            Some(why) => format!("{}: {why}", found.prefix),
        };
        prefixes.iter().map(one).collect()
    }

    const HOLD: Duration = Duration::from_secs(10);

    /// The prefixes at the beginning of time.
    fn at(view: &View, node: &NodeState, before: &[Prefix]) -> Vec<Prefix> {
        prefixes(&view.serving(), node, before, HoldDown { lasts: HOLD, now: Duration::ZERO })
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
            assert_eq!(lines(&at(&view, &NodeState::Serving, &[])), expected);
        }
    }

    #[test]
    fn a_node_that_cannot_or_may_not_serve_announces_nothing() {
        let view = view(services(&[AdminState::Active], 1, ["203.0.113.0/24"; 2]));
        let of = |node| at(&view, &node, &[]);
        assert_eq!(lines(&of(NodeState::Drained)), ["203.0.113.0/24: the node is drained"]);
        assert_eq!(lines(&of(NodeState::Unable("eth0 is detached".into()))), ["203.0.113.0/24: eth0 is detached"]);
        assert!(routes(&of(NodeState::Drained)).is_empty());
        let (serving, leaving) = (routes(&of(NodeState::Serving)), routes(&of(NodeState::Leaving)));
        let prefix = "203.0.113.0/24".parse().unwrap();
        assert_eq!(serving[&prefix].communities.len(), 2, "those of both VIPs");
        let more: Vec<_> = leaving[&prefix].communities.difference(&serving[&prefix].communities).collect();
        assert_eq!(more, [&Community::GRACEFUL_SHUTDOWN]);
    }

    #[test]
    fn a_new_prefix_waits_for_the_packet_path_and_a_withdrawal_does_not() {
        let settled = view(services(&[AdminState::Active], 1, BY_ADDRESS));
        let known: Vec<Prefix> = at(&settled, &NodeState::Serving, &[]).split_off(1);
        let busy = View { busy: true, ..settled };
        let wait = "203.0.113.10/32: the packet path does not serve it yet";
        assert_eq!(lines(&at(&busy, &NodeState::Serving, &known)), [wait, "203.0.113.20/32"]);
        let not_published = crate::reconcile::OutOfSync { reason: "no memory".into(), next: None };
        let failed = View { busy: false, not_published: Some(not_published), ..busy };
        assert_eq!(lines(&at(&failed, &NodeState::Serving, &known)), [wait, "203.0.113.20/32"]);
        let gone = View { busy: true, ..view(services(&[OUT], 1, BY_ADDRESS)) };
        let all = at(&failed, &NodeState::Serving, &at(&failed, &NodeState::Serving, &known));
        assert!(lines(&at(&gone, &NodeState::Serving, &all))[0].contains("min_healthy 1"));
    }

    #[test]
    fn a_prefix_that_is_new_waits_for_the_first_round_of_checks_and_one_that_is_known_does_not() {
        let mut checking = view(services(&[AdminState::Active; 2], 1, BY_ADDRESS));
        let known = at(&checking, &NodeState::Serving, &[]);
        let web = checking.pools.iter_mut().find(|pool| pool.name == name("web")).unwrap();
        web.awaited = 2;
        let wait = "203.0.113.10/32: VIP web: 2 backends of pool web are being checked first";
        assert_eq!(lines(&at(&checking, &NodeState::Serving, &[])), [wait, "203.0.113.20/32"]);
        assert_eq!(lines(&at(&checking, &NodeState::Serving, &known)), ["203.0.113.10/32", "203.0.113.20/32"]);
        assert!(!checking.serving().checked);
    }

    #[test]
    fn in_panic_one_backend_will_do_and_more_must_be_healthy() {
        let with = |min_healthy, panic: bool| {
            let mut view = view(services(&[AdminState::Active; 2], min_healthy, BY_ADDRESS));
            let web = view.pools.iter_mut().find(|pool| pool.name == name("web")).unwrap();
            for backend in &mut web.backends {
                let (since, last, waiting, percent) = (Duration::ZERO, None, None, 100);
                let counts = Counts::default();
                let health = Health::Unhealthy;
                backend.health =
                    Some(Box::new(MemberHealth { health, since, last, waiting, held_until: None, percent, counts }));
                backend.serves = panic;
            }
            lines(&at(&view, &NodeState::Serving, &[]))[0].clone()
        };
        assert_eq!(with(1, true), "203.0.113.10/32");
        assert_eq!(with(0, false), "203.0.113.10/32");
        let short = |least| {
            format!("203.0.113.10/32: VIP web: pool web has 0 usable backends, fewer than its min_healthy {least}")
        };
        assert_eq!((with(1, false), with(2, true)), (short(1), short(2)));
    }

    #[test]
    fn a_node_that_reaches_no_backend_leaves_the_prefix_to_others() {
        let mut view = view(services(&[AdminState::Active; 2], 1, BY_ADDRESS));
        let away = |view: &mut View, which: &[usize]| {
            let web = view.pools.iter_mut().find(|pool| pool.name == name("web")).unwrap();
            which.iter().for_each(|&n| web.backends[n].is_reached = false);
            lines(&at(view, &NodeState::Serving, &[]))[0].clone()
        };
        assert_eq!(away(&mut view, &[0]), "203.0.113.10/32");
        let none = "VIP web: pool web has 0 usable backends, fewer than its min_healthy 1; 2 unreachable";
        assert_eq!(away(&mut view, &[0, 1]), format!("203.0.113.10/32: {none}"));
    }

    /// A prefix over time: after some seconds, so many of its two backends are healthy.
    struct Story {
        view: View,
        known: Vec<Prefix>,
        second: u64,
    }

    impl Story {
        fn new(min_healthy: u32) -> Self {
            let view = view(services(&[AdminState::Active; 2], min_healthy, ["true", "false"]));
            let mut story = Self { view, known: Vec::new(), second: 100 };
            assert_eq!(story.goes_on(0, 2, &NodeState::Serving), None, "there is nothing to hold down at the start");
            story
        }

        fn web(&mut self) -> &mut PoolView {
            self.view.pools.iter_mut().find(|pool| pool.name == name("web")).unwrap()
        }

        /// Why it is not announced.
        fn goes_on(&mut self, seconds: u64, healthy: usize, node: &NodeState) -> Option<String> {
            self.second += seconds;
            for (n, backend) in self.web().backends.iter_mut().enumerate() {
                let (since, last, waiting, percent, counts) = (Duration::ZERO, None, None, 100, Counts::default());
                let health = if n < healthy { Health::Healthy } else { Health::Unhealthy };
                backend.health =
                    Some(Box::new(MemberHealth { health, since, last, waiting, held_until: None, percent, counts }));
                backend.serves = n < healthy;
            }
            let now = Duration::from_secs(self.second);
            self.known = prefixes(&self.view.serving(), node, &self.known, HoldDown { lasts: HOLD, now });
            self.known[0].withheld.clone()
        }

        /// When it is announced by time alone, from now on.
        fn due_in(&self) -> Option<u64> {
            deadline(&self.known, HOLD).map(|at| at.as_secs() - self.second)
        }
    }

    fn held(seconds: u64) -> Option<String> {
        let why = "withdrawn for lack of healthy backends; enough are healthy again: announced in";
        Some(format!("{why} {seconds} s"))
    }

    #[test]
    fn a_prefix_withdrawn_for_lack_of_healthy_backends_is_held_down() {
        let mut story = Story::new(2);
        let few = Some("VIP web: pool web has 1 usable backends, fewer than its min_healthy 2".to_owned());
        assert_eq!(story.goes_on(1, 1, &NodeState::Serving), few);
        assert_eq!((story.goes_on(60, 1, &NodeState::Serving), story.due_in()), (few.clone(), None), "it lasts");
        assert_eq!((story.goes_on(1, 2, &NodeState::Serving), story.due_in()), (held(10), Some(10)));
        assert_eq!((story.goes_on(9, 2, &NodeState::Serving), story.due_in()), (held(1), Some(1)));
        assert_eq!(story.goes_on(0, 1, &NodeState::Serving), few, "too few again: it begins anew");
        assert_eq!(story.goes_on(1, 2, &NodeState::Serving), held(10));
        assert_eq!((story.goes_on(10, 2, &NodeState::Serving), story.due_in()), (None, None));
        assert_eq!(story.goes_on(0, 2, &NodeState::Serving), None);
    }

    #[test]
    fn an_operators_order_is_not_held_down() {
        let mut story = Story::new(1);
        assert!(story.goes_on(1, 2, &NodeState::Drained).is_some());
        assert!(story.goes_on(1, 0, &NodeState::Drained).is_some(), "it was withdrawn by then");
        assert_eq!(story.goes_on(1, 2, &NodeState::Serving), None);
        story.web().backends.iter_mut().for_each(|backend| backend.state = OUT);
        assert!(story.goes_on(1, 2, &NodeState::Serving).unwrap().contains("min_healthy 1"));
        story.web().backends.iter_mut().for_each(|backend| backend.state = AdminState::Active);
        assert_eq!(story.goes_on(1, 2, &NodeState::Serving), None);
    }

    #[test]
    fn a_hold_down_goes_on_while_the_node_is_drained() {
        let mut story = Story::new(1);
        assert!(story.goes_on(1, 0, &NodeState::Serving).is_some());
        assert_eq!(story.goes_on(1, 1, &NodeState::Drained), Some("the node is drained".to_owned()));
        assert_eq!(story.goes_on(4, 1, &NodeState::Serving), held(6));
        assert_eq!(story.goes_on(6, 1, &NodeState::Serving), None);
    }

    mod faults {
        use super::*;
        use maglev_model::OnAllDead;
        use maglev_testing::matrix::Row;

        /// Pool web in panic, all of it dead, since long ago or not.
        fn dead(min_healthy: u32, rule: OnAllDead, long: bool) -> View {
            let mut view = view(services(&[AdminState::Active; 2], min_healthy, ["true", "false"]));
            let web = view.pools.iter_mut().find(|pool| pool.name == name("web")).unwrap();
            (web.panic, web.dead, web.long_dead, web.health.on_all_dead) = (true, true, long, rule);
            view
        }

        #[test]
        fn a_pool_that_is_dead_is_withdrawn_as_its_rule_says() {
            const NONE: &str = "203.0.113.10/32: VIP web: no backend of pool web answers anything";
            const WHY: &str = "203.0.113.10/32: VIP web: pool web has 0 usable backends, fewer than its min_healthy 1; \
                               none has answered anything for 60 s";
            let announced = at(&dead(1, OnAllDead::Keep, false), &NodeState::Serving, &[]);
            let rows = [
                ("all dead for 60 s, withdraw", dead(1, OnAllDead::Withdraw, true), true, WHY),
                ("all dead for less: panic holds", dead(1, OnAllDead::Withdraw, false), true, "203.0.113.10/32"),
                ("all dead, keep", dead(1, OnAllDead::Keep, true), true, "203.0.113.10/32"),
                ("all dead, min_healthy: 0", dead(0, OnAllDead::Withdraw, true), true, "203.0.113.10/32"),
                ("all dead, and not announced before", dead(1, OnAllDead::Withdraw, false), false, NONE),
            ];
            for (case, view, before, expected) in rows {
                let _row = Row::fault("C11", case);
                let before = if before { announced.as_slice() } else { &[] };
                assert_eq!(lines(&at(&view, &NodeState::Serving, before)), [expected], "{case}");
            }
        }

        #[test]
        fn serving_and_announced_count_the_same_backends() {
            let rows = [("the routes to all are gone", false, 100), ("all have no weight", true, 0)];
            for (case, reached, weight) in rows {
                let _row = Row::fault("T1", case);
                let mut view = view(services(&[AdminState::Active; 3], 1, ["true", "false"]));
                let web = view.pools.iter_mut().find(|pool| pool.name == name("web")).unwrap();
                assert_eq!(web.usable(), 3);
                for backend in &mut web.backends {
                    (backend.slots, backend.is_reached, backend.weight) = (21_845, reached, Weight(weight));
                }
                assert_eq!(web.usable(), 0, "they own slots still");
                assert!(lines(&at(&view, &NodeState::Serving, &[]))[0].contains("0 usable backends"));
            }
            let _row = Row::fault("T1", "all dead for 60 s");
            let view = dead(1, OnAllDead::Withdraw, true);
            assert_eq!(view.pools.iter().find(|pool| pool.name == name("web")).map(PoolView::usable), Some(0));
        }
    }
}
