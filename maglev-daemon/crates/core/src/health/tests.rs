//! Tests of health in virtual time: the used backends follow from check results alone.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use maglev_model::{
    AdminState, Backend, Change, Hysteresis, Name, OuterSources, Percent, Pool, Probe, Rules, Service, Services, Via,
    Vip, Weight,
};
use maglev_model::{Health, Standing};
use maglev_testing::matrix::Row;
use proptest::prelude::*;

use super::*;

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// The settings of the pools.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) interval: Duration,
    pub(super) fall: u32,
    pub(super) rise: u32,
    pub(super) panic: u8,
    pub(super) slow_start: Duration,
    pub(super) via: &'static str,
}

pub(super) const USUAL: Plan =
    Plan { interval: SECOND, fall: 2, rise: 3, panic: 0, slow_start: Duration::ZERO, via: "direct" };

impl Plan {
    fn check(self) -> maglev_model::Check {
        maglev_model::Check {
            probe: Probe::Tcp,
            interval: self.interval,
            timeout: self.interval / 2,
            jitter: Duration::ZERO,
            hysteresis: Hysteresis { fall: self.fall, rise: self.rise },
            port: if self.via == "direct" { NonZeroU16::new(80) } else { None },
            via: match self.via {
                "direct" => Via::Direct,
                "any" => Via::Encap { vip: None },
                vip => Via::Encap { vip: Some(name(vip)) },
            },
        }
    }
}

fn rules() -> Rules {
    Rules { outer: OuterSources { v4: Some("10.64.0.0/24".parse().unwrap()), v6: None }, ..Rules::default() }
}

fn backend(n: u8) -> Backend {
    let name = name(&format!("b{n}"));
    Backend { name, address: [10, 0, 0, n].into(), weight: Weight::DEFAULT, state: AdminState::Active, mtu: None }
}

/// Some backends, their health, and the time.
pub(super) struct Scene {
    services: Services,
    pub(super) fleet: Fleet,
    pub(super) now: Duration,
    /// How often the used backends changed.
    pub(super) changes: u32,
    news: Vec<String>,
}

impl Scene {
    /// Pools of so many backends each.
    pub(super) fn new(plan: Plan, tolerance: u32, pools: &[(&str, u8)]) -> Self {
        let mut services = Services::default();
        for (pool, backends) in pools {
            let health = maglev_model::PoolHealth {
                check: Some(Arc::new(plan.check())),
                panic: Percent(plan.panic),
                slow_start: plan.slow_start,
                ..maglev_model::PoolHealth::default()
            };
            services.admit(Change::AddPool(Pool { health, ..Pool::new(name(pool)) }), &rules()).unwrap();
            for n in 1..=*backends {
                let change = Change::AddBackend { pool: name(pool), backend: backend(n) };
                services.admit(change, &rules()).unwrap();
            }
        }
        let mut scene = Self { services, fleet: Fleet::new(tolerance), now: SECOND * 1_000, changes: 0, news: vec![] };
        scene.follow();
        scene
    }

    /// The same, and all are healthy.
    pub(super) fn healthy(plan: Plan, tolerance: u32, pools: &[(&str, u8)]) -> Self {
        let mut scene = Self::new(plan, tolerance, pools);
        for (pool, backends) in pools {
            (1..=*backends).for_each(|n| scene.check(pool, n, true));
        }
        assert!(scene.fleet.targets().keys().all(|target| scene.health_of(target) == Health::Healthy));
        scene.changes = 0;
        scene.news.clear();
        scene
    }

    /// Another daemon takes over from one that used these of pool web.
    pub(super) fn recall(&mut self, tolerance: u32, in_use: &[u8]) {
        self.fleet = Fleet::new(tolerance);
        let in_use: BTreeSet<_> = in_use.iter().map(|n| (backend(*n).name, backend(*n).address)).collect();
        self.fleet.recall([(name("web"), in_use)].into());
        self.follow();
    }

    fn follow(&mut self) {
        self.fleet.follow(&self.services, self.now);
    }

    pub(super) fn change(&mut self, change: Change) {
        self.services.admit(change, &rules()).unwrap();
        self.follow();
    }

