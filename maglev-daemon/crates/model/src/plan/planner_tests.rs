//! A plan that skips unchanged pools equals the plan that examines all of them, over random histories.

use maglev_common::backend::InterfaceSlot;
use maglev_common::encap::EncapKind;
use proptest::prelude::*;

use super::super::SavedPool;
use super::*;
use crate::{Affinity, Announce, Backend, Service, Unserved, Vip, Weight};
use maglev_common::vip::Key as _;

const POOLS: usize = 3;
const BACKENDS: usize = 4;

/// Events before a plan; pools and backends by number.
#[derive(Clone, Debug)]
enum Happening {
    /// A weight, or a backend that is added with it.
    Weight(usize, usize, u16),
    State(usize, usize, u8),
    Removed(usize, usize),
    /// Another address.
    Moved(usize, usize),
    /// By the last byte of a backend's address.
    NextHop(u8, u8),
    Standing(usize, usize, Standing),
    Tracking(usize, bool),
    Encap(usize, EncapKind),
    /// A VIP of this pool comes or goes.
    Vip(usize),
    PoolRemoved(usize),
    /// Milliseconds pass.
    Later(u64),
    /// Flow tables are surveyed, and hold nothing.
    Surveyed,
}

fn any_happening() -> impl Strategy<Value = Happening> {
    use Happening as H;
    let (pool, backend) = (|| 0..POOLS, || 0..BACKENDS);
    let standing = (any::<bool>(), any::<bool>(), prop_oneof![Just(100_u8), 1..100_u8]);
    prop_oneof![
        4 => (pool(), backend(), prop_oneof![Just(100), Just(0), 1..300_u16]).prop_map(|(p, b, w)| H::Weight(p, b, w)),
        2 => (pool(), backend(), 0..3_u8).prop_map(|(p, b, state)| H::State(p, b, state)),
        1 => (pool(), backend()).prop_map(|(p, b)| H::Removed(p, b)),
        1 => (pool(), backend()).prop_map(|(p, b)| H::Moved(p, b)),
        3 => (0..(2 * POOLS * BACKENDS) as u8, 0..3_u8).prop_map(|(address, hop)| H::NextHop(address, hop)),
        2 => (pool(), backend(), standing).prop_map(|(p, b, (serves, lives, percent))| {
            H::Standing(p, b, Standing { serves, lives, percent })
        }),
        1 => (pool(), any::<bool>()).prop_map(|(p, always)| H::Tracking(p, always)),
        1 => (pool(), prop_oneof![Just(EncapKind::IpIp), Just(EncapKind::Gue)]).prop_map(|(p, kind)| H::Encap(p, kind)),
        1 => pool().prop_map(H::Vip),
        1 => pool().prop_map(H::PoolRemoved),
        3 => prop_oneof![0..2_000_u64, 4_000..7_000_u64, 100_000..200_000_u64].prop_map(H::Later),
        2 => Just(H::Surveyed),
    ]
}

fn name(kind: char, n: usize) -> Name {
    Name::parse(&format!("{kind}{n}")).unwrap()
}

fn address(last: usize) -> IpAddr {
    [10, 0, 0, u8::try_from(last).unwrap()].into()
}

/// The desired and the known state.
#[derive(Default)]
struct World {
    services: Services,
    next_hops: BTreeMap<IpAddr, NextHop>,
    standings: BTreeMap<(Name, Name), Standing>,
    now: Duration,
}

impl World {
    /// All backends with next hops, and a VIP on each pool.
    fn new() -> Self {
        let mut world = Self::default();
        for p in 0..POOLS {
            (0..BACKENDS).for_each(|b| drop(world.backend(p, b).clone()));
            world.happen(&Happening::Vip(p));
        }
        (0..2 * POOLS * BACKENDS).for_each(|last| world.happen(&Happening::NextHop(last as u8, 1)));
        world
    }

    fn backend(&mut self, p: usize, b: usize) -> &mut Backend {
        let pool = self.services.pools.entry(name('p', p)).or_insert_with(|| Pool::new(name('p', p)).into());
        let pool = Arc::make_mut(pool);
        pool.backends.entry(name('b', b)).or_insert_with(|| Backend {
            name: name('b', b),
            address: address(p * BACKENDS + b),
            weight: Weight(100),
            state: AdminState::Active,
            mtu: None,
        })
    }

