//! Faults found by running the product: the health of pools and backends, and since when.

use std::sync::Arc;

use maglev_model::{Change, StateChange, UnixTime};
use maglev_testing::matrix::Row;

use super::tests::{Plan, SECOND, Scene, USUAL, name, vip};
use super::*;

impl Scene {
    /// A check of this backend fails with an answer.
    fn answers_badly(&mut self, n: u8) {
        self.fail(n, &Failure::Unready("HTTP 503".into()));
    }

    fn dies(&mut self, n: u8) {
        self.fail(n, &Failure::Dead("connect: refused".into()));
    }

    fn fail(&mut self, n: u8, failure: &Failure) {
        let last = Last { at: self.now, latency: SECOND / 100, outcome: Err(failure.clone()) };
        let targets = self.fleet.targets();
        for target in targets.keys().filter(|target| target.backend == name(&format!("b{n}"))) {
            self.changes += u32::from(self.fleet.checked(target, last.clone(), self.now));
        }
    }

    /// All die, by two failures each.
    fn all_die(&mut self, count: u8) {
        (0..2).for_each(|_| (1..=count).for_each(|n| self.dies(n)));
    }

    /// Whether all are dead, and have been for 60 s.
    fn all_dead(&self) -> (bool, bool) {
        self.fleet.is_all_dead(&name("web"))
    }
}

const PANIC: Plan = Plan { panic: 50, ..USUAL };

#[test]
fn a_pool_none_of_whose_backends_answers_for_a_minute_is_dead() {
    let _row = Row::fault("C11", "none answers for 60 s; one answer, even a bad one, ends it");
    let mut scene = Scene::healthy(PANIC, 0, &[("web", 3)]);
    scene.all_die(3);
    assert_eq!((scene.all_dead(), scene.used()), ((true, false), vec![1, 2, 3]), "panic: all are used meanwhile");
    scene.pass(SECOND * 59);
    assert_eq!(scene.all_dead(), (true, false));
    let changes = scene.changes;
    scene.pass(SECOND);
    assert_eq!(scene.all_dead(), (true, true));
    assert!(
        scene.changes > changes && scene.fleet.deadline().is_none(),
        "it is reported once, and nothing is due afterwards"
    );
    scene.answers_badly(2);
    assert_eq!(scene.all_dead(), (false, false));
    scene.dies(2);
    assert_eq!(scene.all_dead(), (true, false), "it begins anew");
}

#[test]
fn answers_that_fail_never_make_a_pool_dead() {
    let _row = Row::fault("C11", "all answer 503 for an hour: panic holds");
    let mut scene = Scene::healthy(PANIC, 0, &[("web", 2)]);
    for _ in 0..120 {
        (1..=2).for_each(|n| scene.answers_badly(n));
        scene.pass(SECOND * 30);
        assert_eq!((scene.all_dead(), scene.used().len()), ((false, false), 2));
    }
}

#[test]
fn a_backend_that_takes_no_new_connections_does_not_keep_a_pool_alive() {
    let _row = Row::fault("C11", "a draining backend answers, the active ones do not");
    let mut scene = Scene::healthy(PANIC, 0, &[("web", 3)]);
    let change = StateChange::Drain { now: UnixTime(1) };
    scene.change(Change::SetState { pool: name("web"), backend: name("b3"), change });
    scene.all_die(2);
    assert!(scene.all_dead().0);
    scene.pass(SECOND * 60);
    assert!(scene.all_dead().1);
}

#[test]
fn the_checkers_own_failure_does_not_make_a_pool_dead_before_backends_fall() {
    let _row = Row::fault("C11", "everything fails at once: no backend is dead before it is unhealthy");
    let mut scene = Scene::healthy(PANIC, 3, &[("web", 2)]);
    scene.all_die(2);
    assert_eq!(scene.all_dead(), (false, false), "put down to the checker");
    scene.recall(3, &[1, 2]);
    (1..=2).for_each(|n| scene.dies(n));
    scene.pass(SECOND * 120);
    assert_eq!(scene.all_dead(), (false, false), "the first round after a restart decides nothing");
    (0..5).for_each(|_| (1..=2).for_each(|n| scene.dies(n)));
    assert_eq!(scene.all_dead(), (true, false));
}

/// One backend, healthy by both VIPs of its pool; what is checked of it.
fn scene_of_two_vips() -> (Scene, Vec<Arc<Target>>) {
    let mut scene = Scene::new(Plan { via: "any", rise: 1, ..USUAL }, 0, &[("web", 1)]);
    scene.change(vip("a", "80"));
    scene.change(vip("bb", "443"));
    scene.check("web", 1, true);
    scene.pass(SECOND * 9);
    let targets = scene.fleet.targets().into_keys().collect();
    (scene, targets)
}

impl Scene {
    /// A second later, a check of one target ends like this.
    fn one(&mut self, target: &Target, good: bool) {
        self.pass(SECOND);
        let outcome = if good { Ok(()) } else { Err(Failure::Dead("connect: refused".into())) };
        let last = Last { at: self.now, latency: SECOND / 100, outcome };
        self.fleet.checked(target, last, self.now);
    }

    fn since(&self) -> std::time::Duration {
        self.fleet.health(&name("web"), &name("b1"), [10, 0, 0, 1].into()).unwrap().since
    }
}

#[test]
fn a_backend_is_as_old_as_its_last_change() {
    let row = Row::fault("T3", "one of two targets fails and comes back");
    let (mut scene, targets) = scene_of_two_vips();
    (0..2).for_each(|_| scene.one(&targets[0], false));
    assert_eq!(scene.since(), scene.now);
    scene.one(&targets[0], true);
    assert_eq!(scene.since(), scene.now, "healthy since now, though the other target always was");
    drop(row);
    let row = Row::fault("T3", "unhealthy since the first of two fell, also once only the second is");
    let (mut scene, targets) = scene_of_two_vips();
    let began = scene.now + SECOND * 2;
    (0..2).for_each(|_| scene.one(&targets[0], false));
    (0..2).for_each(|_| scene.one(&targets[1], false));
    scene.one(&targets[0], true);
    assert_eq!(scene.since(), began);
    drop(row);
    let _row = Row::fault("T3", "a VIP is added: checking since then");
    let (mut scene, _) = scene_of_two_vips();
    scene.change(vip("ccc", "80"));
    assert_eq!(scene.since(), scene.now);
}

#[test]
fn a_backend_that_damping_holds_back_says_until_when() {
    let mut row = Row::fault("R10", "a backend is held back by flap damping: until when");
    let mut scene = Scene::healthy(Plan { rise: 1, ..USUAL }, 0, &[("web", 2)]);
    let held = |scene: &Scene| {
        let health = scene.fleet.health(&name("web"), &name("b1"), [10, 0, 0, 1].into()).unwrap();
        health.held_until.map(|until| until.saturating_sub(scene.now))
    };
    (0..2).for_each(|_| scene.check("web", 1, false));
    assert_eq!(held(&scene), None, "it fails");
    scene.check("web", 1, true);
    (0..2).for_each(|_| scene.check("web", 1, false));
    scene.check("web", 1, true);
    assert_eq!(held(&scene), Some(SECOND * 10), "the second fall in a row");
    scene.pass(SECOND * 4);
    scene.check("web", 1, true);
    assert_eq!(held(&scene), Some(SECOND * 6));
    scene.pass(SECOND * 6);
    scene.check("web", 1, true);
    assert_eq!((held(&scene), scene.used().len()), (None, 2));
    row.says("10 s after the second fall, then 20 s, up to 5 min");
}