    fn health_of(&self, target: &Target) -> Health {
        self.fleet.health(&target.pool, &target.backend, target.address).unwrap().health
    }

    /// Every check of this backend ends like this.
    pub(super) fn check(&mut self, pool: &str, n: u8, good: bool) {
        let outcome = if good { Ok(()) } else { Err(Failure::Dead("connect: refused".into())) };
        let last = Last { at: self.now, latency: SECOND / 100, outcome };
        let is_its = |target: &&Arc<Target>| target.pool == name(pool) && target.backend == name(&format!("b{n}"));
        let targets = self.fleet.targets();
        let of_backend: Vec<_> = targets.keys().filter(is_its).cloned().collect();
        assert!(!of_backend.is_empty());
        for target in of_backend {
            self.changes += u32::from(self.fleet.checked(&target, last.clone(), self.now));
        }
        self.report();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.fleet.deadline().filter(|at| *at <= end) {
            self.now = deadline.max(self.now);
            self.changes += u32::from(self.fleet.tick(self.now));
        }
        self.now = end;
        self.report();
    }

    fn report(&mut self) {
        let line = |news| match news {
            News::Health { backend, health, reason, .. } => {
                format!("{backend} {health:?}{}", reason.map(|why| format!(": {why}")).unwrap_or_default())
            }
            News::Panic { pool, on, healthy, of } => format!("{pool} panic {on}: {healthy} of {of}"),
            News::CommonFailure { on, healthy } => format!("common failure {on}: {healthy}"),
        };
        self.news.extend(self.fleet.take_news().into_iter().map(line));
    }

    fn standing(&self, n: u8) -> Standing {
        let Backend { name: backend, address, .. } = backend(n);
        self.fleet.standing(&name("web"), &backend, address)
    }

    /// The backends of pool web that own slots.
    pub(super) fn used(&self) -> Vec<u8> {
        let count = self.services.pools[&name("web")].backends.len() as u8;
        (1..=count).filter(|n| self.standing(*n).serves).collect()
    }
}

pub(super) fn vip(vip: &str, port: &str) -> Change {
    let service = Service::parse(&format!("203.0.113.{}", vip.len()), port, "tcp").unwrap();
    Change::AddVip(Vip {
        name: name(vip),
        service,
        pool: name("web"),
        announce: maglev_model::Announce::default(),
        when_empty: maglev_model::Unserved::Drop,
        affinity: maglev_model::Affinity::default(),
    })
}

#[test]
fn a_backend_falls_by_failures_in_a_row_and_rises_by_successes_in_a_row() {
    let mut scene = Scene::healthy(USUAL, 0, &[("web", 2)]);
    let rows = [
        (false, true),
        (true, true),
        (false, true),
        (false, false),
        (true, false),
        (true, false),
        (false, false),
        (true, false),
        (true, false),
        (true, true),
        (false, true),
    ];
    for (n, (good, used)) in rows.into_iter().enumerate() {
        scene.check("web", 1, good);
        assert_eq!(scene.used().contains(&1), used, "after check {n}");
        assert_eq!(scene.standing(1).lives, used);
        scene.pass(SECOND);
    }
    assert_eq!(scene.changes, 2);
    assert_eq!(scene.news, ["b1 Unhealthy: connect: refused", "b1 Healthy"]);
    let shown = scene.fleet.health(&name("web"), &name("b1"), [10, 0, 0, 1].into()).unwrap();
    assert_eq!(shown.since, SECOND * 1_009);
    assert_eq!(shown.last.unwrap().outcome, Err(Failure::Dead("connect: refused".into())));
}

#[test]
fn in_the_first_round_all_are_used_until_a_check_says_otherwise() {
    let mut scene = Scene::new(USUAL, 0, &[("web", 3)]);
    assert_eq!((scene.used(), scene.fleet.awaited(&name("web"))), (vec![1, 2, 3], 3));
    scene.check("web", 1, true);
    assert_eq!((scene.used(), scene.fleet.awaited(&name("web"))), (vec![1, 2, 3], 2));
    scene.check("web", 2, false);
    assert_eq!((scene.used(), scene.fleet.awaited(&name("web"))), (vec![1, 3], 1), "the first result decides");
    scene.check("web", 3, true);
    assert_eq!(scene.fleet.awaited(&name("web")), 0);
}