    fn happen(&mut self, happening: &Happening) {
        match *happening {
            Happening::Weight(p, b, weight) => self.backend(p, b).weight = Weight(weight),
            Happening::State(p, b, state) => {
                let states =
                    [AdminState::Active, AdminState::Draining { since: None }, AdminState::Disabled { since: None }];
                self.backend(p, b).state = states[usize::from(state)];
            }
            Happening::Removed(p, b) => {
                self.backend(p, b);
                self.services.pool_mut(&name('p', p)).unwrap().backends.remove(&name('b', b));
            }
            Happening::Moved(p, b) => self.backend(p, b).address = address((POOLS + p) * BACKENDS + b),
            Happening::NextHop(last, hop) => {
                let hops = [
                    NextHop::UNRESOLVED,
                    NextHop::new([2; 6], InterfaceSlot(1)),
                    NextHop::new([4; 6], InterfaceSlot(1)),
                ];
                self.next_hops.insert(address(usize::from(last)), hops[usize::from(hop)]);
            }
            Happening::Standing(p, b, standing) => {
                self.standings.insert((name('p', p), name('b', b)), standing);
            }
            Happening::Tracking(p, always) => {
                self.backend(p, 0);
                let pool = self.services.pool_mut(&name('p', p)).unwrap();
                pool.settings.tracking = if always { Tracking::Always } else { Tracking::Exception };
            }
            Happening::Encap(p, kind) => {
                self.backend(p, 0);
                self.services.pool_mut(&name('p', p)).unwrap().settings.encap = kind;
            }
            Happening::Vip(p) => {
                self.backend(p, 0);
                if self.services.vips.remove(&name('v', p)).is_none() {
                    let service = Service::parse("203.0.113.10", &(80 + p).to_string(), "tcp").unwrap();
                    let vip = Vip {
                        name: name('v', p),
                        service,
                        pool: name('p', p),
                        announce: Announce::default(),
                        when_empty: Unserved::Drop,
                        affinity: Affinity::default(),
                    };
                    self.services.vips.insert(vip.name.clone(), vip);
                }
            }
            Happening::PoolRemoved(p) => {
                self.services.pools.remove(&name('p', p));
                self.services.vips.remove(&name('v', p));
            }
            Happening::Later(milliseconds) => self.now += Duration::from_millis(milliseconds),
            Happening::Surveyed => {}
        }
    }

    fn plan(&self, planner: &mut Planner) -> Vec<Step> {
        self.plan_with(planner, false)
    }

    /// `unchanged`: neither next hops nor standings changed since the last plan.
    fn plan_with(&self, planner: &mut Planner, unchanged: bool) -> Vec<Step> {
        let next_hop = |at: IpAddr| self.next_hops.get(&at).copied().unwrap_or_default();
        let standing = |pool: &Name, backend: &Name, _: IpAddr| {
            self.standings.get(&(pool.clone(), backend.clone())).copied().unwrap_or_default()
        };
        let known = Known { next_hop: &next_hop, standing: &standing, unchanged };
        let steps = planner.plan(&self.services, &known, self.now).steps;
        planner.published(self.now);
        steps
    }

    fn survey(&self, planner: &mut Planner) -> bool {
        let orders = planner.surveys(&self.services);
        let found =
            |order: SurveyOrder| Surveyed { pool: order.pool, transition: order.transition, pinned: Pinned::default() };
        planner.surveyed(orders.into_iter().map(found).collect())
    }
}

/// Makes the next plan examine every pool.
fn forget_what_was_desired(planner: &mut Planner) {
    for pool in planner.pools.values_mut() {
        (pool.desired, pool.stirred) = (None, true);
    }
}

fn planner() -> Planner {
    Planner::new(Limits::default(), OuterSources { v4: Some("10.64.0.0/24".parse().unwrap()), v6: None })
}

