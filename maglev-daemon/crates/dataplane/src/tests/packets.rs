//! Packet fixtures through the object that ships, in the running kernel, each frame's headroom poisoned; and the proof
//! that the host's packet path is the kernel's: both make the same of any frame.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use maglev_common::counters::Outcome;
use maglev_common::encap::{Encap, EncapKind, GUE_HEADERS};
use maglev_common::vip::FEW_KEYS;
use maglev_ebpf::fixtures::{self, CLIENT4, HOP_MAC, PORT, Unbalanced, VIP4, VIP6, VecPacket};
use maglev_ebpf::path::forward::forward;
use maglev_ebpf::verdict::Verdict;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::explain::View;
use crate::harness::{Before, Harness, action};

const MTU: u32 = 1_500;

/// Pools by what sending to them means.
pub(super) mod pool {
    use super::PoolIndex;

    pub(in crate::tests) const OUTER4: PoolIndex = PoolIndex(0);
    pub(super) const OUTER6: PoolIndex = PoolIndex(1);
    pub(in crate::tests) const EMPTY: PoolIndex = PoolIndex(2);
    pub(super) const UNRESOLVED: PoolIndex = PoolIndex(3);
    pub(super) const ELSEWHERE: PoolIndex = PoolIndex(4);
}

/// Ports of VIPs beside the fixtures' own.
pub(super) mod port {
    pub(in crate::tests) const EMPTY: u16 = 8_000;
    pub(super) const UNRESOLVED: u16 = 8_001;
    pub(super) const ELSEWHERE: u16 = 8_002;
    /// The first and the last of one VIP.
    pub(super) const RANGE: [u16; 2] = [9_000, 9_100];
}

/// An address in a network of which a VIP takes any protocol: 198.18.0.0/15 and 2001:db8:8000::/33.
const NETWORK4: [u8; 4] = [198, 19, 7, 7];
const NETWORK6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

