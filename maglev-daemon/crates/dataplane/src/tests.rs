//! The shipped object in the running kernel: every test in a network namespace of its own.

use std::net::Ipv4Addr;
use std::sync::Arc;

use maglev_common::backend::{InterfaceRecord, InterfaceSlot, MemberId, MemberRecord, MemberState, NextHop};
use maglev_common::counters::{Counter, DecapCounter};
use maglev_common::encap::{Encap, EncapKind};
use maglev_common::flow::{Bucket, FlowEntry, Seconds};
use maglev_common::hash::HashKey;
use maglev_common::maps::{DECAP_PROGRAM, FLOWS};
use maglev_common::pod::Word;
use maglev_common::settings::{Mss, Tracking, UdpPolicy, Unserved};
use maglev_common::table::{PoolIndex, PoolWord, SLOTS, SlotWord, TableIndex};
use maglev_common::vip::{Contents, DirectoryWord, Key as _, Key4, Key6, Rule, VipId, VipWord};
use maglev_ebpf::env::{Choice, Ingress, Trace};
use maglev_model::Protocol;
use maglev_model::plan::Slots;
use maglev_net::links::{AttachedXdp, XdpAt};
use maglev_testing::network::{Peer, in_namespace, ip, sysctl};

use super::explain::View;
use super::harness::{Harness, action};
use super::*;

mod capture;
mod devices;
mod drivers;
mod egress;
mod faults;
mod mss;
mod outlive;
mod packets;
mod stock;
mod succession;
mod upgrade;
mod vlans;

/// The whole path over the maps of the kernel, for packets that come in by no interface.
impl Ingress for View<'_> {
    fn ingress(&self) -> u32 {
        0
    }
}

impl Trace for View<'_> {}

const POOL: PoolIndex = PoolIndex(2);
const VIP: VipId = VipId(1);
const VIP_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

fn settings(wanted: &[(&str, Mode)]) -> Settings {
    Settings {
        limits: Limits { vips: 8, pools: 4, backends: 100 },
        flow_sets: 64,
        answers: u32::MAX,
        fragmented: u32::MAX,
        hash_key: HashKey::from_bytes([7; 16]),
        trace: false,
        watchdog: None,
        cut: false,
        interfaces: interfaces(wanted),
    }
}

/// A directory without rules.
fn keys<K>(keys: Vec<(K, VipWord)>) -> Contents<K> {
    Contents { keys, ..Contents::default() }
}

fn interfaces(wanted: &[(&str, Mode)]) -> Vec<InterfaceSettings> {
    wanted.iter().map(|&(name, mode)| InterfaceSettings { name: name.to_owned(), mode, also: Vec::new() }).collect()
}

/// All interfaces of the calling thread's namespace.
fn links() -> Vec<Link> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(maglev_net::links::list()).unwrap()
}

fn attached(name: &str) -> Option<AttachedXdp> {
    links().into_iter().find(|link| link.name == name).unwrap().xdp
}

fn two_veths() -> Peer {
    let peer = Peer::new();
    // No other traffic, so that tests can count frames: IPv6 would solicit routers and neighbors.
    sysctl("ipv6/conf/default/disable_ipv6", "1");
    peer.sysctl("ipv6/conf/default/disable_ipv6", "1");
    peer.connect("eth1", "eth1");
    peer.connect("eth2", "eth2");
    // The address that tests' frames are sent to, and one that no few changes make of it.
    ip("link set eth1 address 02:00:00:00:00:01");
    ip("link set eth2 address 06:00:5e:00:53:02");
    peer
}

fn member(id: u16) -> MemberId {
    MemberId::new(id).unwrap()
}

