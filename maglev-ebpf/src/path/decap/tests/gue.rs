//! GUE, by the bytes.

use std::vec;
use std::vec::Vec;

use maglev_common::template::Template;
use proptest::prelude::*;

use super::super::*;
use super::{backend, inner, run, wrap_in};
use crate::encap::encapsulate;
use crate::env::Outer;
use crate::fixtures::{NODE_MAC, VecPacket};
use crate::testing;

/// A datagram to a port whose UDP header is right, but for a checksum that nothing verifies.
fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    [&[0xc0, 7][..], &port.to_be_bytes(), &length.to_be_bytes(), &[0xab, 0xcd], payload].concat()
}

/// GUE of version 0 with as many words of private data.
fn version0(inner: &[u8], words: u8) -> Vec<u8> {
    let protocol = if inner[0] >> 4 == 4 { 4 } else { 41 };
    let private = vec![0xee; usize::from(words) * 4];
    datagram(6_080, &[&[words, protocol, 0, 0][..], &private, inner].concat())
}

#[test]
fn both_versions_come_out_as_the_client_sent_them_whatever_their_private_data() {
    for (inner_v6, outer_v6) in [(false, false), (false, true), (true, false), (true, true)] {
        let sent = inner(inner_v6, 0x2a);
        let version0 = [0, 1, 3, 31].map(|words| version0(&sent, words));
        for payload in version0.into_iter().chain([datagram(6_080, &sent)]) {
            let mut padded = wrap_in(17, &payload, outer_v6, 0x28);
            padded.extend([0; 18]);
            let (verdict, counter, bytes) = run(&padded);
            assert_eq!((verdict, counter), (Verdict::Pass, DecapCounter::Decapsulated), "{payload:x?}");
            let ether_type = if inner_v6 { [0x86, 0xdd] } else { [8, 0] };
            assert_eq!(bytes[..12], [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1]);
            assert_eq!(bytes[12..14], ether_type);
            assert_eq!(bytes[14..14 + sent.len()], sent);
        }
    }
}

#[test]
fn congestion_met_on_the_way_reaches_the_inner_header() {
    for (inner_class, expected) in [(0x28, None), (0x2a, Some(0x2b)), (0x29, Some(0x2b))] {
        let (verdict, counter, bytes) = run(&wrap_in(17, &version0(&inner(false, inner_class), 2), false, 0x2b));
        match expected {
            Some(class) => assert_eq!((counter, bytes[15]), (DecapCounter::Decapsulated, class)),
            None => assert_eq!((verdict, counter), (Verdict::Drop, DecapCounter::Congestion)),
        }
    }
}

#[test]
fn other_datagrams_and_fragments_pass_untouched() {
    type Change = fn(&mut Vec<u8>);
    let rows: [(&str, bool, Change); 8] = [
        ("another port", false, |p| p[37] ^= 1),
        ("another port over IPv6", true, |p| p[57] ^= 1),
        ("the source's port", false, |p| p[34..38].rotate_left(2)),
        ("a first fragment", false, |p| p[20] = 0x20),
        ("a later fragment", false, |p| p[21] = 1),
        ("options", false, |p| p[14] = 0x46),
        ("cut short before the ports", false, |p| p.truncate(40)),
        ("a fragment over IPv6", true, |p| p[20] = 44),
    ];
    for (what, outer_v6, change) in rows {
        let mut packet = wrap_in(17, &version0(&inner(false, 0), 0), outer_v6, 0);
        change(&mut packet);
        assert_eq!(run(&packet), (Verdict::Pass, DecapCounter::NotEncapsulated, packet), "{what}");
    }
}

#[test]
fn only_the_load_balancers_are_believed() {
    for (outer_v6, last_of_source) in [(false, 29), (true, 37)] {
        let mut packet = wrap_in(17, &version0(&inner(false, 0), 0), outer_v6, 0);
        packet[last_of_source] ^= 1;
        assert_eq!(run(&packet), (Verdict::Pass, DecapCounter::ForeignSource, packet));
    }
}