#[test]
fn a_backend_that_is_added_later_is_checked_before_it_is_used() {
    let mut scene = Scene::healthy(USUAL, 0, &[("web", 2)]);
    scene.change(Change::AddBackend { pool: name("web"), backend: backend(3) });
    assert_eq!((scene.used(), scene.fleet.awaited(&name("web"))), (vec![1, 2], 0));
    scene.check("web", 3, true);
    assert_eq!(scene.used(), [1, 2, 3]);
    scene.change(Change::RemoveBackend { pool: name("web"), backend: name("b3"), force: false });
    let address = [10, 0, 0, 9].into();
    scene.change(Change::AddBackend { pool: name("web"), backend: Backend { address, ..backend(3) } });
    assert_eq!(scene.used(), [1, 2, 3], "as far as another address knows");
    assert!(!scene.fleet.standing(&name("web"), &name("b3"), address).serves, "another address is another backend");
}

#[test]
fn a_backend_that_is_added_while_the_others_have_new_targets_is_checked_before_it_is_used() {
    let mut scene = Scene::new(Plan { via: "any", slow_start: SECOND * 30, ..USUAL }, 0, &[("web", 2)]);
    scene.change(vip("a", "80"));
    (1..=2).for_each(|n| scene.check("web", n, true));
    scene.change(vip("bb", "443"));
    scene.change(Change::AddBackend { pool: name("web"), backend: backend(3) });
    assert_eq!(scene.used(), [1, 2], "a VIP was added: the others are in use as they were");
    let pool = scene.services.pool_mut(&name("web")).unwrap();
    pool.health.check =
        Some(Arc::new(maglev_model::Check { port: NonZeroU16::new(81), ..(Plan { via: "any", ..USUAL }).check() }));
    scene.change(Change::AddBackend { pool: name("web"), backend: backend(4) });
    assert_eq!(scene.used(), [1, 2], "the port changed: nothing that is known of the others is of what is checked now");
    scene.check("web", 3, true);
    assert_eq!((scene.used(), scene.standing(3).percent), (vec![1, 2, 3], 10), "and it starts slowly");
}

#[test]
fn a_backend_that_is_added_right_after_a_restart_is_checked_before_it_is_used() {
    let mut scene = Scene::new(USUAL, 0, &[("web", 2)]);
    scene.recall(0, &[1, 2]);
    scene.change(Change::AddBackend { pool: name("web"), backend: backend(3) });
    assert_eq!(scene.used(), [1, 2]);
}

#[test]
fn a_backend_that_is_added_where_nothing_can_be_checked_is_used() {
    let mut scene = Scene::new(Plan { via: "any", ..USUAL }, 0, &[("web", 2)]);
    scene.change(vip("a", "80"));
    (1..=2).for_each(|n| scene.check("web", n, true));
    scene.change(Change::RemoveVip(name("a")));
    scene.change(vip("bb", "any"));
    scene.change(Change::AddBackend { pool: name("web"), backend: backend(3) });
    assert_eq!(scene.used(), [1, 2, 3]);
}

#[test]
fn backends_in_use_when_another_daemon_ended_are_used_until_they_are_checked() {
    let mut scene = Scene::new(USUAL, 0, &[("web", 3)]);
    scene.recall(0, &[1, 3]);
    assert_eq!((scene.used(), scene.fleet.awaited(&name("web"))), (vec![1, 3], 2));
    scene.check("web", 2, true);
    scene.check("web", 1, false);
    assert_eq!((scene.used(), scene.fleet.awaited(&name("web"))), (vec![1, 2, 3], 1), "one lost packet says little");
    scene.check("web", 3, true);
    scene.check("web", 1, false);
    assert_eq!(scene.used(), [2, 3]);
}

