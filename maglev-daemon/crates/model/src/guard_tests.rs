//! Faults that were found by running the product: how much each kind of order takes out of service at once.

use maglev_testing::matrix::Row;

use super::*;
use crate::{AdminState, Announce, OuterSources, Rules, Service, UnixTime};

const NOW: UnixTime = UnixTime(1_700_000_000);
const DRAINING: AdminState = AdminState::Draining { since: Some(NOW) };
const DISABLED: AdminState = AdminState::Disabled { since: Some(NOW) };

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn rules() -> Rules {
    Rules { outer: OuterSources { v4: Some("10.64.0.0/24".parse().unwrap()), v6: None }, ..Rules::default() }
}

/// Pool `web` of `b1`, `b2`, … in these states and with these weights, and `vips` VIPs that it serves.
fn services(backends: &[(AdminState, u16)], vips: u8) -> Services {
    let mut services = Services::default();
    services.admit(Change::AddPool(Pool::new(name("web"))), &rules()).unwrap();
    for (n, (state, weight)) in (1_u8..).zip(backends) {
        let (name, address) = (name(&format!("b{n}")), [10, 0, 1, n].into());
        let backend = Backend { name, address, weight: Weight(*weight), state: *state, mtu: None };
        services.admit(Change::AddBackend { pool: self::name("web"), backend }, &rules()).unwrap();
    }
    for n in 1..=vips {
        let service = Service::parse(&format!("203.0.113.{n}"), "80", "tcp").unwrap();
        let vip = Vip {
            name: name(&format!("v{n}")),
            service,
            pool: name("web"),
            announce: Announce::default(),
            when_empty: crate::Unserved::Drop,
            affinity: crate::Affinity::default(),
        };
        services.admit(Change::AddVip(vip), &rules()).unwrap();
    }
    services
}

fn active(count: usize) -> Vec<(AdminState, u16)> {
    vec![(AdminState::Active, 1); count]
}