#[test]
fn what_is_not_understood_or_contradicts_itself_is_dropped() {
    type Change = fn(&mut Vec<u8>);
    let private = version0(&inner(false, 0), 2);
    let rows: [(&str, Change, DecapCounter); 14] = [
        ("a control message", |p| p[8] |= 0x20, DecapCounter::UnsupportedGue),
        ("version 2", |p| p[8] |= 0x80, DecapCounter::UnsupportedGue),
        ("version 3", |p| p[8] |= 0xc0, DecapCounter::UnsupportedGue),
        ("version 1 with IP version 5", |p| p[8] = 0x55, DecapCounter::UnsupportedGue),
        ("version 1 with IP version 7", |p| p[8] = 0x75, DecapCounter::UnsupportedGue),
        ("a flag", |p| p[10] = 0x80, DecapCounter::UnsupportedGue),
        ("another flag", |p| p[11] = 1, DecapCounter::UnsupportedGue),
        ("Ethernet", |p| p[9] = 143, DecapCounter::UnsupportedGue),
        ("no payload", |p| p[9] = 59, DecapCounter::UnsupportedGue),
        ("private data beyond the datagram", |p| p[8] = 31, DecapCounter::Malformed),
        ("private data short of the packet", |p| p[8] = 1, DecapCounter::Malformed),
        ("a length short of the packet", |p| p[5] -= 1, DecapCounter::Malformed),
        ("a length beyond the packet", |p| p[4] = 0xff, DecapCounter::Malformed),
        ("the other family", |p| p[9] = 41, DecapCounter::Malformed),
    ];
    for (what, change, reason) in rows {
        for outer_v6 in [false, true] {
            let mut payload = private.clone();
            change(&mut payload);
            let packet = wrap_in(17, &payload, outer_v6, 0);
            assert_eq!(run(&packet), (Verdict::Drop, reason, packet), "{what}");
        }
    }
    let cut = wrap_in(17, &datagram(6_080, &[0, 4, 0]), false, 0);
    assert_eq!(run(&cut).1, DecapCounter::Malformed, "a header of three bytes");
}

#[test]
fn what_a_backend_must_not_see_does_not_come_out_of_gue_either() {
    for (change, reason) in [((16, 9), DecapCounter::ForeignDestination), ((12, 127), DecapCounter::ImpossibleSource)] {
        let mut packet = inner(false, 0);
        packet[change.0] = change.1;
        let outcome = run(&wrap_in(17, &version0(&packet, 0), false, 0));
        assert_eq!((outcome.0, outcome.1), (Verdict::Drop, reason));
    }
}

/// What the load balancer sends comes out as it came in, for each family of both headers.
#[test]
fn the_load_balancers_own_packets_come_out() {
    for (record, outer_v6) in [(testing::backend4(), false), (testing::backend6(), true)] {
        record.set_encap_kind(maglev_common::encap::EncapKind::Gue);
        let interface = testing::tables(record.clone()).forwarding.interfaces[0].clone();
        let template = Template::new(&record, &interface);
        for inner_v6 in [false, true] {
            let sent = inner(inner_v6, 0x2a);
            let mut packet = VecPacket::new(&[&NODE_MAC[..], &[0; 8], &sent].concat());
            let protocol = if inner_v6 { 41 } else { 4 };
            let outer = Outer { protocol, l3: 14, length: sent.len() as u32, hash: 0 };
            let encap = template.exit().encap();
            assert!(encapsulate::<maglev_common::hash::Tuple4>(&mut packet, encap, true, outer, &template, &record));
            let mut tables = backend();
            tables.sources4.insert(u32::from_le_bytes(testing::SOURCE4));
            let words = |at: usize| u64::from_le_bytes(testing::SOURCE6[at..at + 8].try_into().unwrap());
            tables.sources6.insert([words(0), words(8)]);
            assert_eq!(decapsulate(&mut packet, &tables), Verdict::Pass, "{outer_v6} {inner_v6}");
            assert_eq!(tables.last.get(), Some(DecapCounter::Decapsulated));
            assert_eq!(packet.bytes[14..], sent);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_behind_gues_port_are_survived(
        start in prop::collection::vec(any::<u8>(), 0..8),
        noise in prop::collection::vec(any::<u8>(), 0..200),
        outer_v6 in any::<bool>(),
        inner_v6 in any::<bool>(),
    ) {
        let payload = [&start[..], &inner(inner_v6, 1), &noise].concat();
        let packet = wrap_in(17, &datagram(6_080, &payload), outer_v6, 3);
        let (verdict, counter, bytes) = run(&packet);
        match counter {
            DecapCounter::Decapsulated => prop_assert!(bytes.len() < packet.len() && packet.ends_with(&bytes[34..])),
            _ => prop_assert_eq!(bytes, packet),
        }
        prop_assert_eq!(verdict == Verdict::Drop, counter.outcome() == Outcome::Dropped);
    }
}