/// The load balancer with tables published, and the harness in front of it.
pub(super) struct Rig {
    pub(super) plane: Dataplane,
    pub(super) harness: Harness,
    peer: Peer,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with_also(&[])
    }

    /// The same, and the first interface takes frames to further MAC addresses.
    pub(super) fn with_also(also: &[[u8; 6]]) -> Self {
        Self::with(|settings| settings.interfaces[0].also = also.to_vec())
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::started(change, |settings| Dataplane::start(settings, &links()))
    }

    /// The same, and what it forwards with is pinned.
    pub(super) fn pinned(pins: &Arc<Pins>) -> Self {
        let mut rig = Self::started(|_| {}, |settings| Dataplane::replace(settings, &links(), pins));
        rig.plane.outlive().unwrap();
        rig
    }

    fn started(
        change: impl FnOnce(&mut Settings),
        start: impl FnOnce(&Settings) -> Result<Dataplane, DataplaneError>,
    ) -> Self {
        stay_on_one_cpu();
        let peer = two_veths();
        let mut settings = settings(&[("eth1", Mode::Native), ("eth2", Mode::Native)]);
        settings.limits.pools = 8;
        change(&mut settings);
        let mut plane = start(&settings).unwrap();
        plane.publish(&plan()).unwrap();
        let harness = Harness::from_dataplane(&mut plane);
        Self { plane, harness, peer }
    }

    /// The same with a watchdog of a minute, of which the last sign of life is too old.
    fn abandoned() -> Self {
        let rig = Self::with(|settings| settings.watchdog = Some(Duration::from_secs(60)));
        assert_ne!(rig.plane.maps.forwarding().deadline.get(), 0);
        rig.plane.maps.forwarding().deadline.set(1);
        rig
    }

    /// Both ends of a link get an MTU.
    fn set_mtu(&self, name: &str, mtu: u32) {
        ip(&format!("link set {name} mtu {mtu}"));
        self.peer.ip(&format!("link set {name} mtu {mtu}"));
    }

    /// The same, and member 9 has just taken over all slots of the pool with IPv4 outer headers from member 1, which lives.
    fn learning() -> Self {
        let mut rig = Self::new();
        let word = PoolWord::settled(TableIndex(9)).tracked(Tracking::Exception, UdpPolicy::Keep);
        let steps = [
            Step::WriteMember { id: member(9), record: second() },
            Step::FillTable { table: TableIndex(9), slots: all(SlotWord::moving(member(9))) },
            Step::FillTable { table: TableIndex(10), slots: table(member(1)) },
            Step::SwitchPool { pool: pool::OUTER4, word: word.learning(TableIndex(10)) },
        ];
        rig.plane.publish(&steps).unwrap();
        rig
    }

    /// The same, and packets for all members leave in GUE.
    fn gue() -> Self {
        let mut rig = Self::new();
        rig.plane.publish(&in_gue()).unwrap();
        rig
    }

    /// The same, and packets that no backend can be given are answered, echo requests are not.
    fn answering() -> Self {
        let mut rig = Self::new();
        let words = |word: VipWord| word.with_unserved(Unserved::Reset).silent();
        rig.plane.publish(&directories(words)).unwrap();
        rig
    }

    /// The interface frames come in by.
    pub(super) fn ingress(&self) -> u32 {
        self.plane.interfaces()[0].index
    }

    /// The same frame through the host's build of the packet path, over the same maps.
    fn host(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        self.host_with(frame, |view| view)
    }

    fn host_with<'a>(&'a self, frame: &[u8], adjusted: impl FnOnce(View<'a>) -> View<'a>) -> (u32, Vec<u8>) {
        let view = adjusted(View::new(&self.plane.maps, 0, explain::now().unwrap()));
        let mut packet = VecPacket::new(frame);
        let action = match forward(&mut packet, &view) {
            Verdict::Pass => action::PASS,
            Verdict::Drop => action::DROP,
            Verdict::Transmit => action::TX,
            Verdict::Redirect(InterfaceSlot(0)) => action::TX,
            Verdict::Redirect(_) | Verdict::Tag(_) => action::REDIRECT,
        };
        (action, packet.bytes)
    }

    /// A frame through the kernel: its action, the frame after, and the one counter of its fate.
    pub(super) fn counted(&mut self, frame: &[u8]) -> (u32, Vec<u8>, Counter) {
        self.counted_after(Before::Poison, frame)
    }

    fn counted_after(&mut self, doing: Before, frame: &[u8]) -> (u32, Vec<u8>, Counter) {
        let before = self.plane.snapshot();
        let (action, out) = self.harness.run_after(doing, self.ingress(), frame);
        let after = self.plane.snapshot();
        let counted = |counter: &&Counter| {
            counter.outcome() != Outcome::Noted && after.counter(**counter) != before.counter(**counter)
        };
        let fates: Vec<_> = Counter::ALL.iter().filter(counted).collect();
        let [fate] = fates.as_slice() else { panic!("a packet has one fate, not {fates:?}") };
        (action, out, **fate)
    }
}

/// Flow tables are per CPU, and a test run happens on the caller's.
pub(super) fn stay_on_one_cpu() {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread).unwrap();
    let cpu = (0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu).unwrap()).unwrap();
    let mut one = CpuSet::new();
    one.set(cpu).unwrap();
    sched_setaffinity(this_thread, &one).unwrap();
}

fn words(octets: [u8; 16]) -> [u64; 2] {
    let value = u128::from_le_bytes(octets);
    [value as u64, (value >> 64) as u64]
}

fn backend4(pool: PoolIndex, slot: u16) -> MemberRecord {
    MemberRecord {
        state: Word::new(MemberState::alive(pool, Encap::IpIp4, partial_checksum()).0),
        next_hop: Word::new(NextHop::new(HOP_MAC, InterfaceSlot(slot)).0),
        source_hash_mask: [Word::new(0xff00_0000), Word::new(0)],
        ..record(slot)
    }
}

/// Of the outer header in [`record`], whose addresses are 10.64.11.0 and 10.0.1.11.
pub(super) fn partial_checksum() -> u16 {
    let header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 0, 0, 0, 10, 64, 11, 0, 10, 0, 1, 11_u8];
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_le_bytes([pair[0], pair[1]]))).sum();
    ((sum & 0xffff) + (sum >> 16)) as u16
}

fn backend6(pool: PoolIndex) -> MemberRecord {
    let word = |address: &str| words(address.parse::<Ipv6Addr>().unwrap().octets()).map(Word::new);
    MemberRecord {
        next_hop: Word::new(NextHop::new(HOP_MAC, InterfaceSlot(0)).0),
        state: Word::new(MemberState::alive(pool, Encap::IpIp6, 0).0),
        destination: word("fd00:1::11"),
        source: word("fd00:64::"),
        source_hash_mask: word("::ffff:ffff:ffff:ffff"),
    }
}

