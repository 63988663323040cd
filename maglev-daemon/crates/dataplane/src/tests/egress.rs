//! The program at the interfaces' egress in the running kernel: its effect on packets, and its hold on interfaces.

use std::net::UdpSocket;

use aya::programs::{TestRun as _, TestRunOptions};
use maglev_common::mark::Mark;
use maglev_ebpf::fixtures::{self, PORT, Unbalanced, VIP4, VecPacket};
use maglev_ebpf::path::egress::{Departure, Origin, depart};
use nix::sys::socket::{setsockopt, sockopt};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::packets::{in_gue, plan, stay_on_one_cpu};
use super::*;
use crate::egress::{Egress, Means};
use crate::explain::View;

/// The program's counters.
pub(super) const COUNTERS: [Counter; 3] = [Counter::CheckSent, Counter::CheckUnsent, Counter::Stray];

/// `TC_ACT_UNSPEC`, `TC_ACT_SHOT` and `TC_ACT_REDIRECT`.
const UNSPEC: u32 = u32::MAX;
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;

/// Words of `struct __sk_buff`: `mark`, `ingress_ifindex` and `ifindex`.
const MARK: usize = 2;
const INGRESS_IFINDEX: usize = 9;
const IFINDEX: usize = 10;

pub(super) struct Rig {
    pub(super) plane: Dataplane,
    _peer: Peer,
}

impl Rig {
    pub(super) fn new() -> Self {
        stay_on_one_cpu();
        let peer = two_veths();
        let mut settings = settings(&[("eth1", Mode::Native), ("eth2", Mode::Native)]);
        settings.limits.pools = 8;
        let mut plane = Dataplane::start(&settings, &links()).unwrap();
        plane.publish(&plan()).unwrap();
        Self { plane, _peer: peer }
    }

    /// The interface of outgoing packets.
    fn interface(&self) -> u32 {
        self.plane.interfaces()[0].index
    }

    /// A packet through the kernel: the verdict, the packet, its mark after, and the counts.
    pub(super) fn run(&mut self, frame: &[u8], from: Origin) -> (u32, Vec<u8>, u32, [u64; 3]) {
        let before = self.plane.snapshot();
        let mut context = [0_u32; IFINDEX + 1];
        context[MARK] = from.mark.0;
        context[INGRESS_IFINDEX] = from.forwarded.into();
        context[IFINDEX] = self.interface();
        let context = context.map(u32::to_ne_bytes).concat();
        let (mut out, mut after) = (vec![0; frame.len() + 256], vec![0; 192]);
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(&context);
        options.ctx_out = Some(&mut after);
        let result = self.plane.ebpf.egress().unwrap().test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        let mark = u32::from_ne_bytes(after[4 * MARK..][..4].try_into().unwrap());
        let snapshot = self.plane.snapshot();
        let counted = COUNTERS.map(|counter| snapshot.counter(counter) - before.counter(counter));
        (result.return_value, out, mark, counted)
    }

    /// The same through the host's build, over the same maps; but for what is counted.
    fn host(&self, frame: &[u8], from: Origin) -> (u32, Vec<u8>, u32) {
        let view = View::new(&self.plane.maps, 0, explain::now().unwrap());
        let mut packet = VecPacket::new(frame);
        let (action, mark) = match depart(&mut packet, &view, from) {
            Departure::Pass => (UNSPEC, from.mark.0),
            Departure::Drop => (SHOT, from.mark.0),
            Departure::Encapsulated => (UNSPEC, 0),
            // The host build does not know the outgoing interface.
            Departure::Redirect(index) if index == self.interface() => (UNSPEC, 0),
            Departure::Redirect(_) => (REDIRECT, 0),
        };
        (action, packet.bytes, mark)
    }
}

pub(super) fn check(id: u16) -> Origin {
    Origin { mark: Mark::from_member(member(id)), forwarded: false }
}

const UNMARKED: Origin = Origin { mark: Mark(0), forwarded: false };

