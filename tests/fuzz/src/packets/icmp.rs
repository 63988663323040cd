//! ICMP and ICMPv6 messages: errors that quote packets, echo requests, and others.

use std::net::IpAddr;

use fastrand::Rng;

use super::addresses::{Flow, client};
use super::{choose, ipv4, ipv6, one_in, transport};

/// A message to a flow's destination, whole, without IP header.
pub(super) fn message(rng: &mut Rng, flow: Flow) -> Vec<u8> {
    let is_v4 = flow.destination.is_ipv4();
    match rng.u8(..8) {
        0..5 => error(rng, flow, is_v4),
        5..7 => {
            let mut message = vec![if is_v4 { 8 } else { 128 }, 0, 0, 0];
            message.extend(rng.u32(..).to_be_bytes());
            message.extend(vec![rng.u8(..); transport::length(rng)]);
            finished(message)
        }
        _ => {
            let kind = choose(rng, &[0, 4, 5, 9, 10, 13, 17, 1, 2, 129, 130, 133, 135, 136, 137, 255]);
            let mut message = vec![kind, rng.u8(..), 0, 0];
            message.extend(vec![rng.u8(..); rng.usize(..40)]);
            finished(message)
        }
    }
}

/// Sets the checksum, without a pseudo-header: the programs do not verify it.
fn finished(mut message: Vec<u8>) -> Vec<u8> {
    ipv4::set_checksum(&mut message, 2);
    message
}

/// An error about a packet from the VIP to a client.
fn error(rng: &mut Rng, flow: Flow, is_v4: bool) -> Vec<u8> {
    let kind = if is_v4 { choose(rng, &[3, 3, 11, 12]) } else { choose(rng, &[1, 2, 3, 4]) };
    let code = rng.u8(..5);
    let mut message = vec![kind, code, 0, 0];
    message.extend(rng.u32(..).to_be_bytes());
    let mut quote = quoted(rng, flow);
    match rng.u8(..8) {
        // As RFC 792 has it.
        0..4 => quote.truncate(if is_v4 { 28 } else { 48 }),
        4 => quote.truncate(rng.usize(..80)),
        5 => quote.truncate(548),
        _ => {}
    }
    message.extend(quote);
    finished(message)
}

/// A packet that a VIP sent to a client, or nearly so.
fn quoted(rng: &mut Rng, flow: Flow) -> Vec<u8> {
    let mut from = flow.destination;
    let mut protocol = if one_in(rng, 12) { choose(rng, &[4, 41, 47, 50, 1, 58, 0]) } else { flow.protocol };
    if matches!(protocol, 1 | 58) && !one_in(rng, 8) {
        protocol = choose(rng, &[6, 17, 132, 136]);
    }
    if one_in(rng, 16) {
        from = client(rng, from.is_ipv4());
    }
    let back = Flow { source_port: flow.port, port: flow.source_port, protocol, ..flow };
    let payload = transport::payload(rng, back);
    match (from, client(rng, from.is_ipv4())) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = ipv4::Header::new(rng, from, to, protocol);
            if one_in(rng, 12) {
                header.fragment = choose(rng, &[0x2000, 0x2001, 1, 0x6000]);
            }
            header.packet(&payload)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => ipv6::Header::new(rng, from, to, protocol).packet(&payload),
        _ => Vec::new(),
    }
}
