//! Lowering the MSS in the running kernel: SYNs that come encapsulated, their answers, and the program's hold on the egress.

use std::net::UdpSocket;

use aya::programs::{TestRun as _, TestRunOptions};
use maglev_common::maps::DECAP_EGRESS_PROGRAM;
use maglev_ebpf::packet::checksum;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::faults::{decap_settings, wrapped};
use super::outlive::{Folder, stay};
use super::*;
use crate::egress::{Egress, Means};

/// `TC_ACT_UNSPEC`.
const UNSPEC: u32 = u32::MAX;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const VIPS: [&str; 2] = ["203.0.113.10/32", "2001:db8:113::10/128"];

/// A segment of 24 bytes with an MSS option of 1,460, its checksum 0x1234, as an IP packet between client and VIP.
fn segment(v6: bool, port: u16, flags: u8) -> Vec<u8> {
    let from_client = flags == SYN;
    let ends = if v6 { ["2001:db8:51::7", "2001:db8:113::10"] } else { ["198.51.100.7", "203.0.113.10"] };
    let mut ends = ends.map(|end| match end.parse().unwrap() {
        std::net::IpAddr::V4(end) => end.octets().to_vec(),
        std::net::IpAddr::V6(end) => end.octets().to_vec(),
    });
    let mut ports = [port, 80].map(u16::to_be_bytes);
    if !from_client {
        ends.reverse();
        ports.reverse();
    }
    let mut packet =
        if v6 { vec![0x60, 0, 0, 0, 0, 24, 6, 60] } else { vec![0x45, 0, 0, 44, 0, 0, 0x40, 0, 60, 6, 0, 0] };
    packet.extend(ends.concat());
    packet.extend(ports.concat());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x60, flags, 0xfa, 0, 0x12, 0x34, 0, 0, 2, 4, 0x05, 0xb4]);
    packet
}

fn answer(v6: bool, port: u16) -> Vec<u8> {
    let ether_type = if v6 { [0x86, 0xdd] } else { [8, 0] };
    [&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1][..], &ether_type, &segment(v6, port, SYN_ACK)].concat()
}

fn settings_of(names: &[&str], mss: Mss, folder: Option<&Folder>) -> DecapSettings {
    let names: Vec<_> = names.iter().map(|name| (*name, Mode::Native)).collect();
    DecapSettings { interfaces: interfaces(&names), mss, ..decap_settings("eth1", &VIPS, folder) }
}

/// A SYN comes in by the first interface.
fn syn(decap: &mut Decap, v6: bool, port: u16) {
    let index = decap.interfaces().next().unwrap().index;
    let frame = wrapped(if v6 { 41 } else { 4 }, &segment(v6, port, SYN));
    assert_eq!(Harness::new(decap.ebpf(), DECAP_PROGRAM).run(index, &frame).0, action::PASS);
}

/// The same of both families.
fn syns(decap: &mut Decap, port: u16) {
    syn(decap, false, port);
    syn(decap, true, port);
}

/// A frame as an interface's egress leaves it.
fn egress(decap: &mut Decap, interface: usize, frame: &[u8]) -> Vec<u8> {
    let mut out = vec![0; frame.len() + 64];
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.data_out = Some(&mut out);
    let program = decap.ebpf_at(interface).classifier(DECAP_EGRESS_PROGRAM).unwrap();
    let result = program.test_run(options).unwrap();
    assert_eq!(result.return_value, UNSPEC);
    out.truncate(result.data_size_out as usize);
    out
}

/// The MSS with which an interface sends the answer of 1,460; nothing else of it changes but the checksum, by as much.
fn announced(decap: &mut Decap, interface: usize, v6: bool, port: u16) -> u16 {
    let frame = answer(v6, port);
    let mut out = egress(decap, interface, &frame);
    let (end, mss) = (out.len(), u16::from_be_bytes(out[out.len() - 2..].try_into().unwrap()));
    assert_eq!(out[end - 8..end - 6], checksum::replaced(0x1234, 1_460, mss).to_be_bytes());
    out[end - 8..end - 6].copy_from_slice(&[0x12, 0x34]);
    out[end - 2..].copy_from_slice(&1_460_u16.to_be_bytes());
    assert_eq!(out, frame);
    mss
}

#[test]
fn answers_to_encapsulated_syns_announce_what_fits_the_interface() {
    in_namespace(|| {
        let _peer = two_veths();
        stay();
        let mut decap = Decap::start(&settings_of(&["eth1", "eth2"], Mss::Auto, None), &links()).unwrap();
        let both = |decap: &mut Decap, interface, port| [false, true].map(|v6| announced(decap, interface, v6, port));
        assert_eq!((both(&mut decap, 0, 1), lowered(&decap)), ([1_460; 2], 0), "no SYN came encapsulated");
        syns(&mut decap, 1);
        assert_eq!((both(&mut decap, 0, 1), lowered(&decap)), ([1_428, 1_408], 2));
        assert_eq!(both(&mut decap, 1, 1), [1_428, 1_408], "by another interface");
        assert_eq!((both(&mut decap, 0, 2), lowered(&decap)), ([1_460; 2], 4), "another connection");
        // The interface that the SYN comes in by counts, as it is then.
        ip("link set eth1 mtu 1400");
        syns(&mut decap, 3);
        assert_eq!(both(&mut decap, 1, 3), [1_328, 1_308]);
        ip("link set eth1 mtu 1600");
        syns(&mut decap, 4);
        assert_eq!((both(&mut decap, 0, 4), lowered(&decap)), ([1_460; 2], 6));
        // What is cut short is left.
        let frame = answer(false, 1);
        for length in 34..frame.len() {
            assert_eq!(egress(&mut decap, 0, &frame[..length]), frame[..length]);
        }
        assert_eq!(lowered(&decap), 6);
    });
}

