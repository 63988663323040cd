//! IP packets made byte by byte, so that a test gets wrong in them what it wants to. They know nothing of how they are sent.

use std::net::{IpAddr, SocketAddr};

/// Protocol numbers.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMP.
pub const ICMP: u8 = 1;
/// ICMPv6.
pub const ICMP6: u8 = 58;
/// IPv6 hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// IPv6 fragment header.
pub const FRAGMENT: u8 = 44;
/// IPv6 destination options.
pub const DESTINATION: u8 = 60;

/// Hops that a packet has left.
const HOPS: u8 = 61;

/// The length of an IP header without options or extension headers.
pub fn header(address: IpAddr) -> usize {
    if address.is_ipv4() { 20 } else { 40 }
}

/// An IP packet, of IPv4 with DF.
pub fn packet(source: IpAddr, target: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = match target {
        IpAddr::V4(_) => {
            let length = (body.len() as u16 + 20).to_be_bytes();
            vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, HOPS, protocol, 0, 0]
        }
        IpAddr::V6(_) => {
            let length = (body.len() as u16).to_be_bytes();
            vec![0x60, 0, 0, 0, length[0], length[1], protocol, HOPS]
        }
    };
    packet.extend(octets(source));
    packet.extend(octets(target));
    packet.extend(body);
    sum(&mut packet);
    packet
}

/// Corrects an IPv4 packet's header checksum.
pub fn sum(packet: &mut [u8]) {
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let header = usize::from(packet[0] & 0xf) * 4;
        let sum = checksum(&[&packet[..header.min(packet.len())]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// A UDP datagram, without its IP header.
pub fn datagram(source: SocketAddr, target: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16 + 8;
    let mut datagram = [source.port(), target.port(), length, 0].map(u16::to_be_bytes).concat();
    datagram.extend(payload);
    with_sum(source.ip(), target.ip(), UDP, datagram, 6)
}

/// A TCP segment of one SYN, without its IP header.
pub fn syn(source: SocketAddr, target: SocketAddr) -> Vec<u8> {
    let segment = [source.port(), target.port(), 0, 1, 0, 0, 0x5002, 0xffff, 0, 0].map(u16::to_be_bytes).concat();
    with_sum(source.ip(), target.ip(), TCP, segment, 16)
}

/// An ICMP or ICMPv6 message to `target`, without its IP header; `word` is its second one.
pub fn icmp(source: IpAddr, target: IpAddr, kind: [u8; 2], word: u32, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind[0], kind[1], 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(body);
    if target.is_ipv4() {
        let sum = checksum(&[&message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        return message;
    }
    with_sum(source, target, ICMP6, message, 2)
}

/// The protocol number of ICMP in this family.
pub fn icmp_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { ICMP } else { ICMP6 }
}

/// A packet with the extension headers of these protocols and lengths before its body, each with options that are skipped.
pub fn extended(source: IpAddr, target: IpAddr, headers: &[(u8, usize)], protocol: u8, body: &[u8]) -> Vec<u8> {
    let next = headers.iter().skip(1).map(|header| header.0).chain([protocol]);
    let mut chain = Vec::new();
    for ((_, length), next) in headers.iter().zip(next) {
        // PadN of four bytes; longer ones are of a type that a receiver skips (RFC 8200 section 4.2).
        let option = if *length == 8 { [1, 4] } else { [0x1e, (*length - 4) as u8] };
        let mut header = vec![next, (*length / 8 - 1) as u8, option[0], option[1]];
        header.resize(*length, 0);
        chain.extend(header);
    }
    chain.extend(body);
    packet(source, target, headers.first().map_or(protocol, |header| header.0), &chain)
}

/// A fragment that holds these bytes of a packet's body, from an offset in bytes on.
pub fn fragment(
    ends: [IpAddr; 2],
    protocol: u8,
    identification: u16,
    (offset, more): (usize, bool),
    piece: &[u8],
) -> Vec<u8> {
    let [source, target] = ends;
    let place = (offset / 8) as u16;
    if target.is_ipv4() {
        let mut fragment = packet(source, target, protocol, piece);
        fragment[4..6].copy_from_slice(&identification.to_be_bytes());
        fragment[6..8].copy_from_slice(&(u16::from(more) << 13 | place).to_be_bytes());
        sum(&mut fragment);
        return fragment;
    }
    let mut body = vec![protocol, 0];
    body.extend((place << 3 | u16::from(more)).to_be_bytes());
    body.extend(u32::from(identification).to_be_bytes());
    body.extend(piece);
    packet(source, target, FRAGMENT, &body)
}

/// The protocol in front of a transport header counts in its checksum, with both addresses and the length.
fn with_sum(source: IpAddr, target: IpAddr, protocol: u8, mut body: Vec<u8>, at: usize) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    let sum = checksum(&[&octets(source), &octets(target), &[0, protocol], &length, &body]);
    body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    body
}

/// An address's bytes.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The Internet checksum of parts (RFC 1071), of which only the last may have an odd number of bytes.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let word = |pair: &[u8]| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let mut sum: u64 = parts.iter().flat_map(|part| part.chunks(2)).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 1)), 1);
    const TARGET: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 10)), 80);

    #[test]
    fn sums_are_those_of_rfc_1071() {
        let packet = packet(SOURCE.ip(), TARGET.ip(), UDP, &datagram(SOURCE, TARGET, b"odd"));
        assert_eq!((packet.len(), checksum(&[&packet[..20]])), (31, 0));
        let pseudo = [&packet[12..20], &[0, UDP, 0, 11], &packet[20..]];
        assert_eq!(checksum(&pseudo), 0);
        assert_eq!(syn(SOURCE, TARGET).len(), 20);
    }

    #[test]
    fn a_chain_names_each_next_header() {
        let chain = [(HOP_BY_HOP, 8), (DESTINATION, 64)];
        let six = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
        let packet = extended(six, six, &chain, UDP, b"body");
        assert_eq!((packet[6], packet[40], packet[41], packet[48], packet[49]), (HOP_BY_HOP, DESTINATION, 0, UDP, 7));
        assert_eq!((packet.len(), &packet[112..]), (116, &b"body"[..]));
    }
}