fn record(slot: u16) -> MemberRecord {
    MemberRecord {
        state: Word::new(MemberState::alive(POOL, Encap::IpIp4, 0).0),
        next_hop: Word::new(NextHop::new([2, 0, 0, 0, 0, 9], InterfaceSlot(slot)).0),
        destination: [Word::new(u64::from(u32::from_le_bytes([10, 0, 1, 11]))), Word::new(0)],
        source: [Word::new(u64::from(u32::from_le_bytes([10, 64, 11, 0]))), Word::new(0)],
        ..MemberRecord::default()
    }
}

fn table(owner: MemberId) -> Slots {
    all(SlotWord::settled(owner))
}

/// A table in which all slots hold this.
fn all(word: SlotWord) -> Slots {
    Arc::<[SlotWord]>::from(vec![word; SLOTS]).into()
}

/// Member 1 on interface slot 0 owns the pool behind UDP port 53 of the VIP.
fn first_plan() -> Vec<Step> {
    let address = u32::from_le_bytes(VIP_ADDRESS.octets());
    vec![
        Step::WriteMember { id: member(1), record: record(0) },
        Step::FillTable { table: TableIndex(1), slots: table(member(1)) },
        Step::SwitchPool { pool: POOL, word: always(1) },
        Step::ResetVip { id: VIP },
        Step::SwitchDirectory4 {
            contents: keys(vec![
                (Key4::new(address, 53_u16.swap_bytes(), 17), VipWord::vip(VIP, POOL)),
                (Key4::new(address, 0, 0), VipWord::ADDRESS_IN_USE),
            ]),
        },
    ]
}

/// A UDP packet from the client's port to the VIP's port 53.
fn datagram(port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 5, 8, 0];
    frame.extend([0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(CLIENT.octets());
    frame.extend(VIP_ADDRESS.octets());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 53, 0, 12, 0, 0, 1, 2, 3, 4]);
    frame
}

/// The word of a pool that uses this table and tracks every flow.
fn always(table: u16) -> PoolWord {
    PoolWord::settled(TableIndex(table)).tracked(Tracking::Always, UdpPolicy::New)
}

/// Which of the IPv4 directories is in use.
fn in_use(plane: &Dataplane) -> usize {
    DirectoryWord(plane.maps.forwarding().switch.directory4.get()).directory()
}

fn flow(port: u16) -> Asked {
    Asked { source: (CLIENT, port).into(), destination: (VIP_ADDRESS, 53).into(), protocol: Protocol::Udp }
}

#[test]
fn flows_with_an_ambiguous_age_are_swept() {
    in_namespace(|| {
        let _peer = two_veths();
        let plane = Dataplane::start(&settings(&[("eth1", Mode::Native)]), &links()).unwrap();
        let now = explain::now().unwrap();
        let seen = |ago: u16| FlowEntry::new(7, member(1), Seconds(now.0.wrapping_sub(ago)));
        let bucket = plane.maps.flows.get(3).unwrap();
        // The clock may tick on while the test runs.
        for (way, ago) in [(0, 0), (1, 32_000), (2, 33_000), (3, 65_000)] {
            bucket.put(way, seen(ago), 7);
        }
        plane.sweep().unwrap();
        assert_eq!([0, 1, 2, 3].map(|way| bucket.entry(way).is_empty()), [false, false, true, true]);
    });
}

