//! Faults that were found by running the product: the state file at its limits is read as it was written.

use maglev_common::backend::InterfaceSlot;
use maglev_common::maps::{MAX_MEMBERS, MAX_POOLS, MAX_VIPS};
use maglev_testing::matrix::{Row, is_full};

use super::*;
use crate::Standing;
use crate::plan::Known;
use crate::{AdminState, Announce, Backend, Pool, Service, Services, Unserved, Vip};

fn long(kind: char, n: u32) -> Name {
    Name::parse(&format!("{kind}{}{n:06}", "x".repeat(56))).unwrap()
}

/// As many as possible; a few of them in the suite.
fn pools() -> u32 {
    if is_full() { MAX_POOLS } else { 8 }
}

fn vips() -> u32 {
    if is_full() { MAX_VIPS } else { 64 }
}

fn outer() -> OuterSources {
    OuterSources { v4: None, v6: Some("2001:db8:64::/64".parse().unwrap()) }
}

/// As many VIPs, pools and backends as possible, `in_first` of the backends in the first pool; every backend of weight
/// `weight`, except each third.
fn full(in_first: u32, weight: u16) -> Services {
    let mut services = Services::default();
    for n in 0..pools() {
        services.pools.insert(long('p', n), Pool::new(long('p', n)).into());
    }
    for n in 0..if is_full() { MAX_MEMBERS } else { 4_096 } {
        let pool = services.pool_mut(&long('p', if n < in_first { 0 } else { n % pools() })).unwrap();
        let [.., a, b] = n.to_be_bytes();
        let address = format!("2001:db8::{a:02x}:{b:02x}").parse().unwrap();
        let weight = Weight(if n % 3 == 0 { 100 } else { weight });
        let backend = Backend { name: long('b', n), address, weight, state: AdminState::Active, mtu: None };
        pool.backends.insert(backend.name.clone(), backend);
    }
    for n in 0..vips() {
        let service = Service::parse("203.0.113.10", &(1 + n).to_string(), "tcp").unwrap();
        let vip = Vip {
            name: long('v', n),
            service,
            pool: long('p', n % pools()),
            announce: Announce::default(),
            when_empty: Unserved::Drop,
            affinity: Affinity::default(),
        };
        services.vips.insert(vip.name.clone(), vip);
    }
    services
}

/// What a planner saves once it went over from one weight to another, while a neighbor was lost; read and restored.
fn round_trip(in_first: u32, weights: [u16; 2]) -> usize {
    let mut planner = Planner::new(Limits::MOST, outer());
    let standing = |_: &Name, _: &Name, _: IpAddr| Standing::default();
    let reached = NextHop::new([2; 6], InterfaceSlot(63));
    for (n, weight) in weights.into_iter().enumerate() {
        let lost = n == 1;
        let next_hop = |at: IpAddr| if lost && at.to_string().ends_with('7') { NextHop::UNRESOLVED } else { reached };
        let known = Known { next_hop: &next_hop, standing: &standing, unchanged: false };
        let now = Duration::from_millis(u64::from(u32::MAX) + 1_001 * n as u64);
        planner.plan(&full(in_first, weight), &known, now);
        planner.published(now);
    }
    let saved = planner.save();
    let text = serde_json::to_vec(&saved).unwrap();
    let read: Saved = serde_json::from_slice(&text).unwrap();
    assert!(read == saved);
    assert_eq!(read.in_use().len(), pools() as usize);
    let mut restored = Planner::restore(Limits::MOST, outer(), &read, &live(&planner)).unwrap();
    assert!(restored.save() == saved, "what is restored is not what was saved");
    text.len()
}

/// The maps that this planner's plans were carried out on.
fn live(planner: &Planner) -> Live {
    let mut live = Live { pools: vec![PoolWord::default(); MAX_POOLS as usize], ..Live::default() };
    for pool in planner.pools.values() {
        live.pools[usize::from(pool.index.0)] = pool.published;
        let members = pool.members.iter().map(|((_, address), member)| {
            (member.id, member_record(pool.index, *address, member.encap, &planner.outer, member.next_hop))
        });
        live.members.extend(members);
    }
    live
}

#[test]
fn the_state_file_of_a_full_node_is_read_again() {
    for (case, in_first, weights) in [
        ("as many pools as possible", 0, [100, 65_535]),
        ("one pool of 32,256 backends", 32_256, [100, 65_535]),
        ("weights of 1", 16_000, [1, 100]),
    ] {
        let mut row = Row::fault("C1", &format!("the state file of a full node in transition: {case}"));
        let bytes = round_trip(in_first, weights);
        row.says(format!("{bytes} bytes"));
    }
}