#[test]
fn a_limit_is_used_as_it_is_and_without_one_no_syn_is_noted() {
    in_namespace(|| {
        let _peer = two_veths();
        stay();
        let mut decap = Decap::start(&settings_of(&["eth1"], Mss::Limit(1_300), None), &links()).unwrap();
        syns(&mut decap, 1);
        assert_eq!([false, true].map(|v6| announced(&mut decap, 0, v6, 1)), [1_300, 1_280]);
        drop(decap);
        let mut off = Decap::start(&settings_of(&["eth1"], Mss::Off, None), &links()).unwrap();
        syn(&mut off, false, 1);
        route_to_client();
        leave(1);
        assert_eq!(lowered(&off), 0);
    });
}

/// Packets to the client are routed via the first interface.
fn route_to_client() {
    ip("address add 10.9.0.1/24 dev eth1");
    ip("neighbour replace 10.9.0.2 lladdr 02:00:00:00:00:22 nud permanent dev eth1");
    ip("route replace 198.51.100.0/24 via 10.9.0.2");
}

/// A socket sends the answer to a SYN.
fn leave(port: u16) {
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), Some(SockProtocol::Raw)).unwrap();
    UdpSocket::from(raw).send_to(&segment(false, port, SYN_ACK), (CLIENT, 0)).unwrap();
}

fn lowered(decap: &Decap) -> u64 {
    decap.snapshot().counter(DecapCounter::MssLowered)
}

#[test]
fn it_outlives_its_process_as_decapsulation_does() {
    in_namespace(|| {
        let (peer, folder) = (two_veths(), Folder::new());
        stay();
        let start = |mss| Decap::start(&settings_of(&["eth1"], mss, Some(&folder)), &links()).unwrap();
        route_to_client();
        // Killed, and adopted: there is always one.
        let mut decap = start(Mss::Auto);
        syn(&mut decap, false, 1);
        drop(decap);
        leave(1);
        let mut decap = start(Mss::Limit(1_200));
        assert_eq!(lowered(&decap), 1, "by the program that was left");
        syn(&mut decap, false, 1);
        leave(1);
        assert_eq!((lowered(&decap), announced(&mut decap, 0, false, 1)), (2, 1_200));
        drop(decap);
        // The next one does without.
        let decap = start(Mss::Off);
        leave(1);
        assert_eq!(lowered(&decap), 3, "of the test run before");
        drop(decap);
        // An interface that is made anew has it again, and a plain stop leaves nothing.
        let mut decap = start(Mss::Auto);
        ip("link del eth1");
        assert_eq!(decap.refresh(&links()).detached, ["eth1"]);
        peer.connect("eth1", "eth1");
        assert_eq!(decap.refresh(&links()), Refresh::default());
        route_to_client();
        syn(&mut decap, false, 2);
        leave(2);
        assert_eq!(lowered(&decap), 4);
        decap.stop();
        assert_eq!((attached("eth1"), folder.0.exists()), (None, false));
    });
}

#[test]
fn filters_outlive_their_process_until_one_that_does_without_starts() {
    in_namespace(|| {
        let (_peer, folder) = (two_veths(), Folder::new());
        stay();
        let mut decap = Decap::start(&settings_of(&["eth2"], Mss::Auto, None), &links()).unwrap();
        let index = links().into_iter().find(|link| link.name == "eth1").unwrap().index;
        let interface = Interface { name: "eth1".to_owned(), index, ..decap.interfaces().next().unwrap().clone() };
        let pins = folder.hold();
        let filters = || {
            let mut egress = Egress::outliving(DECAP_EGRESS_PROGRAM, Some(Arc::clone(&pins)));
            egress.set_means(Means::Filter);
            egress
        };
        let attach = |decap: &mut Decap| {
            let mut egress = filters();
            let program = decap.ebpf().classifier(DECAP_EGRESS_PROGRAM).unwrap();
            assert!(egress.follow(program, [&interface]).is_empty());
            egress
        };
        let counted = |decap: &Decap| {
            let before = lowered(decap);
            leave(1);
            lowered(decap) - before
        };
        route_to_client();
        syn(&mut decap, false, 1);
        filters().end_left("eth1");
        assert_eq!(counted(&decap), 0);
        for _ in 0..2 {
            drop(attach(&mut decap));
            assert_eq!(counted(&decap), 1, "killed, and replaced by the next one");
        }
        filters().end_left("eth1");
        assert_eq!(counted(&decap), 0);
        let egress = attach(&mut decap);
        assert_eq!(counted(&decap), 1);
        egress.stop();
        assert_eq!(counted(&decap), 0);
    });
}