#[test]
fn a_longer_idle_time_brings_no_idle_entry_back() {
    in_namespace(|| {
        let _peer = two_veths();
        let mut plane = Dataplane::start(&settings(&[("eth1", Mode::Native)]), &links()).unwrap();
        plane.publish(&first_plan()).unwrap();
        let idle = |pool, seconds| Step::SetIdle { pool, seconds };
        let word = PoolWord::settled(TableIndex(1));
        plane.publish(&[Step::SwitchPool { pool: POOL, word }, idle(POOL, 60), idle(PoolIndex(0), 900)]).unwrap();
        let left = |plane: &Dataplane| {
            let bucket = plane.maps.flows.get(3).unwrap();
            bucket.entries().iter().filter(|word| word.get() != 0).count()
        };
        let now = explain::now().unwrap();
        // The clock may tick on while the test runs.
        for (way, ago) in [(0, 0), (1, 50), (2, 100), (3, 32_000)] {
            let entry = FlowEntry::new(7, member(1), Seconds(now.0.wrapping_sub(ago)));
            plane.maps.flows.get(3).unwrap().put(way, entry, 7);
        }
        plane.publish(&[idle(PoolIndex(0), 1_000), idle(POOL, 40)]).unwrap();
        assert_eq!(
            (left(&plane), plane.maps.forwarding().longest_idle()),
            (4, 1_000),
            "another pool's, and a shorter one"
        );
        plane.publish(&[Step::SwitchPool { pool: POOL, word: always(1) }, idle(POOL, 41)]).unwrap();
        assert_eq!(left(&plane), 4, "where every flow is tracked");
        plane.publish(&[Step::SwitchPool { pool: POOL, word }, idle(POOL, 500)]).unwrap();
        assert_eq!(left(&plane), 1, "those that were idle for more than 41 s");
        plane.publish(&[idle(PoolIndex(0), 0), idle(POOL, 0)]).unwrap();
        assert_eq!((left(&plane), plane.maps.forwarding().longest_idle()), (1, 500), "no pool is left");
    });
}

#[test]
fn active_flows_are_counted_once_and_only_where_asked() {
    in_namespace(|| {
        let _peer = two_veths();
        let mut plane = Dataplane::start(&settings(&[("eth1", Mode::Native)]), &links()).unwrap();
        plane.publish(&first_plan()).unwrap();
        let now = explain::now().unwrap();
        let put = |bucket: usize, way: usize, slot: u32, id: u16, ago: u16| {
            let tag = (u64::from(slot) << 32).div_ceil(SLOTS as u64) as u32;
            let entry = FlowEntry::new(tag, member(id), Seconds(now.0.wrapping_sub(ago)));
            assert_eq!(entry.slot().index(), slot as usize);
            plane.maps.flows.get(bucket).unwrap().put(way, entry, 7);
        };
        let sets = plane.maps.sizes.flow_sets as usize;
        put(3, 0, 10, 1, 0);
        put(3, 1, 11, 1, 50);
        put(sets - 1, 6, 10, 1, 5);
        let count = |slots: &[usize], idle| {
            let slots: Vec<_> = (0..SLOTS).map(|slot| slots.contains(&slot)).collect();
            plane.active_flows(POOL, &slots, idle).unwrap()
        };
        assert_eq!((count(&[10, 11], 900), count(&[10], 900), count(&[11], 900)), (3, 2, 1));
        // Silent for too long, on another slot, of a member outside the pool.
        assert_eq!((count(&[10, 11], 40), count(&[12], 900)), (2, 0));
        put(4, 0, 10, 2, 0);
        assert_eq!(count(&[10], 900), 2);
        assert_eq!(plane.active_flows(PoolIndex(0), &[true; SLOTS], 900).unwrap(), 0);
        // A flow in several CPUs' tables counts once.
        let cpus = plane.maps.sizes.cpus as usize;
        (1..cpus).for_each(|cpu| put(cpu * sets + 3, 2, 10, 1, 0));
        assert_eq!(count(&[10], 900), 2);
        assert_eq!(plane.snapshot().flow_entries(), (cpus * sets * 7) as u64);
    });
}

#[test]
fn attaches_in_the_mode_asked_for_and_leaves_nothing_behind() {
    in_namespace(|| {
        let _peer = two_veths();
        let plane = Dataplane::start(&settings(&[("eth1", Mode::Native), ("eth2", Mode::Generic)]), &links()).unwrap();
        assert_eq!(attached("eth1").unwrap().at, XdpAt::Native);
        assert_eq!(attached("eth2").unwrap().at, XdpAt::Generic);
        let [first, second] = plane.interfaces() else { panic!("{:?}", plane.interfaces()) };
        assert_eq!((first.name.as_str(), first.slot, second.name.as_str(), second.slot), ("eth1", 0, "eth2", 1));
        let flows = plane.memory().into_iter().find(|(name, _)| *name == FLOWS).unwrap().1;
        assert_eq!(flows, u64::from(object::possible_cpus().unwrap()) * 64 * 64);
        plane.stop();
        assert_eq!((attached("eth1"), attached("eth2")), (None, None));
    });
}

