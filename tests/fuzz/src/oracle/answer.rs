//! Answers of the node itself: headers of what it makes, and of the packet that it answers turned round.

use std::net::IpAddr;

use super::bytes::{checksum, put};
use super::ip::{Packet, is_remote_host, protocol};
use super::link::{Family, turned};
use super::{Node, choice};

/// DSCP CS6: internetwork control (RFC 1812 section 4.3.2.5).
const CONTROL: u8 = 0xc0;

/// Whether a packet's source may be answered: a single remote host, and no VIP.
pub(crate) fn is_answerable(node: &Node<'_>, packet: &Packet<'_>) -> bool {
    is_remote_host(packet.source) && !choice::is_vip_address(node.world, packet.source)
}

/// An IP packet from the destination of another one to its source.
fn back(packet: &Packet<'_>, next: u8, class: u8, payload: &[u8]) -> Vec<u8> {
    match (packet.destination, packet.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = [0; 20];
            put(&mut header, 0, &[0x45, class]);
            put(&mut header, 2, &((20 + payload.len()) as u16).to_be_bytes());
            put(&mut header, 6, &[0x40, 0, 64, next]);
            put(&mut header, 12, &from.octets());
            put(&mut header, 16, &to.octets());
            let sum = checksum(&[&header]);
            put(&mut header, 10, &sum.to_be_bytes());
            [&header, payload].concat()
        }
        (from, to) => {
            let mut header = [0; 40];
            put(&mut header, 0, &(6 << 28 | u32::from(class) << 20).to_be_bytes());
            put(&mut header, 4, &(payload.len() as u16).to_be_bytes());
            put(&mut header, 6, &[next, 64]);
            put(&mut header, 8, &octets(from));
            put(&mut header, 24, &octets(to));
            [&header, payload].concat()
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The pseudo-header that transport checksums cover (RFC 9293 section 3.1, RFC 8200 section 8.1).
fn pseudo(packet: &Packet<'_>, next: u8, length: usize) -> Vec<u8> {
    let (from, to) = (octets(packet.destination), octets(packet.source));
    [&from[..], &to, &(length as u32).to_be_bytes(), &[0, 0, 0, next]].concat()
}

/// The frame that answers with an ICMP or ICMPv6 error that quotes a packet's first bytes, which have this sum.
pub(crate) fn error(
    frame: &[u8],
    l3: usize,
    packet: &Packet<'_>,
    start: [u8; 8],
    quote: &[u8],
    quote_sum: u16,
) -> Vec<u8> {
    let length = start.len() + quote.len();
    let (next, sum) = match packet.family {
        Family::V4 => (protocol::ICMP, checksum(&[&start, &quote_sum.to_be_bytes()])),
        Family::V6 => {
            let pseudo = pseudo(packet, protocol::ICMPV6, length);
            (protocol::ICMPV6, checksum(&[&pseudo, &start, &quote_sum.to_be_bytes()]))
        }
    };
    let mut message = [&start, quote].concat();
    put(&mut message, 2, &sum.to_be_bytes());
    [turned(frame, l3), back(packet, next, CONTROL, &message)].concat()
}

/// The frame that answers with a TCP segment.
pub(crate) fn segment(frame: &[u8], l3: usize, packet: &Packet<'_>, mut segment: [u8; 20]) -> Vec<u8> {
    let sum = checksum(&[&pseudo(packet, protocol::TCP, 20), &segment]);
    put(&mut segment, 16, &sum.to_be_bytes());
    [turned(frame, l3), back(packet, protocol::TCP, 0, &segment)].concat()
}