#[test]
fn a_backend_not_in_use_when_another_daemon_ended_fails_by_its_first_failure() {
    let mut scene = Scene::new(USUAL, 3, &[("web", 2)]);
    scene.recall(3, &[1]);
    scene.check("web", 2, false);
    assert_eq!((scene.used(), scene.news.as_slice()), (vec![1], &["b2 Unhealthy: connect: refused".to_owned()][..]));
}

#[test]
fn a_first_round_after_a_restart_that_fails_everywhere_is_put_down_to_the_checker() {
    for fall in [1, 2] {
        let mut scene = Scene::new(Plan { fall, ..USUAL }, 3, &[("web", 4)]);
        scene.recall(3, &[1, 2, 3, 4]);
        // Some are checked for the second time before others are for the first.
        (0..2).for_each(|_| scene.check("web", 1, false));
        assert_eq!((scene.used(), scene.news.len()), (vec![1, 2, 3, 4], 0), "no health is known yet");
        (2..=4).for_each(|n| scene.check("web", n, false));
        assert_eq!((scene.used(), scene.fleet.awaited(&name("web"))), (vec![1, 2, 3, 4], 0));
        assert_eq!(scene.news, ["common failure true: 4"]);
        scene.check("web", 4, true);
        (0..2).for_each(|_| scene.check("web", 1, false));
        assert_eq!(scene.used(), [2, 3, 4], "once one is healthy, the others' failures count");
    }
}

#[test]
fn a_common_failure_goes_on_while_a_new_vip_is_checked_for_the_first_time() {
    let mut scene = Scene::new(Plan { via: "any", ..USUAL }, 9, &[("web", 2)]);
    scene.change(vip("a", "80"));
    (1..=2).for_each(|n| scene.check("web", n, true));
    (0..3).for_each(|_| (1..=2).for_each(|n| scene.check("web", n, false)));
    scene.change(vip("bb", "443"));
    assert!(scene.fleet.is_common_failure());
    scene.check("web", 1, false);
    assert_eq!((scene.used(), scene.fleet.is_common_failure()), (vec![1, 2], true));
}

#[test]
fn a_backend_in_use_has_as_many_tries_with_a_new_target_as_ever() {
    let mut scene = Scene::new(Plan { via: "any", ..USUAL }, 0, &[("web", 2)]);
    scene.change(vip("a", "80"));
    (1..=2).for_each(|n| scene.check("web", n, true));
    scene.change(vip("bb", "443"));
    scene.check("web", 1, false);
    assert_eq!(scene.used(), [1, 2]);
    scene.check("web", 1, false);
    assert_eq!(scene.used(), [2]);
}

#[test]
fn a_backend_in_use_without_checks_has_as_many_tries_as_ever() {
    let mut scene = Scene::new(USUAL, 0, &[("web", 2)]);
    let health = scene.services.pools[&name("web")].health.clone();
    scene.services.pool_mut(&name("web")).unwrap().health.check = None;
    scene.follow();
    scene.services.pool_mut(&name("web")).unwrap().health = health;
    scene.follow();
    scene.check("web", 1, false);
    assert_eq!((scene.used(), scene.fleet.awaited(&name("web"))), (vec![1, 2], 1));
    scene.check("web", 1, false);
    assert_eq!(scene.used(), [2]);
}

#[test]
fn if_no_backend_was_in_use_all_are_used_and_awaited() {
    let mut scene = Scene::new(USUAL, 0, &[("web", 2)]);
    scene.recall(0, &[]);
    assert_eq!((scene.used(), scene.fleet.awaited(&name("web"))), (vec![1, 2], 2));
    scene.check("web", 1, true);
    assert_eq!((scene.used(), scene.fleet.awaited(&name("web"))), (vec![1], 0));
}

#[test]
fn a_pool_that_begins_or_ends_to_be_checked_keeps_its_backends() {
    let mut scene = Scene::healthy(USUAL, 0, &[("web", 2)]);
    scene.check("web", 1, false);
    scene.check("web", 1, false);
    assert_eq!(scene.used(), [2]);
    let health = scene.services.pools[&name("web")].health.clone();
    scene.services.pool_mut(&name("web")).unwrap().health.check = None;
    scene.follow();
    assert_eq!((scene.used(), scene.fleet.targets().len()), (vec![1, 2], 0), "without checks all are used");
    scene.services.pool_mut(&name("web")).unwrap().health = health;
    scene.follow();
    assert_eq!((scene.used(), scene.fleet.targets().len()), (vec![1, 2], 2));
}