#[test]
fn a_foreign_program_is_named_and_left_alone() {
    in_namespace(|| {
        let _peer = two_veths();
        let pass = Pass::start(&interfaces(&[("eth2", Mode::Generic)]), &links()).unwrap();
        let foreign = attached("eth2").unwrap();
        let error = Dataplane::start(&settings(&[("eth1", Mode::Native), ("eth2", Mode::Generic)]), &links());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(&format!("eth2 already runs XDP program 'pass' (id {})", foreign.program)), "{error}");
        assert!(error.contains("ip link set dev eth2 xdpgeneric off"), "{error}");
        assert_eq!((attached("eth1"), attached("eth2")), (None, Some(foreign)));
        drop(pass);
        assert_eq!(attached("eth2"), None);
    });
}

#[test]
fn a_program_attached_meanwhile_is_left_alone_too() {
    in_namespace(|| {
        let _peer = two_veths();
        let before = links();
        let _pass = Pass::start(&interfaces(&[("eth2", Mode::Native)]), &before).unwrap();
        let error = Dataplane::start(&settings(&[("eth1", Mode::Native), ("eth2", Mode::Native)]), &before);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("eth2") && error.contains("not replaced"), "{error}");
        assert_eq!(attached("eth1"), None);
    });
}

#[test]
fn an_interface_that_is_absent_or_refuses_is_named() {
    in_namespace(|| {
        let peer = two_veths();
        let error = attach::choose(&interfaces(&[("eth7", Mode::Native)]), &links(), &BTreeMap::new());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("eth7 does not exist") && error.contains("eth1, eth2"), "{error}");
        assert_eq!(
            Dataplane::start(&settings(&[("eth7", Mode::Native)]), &links()).unwrap().begun().detached,
            ["eth7"]
        );
        let error = Dataplane::start(&settings(&[("lo", Mode::Generic)]), &links()).unwrap_err().to_string();
        assert!(error.contains("lo") && error.contains("Ethernet"), "{error}");
        // A veth takes frames larger than a page in several pieces; a bridge has no native XDP.
        peer.ip("link set eth1 mtu 9000");
        assert!(Dataplane::start(&settings(&[("eth1", Mode::Native)]), &links()).is_ok());
        ip("link add bridge type bridge");
        let error = Dataplane::start(&settings(&[("bridge", Mode::Native)]), &links()).unwrap_err().to_string();
        assert!(
            error.starts_with("bridge: ") && error.contains("native XDP") && error.contains("mode: generic"),
            "{error}"
        );
        assert!(Dataplane::start(&settings(&[("bridge", Mode::Generic)]), &links()).is_ok());
        let error = Dataplane::start(&settings(&[("eth1", Mode::Native), ("eth1", Mode::Native)]), &links());
        assert!(error.unwrap_err().to_string().contains("twice"));
        assert!(Dataplane::start(&settings(&[]), &links()).unwrap_err().to_string().contains("interfaces"));
    });
}

#[test]
fn settings_out_of_range_are_named() {
    let mut wrong = settings(&[]);
    wrong.flow_sets = 63;
    assert!(sizes::Sizes::from_settings(&wrong).unwrap_err().to_string().contains("63 is not a power of two"));
    wrong.flow_sets = 64;
    wrong.limits.backends = 40_000;
    assert!(sizes::Sizes::from_settings(&wrong).unwrap_err().to_string().contains("backends: 40000"));
}

