//! Frames by hand, and their fates: the oracle's own arithmetic against figures of the RFCs and the examples of docs/packets.md.

use std::collections::HashMap;

use super::bytes::{be16, sum};
use super::*;
use crate::world::worlds;

const CLIENT: [u8; 4] = [198, 51, 100, 7];
const VIP: [u8; 4] = [203, 0, 113, 10];

fn world(name: &str) -> World {
    worlds().into_iter().find(|world| world.name == name).expect("a world of this name")
}

/// An IPv4 packet in a frame to the node.
fn frame(options: &[u8], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + options.len() + payload.len()) as u16;
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 5, 8, 0, 0x45 + (options.len() / 4) as u8, 0];
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend(CLIENT);
    frame.extend(VIP);
    frame.extend(options);
    frame.extend(payload);
    frame
}

fn segment(port: u16, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40];
    segment.extend(port.to_be_bytes());
    segment.extend([0, 0, 0, 100, 0, 0, 0, 200, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(data);
    segment
}

fn fate(world: &World, frame: &[u8]) -> Balanced {
    let node = Node { world, datagrams: &HashMap::new(), flows: &HashMap::new(), may_answer: true };
    balance(&node, frame)
}

fn counted(world: &World, frame: &[u8]) -> Vec<&'static str> {
    fate(world, frame).predicted.counted
}

#[test]
fn options_are_walked_to_the_frames_last_byte() {
    let plain = world("plain");
    let data = segment(443, 0x10, &[]);
    for (options, expected) in [
        ([1, 1, 1, 0], "transmitted"),
        ([7, 3, 4, 1], "transmitted"),
        ([129, 4, 0, 0], "transmitted"),
        ([139, 4, 0, 0], "transmitted"),
        ([131, 3, 4, 0], "source_route"),
        ([1, 137, 3, 4], "source_route"),
        ([1, 1, 1, 7], "malformed"),
        ([7, 1, 0, 0], "malformed"),
        ([7, 5, 0, 0], "malformed"),
        ([0, 131, 3, 4], "transmitted"),
    ] {
        assert_eq!(counted(&plain, &frame(&options, 6, &data)), [expected], "{options:?}");
    }
}

#[test]
fn a_segment_without_a_backend_is_answered_with_the_reset_of_rfc_9293() {
    let plain = world("plain");
    let answered = |flags, data: &[u8]| fate(&plain, &frame(&[], 6, &segment(80, flags, data))).predicted;
    let syn = answered(0x02, b"");
    assert_eq!((syn.verdict, syn.counted.as_slice()), (Verdict::Transmit, &["reset"][..]));
    let bytes = syn.bytes.unwrap();
    assert_eq!(bytes[..12], [2, 0, 0, 0, 0, 5, 2, 0, 0, 0, 0, 1]);
    assert_eq!((&bytes[26..30], &bytes[30..34]), (&VIP[..], &CLIENT[..]));
    // <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>
    assert_eq!(bytes[34..48], [0, 80, 0x9c, 0x40, 0, 0, 0, 0, 0, 0, 0, 101, 0x50, 0x14]);
    assert_eq!((sum(&[&bytes[14..34]]), be16(&bytes, 16)), (0xffff, Some(40)));
    let pseudo = [&VIP[..], &CLIENT, &[0, 6, 0, 20]].concat();
    assert_eq!(sum(&[&pseudo, &bytes[34..54]]), 0xffff);
    // <SEQ=SEG.ACK><CTL=RST>
    let bytes = answered(0x18, b"hello").bytes.unwrap();
    assert_eq!((bytes[38..48].to_vec(), bytes.len()), (vec![0, 0, 0, 200, 0, 0, 0, 0, 0x50, 0x04], 54));
    assert_eq!(answered(0x04, b"").counted, ["no_backend"]);
}

#[test]
fn an_unreachable_answer_is_never_longer_than_its_datagram() {
    let plain = world("plain");
    let datagram = |bytes: usize| [&[0x9c, 0x40, 0, 80, 0, 0, 0, 0][..], &vec![0; bytes]].concat();
    assert_eq!(counted(&plain, &frame(&[], 17, &datagram(27))), ["unanswerable"]);
    let asked = frame(&[], 17, &datagram(28));
    let bytes = fate(&plain, &asked).predicted.bytes.unwrap();
    assert_eq!((bytes.len(), &bytes[34..36], &bytes[42..]), (asked.len(), &[3, 3][..], &asked[14..42]));
}

#[test]
fn a_packet_is_encapsulated_as_a_whole_and_its_header_sums_up() {
    for (name, overhead) in [("plain", 20), ("gue", 32)] {
        let world = world(name);
        let asked = frame(&[], 6, &segment(443, 0x10, b"hello"));
        let Balanced { predicted, vip, backend, .. } = fate(&world, &asked);
        let bytes = predicted.bytes.unwrap();
        assert_eq!((predicted.verdict, vip, bytes.len()), (Verdict::Transmit, Some(0), asked.len() + overhead));
        assert_eq!((&bytes[14 + overhead..], sum(&[&bytes[14..34]])), (&asked[14..], 0xffff));
        assert!(backend.is_some_and(|id| (1..=3).contains(&id)));
    }
}

#[test]
fn the_most_specific_vip_gets_a_packet() {
    let plain = world("plain");
    let vip = |address: [u8; 4], protocol, port: u16| {
        let mut frame = frame(&[], protocol, &segment(port, 0x10, &[]));
        frame[30..34].copy_from_slice(&address);
        fate(&plain, &frame).vip
    };
    assert_eq!(vip(VIP, 6, 8_050), Some(12), "one port within a range");
    assert_eq!(vip(VIP, 6, 8_051), Some(11));
    assert_eq!(vip([203, 0, 113, 17], 17, 7_000), Some(22), "the longer prefix");
    assert_eq!(vip([203, 0, 113, 17], 6, 7_000), Some(20), "which does not take this protocol");
    assert_eq!(vip([203, 0, 113, 20], 6, 443), Some(21));
    assert_eq!(vip([198, 18, 7, 1], 47, 0), Some(24));
    assert_eq!(vip([203, 0, 113, 9], 6, 443), None);
}

#[test]
fn nothing_is_read_from_behind_the_packet() {
    let plain = world("plain");
    let mut cut = frame(&[], 6, &segment(443, 0x10, &[]));
    cut[17] = 39;
    assert_eq!(counted(&plain, &cut), ["malformed"]);
    // An error whose quote is cut off behind the IP header, and padding that looks like its ports.
    let mut quote = frame(&[], 6, &segment(443, 0x10, &[]));
    quote.drain(..14);
    quote[12..16].copy_from_slice(&VIP);
    quote[16..24].copy_from_slice(&[198, 51, 100, 7, 1, 187, 0x9c, 0x40]);
    let error = [&[3, 1, 0, 0, 0, 0, 0, 0], &quote[..28]].concat();
    let mut whole = frame(&[], 1, &error);
    assert_eq!(counted(&plain, &whole), ["transmitted", "icmp_error"]);
    whole[17] -= 8;
    assert_eq!(counted(&plain, &whole), ["icmp_stray"]);
}