#[test]
fn health_that_changes_with_its_targets_is_reported_and_counted() {
    let mut scene = Scene::new(Plan { via: "any", ..USUAL }, 0, &[("web", 2)]);
    let changes =
        |scene: &Scene| scene.fleet.health(&name("web"), &name("b1"), [10, 0, 0, 1].into()).unwrap().counts.changes;
    scene.change(vip("a", "80"));
    scene.change(vip("bb", "443"));
    (1..=2).for_each(|n| scene.check("web", n, true));
    for target in scene.fleet.targets().into_keys().filter(|target| target.backend == name("b1")).skip(1) {
        let last = Last { at: scene.now, latency: SECOND, outcome: Err(Failure::Unready("HTTP 503".into())) };
        for _ in 0..2 {
            scene.fleet.checked(&target, last.clone(), scene.now);
        }
    }
    scene.report();
    assert_eq!((scene.news.last().unwrap().as_str(), changes(&scene)), ("b1 Unhealthy: HTTP 503", 2));
    scene.news.clear();
    scene.change(Change::RemoveVip(name("bb")));
    scene.report();
    assert_eq!((scene.news.as_slice(), changes(&scene)), (&["b1 Healthy".to_owned()][..], 3), "what failed is gone");
    scene.news.clear();
    scene.change(vip("cc", "443"));
    scene.change(Change::AddBackend { pool: name("web"), backend: backend(3) });
    scene.report();
    assert_eq!((scene.news.as_slice(), changes(&scene)), (&["b1 Checking", "b2 Checking"].map(str::to_owned)[..], 3));
}

#[test]
fn panic_ends_with_the_checks_of_a_pool() {
    let mut scene = Scene::healthy(Plan { panic: 50, ..USUAL }, 0, &[("web", 2)]);
    (1..=2).for_each(|n| (0..2).for_each(|_| scene.check("web", n, false)));
    assert_eq!(scene.news.last().unwrap(), "web panic true: 0 of 2");
    scene.services.pool_mut(&name("web")).unwrap().health.check = None;
    scene.follow();
    scene.report();
    assert_eq!(scene.news.last().unwrap(), "web panic false: 2 of 2");
}

#[test]
fn a_new_check_keeps_the_health_until_it_has_a_result() {
    let mut scene = Scene::healthy(USUAL, 0, &[("web", 3)]);
    (0..2).for_each(|_| scene.check("web", 1, false));
    let pool = scene.services.pool_mut(&name("web")).unwrap();
    pool.health.check = Some(Arc::new(maglev_model::Check { port: NonZeroU16::new(81), ..USUAL.check() }));
    scene.follow();
    assert_eq!(scene.used(), [2, 3]);
    scene.check("web", 1, true);
    assert_eq!(scene.used(), [1, 2, 3]);
}

#[test]
fn a_flap_each_three_seconds_for_five_minutes_changes_the_table_at_most_four_times() {
    let mut row = Row::health("model", "flapping each 3 s for 5 minutes: changes of the table");
    let mut most = 0;
    for milliseconds in [100, 250, 500, 1_000, 1_500] {
        for (fall, rise) in [(1, 1), (2, 3)] {
            let interval = Duration::from_millis(milliseconds);
            let mut scene = Scene::healthy(Plan { interval, fall, rise, ..USUAL }, 0, &[("web", 5)]);
            let begin = scene.now;
            while scene.now < begin + SECOND * 300 {
                let good = (scene.now - begin).as_millis() / 3_000 % 2 == 1;
                (1..=5).for_each(|n| scene.check("web", n, good || n > 1));
                scene.pass(interval);
            }
            assert!((1..=4).contains(&scene.changes), "every {interval:?}: {} changes", scene.changes);
            most = most.max(scene.changes);
        }
    }
    row.says(format!("{most} at most, at intervals from 0.1 to 1.5 s; at most 4 are allowed; in virtual time"));
}