/// TCP port 80 goes to a backend over IPv4, UDP port 80 over IPv6; other ports to pools in trouble.
pub(super) fn plan() -> Vec<Step> {
    let unresolved = MemberRecord { next_hop: Word::new(0), ..backend4(pool::UNRESOLVED, 0) };
    let members = [
        (1, pool::OUTER4, backend4(pool::OUTER4, 0)),
        (2, pool::OUTER6, backend6(pool::OUTER6)),
        (3, pool::UNRESOLVED, unresolved),
        (4, pool::ELSEWHERE, backend4(pool::ELSEWHERE, 1)),
    ];
    let mut steps = Vec::new();
    for (id, pool, record) in members {
        steps.push(Step::WriteMember { id: member(id), record });
        steps.push(Step::FillTable { table: TableIndex(id), slots: table(member(id)) });
        steps.push(Step::SetIdle { pool, seconds: 900 });
        steps.push(Step::SwitchPool { pool, word: always(id) });
    }
    steps.extend(directories(|word| word));
    steps
}

/// The VIPs, whose words are changed like this, and those of their addresses.
fn directories(change: fn(VipWord) -> VipWord) -> [Step; 2] {
    let vips = [
        (PORT, 6, pool::OUTER4),
        (PORT, 17, pool::OUTER6),
        (port::EMPTY, 6, pool::EMPTY),
        (port::UNRESOLVED, 6, pool::UNRESOLVED),
        (port::ELSEWHERE, 6, pool::ELSEWHERE),
    ];
    let (address4, address6) = (u32::from_le_bytes(VIP4), words(VIP6));
    let vips = || {
        vips.into_iter()
            .zip(0..)
            .map(|((port, protocol, pool), id)| (port.swap_bytes(), protocol, change(VipWord::vip(VipId(id), pool))))
    };
    let keys4 = vips().map(|(port, protocol, word)| (Key4::new(address4, port, protocol), word));
    let keys6 = vips().map(|(port, protocol, word)| (Key6::new(address6, port, protocol), word));
    let (four, six) = (Key4::new(address4, 0, 0), Key6::new(address6, 0, 0));
    let network4 = Key4::new(u32::from_le_bytes(NETWORK4), 0, 0).prefix(15);
    let network6 = Key6::new(words(NETWORK6), 0, 0).prefix(33);
    // A range of ports at the VIPs' own addresses, and any protocol in networks.
    let range = |protocol| Rule::new(port::RANGE[0], port::RANGE[1], protocol);
    let (own, whole) = (change(VipWord::address(0, 2)), change(VipWord::address(2, 1)));
    let wide = change(VipWord::vip(VipId(6), pool::OUTER4));
    let rules = vec![(range(6), wide), (range(132), wide), (Rule::new(0, u16::MAX, 0), wide)];
    let directory4 = Step::SwitchDirectory4 {
        contents: Contents {
            keys: keys4.chain([(four, own), (network4, whole)]).collect(),
            rules: rules.clone(),
            lengths: vec![15],
        },
    };
    let directory6 = Step::SwitchDirectory6 {
        contents: Contents { keys: keys6.chain([(six, own), (network6, whole)]).collect(), rules, lengths: vec![33] },
    };
    [directory4, directory6]
}

/// The same directories with so many addresses more, to which no packet goes.
fn beside(others: u32, mut directories: [Step; 2]) -> [Step; 2] {
    for step in &mut directories {
        match step {
            Step::SwitchDirectory4 { contents } => {
                contents.keys.extend((0..others).map(|n| (Key4::new(n, 0, 0), VipWord::ADDRESS_IN_USE)));
            }
            Step::SwitchDirectory6 { contents } => {
                let key = |n| Key6::new([u64::from(n), 0], 0, 0);
                contents.keys.extend((0..others).map(|n| (key(n), VipWord::ADDRESS_IN_USE)));
            }
            _ => unreachable!("a directory"),
        }
    }
    directories
}

/// Packets for the members of [`plan`] leave in GUE from now on.
pub(super) fn in_gue() -> Vec<Step> {
    (1..=4).map(|id| Step::SetEncap { id: member(id), kind: EncapKind::Gue }).collect()
}

fn to_port(mut frame: Vec<u8>, port: u16) -> Vec<u8> {
    frame[36..38].copy_from_slice(&port.to_be_bytes());
    frame
}