#[test]
fn a_published_plan_moves_packets() {
    in_namespace(|| {
        let _peer = two_veths();
        let mut plane =
            Dataplane::start(&settings(&[("eth1", Mode::Native), ("eth2", Mode::Native)]), &links()).unwrap();
        let (first, second) = (plane.interfaces()[0].index, plane.interfaces()[1].index);
        let mut harness = Harness::from_dataplane(&mut plane);
        assert_eq!(harness.run(first, &datagram(1)).0, action::PASS);
        assert_eq!(plane.snapshot().counter(Counter::NotVip), 1);

        plane.publish(&first_plan()).unwrap();
        let (verdict, sent) = harness.run(first, &datagram(1));
        assert_eq!((verdict, sent.len()), (action::TX, datagram(1).len() + 20));
        assert_eq!(sent[..12], [[2, 0, 0, 0, 0, 9], plane.interfaces()[0].mac].concat());
        assert_eq!(sent[30..34], [10, 0, 1, 11]);
        let mut to_second = datagram(2);
        to_second[..6].copy_from_slice(&plane.interfaces()[1].mac);
        assert_eq!(harness.run(second, &to_second).0, action::REDIRECT);

        let snapshot = plane.snapshot();
        let bytes = 2 * datagram(1).len() as u64;
        assert_eq!(snapshot.vip(VIP), Totals { packets: 2, bytes });
        assert_eq!(snapshot.member(member(1)), Totals { packets: 2, bytes });
        assert_eq!((snapshot.counter(Counter::Transmitted), snapshot.counter(Counter::Redirected)), (1, 1));

        plane.publish(&[Step::SetNextHop { id: member(1), next_hop: NextHop::UNRESOLVED }]).unwrap();
        assert_eq!(harness.run(first, &datagram(1)).0, action::DROP);
        assert_eq!(plane.snapshot().counter(Counter::NextHopUnresolved), 1);
    });
}

#[test]
fn steps_leave_the_maps_as_they_say() {
    in_namespace(|| {
        let _peer = two_veths();
        let mut plane = Dataplane::start(&settings(&[("eth1", Mode::Native)]), &links()).unwrap();
        plane.publish(&first_plan()).unwrap();
        let slots: Arc<[SlotWord]> = (0..SLOTS).map(|n| SlotWord((n % 32_767) as u16 + 1)).collect();
        plane.publish(&[Step::FillTable { table: TableIndex(3), slots: slots.clone().into() }]).unwrap();
        let written = &plane.maps.tables.values()[3];
        assert!((0..SLOTS).all(|n| written[n].get() == slots[n].0));
        assert_eq!(plane.maps.forwarding().members[1], record(0));

        // The directories take turns, and each family has its own.
        let address = u32::from_le_bytes(VIP_ADDRESS.octets());
        let key = Key4::new(address, 0, 17);
        for turn in [0, 1, 0] {
            let contents = keys(vec![(key, VipWord::vip(VipId(turn), POOL))]);
            plane.publish(&[Step::SwitchDirectory4 { contents }]).unwrap();
            assert_eq!(in_use(&plane), usize::from(turn));
            assert_eq!(plane.maps.forwarding().directory4().find(key).id(), VipId(turn));
        }
        let key = Key6::new([1, 2], 0, 17);
        plane.publish(&[Step::SwitchDirectory6 { contents: keys(vec![(key, VipWord::vip(VIP, POOL))]) }]).unwrap();
        assert_eq!(plane.maps.forwarding().directory6().find(key).id(), VIP);

        plane.publish(&[Step::KillMember { id: member(1) }, Step::Barrier]).unwrap();
        assert!(!plane.maps.forwarding().members[1].state().is_alive());
    });
}