#[test]
fn a_damped_backend_comes_back_once_it_is_well_for_long_enough() {
    let mut scene = Scene::healthy(USUAL, 0, &[("web", 2)]);
    let flap = |scene: &mut Scene, good: bool, seconds: u32| {
        for _ in 0..seconds {
            scene.check("web", 1, good);
            scene.pass(SECOND);
        }
        scene.used().contains(&1)
    };
    assert!(!flap(&mut scene, false, 3));
    assert!(flap(&mut scene, true, 3), "the first fall costs nothing");
    assert!(!flap(&mut scene, false, 3));
    assert!(!flap(&mut scene, true, 10), "the second costs 10 s");
    assert!(flap(&mut scene, true, 1));
    assert!(flap(&mut scene, true, 1_000), "and both are forgiven");
    assert!(!flap(&mut scene, false, 3));
    assert!(flap(&mut scene, true, 3));
}

#[test]
fn slow_start_keeps_to_the_ramp() {
    let mut row = Row::health("model", "slow start's share over time");
    let mut furthest = 0.0_f64;
    let mut scene = Scene::healthy(Plan { slow_start: SECOND * 30, ..USUAL }, 0, &[("web", 10)]);
    (0..2).for_each(|_| scene.check("web", 1, false));
    scene.pass(SECOND * 60);
    (0..3).for_each(|_| scene.check("web", 1, true));
    scene.changes = 0;
    let begin = scene.now;
    while scene.now < begin + SECOND * 40 {
        let line = ((scene.now - begin).as_secs_f64() / 0.3).clamp(10.0, 100.0);
        let percent = f64::from(scene.standing(1).percent);
        let off = (percent - line).abs() / line;
        assert!(off <= 0.2, "after {:?}: {percent} of {line}", scene.now - begin);
        furthest = furthest.max(off);
        scene.pass(SECOND / 4);
    }
    row.says(format!("within {:.0} % of the ramp; 20 % are allowed; in virtual time", 100.0 * furthest));
    assert_eq!((scene.changes, scene.standing(1).percent), (9, 100));
    assert_eq!(scene.fleet.deadline(), None);
    assert_eq!(scene.standing(2).percent, 100, "the others keep their weight");
}

#[test]
fn a_backend_that_falls_while_it_ramps_begins_anew() {
    let mut scene = Scene::healthy(Plan { slow_start: SECOND * 30, rise: 1, ..USUAL }, 0, &[("web", 3)]);
    (0..2).for_each(|_| scene.check("web", 1, false));
    scene.check("web", 1, true);
    scene.pass(SECOND * 20);
    assert_eq!(scene.standing(1).percent, 64);
    (0..2).for_each(|_| scene.check("web", 1, false));
    assert!(!scene.standing(1).serves);
    (0..20).for_each(|_| {
        scene.pass(SECOND);
        scene.check("web", 1, true);
    });
    assert!(scene.standing(1).serves && scene.standing(1).percent < 64);
}

#[test]
fn a_pool_with_too_few_healthy_backends_uses_all_and_says_so() {
    let mut scene = Scene::healthy(Plan { panic: 50, slow_start: SECOND * 30, ..USUAL }, 0, &[("web", 5)]);
    for n in 1..=2 {
        (0..2).for_each(|_| scene.check("web", n, false));
    }
    assert_eq!(scene.used(), [3, 4, 5]);
    (0..2).for_each(|_| scene.check("web", 3, false));
    assert_eq!(scene.used(), [1, 2, 3, 4, 5]);
    assert!(scene.fleet.is_in_panic(&name("web")) && scene.standing(1).lives);
    assert_eq!(scene.news.last().unwrap(), "web panic true: 2 of 5");
    (0..3).for_each(|_| scene.check("web", 3, true));
    assert!(!scene.fleet.is_in_panic(&name("web")), "60 % is clearly enough");
    assert_eq!((scene.used(), scene.standing(3).percent), (vec![3, 4, 5], 100), "it was in use all the time");
    assert_eq!(scene.news.last().unwrap(), "web panic false: 3 of 5");
}

