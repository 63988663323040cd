//! The parsers over whole frames: the one for plain packets finds what the full ones find, and tags change nothing.

use std::vec::Vec;

use maglev_common::backend::mac_word;
use maglev_common::forwarding::OwnMac;
use maglev_common::hash::{Tuple4, Tuple6};
use proptest::prelude::*;

use super::eth::{self, Payload};
use super::*;
use crate::fixtures::*;
use crate::vip::Tuple;

/// What the plain parsers read of a frame: headers as far as the TCP flags.
const PLAIN4: usize = eth::HEADER + ipv4::HEADER + 14;
const PLAIN6: usize = eth::HEADER + ipv6::HEADER + 14;

/// A flow of either family.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    V4(Inner<Tuple4>),
    V6(Inner<Tuple6>),
}

fn is_own(destination: OwnMac) -> bool {
    destination == OwnMac::new(mac_word(NODE_MAC))
}

fn plain(frame: &[u8]) -> Option<Found> {
    let packet = VecPacket::new(frame);
    plain::ipv4(&packet, is_own).map(Found::V4).or_else(|| plain::ipv6(&packet, is_own).map(Found::V6))
}

/// What the full parsers find of what the plain ones are for: TCP or UDP in an untagged frame to this node, without options or extension
/// headers, long enough to be read at once.
fn full(frame: &[u8]) -> Option<Found> {
    let packet = VecPacket::new(frame);
    if !is_own(eth::destination(&packet)?) {
        return None;
    }
    match eth::payload(&packet)? {
        Payload::Ipv4(l3 @ eth::HEADER) if frame.len() >= PLAIN4 => {
            plain_flow(Tuple4::parse(&packet, l3)).map(Found::V4)
        }
        Payload::Ipv6(l3 @ eth::HEADER) if frame.len() >= PLAIN6 => {
            plain_flow(Tuple6::parse(&packet, l3)).map(Found::V6)
        }
        _ => None,
    }
}

fn plain_flow<T: Tuple>(parsed: Parsed<T>) -> Option<Inner<T>> {
    let is_plain = |protocol| matches!(protocol, l4::TCP | l4::UDP);
    let plain = |inner: &Inner<T>| is_plain(inner.tuple.transport().protocol());
    flow(parsed).filter(|inner| inner.transport == inner.l3 + T::HEADER && plain(inner))
}

fn flow<T>(parsed: Parsed<T>) -> Option<Inner<T>> {
    match parsed {
        Parsed::Flow(inner) => Some(inner),
        _ => None,
    }
}

/// Every frame of the fixtures.
fn frames() -> Vec<Vec<u8>> {
    let rows = [unbalanced4(), unbalanced6(), misaddressed(), passed()].concat();
    let others = [peculiar(), errors(), echoes()].concat().into_iter().map(|(_, frame)| frame);
    let long = [7; 1_400];
    let plain = [tcp4(b""), tcp4(b"hello"), tcp4(&long), tcp6(b""), tcp6(b"hello"), tcp6(&long)];
    let datagrams = [udp4(VIP4, PORT), udp4(VIP4, 53), udp6(PORT), udp6(53)];
    rows.into_iter().map(|row| row.frame).chain(plain).chain(datagrams).chain(others).collect()
}

/// What a frame is for the parsers: of each family, at an offset.
fn parsed(frame: &[u8], l3: usize) -> (Parsed<Tuple4>, Parsed<Tuple6>) {
    let packet = VecPacket::new(frame);
    (Tuple4::parse(&packet, l3), Tuple6::parse(&packet, l3))
}

fn moved<T>(parsed: Parsed<T>, by: usize) -> Parsed<T> {
    match parsed {
        Parsed::Flow(inner) => Parsed::Flow(Inner { l3: inner.l3 + by, transport: inner.transport + by, ..inner }),
        Parsed::Icmp(span) => Parsed::Icmp(Span { l3: span.l3 + by, transport: span.transport + by, ..span }),
        other => other,
    }
}