#[test]
fn learning_of_a_plan_that_may_not_have_been_carried_out_begins_with_the_next_daemon() {
    let mut row =
        Row::fault("C1", "a daemon ends between saving its state and carrying it out, and the next one comes late");
    let standing = |_: &Name, _: &Name, _: IpAddr| Standing::default();
    let next_hop = |_: IpAddr| NextHop::new([2; 6], InterfaceSlot(0));
    let known = Known { next_hop: &next_hop, standing: &standing, unchanged: false };
    let at = Duration::from_secs;
    let [before, after] = [full(64, 100), full(64, 300)];
    let learning = before.pools[&long('p', 0)].settings.transition.learning;
    for is_published in [false, true] {
        let mut planner = Planner::new(Limits::MOST, outer());
        planner.plan(&before, &known, at(100));
        planner.published(at(100));
        let before_it = live(&planner);
        planner.plan(&after, &known, at(1_000));
        let until = |planner: &Planner| planner.pools[&long('p', 0)].transition.progress().until;
        assert_eq!(until(&planner), Some(at(1_000) + learning));
        let saved = planner.save();
        if is_published {
            planner.published(at(1_001));
            assert_eq!(until(&planner), Some(at(1_001) + learning));
        }
        // One that finds the plan carried out keeps its time.
        let mut soon = Planner::restore(Limits::MOST, outer(), &saved, &live(&planner)).unwrap();
        soon.plan(&after, &known, at(1_002));
        assert_eq!(until(&soon), Some(at(1_000) + learning));
        // The next daemon's first plan.
        let now = at(1_000) + learning * 2;
        let mut next = Planner::restore(Limits::MOST, outer(), &saved, &before_it).unwrap();
        next.plan(&after, &known, now);
        assert_eq!(until(&next), Some(now + learning));
        // And one that ends with it.
        let saved = next.save();
        let mut last = Planner::restore(Limits::MOST, outer(), &saved, &before_it).unwrap();
        last.plan(&after, &known, now + at(1));
        assert_eq!(until(&last), Some(now + at(1) + learning));
        // Carried out, and over.
        last.published(now + at(2));
        let end = now + at(2) + learning;
        last.plan(&after, &known, end);
        assert_eq!(until(&last), None);
        assert!(last.save().pools.iter().all(|pool| pool.begun.is_none()));
        row.says(format!("learns for {} s from the next start", learning.as_secs()));
    }
}

#[test]
fn the_vips_that_were_served_are_read_again() {
    let mut row =
        Row::fault("C1", "the state file has the VIPs of every kind, and reads those that an older release saved");
    let services: Vec<Service> = [
        ("203.0.113.10", "443", "tcp"),
        ("203.0.113.10", "any", "udp"),
        ("2001:db8::10", "8000-8100", "sctp"),
        ("203.0.113.0/28", "any", "any"),
        ("2001:db8:1::/64", "any", "gre"),
    ]
    .map(|(address, ports, protocol)| Service::parse(address, ports, protocol).unwrap())
    .into();
    let announce = Announce { by: AnnounceBy::Nothing, ..Announce::default() };
    let vip = |(n, service): (usize, &Service)| Vip {
        name: name(&format!("v{n}")).unwrap(),
        service: *service,
        pool: name("web").unwrap(),
        when_empty: crate::Unserved::Drop,
        affinity: Affinity::default(),
        announce: announce.clone(),
    };
    let vips: Vec<Vip> = services.iter().enumerate().map(vip).collect();
    let saved = Planner::new(Limits::MOST, outer()).save().with_served(vips.iter());
    let text = serde_json::to_string(&saved).unwrap();
    assert!(text.contains(r#"{"name":"v0","address":"203.0.113.10","port":443,"protocol":6,"pool":"web"}"#), "{text}");
    assert_eq!(serde_json::from_str::<Saved>(&text).unwrap().served(), vips);
    let cut = text.replace(r#""length":28"#, r#""length":33"#).replace(r#""last":8100"#, r#""last":1"#);
    assert_eq!(serde_json::from_str::<Saved>(&cut).unwrap().served().len(), 3, "what is invalid is left out");
    row.says(format!("{} VIPs", vips.len()));
}