#[test]
fn another_encapsulation_changes_the_members_of_its_pool_and_nothing_else() {
    let (mut world, mut planner) = (World::new(), planner());
    world.plan(&mut planner);
    let members = |planner: &Planner| planner.pools[&name('p', 1)].members.values().map(|m| m.id).collect::<Vec<_>>();
    let before = members(&planner);
    for kind in [EncapKind::Gue, EncapKind::IpIp] {
        world.happen(&Happening::Encap(1, kind));
        let steps: Vec<_> = before.iter().map(|&id| Step::SetEncap { id, kind }).collect();
        assert_eq!(world.plan(&mut planner), steps);
        assert_eq!(world.plan(&mut planner), []);
    }
    world.happen(&Happening::Encap(1, EncapKind::Gue));
    world.plan(&mut planner);
    world.happen(&Happening::Moved(1, 0));
    let new = world.plan(&mut planner).into_iter().find_map(|step| match step {
        Step::WriteMember { record, .. } => Some(record.state().encap().kind()),
        _ => None,
    });
    assert_eq!(new, Some(EncapKind::Gue), "a new member begins with it");
}

#[test]
fn entries_bind_the_flows_of_each_pool_for_as_long_as_its_slots_settle_by() {
    let (mut world, mut planner) = (World::new(), planner());
    let idle = |steps: Vec<Step>| -> Vec<_> {
        let idle = |step: &Step| match step {
            Step::SetIdle { pool, seconds } => Some((pool.0, *seconds)),
            _ => None,
        };
        steps.iter().filter_map(idle).collect()
    };
    let first: Vec<_> = (0..POOLS as u16).map(|pool| (pool, 900)).collect();
    assert_eq!(idle(world.plan(&mut planner)), first);
    world.services.pool_mut(&name('p', 1)).unwrap().settings.transition.idle = Duration::from_secs(60);
    assert_eq!((idle(world.plan(&mut planner)), idle(world.plan(&mut planner))), (vec![(1, 60)], vec![]));
    world.happen(&Happening::Weight(1, 0, 50));
    world.plan(&mut planner);
    let settles: Vec<_> = planner.surveys(&world.services).iter().map(|order| (order.pool.0, order.idle)).collect();
    assert_eq!(settles, [(1, 60)]);
    world.happen(&Happening::PoolRemoved(1));
    assert_eq!(idle(world.plan(&mut planner)), [(1, 0)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn pools_of_which_nothing_changed_may_be_left_out(histories in prop::collection::vec(any_happening(), 1..40)) {
        let (mut world, mut quick, mut whole) = (World::new(), planner(), planner());
        for happening in &histories {
            world.happen(happening);
            if matches!(happening, Happening::Surveyed) {
                prop_assert_eq!(world.survey(&mut quick), world.survey(&mut whole));
            }
            forget_what_was_desired(&mut whole);
            let unchanged = !matches!(happening, Happening::NextHop(..) | Happening::Standing(..));
            let steps = world.plan_with(&mut quick, unchanged);
            prop_assert_eq!(steps, world.plan(&mut whole), "after {:?}", happening);
            prop_assert_eq!(quick.deadline(), whole.deadline());
            let anew = whole.pools.iter().map(|(name, pool)| SavedPool::new(name, pool).into()).collect();
            prop_assert!(quick.save() == whole.saved(anew), "after {:?}", happening);
        }
    }

    /// An address answers pings as long as a pool of one of its VIPs has an owner, after every plan.
    #[test]
    fn an_address_is_silent_exactly_while_no_pool_of_its_vips_has_a_backend(
        histories in prop::collection::vec(any_happening(), 1..40),
    ) {
        let packets = PacketSettings { echo: crate::Echo::Serving, ..PacketSettings::default() };
        let (mut world, mut planner) = (World::new(), planner().with_packets(packets));
        let mut directory = Vec::new();
        for happening in &histories {
            world.happen(happening);
            for step in world.plan(&mut planner) {
                if let Step::SwitchDirectory4 { contents } = step {
                    directory = contents.keys;
                }
            }
            let addresses: Vec<_> = directory.iter().filter(|(key, _)| *key == key.bare_address()).collect();
            let vips = &world.services.vips;
            prop_assert_eq!(addresses.len(), usize::from(!vips.is_empty()));
            let owned = |pool: &Name| planner.pool(pool).is_some_and(|pool| !pool.table().names().is_empty());
            let is_served = vips.values().any(|vip| owned(&vip.pool));
            prop_assert!(addresses.iter().all(|(_, word)| word.is_silent() != is_served), "after {:?}", happening);
        }
    }
}