#[test]
fn two_of_which_one_comes_back_leave_panic_after_a_while() {
    let mut scene = Scene::healthy(Plan { panic: 50, ..USUAL }, 0, &[("web", 2)]);
    for n in [1, 2, 1, 2] {
        scene.check("web", n, false);
    }
    assert!(scene.fleet.is_in_panic(&name("web")));
    (0..3).for_each(|_| scene.check("web", 1, true));
    assert_eq!(scene.used(), [1, 2]);
    scene.pass(SECOND * 10);
    assert_eq!(scene.used(), [1]);
}

#[test]
fn a_drained_backend_does_not_count_and_a_disabled_one_is_not_checked() {
    let mut scene = Scene::healthy(Plan { panic: 50, ..USUAL }, 0, &[("web", 4)]);
    let now = maglev_model::UnixTime(1);
    let order = |n: u8, change| Change::SetState { pool: name("web"), backend: backend(n).name, change };
    scene.change(order(1, maglev_model::StateChange::Drain { now }));
    scene.change(order(2, maglev_model::StateChange::Disable { now }));
    assert_eq!(scene.fleet.targets().len(), 3);
    (0..2).for_each(|_| scene.check("web", 1, false));
    (0..2).for_each(|_| scene.check("web", 3, false));
    assert!(!scene.fleet.is_in_panic(&name("web")), "one of the two that count is half");
    assert!(!scene.standing(1).lives, "the flows of one that drains and dies are not kept");
}

#[test]
fn a_failure_of_everything_at_once_is_put_down_to_the_checker_for_some_rounds() {
    let pools = [("api", 2), ("web", 2)];
    let mut scene = Scene::healthy(USUAL, 3, &pools);
    let round = |scene: &mut Scene, good: bool| {
        for (pool, count) in pools {
            (1..=count).for_each(|n| scene.check(pool, n, good));
        }
        scene.pass(SECOND);
    };
    (0..4).for_each(|_| round(&mut scene, false));
    assert_eq!((scene.used(), scene.changes), (vec![1, 2], 0));
    assert_eq!(scene.news, ["common failure true: 4"]);
    round(&mut scene, true);
    assert_eq!((scene.changes, scene.news.last().unwrap().as_str()), (0, "common failure false: 4"));
    (0..5).for_each(|_| round(&mut scene, false));
    assert_eq!((scene.used(), scene.changes), (vec![], 4), "after so many rounds the failures count");
}

#[test]
fn once_one_passes_the_others_that_fail_become_unhealthy() {
    let mut scene = Scene::healthy(USUAL, 3, &[("web", 3)]);
    for _ in 0..3 {
        (1..=3).for_each(|n| scene.check("web", n, false));
        scene.pass(SECOND);
    }
    assert_eq!(scene.used(), [1, 2, 3]);
    scene.check("web", 2, true);
    assert_eq!(scene.used(), [1, 2, 3], "the others may be well too");
    scene.check("web", 3, true);
    scene.check("web", 1, false);
    assert_eq!(scene.used(), [2, 3]);
    assert_eq!(scene.news, ["common failure true: 3", "common failure false: 3", "b1 Unhealthy: connect: refused"]);
}

#[test]
fn one_backend_alone_that_fails_is_no_fault_of_the_checker() {
    let mut scene = Scene::healthy(USUAL, 3, &[("web", 1)]);
    (0..2).for_each(|_| scene.check("web", 1, false));
    assert!(scene.used().is_empty());
}