/// Every change that takes a backend out, by its command.
fn doors(backend: &str) -> [(&'static str, Change); 4] {
    let (pool, backend) = (name("web"), name(backend));
    let state = |change| Change::SetState { pool: pool.clone(), backend: backend.clone(), change };
    [
        ("drain", state(StateChange::Drain { now: NOW })),
        ("disable", state(StateChange::Disable { now: NOW })),
        ("weight 0", Change::SetWeight { pool: pool.clone(), backend: backend.clone(), weight: Weight(0) }),
        ("remove", Change::RemoveBackend { pool: pool.clone(), backend: backend.clone(), force: false }),
    ]
}

#[test]
fn the_last_available_backend_is_refused_at_every_door() {
    let line = "pool web: takes out 1 of 1 available backends and leaves none (limit: one must stay); --force does it";
    let refused = Err(Refusal::Conflict(line.to_owned()));
    let out = [(AdminState::Active, 0), (DRAINING, 1), (DISABLED, 1)];
    for (door, change) in doors("b1") {
        let _row = Row::fault("C9", &format!("{door} of the last available backend"));
        for others in [&[][..], &out[..1], &out] {
            let services = services(&[&active(1), others].concat(), 1);
            assert_eq!(services.guard_change(&change), refused, "{door}");
            // The same by the file.
            let next = services.apply(&change, &rules()).unwrap();
            assert_eq!(services.guard(&next), refused, "{door}");
        }
        assert_eq!(services(&active(2), 1).guard_change(&change), Ok(()), "{door}: another one is available");
    }
    let _row = Row::fault("C9", "a backend that is not available is missed by nothing");
    for (n, (_, change)) in ["b2", "b3", "b4"].iter().flat_map(|backend| doors(backend)).enumerate() {
        assert_eq!(services(&[&active(1), &out[..]].concat(), 1).guard_change(&change), Ok(()), "{n}");
    }
}

#[test]
fn a_pool_with_available_backends_is_removed_by_force_alone() {
    let _row = Row::fault("C5", "the removal of a pool with available backends");
    let removal = Change::RemovePool(name("web"));
    let line = "pool web: takes out 3 of 3 available backends and leaves none (limit: one must stay); --force does it";
    assert_eq!(services(&active(3), 0).guard_change(&removal), Err(Refusal::Conflict(line.to_owned())));
    assert_eq!(services(&[(DRAINING, 1), (AdminState::Active, 0)], 0).guard_change(&removal), Ok(()));
    // A pool that serves VIPs cannot be removed even with force.
    assert_eq!(services(&active(3), 1).guard_change(&removal), Ok(()));
    assert!(services(&active(3), 1).apply(&removal, &rules()).is_err());
}

/// The outcome for a file that leaves `left` of `of` backends available, for each way to take the others out.
fn cut(of: usize, left: usize) -> Vec<Result<(), Refusal>> {
    let before = services(&active(of), 1);
    let ways: [fn(&mut Pool, &Name); 5] = [
        |pool, name| drop(pool.backends.remove(name)),
        |pool, name| pool.backends.get_mut(name).unwrap().state = DRAINING,
        |pool, name| pool.backends.get_mut(name).unwrap().state = DISABLED,
        |pool, name| pool.backends.get_mut(name).unwrap().weight = Weight(0),
        |pool, name| pool.backends.get_mut(name).unwrap().address = [10, 0, 2, name.as_str().as_bytes()[1]].into(),
    ];
    let cut = |way: &fn(&mut Pool, &Name)| {
        let mut next = before.clone();
        let pool = next.pool_mut(&name("web")).unwrap();
        let names: Vec<_> = pool.backends.keys().skip(left).cloned().collect();
        names.iter().for_each(|name| way(pool, name));
        before.guard(&next)
    };
    ways.iter().map(cut).collect()
}

#[test]
fn more_than_a_third_or_so_of_a_pool_is_refused() {
    let _row =
        Row::fault("C5", "a file takes out more than 30 % and more than one of a pool, removed, drained, disabled, …");
    assert!(cut(3, 2).iter().all(Result::is_ok), "one is always allowed");
    assert!(cut(10, 7).iter().all(Result::is_ok), "30 % are allowed");
    let line = "pool web: takes out 4 of 10 available backends (limit: 30 %, or one, at once); --force does it";
    assert!(cut(10, 6).iter().all(|outcome| *outcome == Err(Refusal::Conflict(line.to_owned()))), "{:?}", cut(10, 6));
    assert!(cut(3, 1).iter().all(Result::is_err));
    assert_eq!(cut(2, 0)[..4].iter().filter(|outcome| outcome.is_err()).count(), 4);
    assert_eq!(cut(1, 0).iter().filter(|outcome| outcome.is_ok()).count(), 1, "one may move to another address");
}

#[test]
fn more_than_a_tenth_of_the_vips_is_refused() {
    let _row =
        Row::fault("C5", "a file takes out more than 10 % and more than one of the VIPs, removed or announced no more");
    let ways: [fn(&mut Services, &Name); 2] = [
        |services, name| drop(services.vips.remove(name)),
        |services, name| services.vips.get_mut(name).unwrap().announce.by = AnnounceBy::Nothing,
    ];
    for way in ways {
        let without = |of: u8, less: usize| {
            let before = services(&active(2), of);
            let mut next = before.clone();
            before.vips.keys().take(less).for_each(|name| way(&mut next, name));
            before.guard(&next)
        };
        assert_eq!((without(1, 1), without(5, 1), without(20, 2)), (Ok(()), Ok(()), Ok(())));
        let line = "takes out 2 of 5 VIPs (limit: 10 %, or one, at once): v1, v2; --force does it";
        assert_eq!(without(5, 2), Err(Refusal::Conflict(line.to_owned())));
        assert!(without(200, 21).is_err_and(|error| error.to_string().starts_with("takes out 21 of 200 VIPs")));
    }
    let before = services(&active(2), 5);
    let mut renamed = before.clone();
    renamed.vips = before
        .vips
        .values()
        .map(|vip| {
            (name(&format!("new-{}", vip.name)), Vip { name: name(&format!("new-{}", vip.name)), ..vip.clone() })
        })
        .collect();
    assert_eq!(before.guard(&renamed), Ok(()), "another name takes nothing out");
    assert_eq!(Services::default().guard(&before), Ok(()), "a file at the start is taken as it is");
}

#[test]
fn a_vip_is_not_left_to_an_empty_pool() {
    let _row =
        Row::fault("C5", "a file moves a VIP to a pool without available backends; all faults are reported at once");
    let mut before = services(&active(4), 1);
    before.admit(Change::AddPool(Pool::new(name("api"))), &rules()).unwrap();
    let mut next = before.clone();
    next.vips.get_mut(&name("v1")).unwrap().pool = name("api");
    let moved = "VIP v1: goes over to pool api, which has 0 available backends (limit: at least one)";
    assert_eq!(before.guard(&next), Err(Refusal::Conflict(format!("{moved}; --force does it"))));
    next.pools.remove(&name("web"));
    let lost = "pool web: takes out 4 of 4 available backends and leaves none (limit: one must stay)";
    assert_eq!(before.guard(&next), Err(Refusal::Conflict(format!("{lost}; {moved}; --force does it"))));
}

#[test]
fn a_difference_is_counted_by_kind() {
    let _row = Row::fault("C5", "what a reload changes is counted: added, changed, removed");
    let before = services(&active(3), 2);
    let mut next = services(&active(2), 1);
    next.pool_mut(&name("web")).unwrap().settings.min_healthy = 2;
    next.pool_mut(&name("web")).unwrap().backends.get_mut(&name("b1")).unwrap().weight = Weight(7);
    next.admit(Change::AddPool(Pool::new(name("api"))), &rules()).unwrap();
    let counts = |added, changed, removed| crate::Counts { added, changed, removed };
    let found = before.difference(&next);
    assert_eq!((found.vips, found.pools, found.backends), (counts(0, 0, 1), counts(1, 1, 0), counts(0, 1, 1)));
    assert_eq!(before.difference(&before), crate::Difference::default());
}