#[test]
fn every_combination_of_families_and_protocols_is_encapsulated() {
    in_namespace(|| {
        let mut rig = Rig::new();
        let rows = [
            ("TCP over IPv4 in IPv4", fixtures::tcp4(b"hello"), 20),
            ("TCP over IPv6 in IPv4", fixtures::tcp6(b"hello"), 20),
            ("UDP over IPv4 in IPv6", fixtures::udp4(VIP4, PORT), 40),
            ("UDP over IPv6 in IPv6", fixtures::udp6(PORT), 40),
        ];
        let rows = || rows.iter().map(|(what, frame, overhead)| (what, frame, *overhead));
        let wrapped = rows().map(|(what, frame, overhead)| (what, frame, overhead + GUE_HEADERS));
        for (n, (what, frame, overhead)) in rows().chain(wrapped).enumerate() {
            if n == 4 {
                rig.plane.publish(&in_gue()).unwrap();
            }
            let expected = rig.host(frame);
            let (action, out, fate) = rig.counted(frame);
            assert_eq!((action, fate), (action::TX, Counter::Transmitted), "{what}");
            assert_eq!(out.len(), frame.len() + overhead, "{what}");
            assert_eq!(out[14 + overhead..], frame[14..], "{what}: the inner packet is untouched");
            assert_eq!((action, out), expected, "{what}: byte for byte what the host's build makes of it");
        }
    });
}

#[test]
fn every_reason_is_counted_and_its_packets_left_alone() {
    in_namespace(|| {
        let mut rig = Rig::new();
        let dropped = fixtures::unbalanced4().into_iter().chain(fixtures::unbalanced6());
        let dropped = dropped.chain([
            row("a pool without backends", to_port(fixtures::tcp4(b""), port::EMPTY), Counter::NoBackend),
            row("no neighbor", to_port(fixtures::tcp4(b""), port::UNRESOLVED), Counter::NextHopUnresolved),
            row("too big, and without DF", without_df(too_long4()), Counter::TooBig),
        ]);
        let passed = fixtures::passed().into_iter().chain(fixtures::misaddressed());
        let rows = dropped.map(|row| (action::DROP, row)).chain(passed.map(|row| (action::PASS, row)));
        let mut covered = BTreeSet::new();
        for (expected, Unbalanced { what, frame, reason }) in rows {
            assert_eq!(rig.counted(&frame), (expected, frame, reason), "{what}");
            covered.insert(reason.name());
        }
        for (what, frame) in fixtures::echoes() {
            let (done, _, fate) = rig.counted(&frame);
            assert_eq!((done, fate), (action::TX, Counter::EchoReply), "{what}");
            covered.insert(fate.name());
        }
        for frame in [too_long4(), too_long6()] {
            let (done, _, fate) = rig.counted(&frame);
            assert_eq!((done, fate), (action::TX, Counter::PacketTooBig));
            covered.insert(fate.name());
        }
        let (action, _, fate) = rig.counted_after(Before::Crowd, &fixtures::tcp4(b"hello"));
        assert_eq!((action, fate), (action::DROP, Counter::NoHeadroom));
        covered.insert(fate.name());
        let (action, _, fate) = rig.counted(&to_port(fixtures::tcp4(b""), port::ELSEWHERE));
        assert_eq!((action, fate), (action::REDIRECT, Counter::Redirected));
        covered.extend([fate.name(), Counter::Transmitted.name()]);

        covered.extend(in_namespace(the_limits).map(Counter::name));
        covered.insert(in_namespace(|| Rig::abandoned().counted(&fixtures::tcp4(b"hello")).2).name());
        covered.extend(in_namespace(|| {
            let mut rig = Rig::answering();
            let count = |(frame, expected): (Vec<u8>, Counter)| {
                assert_eq!(rig.counted(&frame).2, expected);
                expected.name()
            };
            unserved().into_iter().map(count).collect::<Vec<_>>()
        }));
        let on_the_way_in = |counter: &&Counter| !egress::COUNTERS.contains(counter);
        let fates = Counter::ALL.iter().filter(on_the_way_in).filter(|counter| counter.outcome() != Outcome::Noted);
        let missing: Vec<_> = fates.map(|counter| counter.name()).filter(|name| !covered.contains(name)).collect();
        assert_eq!(missing, Vec::<&str>::new(), "every counted reason has a fixture");
    });
}