#[test]
fn each_vip_is_asked_once_or_the_one_that_is_chosen() {
    let scene_of = |via: &'static str, vips: &[(&str, &str)]| {
        let mut scene = Scene::new(Plan { via, ..USUAL }, 0, &[("web", 2)]);
        vips.iter().for_each(|(name, port)| scene.change(vip(name, port)));
        let targets = scene.fleet.targets();
        let asked = targets.keys().map(|target| format!("{} {}", target.backend, target.destination));
        let waiting = scene.fleet.health(&name("web"), &name("b1"), [10, 0, 0, 1].into()).unwrap().waiting;
        assert_eq!(scene.used(), [1, 2], "whatever is not checked is used");
        (asked.collect::<Vec<_>>(), waiting.map(|why| why.to_string()))
    };
    let both = [("a", "80"), ("bb", "443")];
    let (asked, waiting) = scene_of("any", &both);
    assert_eq!(asked, ["b1 203.0.113.1:80", "b1 203.0.113.2:443", "b2 203.0.113.1:80", "b2 203.0.113.2:443"]);
    assert_eq!(waiting, None);
    assert_eq!(scene_of("bb", &both).0, ["b1 203.0.113.2:443", "b2 203.0.113.2:443"]);
    assert_eq!(scene_of("direct", &[]).0, ["b1 10.0.0.1:80", "b2 10.0.0.2:80"]);
    for (via, vips, why) in [
        ("any", &[][..], "no VIP uses pool web: an encapsulated check needs one"),
        ("any", &[("a", "any")], "the VIPs take any port: check.port must say which"),
        ("ccc", &both, "VIP ccc does not use pool web"),
    ] {
        assert_eq!(scene_of(via, vips), (vec![], Some(why.to_owned())));
    }
}

#[test]
fn a_backend_is_as_healthy_as_its_worst_target() {
    let mut scene = Scene::new(Plan { via: "any", ..USUAL }, 0, &[("web", 1)]);
    scene.change(vip("a", "80"));
    scene.change(vip("bb", "443"));
    let targets: Vec<_> = scene.fleet.targets().into_keys().collect();
    let last = |outcome| Last { at: SECOND, latency: SECOND, outcome };
    scene.fleet.checked(&targets[0], last(Ok(())), scene.now);
    assert_eq!(scene.health_of(&targets[0]), Health::Checking);
    scene.fleet.checked(&targets[1], last(Err(Failure::Unready("HTTP 503".into()))), scene.now);
    assert_eq!(scene.health_of(&targets[0]), Health::Unhealthy);
    let stale = Target { destination: "10.0.0.1:1".parse().unwrap(), ..(*targets[0]).clone() };
    assert!(!scene.fleet.checked(&stale, last(Ok(())), scene.now), "what is not followed is ignored");
}

proptest! {
    /// For any results: at most one fall for `fall` failures, at most one rise for `rise` successes; some backend is used
    /// unless panic is off; and the counts are right.
    #[test]
    fn whatever_checks_say_the_rules_hold(
        results in prop::collection::vec((1_u8..5, any::<bool>(), 0_u64..3_000), 1..300),
        fall in 1_u32..4,
        rise in 1_u32..4,
        tolerance in 0_u32..3,
        panic in prop_oneof![Just(0_u8), Just(50), Just(100)],
        slow in prop_oneof![Just(0_u32), Just(30)],
    ) {
        let plan = Plan { fall, rise, panic, slow_start: SECOND * slow, ..USUAL };
        let mut scene = Scene::healthy(plan, tolerance, &[("web", 4)]);
        let mut runs = [(true, 0_u32); 5];
        for (n, good, pause) in results {
            let before = scene.health_of(&Target { backend: backend(n).name, address: backend(n).address, ..any_target(&scene) });
            scene.check("web", n, good);
            let run = &mut runs[usize::from(n)];
            *run = if run.0 == good { (good, run.1 + 1) } else { (good, 1) };
            let after = scene.health_of(&Target { backend: backend(n).name, address: backend(n).address, ..any_target(&scene) });
            if before != after {
                let enough = if good { rise } else { fall };
                prop_assert!(run.1 >= enough, "{before:?} to {after:?} after {run:?}");
            }
            if panic > 0 {
                prop_assert!(!scene.used().is_empty());
            }
            for n in 1..=4 {
                let Standing { serves, lives, percent } = scene.standing(n);
                prop_assert!(!serves || lives);
                prop_assert!((10..=100).contains(&percent));
            }
            scene.pass(Duration::from_millis(pause));
        }
        prop_assert_eq!(scene.fleet.tally, scene.fleet.count(), "counted from the start it is the same");
    }
}

fn any_target(scene: &Scene) -> Target {
    let targets = scene.fleet.targets();
    (**targets.keys().next().unwrap()).clone()
}