#[test]
fn checks_of_every_family_are_encapsulated_as_on_the_host() {
    in_namespace(|| {
        let mut rig = Rig::new();
        let frames = [fixtures::tcp4(b"hello"), fixtures::tcp6(b"hello"), fixtures::udp4(VIP4, 9), fixtures::udp6(9)];
        // Sent on their ordered interface, in IPv4 and IPv6, and on another.
        for (id, action, overhead) in [(1, UNSPEC, 20), (2, UNSPEC, 40), (4, REDIRECT, 20)] {
            for frame in &frames {
                let (done, out, mark, counted) = rig.run(frame, check(id));
                assert_eq!((done, mark, counted), (action, 0, [1, 0, 0]), "member {id}");
                assert_eq!((out.len(), &out[14 + overhead..]), (frame.len() + overhead, &frame[14..]), "member {id}");
                assert_eq!((done, out, mark), rig.host(frame, check(id)), "member {id}: byte for byte");
            }
        }
        rig.plane.publish(&in_gue()).unwrap();
        for (id, action, overhead) in [(1, UNSPEC, 32), (2, UNSPEC, 52), (4, REDIRECT, 32)] {
            for frame in &frames {
                let (done, out, mark, counted) = rig.run(frame, check(id));
                assert_eq!((done, mark, counted), (action, 0, [1, 0, 0]), "member {id} in GUE");
                assert_eq!((out.len(), &out[14 + overhead..]), (frame.len() + overhead, &frame[14..]), "member {id}");
                assert_eq!((done, out, mark), rig.host(frame, check(id)), "member {id} in GUE: byte for byte");
            }
        }
        // Dead members are checked like live ones; unreachable ones are not.
        rig.plane.publish(&[Step::KillMember { id: member(1) }]).unwrap();
        assert_eq!(rig.run(&frames[0], check(1)).3, [1, 0, 0]);
        assert_eq!(rig.run(&frames[0], check(3)), (SHOT, frames[0].clone(), check(3).mark.0, [0, 1, 0]));
    });
}

#[test]
fn other_packets_for_a_vip_are_dropped_and_all_else_passes() {
    in_namespace(|| {
        let mut rig = Rig::new();
        for Unbalanced { what, frame, .. } in fixtures::unbalanced4().into_iter().chain(fixtures::unbalanced6()) {
            assert_eq!(rig.run(&frame, UNMARKED), (SHOT, frame, 0, [0, 0, 1]), "{what}");
        }
        let forwarded = Origin { forwarded: true, ..UNMARKED };
        let frame = fixtures::tcp4(b"");
        assert_eq!(rig.run(&frame, forwarded), (UNSPEC, frame, 0, [0; 3]));
        for Unbalanced { what, frame, .. } in fixtures::passed().into_iter().filter(|row| row.frame.len() > 53) {
            assert_eq!(rig.run(&frame, check(1)), (UNSPEC, frame, check(1).mark.0, [0; 3]), "{what}");
        }
    });
}