#[test]
fn a_step_beyond_a_limit_is_refused() {
    in_namespace(|| {
        let _peer = two_veths();
        let mut plane = Dataplane::start(&settings(&[("eth1", Mode::Native)]), &links()).unwrap();
        let twice = vec![(Key4::new(1, 0, 0), VipWord::ADDRESS_IN_USE); 2];
        for (step, said) in [
            (Step::WriteMember { id: member(101), record: record(0) }, "member 101 is beyond"),
            (Step::KillMember { id: member(101) }, "member 101 is beyond"),
            (Step::SwitchPool { pool: PoolIndex(4), word: PoolWord(0) }, "pool 4 is beyond"),
            (Step::ResetVip { id: VipId(8) }, "VIP 8 is beyond"),
            (Step::FillTable { table: TableIndex(140), slots: table(member(1)) }, "table 140 is beyond"),
            (Step::UpdateTable { table: TableIndex::EMPTY, slots: table(member(1)) }, "table 0"),
            (Step::FillTable { table: TableIndex::EMPTY, slots: table(member(1)) }, "table 0"),
            (
                Step::FillTable { table: TableIndex(1), slots: Slots::from(Arc::<[SlotWord]>::default()) },
                "table length 0",
            ),
            (Step::SwitchDirectory4 { contents: keys(twice) }, "DuplicateKey"),
        ] {
            let error = plane.publish(&[step]).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(in_use(&plane), 0);
    });
}

#[test]
fn a_flow_is_explained_by_table_and_flow_table_and_forgotten_when_purged() {
    in_namespace(|| {
        let _peer = two_veths();
        let mut plane = Dataplane::start(&settings(&[("eth1", Mode::Native)]), &links()).unwrap();
        let index = plane.interfaces()[0].index;
        let mut harness = Harness::from_dataplane(&mut plane);
        assert_eq!(plane.explain(flow(9)).unwrap().outcome, Err(Counter::NotVip));
        plane.publish(&first_plan()).unwrap();
        let unseen = plane.explain(flow(9)).unwrap();
        let decision = unseen.outcome.unwrap();
        assert_eq!((unseen.vip, decision.member, decision.choice), (Some(VIP), member(1), Choice::Table));
        assert!(unseen.remembered.is_empty());

        harness.run(index, &datagram(9));
        plane
            .publish(&[
                Step::WriteMember { id: member(2), record: record(0) },
                Step::FillTable { table: TableIndex(2), slots: table(member(2)) },
                Step::SwitchPool { pool: POOL, word: always(2) },
            ])
            .unwrap();
        let seen = plane.explain(flow(9)).unwrap();
        let decision = seen.outcome.unwrap();
        assert_eq!((seen.owner, decision.member, decision.choice), (member(2), member(1), Choice::FlowTable));
        let [remembered] = seen.remembered.as_slice() else { panic!("{seen:?}") };
        assert_eq!((remembered.member, remembered.confirmed), (member(1), false));
        assert!(remembered.idle <= 2, "the two clocks differ by {} s", remembered.idle);
        // Explaining wrote nothing.
        assert_eq!(plane.explain(flow(9)).unwrap(), seen);

        plane.publish(&[Step::KillMember { id: member(1) }, Step::Barrier]).unwrap();
        let dead = plane.explain(flow(9)).unwrap();
        assert_eq!((dead.outcome.unwrap().member, dead.remembered.len()), (member(2), 0));
        harness.run(index, &datagram(10));
        plane.publish(&[Step::PurgeFlows { ids: vec![member(1)] }]).unwrap();
        let entries = || plane.maps.flows.values().iter().flat_map(Bucket::entries);
        let members: Vec<_> = entries().map(|word| FlowEntry(word.get()).member()).filter(|m| !m.is_nobody()).collect();
        assert_eq!(members, [member(2)]);
        let mixed = Asked { source: "[::1]:1".parse().unwrap(), ..flow(1) };
        assert!(plane.explain(mixed).unwrap_err().to_string().contains("families"));
    });
}

#[test]
fn changed_interfaces_are_taken_over() {
    in_namespace(|| {
        let peer = two_veths();
        let mut plane =
            Dataplane::start(&settings(&[("eth1", Mode::Native), ("eth2", Mode::Native)]), &links()).unwrap();
        ip("link set eth1 mtu 1400");
        ip("link set eth1 address 02:00:00:00:00:77");
        ip("link del eth2");
        assert_eq!(plane.refresh(&links()).detached, ["eth2"]);
        let first = &plane.interfaces()[0];
        assert_eq!((first.mtu, first.mac), (1_400, [2, 0, 0, 0, 0, 0x77]));
        let record = &plane.maps.forwarding().interfaces[0];
        assert_eq!(*record, InterfaceRecord::new(first.mac, first.index, 1_400));

        peer.connect("eth2", "eth3");
        let Refresh { detached, unguarded, problems } = plane.refresh(&links());
        assert!(detached.is_empty() && unguarded.is_empty() && problems.is_empty(), "{detached:?} {problems:?}");
        assert_eq!(attached("eth2").unwrap().at, XdpAt::Native);
        plane.stop();
        assert_eq!((attached("eth1"), attached("eth2")), (None, None));
    });
}

#[test]
fn an_interface_that_refuses_leaves_the_others_attached_and_is_tried_again() {
    in_namespace(|| {
        let peer = two_veths();
        let mut plane =
            Dataplane::start(&settings(&[("eth1", Mode::Native), ("eth2", Mode::Native)]), &links()).unwrap();
        ip("link del eth1");
        ip("link del eth2");
        peer.connect("eth1", "eth1");
        peer.connect("eth2", "eth2");
        let foreign = Pass::start(&interfaces(&[("eth1", Mode::Native)]), &links()).unwrap();
        let Refresh { detached, unguarded: _, problems } = plane.refresh(&links());
        assert_eq!(detached, ["eth1"]);
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert!(problem.contains("eth1") && problem.contains("not replaced"), "{problem}");
        let second = attached("eth2").unwrap();

        drop(foreign);
        let Refresh { detached, unguarded, problems } = plane.refresh(&links());
        assert!(detached.is_empty() && unguarded.is_empty() && problems.is_empty(), "{detached:?} {problems:?}");
        assert_eq!((attached("eth1").unwrap().program, attached("eth2")), (second.program, Some(second)));
    });
}

#[test]
fn an_interface_made_anew_with_its_old_index_is_attached_to_anew() {
    in_namespace(|| {
        ip("link add eth1 index 77 type veth peer name far1");
        let mut plane = Dataplane::start(&settings(&[("eth1", Mode::Native)]), &links()).unwrap();
        ip("link del eth1");
        ip("link add eth1 index 77 type veth peer name far1");
        assert_eq!(attached("eth1"), None);
        assert!(plane.refresh(&links()).detached.is_empty());
        assert_eq!(attached("eth1").unwrap().at, XdpAt::Native);
    });
}

#[test]
fn the_backends_programs_follow_their_interfaces() {
    in_namespace(|| {
        let peer = two_veths();
        let sources = vec!["10.64.0.0/16".parse().unwrap()];
        let settings = DecapSettings {
            interfaces: interfaces(&[("eth1", Mode::Native)]),
            sources,
            vips: Prefixes::default(),
            mss: Mss::Off,
            pin: None,
        };
        let mut decap = Decap::start(&settings, &links()).unwrap();
        let mut pass = Pass::start(&interfaces(&[("eth2", Mode::Generic)]), &links()).unwrap();
        ip("link del eth1");
        ip("link del eth2");
        assert_eq!(
            (decap.refresh(&links()).detached, pass.refresh(&links()).detached),
            (vec!["eth1".into()], vec!["eth2".into()])
        );
        peer.connect("eth1", "eth1");
        peer.connect("eth2", "eth2");
        assert!(decap.refresh(&links()).detached.is_empty() && pass.refresh(&links()).detached.is_empty());
        assert_eq!((attached("eth1").unwrap().at, attached("eth2").unwrap().at), (XdpAt::Native, XdpAt::Generic));
        drop((decap, pass));
        assert_eq!((attached("eth1"), attached("eth2")), (None, None));
    });
}

#[test]
fn a_foreign_program_whose_name_may_not_be_read_can_be_looked_up() {
    let error = DataplaneError::ForeignProgram { interface: "eth1".into(), program: None, id: 7, keyword: "xdpdrv" };
    assert!(error.to_string().contains("`bpftool prog show id 7`"), "{error}");
}

#[test]
fn a_map_of_another_shape_is_refused() {
    in_namespace(|| {
        let _peer = two_veths();
        let plane = Dataplane::start(&settings(&[("eth1", Mode::Native)]), &links()).unwrap();
        let error = maps::open::<Bucket>(&plane.ebpf, FLOWS, 1).unwrap_err().to_string();
        assert!(error.contains(FLOWS) && error.contains(", expected 1"), "{error}");
        let error = maps::open::<Word>(&plane.ebpf, FLOWS, plane.maps.sizes.flows).unwrap_err().to_string();
        assert!(error.contains("is 64, expected 8"), "{error}");
    });
}

/// A packet in GUE over IPv4, with 124 bytes of private data: the most.
fn with_private_data(mut frame: Vec<u8>) -> Vec<u8> {
    frame[42] = 31;
    frame.splice(46..46, [0xee; 124]);
    for (at, before) in [(16, 14), (38, 14 + 20)] {
        let length = u16::try_from(frame.len() - before).unwrap();
        frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
    }
    frame
}

#[test]
fn encapsulated_packets_are_unwrapped_from_accepted_sources_only() {
    in_namespace(|| {
        let _peer = two_veths();
        let mut plane = Dataplane::start(&settings(&[("eth1", Mode::Native)]), &links()).unwrap();
        plane.publish(&first_plan()).unwrap();
        let index = plane.interfaces()[0].index;
        let wrapped = Harness::from_dataplane(&mut plane).run(index, &datagram(1)).1;
        plane.publish(&[Step::SetEncap { id: member(1), kind: EncapKind::Gue }]).unwrap();
        let in_gue = Harness::from_dataplane(&mut plane).run(index, &datagram(1)).1;
        assert_eq!(in_gue.len(), wrapped.len() + 12);
        let start = |source: &str| {
            let sources = [source, "fd64::/48"].map(|source| source.parse().unwrap()).to_vec();
            let vips = Prefixes::new([VIP_ADDRESS.to_string().parse().unwrap()].map(|ip: std::net::IpAddr| ip.into()));
            let interfaces = interfaces(&[("eth2", Mode::Native)]);
            let settings = DecapSettings { interfaces, sources, vips, mss: Mss::Off, pin: None };
            Decap::start(&settings, &links()).unwrap()
        };

        let mut decap = start("10.64.0.0/16");
        assert_eq!(attached("eth2").unwrap().at, XdpAt::Native);
        let private = with_private_data(in_gue.clone());
        for wrapped in [&wrapped, &in_gue, &private] {
            let (verdict, unwrapped) = Harness::new(decap.ebpf(), DECAP_PROGRAM).run(index, wrapped);
            assert_eq!(verdict, action::PASS);
            assert_eq!(unwrapped[14..], datagram(1)[14..]);
        }
        assert_eq!(decap.snapshot().counter(DecapCounter::Decapsulated), 3);
        drop(decap);
        assert_eq!(attached("eth2"), None);

        let mut decap = start("10.65.0.0/16");
        assert_eq!(Harness::new(decap.ebpf(), DECAP_PROGRAM).run(index, &wrapped), (action::PASS, wrapped));
        assert_eq!(decap.snapshot().counter(DecapCounter::ForeignSource), 1);
    });
}