#[test]
fn fragments_follow_their_first_and_the_host_agrees() {
    in_namespace(|| {
        let mut rig = Rig::new();
        for (what, _, fragments) in fixtures::fragmented() {
            let mut check = |frame: &[u8], fate| {
                let (action, out, counted) = rig.counted(frame);
                assert_eq!(counted, fate, "{what}");
                assert_eq!((action, out), rig.host(frame), "{what}: byte for byte what the host's build makes of it");
            };
            if !what.contains("with") && !what.contains("behind") {
                check(&fragments[2], Counter::FragmentUnknown);
            }
            for frame in &fragments {
                check(frame, Counter::Transmitted);
            }
        }
        let noted = rig.plane.snapshot().counter(Counter::FragmentNoted);
        assert_eq!(noted, fixtures::fragmented().len() as u64);
    });
}

#[test]
fn vips_of_ranges_networks_and_any_protocol_are_found_and_the_host_agrees() {
    let at = |mut frame: Vec<u8>, place: usize, bytes: &[u8]| {
        frame[place..place + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let rows = move || {
        let mut rows = Vec::new();
        for (port, sent) in [(8_999, false), (9_000, true), (9_050, true), (9_100, true), (9_101, false)] {
            let frame = to_port(fixtures::tcp4(b"hello"), port);
            rows.push((
                format!("TCP port {port}"),
                frame.clone(),
                if sent { Counter::Transmitted } else { Counter::NoSuchVip },
            ));
            let sctp = at(frame, 23, &[132]);
            rows.push((
                format!("SCTP port {port}"),
                sctp,
                if sent { Counter::Transmitted } else { Counter::NoSuchVip },
            ));
            let six = at(fixtures::tcp6(b"hello"), 56, &port.to_be_bytes());
            rows.push((
                format!("TCP port {port}, IPv6"),
                six,
                if sent { Counter::Transmitted } else { Counter::NoSuchVip },
            ));
        }
        for protocol in [6, 17, 47, 50, 132, 136] {
            let four = at(at(fixtures::tcp4(b"hello"), 30, &NETWORK4), 23, &[protocol]);
            rows.push((format!("protocol {protocol} to the network"), four, Counter::Transmitted));
            let six = at(at(fixtures::tcp6(b"hello"), 38, &NETWORK6), 20, &[protocol]);
            rows.push((format!("protocol {protocol} to the IPv6 network"), six, Counter::Transmitted));
        }
        let beside4 = at(fixtures::tcp4(b""), 30, &[198, 20, 0, 1]);
        let beside6 = at(at(fixtures::tcp6(b""), 38, &NETWORK6), 42, &[0x7f]);
        rows.extend([("beside the network".to_owned(), beside4, Counter::NotVip)]);
        rows.extend([("beside the IPv6 network".to_owned(), beside6, Counter::NotVip)]);
        rows
    };
    // Addresses beside the VIPs': beyond so many, keys have displacements.
    for others in [0, FEW_KEYS as u32] {
        in_namespace(move || {
            let mut rig = Rig::new();
            rig.plane.publish(&beside(others, directories(|word| word))).unwrap();
            for (what, frame, fate) in rows() {
                let expected = rig.host(&frame);
                let (action, out, counted) = rig.counted(&frame);
                assert_eq!(counted, fate, "{what}, beside {others} addresses");
                assert_eq!((action, out), expected, "{what}: byte for byte what the host's build makes of it");
            }
        });
    }
}

#[test]
fn once_the_daemon_counts_as_gone_packets_for_vips_are_dropped_and_others_are_the_hosts() {
    in_namespace(|| {
        let mut rig = Rig::abandoned();
        let (mut elsewhere, mut beside) = (fixtures::tcp4(b"hello"), fixtures::tcp4(b"hello"));
        elsewhere[..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
        beside[30..34].copy_from_slice(&[198, 20, 0, 1]);
        let vips = [fixtures::tcp4(b"hello"), fixtures::tcp6(b"hello"), fixtures::icmp4(8, 0, b"ping")];
        let fates = |rig: &mut Rig| vips.each_ref().map(|frame| rig.counted(frame).2);
        let alive = [Counter::Transmitted, Counter::Transmitted, Counter::EchoReply];
        assert_eq!(fates(&mut rig), [Counter::DaemonGone; 3]);
        assert_eq!(rig.counted(&elsewhere).2, Counter::OtherMac);
        assert_eq!(rig.counted(&beside).2, Counter::NotVip);
        rig.plane.beat().unwrap();
        assert_eq!(fates(&mut rig), alive);
        let left = rig.plane.maps.forwarding().deadline.get() - explain::jiffies_in(Duration::ZERO).unwrap();
        let jiffy = object::jiffy_nanoseconds().unwrap();
        assert!((58..=60).contains(&(left * jiffy / 1_000_000_000)), "{left} jiffies of {jiffy} ns are left");
    });
}

/// Packets to [`Rig::answering`] and what they are counted by.
fn unserved() -> Vec<(Vec<u8>, Counter)> {
    let long = |protocol, frame: Vec<u8>| {
        let mut frame = to_port(frame, port::EMPTY + 99);
        let at = if frame[12] == 8 { 23 } else { 20 };
        frame[at] = protocol;
        frame
    };
    let (long4, long6) = (fixtures::tcp4(&[7; 900]), fixtures::tcp6(&[7; 900]));
    let mut unknown6 = long6.clone();
    unknown6[57] = 99;
    let datagram6 = {
        let mut frame = unknown6.clone();
        frame[20] = 17;
        frame
    };
    let mut rows = vec![
        (to_port(fixtures::tcp4(b""), port::EMPTY), Counter::Reset),
        (to_port(long4.clone(), port::EMPTY), Counter::Reset),
        (long(6, long4.clone()), Counter::Reset),
        (unknown6, Counter::Reset),
        (long(17, long4), Counter::PortUnreachable),
        (datagram6, Counter::PortUnreachable),
        (fixtures::udp4(VIP4, 9), Counter::Unanswerable),
    ];
    rows.extend(fixtures::echoes().into_iter().map(|(_, frame)| (frame, Counter::EchoOff)));
    let peculiar = fixtures::peculiar().into_iter().map(|(_, mut frame)| {
        // The fixtures' payload is five bytes, behind twenty of TCP.
        let port = frame.len() - 5 - 20 + 3;
        frame[port] = 99;
        (frame, Counter::Reset)
    });
    rows.extend(peculiar);
    rows
}

#[test]
fn packets_that_no_backend_can_be_given_are_answered_as_the_host_would() {
    in_namespace(|| {
        let mut rig = Rig::answering();
        for (frame, expected) in unserved() {
            let host = rig.host(&frame);
            let (action, out, fate) = rig.counted(&frame);
            assert_eq!(fate, expected);
            assert_eq!(action == action::TX, fate.outcome() == Outcome::Answered);
            assert_eq!((action, out), host, "byte for byte what the host's build makes of it");
        }
    });
}

/// Segments that are too long by a byte.
fn too_long4() -> Vec<u8> {
    fixtures::tcp4(&vec![0; MTU as usize - 20 - 40 + 1])
}

fn too_long6() -> Vec<u8> {
    fixtures::tcp6(&vec![7; MTU as usize - 20 - 60 + 1])
}

fn without_df(mut frame: Vec<u8>) -> Vec<u8> {
    frame[20] = 0;
    frame
}

/// Asks for echoes of a load balancer that gives the fewest answers, and begins datagrams in fragments, until it takes no more.
fn the_limits() -> [Counter; 2] {
    let mut rig = Rig::with(|settings| (settings.answers, settings.fragmented) = (0, 0));
    let (_, _, fragments) = fixtures::fragmented().remove(0);
    [(fixtures::icmp4(8, 0, b"ping"), Counter::EchoReply), (fragments[0].clone(), Counter::Transmitted)].map(
        |(frame, usual)| {
            let mut fates = (0..1_000).map(|_| rig.counted(&frame).2);
            fates.find(|fate| *fate != usual).expect("a thousand are more than ten a second")
        },
    )
}

#[test]
fn packets_that_are_not_plain_are_balanced_as_the_host_would() {
    not_plain_are_balanced_as_the_host_would(Rig::new);
}

#[test]
fn packets_that_are_not_plain_are_balanced_in_gue_as_the_host_would() {
    not_plain_are_balanced_as_the_host_would(Rig::gue);
}

fn not_plain_are_balanced_as_the_host_would(rig: fn() -> Rig) {
    in_namespace(move || {
        let mut rig = rig();
        for (what, frame) in [fixtures::peculiar(), fixtures::errors()].concat() {
            let expected = rig.host(&frame);
            let (action, out, fate) = rig.counted(&frame);
            assert_eq!((action, fate), (action::TX, Counter::Transmitted), "{what}");
            assert_eq!((action, out), expected, "{what}: byte for byte what the host's build makes of it");
        }
        let too_long = [("too long", too_long4()), ("too long, IPv6", too_long6())];
        for (what, frame) in fixtures::echoes().into_iter().chain(too_long) {
            let expected = rig.host(&frame);
            let (action, out, _) = rig.counted(&frame);
            assert_eq!((action, out), expected, "{what}");
        }
    });
}

fn row(what: &'static str, frame: Vec<u8>, reason: Counter) -> Unbalanced {
    Unbalanced { what, frame, reason }
}

#[test]
fn the_largest_packet_that_fits_is_sent() {
    in_namespace(|| {
        let mut rig = Rig::new();
        let (done, out, _) = rig.counted(&fixtures::tcp4(&vec![0; MTU as usize - 20 - 40]));
        assert_eq!((done, out.len()), (action::TX, MTU as usize + 14));
        rig.plane.publish(&in_gue()).unwrap();
        let whole = |headers: usize| vec![0; MTU as usize - headers - GUE_HEADERS];
        let (done, out, _) = rig.counted(&fixtures::tcp4(&whole(20 + 40)));
        assert_eq!((done, out.len()), (action::TX, MTU as usize + 14));
        let (done, out, fate) = rig.counted(&fixtures::tcp4(&[&whole(20 + 40)[..], b"1"].concat()));
        assert_eq!((done, fate), (action::TX, Counter::PacketTooBig));
        assert_eq!(out[40..42], (MTU as u16 - 32).to_be_bytes(), "the MTU that the client learns");
    });
}

#[test]
fn the_kernel_and_the_host_make_the_same_of_any_frame() {
    same_of_any_frame(Rig::new);
}

#[test]
fn the_kernel_and_the_host_make_the_same_of_any_frame_while_slots_learn() {
    same_of_any_frame(Rig::learning);
}

#[test]
fn the_kernel_and_the_host_make_the_same_of_any_frame_in_gue() {
    same_of_any_frame(Rig::gue);
}

#[test]
fn the_kernel_and_the_host_make_the_same_of_any_frame_that_no_backend_can_be_given() {
    same_of_any_frame(Rig::answering);
}

fn same_of_any_frame(rig: fn() -> Rig) {
    in_namespace(move || {
        let rig = std::cell::RefCell::new(rig());
        let plain =
            [fixtures::tcp4(b"hello"), fixtures::tcp6(b"hello"), fixtures::udp4(VIP4, PORT), fixtures::udp6(PORT)];
        let others = [fixtures::peculiar(), fixtures::errors(), fixtures::echoes()].concat();
        let others = others.into_iter().map(|(_, frame)| frame).chain(unserved().into_iter().map(|(frame, _)| frame));
        let bases: Vec<_> = plain.into_iter().chain(others).collect();
        let change = (any::<prop::sample::Index>(), any::<u8>());
        let strategy = (0..bases.len(), prop::collection::vec(change, 0..4), 14_usize..120, any::<bool>());
        let mut runner = TestRunner::new(Config { cases: 6_000, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&strategy, |(base, changes, keep, whole)| {
            let mut frame = bases[base].clone();
            for (at, value) in changes {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            if !whole {
                frame.truncate(keep);
            }
            let mut rig = rig.borrow_mut();
            let host = rig.host(&frame);
            let (done, out, _) = rig.counted(&frame);
            // Errors about flows of slots that are learning go to two backends in turn.
            if (done, &out) != (host.0, &host.1) {
                prop_assert_eq!((done, out), rig.host_with(&frame, View::of_second_side));
            }
            Ok(())
        });
        outcome.unwrap();
    });
}

#[test]
fn a_flow_keeps_its_backend_until_the_backend_dies() {
    in_namespace(|| {
        let mut rig = Rig::new();
        let frame = fixtures::tcp4(b"");
        let (_, before, _) = rig.counted(&frame);
        let switch = [
            Step::WriteMember { id: member(9), record: second() },
            Step::FillTable { table: TableIndex(9), slots: table(member(9)) },
            Step::SwitchPool { pool: pool::OUTER4, word: always(9) },
        ];
        rig.plane.publish(&switch).unwrap();
        let (_, kept, _) = rig.counted(&frame);
        assert_eq!(kept, before, "an established flow stays");

        let mut newcomer = frame.clone();
        newcomer[34] ^= 1;
        let (_, new, _) = rig.counted(&newcomer);
        assert_eq!(destination(&new), Ipv4Addr::new(10, 0, 1, 12), "a new flow follows the table");

        rig.plane.publish(&[Step::KillMember { id: member(1) }, Step::Barrier]).unwrap();
        let (_, moved, _) = rig.counted(&frame);
        assert_eq!(destination(&moved), Ipv4Addr::new(10, 0, 1, 12), "a dead backend is forgotten");
        assert_eq!(moved[46..50], CLIENT4, "and the client's packet is the same");
    });
}

#[test]
fn while_slots_learn_old_flows_stay_and_new_ones_follow_the_table() {
    in_namespace(|| {
        let mut rig = Rig::learning();
        let (old, new) = (Ipv4Addr::new(10, 0, 1, 11), Ipv4Addr::new(10, 0, 1, 12));
        let flow = |port: u8, flags: u8| {
            let mut frame = fixtures::tcp4(b"");
            (frame[35], frame[47]) = (port, flags);
            frame
        };
        const SYN: u8 = 0x02;
        const ACK: u8 = 0x10;
        let goes = |rig: &mut Rig, port, flags| destination(&rig.counted(&flow(port, flags)).1);
        assert_eq!((goes(&mut rig, 1, ACK), goes(&mut rig, 2, SYN), goes(&mut rig, 2, ACK)), (old, new, new));

        let tracked = PoolWord::settled(TableIndex(9)).tracked(Tracking::Exception, UdpPolicy::Keep);
        rig.plane.publish(&[Step::SwitchPool { pool: pool::OUTER4, word: tracked }, Step::Barrier]).unwrap();
        assert_eq!((goes(&mut rig, 1, ACK), goes(&mut rig, 3, ACK)), (old, new), "a flow without an entry is new");

        let settled = table(member(9));
        rig.plane.publish(&[Step::UpdateTable { table: TableIndex(9), slots: settled }]).unwrap();
        assert_eq!(goes(&mut rig, 1, ACK), new, "a settled slot consults no flow table");
    });
}

/// A backend of the pool with IPv4 outer headers, at another address.
fn second() -> MemberRecord {
    MemberRecord {
        destination: [Word::new(u64::from(u32::from_le_bytes([10, 0, 1, 12]))), Word::new(0)],
        ..backend4(pool::OUTER4, 0)
    }
}

fn destination(outer: &[u8]) -> Ipv4Addr {
    let octets: [u8; 4] = outer[30..34].try_into().unwrap();
    octets.into()
}

#[test]
fn a_jumbo_frame_in_several_pieces_is_balanced_whole() {
    in_namespace(|| {
        let mut rig = Rig::new();
        for name in ["eth1", "eth2"] {
            rig.set_mtu(name, 9_000);
        }
        rig.plane.refresh(&links());
        let payload = vec![7; 8_900];
        for frame in [fixtures::tcp4(&payload), fixtures::tcp6(&payload)] {
            let before = rig.plane.snapshot();
            let (action, out, fate) = rig.counted(&frame);
            assert_eq!((action, fate), (action::TX, Counter::Transmitted));
            assert_eq!((&out[..14], &out[34..]), (&rig.host(&frame).1[..14], &frame[14..]));
            let bytes = rig.plane.snapshot().member(member(1)).bytes - before.member(member(1)).bytes;
            assert_eq!(bytes, frame.len() as u64, "all pieces are counted");
            // Behind an interface with a smaller MTU, the sender is answered with that one.
            let elsewhere = to_port(frame.clone(), port::ELSEWHERE);
            if frame[12] == 8 {
                assert_eq!(rig.counted(&elsewhere).2, Counter::Redirected);
                rig.set_mtu("eth2", 1_500);
                rig.plane.refresh(&links());
                let (action, answer, fate) = rig.counted(&elsewhere);
                assert_eq!((action, answer.len(), fate), (action::TX, 14 + 576, Counter::PacketTooBig));
                assert_eq!(answer[14 + 26..14 + 28], 1_480_u16.to_be_bytes());
                // What does not fit for a trailer alone is cut off, across pieces.
                let short = to_port(fixtures::tcp4(b"hello"), port::ELSEWHERE);
                let trailer = [short.clone(), vec![0xee; 8_000]].concat();
                assert_eq!(rig.counted(&trailer).1.len(), short.len() + 20);
            }
        }
    });
}