#[test]
fn the_kernel_and_the_host_make_the_same_of_any_packet_that_leaves() {
    in_namespace(|| {
        let rig = std::cell::RefCell::new(Rig::new());
        let bases =
            [fixtures::tcp4(b"hello"), fixtures::tcp6(b"hello"), fixtures::udp4(VIP4, PORT), fixtures::udp6(PORT)];
        let change = (any::<prop::sample::Index>(), any::<u8>());
        let mark = prop_oneof![Just(0), (0_u16..5).prop_map(|id| Mark::PREFIX | u32::from(id)), any::<u32>()];
        let strategy = (0..bases.len(), prop::collection::vec(change, 0..4), 34_usize..90, mark, any::<bool>());
        let mut runner = TestRunner::new(Config { cases: 3_000, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&strategy, |(base, changes, keep, mark, forwarded)| {
            let mut frame = bases[base].clone();
            for (at, value) in changes {
                let at = at.index(frame.len());
                // The kernel makes room only in what it takes to be IP: sockets send nothing else.
                frame[at] = if (12..14).contains(&at) { frame[at] } else { value };
            }
            frame.truncate(keep.max(14 + 40));
            let (mut rig, from) = (rig.borrow_mut(), Origin { mark: Mark(mark), forwarded });
            let host = rig.host(&frame, from);
            let (done, out, mark, _) = rig.run(&frame, from);
            prop_assert_eq!((done, out, mark), host);
            Ok(())
        });
        outcome.unwrap();
    });
}

/// Sends a datagram to the VIP, and returns what was counted.
fn sent(plane: &Dataplane, mark: u32) -> [u64; 3] {
    let before = plane.snapshot();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    setsockopt(&socket, sockopt::Mark, &mark).unwrap();
    // A filter that drops reports an error to the sender, if it is the socket's own packet.
    let _ = socket.send_to(b"query", (Ipv4Addr::from(VIP4), 9));
    let after = plane.snapshot();
    COUNTERS.map(|counter| after.counter(counter) - before.counter(counter))
}

fn route_to_vip(interface: &str) {
    ip(&format!("address add 10.9.0.1/24 dev {interface}"));
    ip(&format!("neighbour replace 10.9.0.2 lladdr 02:00:00:00:00:22 nud permanent dev {interface}"));
    ip("route replace 203.0.113.0/24 via 10.9.0.2");
}

fn started() -> (Peer, Dataplane) {
    let peer = two_veths();
    let mut settings = settings(&[("eth1", Mode::Native), ("eth2", Mode::Generic)]);
    settings.limits.pools = 8;
    let mut plane = Dataplane::start(&settings, &links()).unwrap();
    plane.publish(&plan()).unwrap();
    (peer, plane)
}

#[test]
fn sockets_packets_meet_the_program_wherever_it_is_attached_until_it_is_detached() {
    in_namespace(|| {
        let (peer, mut plane) = started();
        route_to_vip("eth1");
        let all = |plane: &Dataplane| {
            [0, 1, 2, 4].map(|id| sent(plane, if id == 0 { 7 } else { Mark::from_member(member(id)).0 }))
        };
        let expected = [[0, 0, 1], [1, 0, 0], [1, 0, 0], [1, 0, 0]];
        assert_eq!(all(&plane), expected);
        ip("address del 10.9.0.1/24 dev eth1");
        route_to_vip("eth2");
        assert_eq!(all(&plane), expected, "in generic mode as well");

        // One that is made anew under its name.
        ip("link del eth2");
        assert!(plane.refresh(&links()).unguarded.is_empty(), "what is gone is no problem of the egress");
        peer.connect("eth2", "eth2");
        route_to_vip("eth2");
        assert_eq!(sent(&plane, 0), [0; 3]);
        assert_eq!(plane.refresh(&links()), Refresh::default());
        assert_eq!(sent(&plane, 0), [0, 0, 1]);
        drop(std::mem::take(&mut plane.egress));
        assert_eq!(sent(&plane, 0), [0; 3]);
    });
}

#[test]
fn filters_do_what_links_do_and_one_that_a_killed_daemon_left_is_replaced() {
    in_namespace(|| {
        let (_peer, mut plane) = started();
        let attach = |plane: &mut Dataplane| {
            let Dataplane { attached, ebpf, .. } = plane;
            let mut filters = Egress::by(Means::Filter);
            let failed = filters.follow(ebpf.egress().unwrap(), attached.interfaces());
            assert!(failed.is_empty(), "{failed:?}");
            filters
        };
        drop(std::mem::take(&mut plane.egress));
        let filters = attach(&mut plane);
        let both = |plane: &Dataplane| [sent(plane, 0), sent(plane, Mark::from_member(member(1)).0)];
        for interface in ["eth2", "eth1"] {
            route_to_vip(interface);
            assert_eq!(both(&plane), [[0, 0, 1], [1, 0, 0]], "{interface}");
            ip(&format!("address del 10.9.0.1/24 dev {interface}"));
        }
        route_to_vip("eth1");
        drop(filters);
        assert_eq!(both(&plane), [[0; 3]; 2]);
        // As if the daemon had been killed: the programs stay attached.
        std::mem::forget(attach(&mut plane));
        assert_eq!(both(&plane), [[0, 0, 1], [1, 0, 0]]);
        let filters = attach(&mut plane);
        assert_eq!(both(&plane), [[0, 0, 1], [1, 0, 0]]);
        drop(filters);
        assert_eq!(both(&plane), [[0; 3]; 2], "nothing was left");
    });
}

#[test]
fn an_interface_where_it_cannot_be_attached_is_named() {
    in_namespace(|| {
        let (_peer, mut plane) = started();
        let gone = Interface { name: "eth7".to_owned(), index: 77, ..plane.interfaces()[0].clone() };
        for means in [Means::Link, Means::Filter] {
            let failed = Egress::by(means).follow(plane.ebpf.egress().unwrap(), [&gone]);
            let [(interface, error)] = failed.as_slice() else { panic!("{failed:?}") };
            assert_eq!(interface.name, "eth7");
            assert!(error.to_string().starts_with("eth7: cannot attach the program"), "{error}");
        }
    });
}