#[test]
fn both_parsers_agree_on_every_fixture_however_it_is_cut() {
    let mut found = 0;
    for frame in frames() {
        for length in 0..=frame.len() {
            let (plain, full) = (plain(&frame[..length]), full(&frame[..length]));
            assert_eq!(plain, full, "{length} bytes of {frame:02x?}");
            found += usize::from(plain.is_some());
        }
    }
    // Six whole TCP segments and two for another port at least; most cuts leave nothing to find.
    assert!(found >= 8, "{found}");
}

#[test]
fn a_parser_says_what_it_found() {
    let four = |change: fn(&mut Vec<u8>)| {
        let mut frame = tcp4(b"");
        change(&mut frame);
        parsed(&frame, eth::HEADER).0
    };
    let span = Span { l3: 14, length: 40, transport: 34 };
    assert_eq!(four(|p| p[23] = l4::ICMP), Parsed::Icmp(span));
    assert_eq!(four(|p| p[20] = 0x20), Parsed::Fragment);
    assert_eq!(four(|p| p[14] = 0x46), Parsed::Malformed);
    assert_eq!(four(|p| p[22] = 0), Parsed::HopLimit);
    assert_eq!(four(|p| p[23] = 4), Parsed::Nested);
    assert_eq!(four(|p| p[17] = 39), Parsed::Malformed);
    assert_eq!(four(|p| p.truncate(33)), Parsed::Truncated);
    let inner = flow(parsed(&tcp6(b"hello"), eth::HEADER).1).unwrap();
    assert_eq!((inner.l3, inner.length, inner.transport), (14, 65, 54));
}

#[test]
fn tags_are_looked_through() {
    let tagged = |frame: &[u8], tags: &[u8]| {
        let mut frame = frame.to_vec();
        frame.splice(12..12, tags.iter().copied());
        eth::payload(&VecPacket::new(&frame))
    };
    let (one, two) = ([0x81, 0, 0, 5], [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]);
    assert_eq!(tagged(&tcp4(b""), &[]), Some(Payload::Ipv4(14)));
    assert_eq!(tagged(&tcp4(b""), &one), Some(Payload::Ipv4(18)));
    assert_eq!(tagged(&tcp6(b""), &two), Some(Payload::Ipv6(22)));
    assert_eq!(tagged(&tcp6(b""), &[one, one, one].concat()), Some(Payload::Other));
    assert_eq!(tagged(&tcp4(b"")[..14], &[]), Some(Payload::Ipv4(14)), "the parser says that it is cut");
    assert_eq!(tagged(&tcp4(b"")[..13], &[]), None);
}

prop_compose! {
    /// A fixture with some bytes of its headers changed, cut or continued.
    fn a_frame()(
        n in 0..frames().len(),
        changes in prop::collection::vec((0_usize..80, any::<u8>()), 0..4),
        keep in 0_usize..1_500,
        trailer in prop::collection::vec(any::<u8>(), 0..64),
    ) -> Vec<u8> {
        let mut frame = frames().swap_remove(n);
        for (at, byte) in changes {
            if let Some(to) = frame.get_mut(at) {
                *to = byte;
            }
        }
        frame.truncate(keep);
        frame.extend(trailer);
        frame
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn both_parsers_agree_on_frames_changed_at_random(frame in a_frame()) {
        prop_assert_eq!(plain(&frame), full(&frame));
    }

    #[test]
    fn both_parsers_agree_on_noise(start in prop::sample::select([[8, 0, 0x45], [0x86, 0xdd, 0x60]].to_vec()), noise in prop::collection::vec(any::<u8>(), 0..100)) {
        let frame = [&NODE_MAC[..], &ROUTER_MAC, &start, &noise].concat();
        prop_assert_eq!(plain(&frame), full(&frame));
    }

    #[test]
    fn a_packet_is_the_same_behind_tags(frame in a_frame(), tags in 0_usize..=2) {
        prop_assume!(frame.len() >= eth::HEADER);
        let (by, mut tagged) = (tags * eth::TAG, frame.clone());
        tagged.splice(12..12, [0x81, 0, 0, 5].repeat(tags));
        let (v4, v6) = parsed(&frame, eth::HEADER);
        prop_assert_eq!(parsed(&tagged, eth::HEADER + by), (moved(v4, by), moved(v6, by)));
    }
}
