//! Packets to test with: a frame in a vector, builders for real frames, and the table of those that are not balanced.
//! For this crate's tests and those that run the shipped object in the kernel.

use std::vec;
use std::vec::Vec;

use etherparse::{IpDscp, IpEcn, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, PacketBuilder};
use maglev_common::counters::Counter;

use crate::env::{Header, Packet};

/// The router's MAC address on the node's link.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];
/// The node's MAC address.
pub const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The next hop's MAC address.
pub const HOP_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// The client.
pub const CLIENT4: [u8; 4] = [198, 51, 100, 7];
/// The address of the IPv4 VIPs.
pub const VIP4: [u8; 4] = [203, 0, 113, 10];
/// The client.
pub const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
/// The address of the IPv6 VIPs.
pub const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
/// The port of the TCP and UDP VIPs.
pub const PORT: u16 = 80;

/// A packet in a vector, with room in front of it that is full of ones, as a driver may leave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VecPacket {
    /// The frame.
    pub bytes: Vec<u8>,
    /// Bytes by which it can grow.
    pub headroom: usize,
}

impl VecPacket {
    /// A frame with the headroom XDP promises.
    pub fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), headroom: 256 }
    }
}

impl Packet for VecPacket {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn view<T: Header>(&self, offset: usize) -> Option<&T> {
        T::ref_from_prefix(self.bytes.get(offset..)?).ok().map(|(header, _)| header)
    }

    fn view_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        T::mut_from_prefix(self.bytes.get_mut(offset..)?).ok().map(|(header, _)| header)
    }

    fn grow(&mut self, bytes: usize) -> bool {
        if bytes > self.headroom {
            return false;
        }
        self.headroom -= bytes;
        self.bytes.splice(0..0, vec![0xff; bytes]);
        true
    }

    /// As the kernel has it: an Ethernet header must remain.
    fn shrink(&mut self, bytes: usize) -> bool {
        if bytes + crate::packet::eth::HEADER > self.bytes.len() {
            return false;
        }
        self.headroom += bytes;
        self.bytes.drain(..bytes);
        true
    }

    /// As the kernel has it: an Ethernet header must remain.
    fn trim(&mut self, length: usize) -> bool {
        if length < crate::packet::eth::HEADER || length > self.bytes.len() {
            return false;
        }
        self.bytes.truncate(length);
        true
    }
}

/// A TCP segment without flags to the VIP, traffic class 0x2a (DSCP AF11, ECN ECT(0)).
pub fn tcp4(payload: &[u8]) -> Vec<u8> {
    let header = Ipv4Header {
        dscp: IpDscp::AF11,
        ecn: IpEcn::TWO,
        time_to_live: 61,
        protocol: IpNumber::TCP,
        source: CLIENT4,
        destination: VIP4,
        ..Ipv4Header::default()
    };
    let headers = IpHeaders::Ipv4(header, Ipv4Extensions::default());
    let builder = PacketBuilder::ethernet2(ROUTER_MAC, NODE_MAC).ip(headers).tcp(40_000, PORT, 1, 64_000);
    written(|bytes| builder.write(bytes, payload))
}

/// A TCP segment without flags to the VIP.
pub fn tcp6(payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(ROUTER_MAC, NODE_MAC).ipv6(CLIENT6, VIP6, 61).tcp(40_000, PORT, 1, 64_000);
    written(|bytes| builder.write(bytes, payload))
}

/// A UDP datagram.
pub fn udp4(destination: [u8; 4], port: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(ROUTER_MAC, NODE_MAC).ipv4(CLIENT4, destination, 61).udp(40_000, port);
    written(|bytes| builder.write(bytes, b"query"))
}

/// A UDP datagram to the VIP's address.
pub fn udp6(port: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(ROUTER_MAC, NODE_MAC).ipv6(CLIENT6, VIP6, 61).udp(40_000, port);
    written(|bytes| builder.write(bytes, b"query"))
}

fn written<E: core::fmt::Debug>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes).expect("a vector takes any packet that fits its length fields");
    bytes
}

/// A frame to a VIP's address that is not balanced. To any other address the same frame is the host's.
#[derive(Clone, Debug)]
pub struct Unbalanced {
    /// What is peculiar about it.
    pub what: &'static str,
    /// The frame.
    pub frame: Vec<u8>,
    /// The counter it is dropped by.
    pub reason: Counter,
}

type Change = fn(&mut Vec<u8>);

/// Every reason for which an IPv4 packet is not balanced. The VIPs are TCP port 80 and UDP port 80.
pub fn unbalanced4() -> Vec<Unbalanced> {
    let rows: [(_, Change, _); 16] = [
        ("a later fragment", |p| p[21] = 1, Counter::Fragment),
        ("a first fragment", |p| p[20] = 0x20, Counter::Fragment),
        ("options", |p| p[14] = 0x46, Counter::Options),
        ("a header of four words", |p| p[14] = 0x44, Counter::Malformed),
        ("version 5", |p| p[14] = 0x55, Counter::Malformed),
        ("longer than the frame", |p| p[17] += 1, Counter::Malformed),
        ("too short for TCP", |p| p[17] = 39, Counter::Malformed),
        ("shorter than its own header", |p| p[17] = 19, Counter::Malformed),
        ("no length at all", |p| p[17] = 0, Counter::Malformed),
        ("a TTL of 0", |p| p[22] = 0, Counter::HopLimit),
        ("ICMP", |p| p[23] = 1, Counter::Icmp),
        ("SCTP", |p| p[23] = 132, Counter::OtherProtocol),
        ("IP in IP", |p| p[23] = 4, Counter::OtherProtocol),
        ("another port", |p| p[37] = 81, Counter::NoSuchVip),
        ("a VLAN tag", |p| drop(p.splice(12..12, [0x81, 0, 0, 5])), Counter::Vlan),
        ("two VLAN tags", |p| drop(p.splice(12..12, [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6])), Counter::Vlan),
    ];
    changed(&tcp4(b""), &rows)
}

/// Every reason for which an IPv6 packet is not balanced. The VIPs are TCP port 80 and UDP port 80.
pub fn unbalanced6() -> Vec<Unbalanced> {
    let rows: [(_, Change, _); 13] = [
        ("hop-by-hop options", |p| p[20] = 0, Counter::ExtensionHeader),
        ("a routing header", |p| p[20] = 43, Counter::ExtensionHeader),
        ("destination options", |p| p[20] = 60, Counter::ExtensionHeader),
        ("ESP", |p| p[20] = 50, Counter::ExtensionHeader),
        ("an IPv6 fragment", |p| p[20] = 44, Counter::Fragment),
        ("ICMPv6", |p| p[20] = 58, Counter::Icmp),
        ("no next header", |p| p[20] = 59, Counter::OtherProtocol),
        ("version 4 in IPv6", |p| p[14] = 0x45, Counter::Malformed),
        ("an IPv6 packet longer than the frame", |p| p[19] += 1, Counter::Malformed),
        ("an IPv6 packet too short for TCP", |p| p[19] = 19, Counter::Malformed),
        ("a hop limit of 0", |p| p[21] = 0, Counter::HopLimit),
        ("another IPv6 port", |p| p[57] = 81, Counter::NoSuchVip),
        ("IPv6 in a VLAN tag", |p| drop(p.splice(12..12, [0x81, 0, 0, 5])), Counter::Vlan),
    ];
    changed(&tcp6(b""), &rows)
}

fn changed(frame: &[u8], rows: &[(&'static str, Change, Counter)]) -> Vec<Unbalanced> {
    let row = |&(what, change, reason): &(&'static str, Change, Counter)| {
        let mut frame = frame.to_vec();
        change(&mut frame);
        Unbalanced { what, frame, reason }
    };
    rows.iter().map(row).collect()
}

/// Frames to a VIP's address that are not addressed to the node: they are the host's, whatever else is wrong with them.
pub fn misaddressed() -> Vec<Unbalanced> {
    let row = |what, mac: [u8; 6], mut frame: Vec<u8>| {
        frame[..6].copy_from_slice(&mac);
        Unbalanced { what, frame, reason: Counter::OtherMac }
    };
    let tagged = unbalanced4().into_iter().find(|row| row.reason == Counter::Vlan).map(|row| row.frame);
    std::vec![
        row("to another host's MAC address", HOP_MAC, tcp4(b"hello")),
        row("to another host's MAC address, IPv6", HOP_MAC, tcp6(b"hello")),
        row("to one that differs in its last byte", [2, 0, 0, 0, 0, 0], tcp4(b"hello")),
        row("to the broadcast address", [0xff; 6], tcp4(b"hello")),
        row("to a multicast address", [1, 0, 0x5e, 0, 113, 10], tcp4(b"hello")),
        row("to an IPv6 multicast address", [0x33, 0x33, 0, 0, 0, 10], tcp6(b"hello")),
        row("to no address at all", [0; 6], tcp4(b"hello")),
        row("to another host's MAC address, with a VLAN tag", HOP_MAC, tagged.unwrap_or_default()),
        row("a datagram to another host's MAC address, for a port without a VIP", HOP_MAC, udp4(VIP4, 9)),
    ]
}

/// Frames that no VIP is concerned with, and the counter they are passed by.
pub fn passed() -> Vec<Unbalanced> {
    let mut arp = tcp4(b"");
    arp[13] = 6;
    [
        ("an IPv4 packet for another address", udp4([10, 0, 0, 1], 53), Counter::NotVip),
        ("ARP", arp, Counter::NotIp),
        ("an Ethernet header alone", tcp4(b"")[..14].to_vec(), Counter::Truncated),
        ("a cut IPv4 header", tcp4(b"")[..33].to_vec(), Counter::Truncated),
        ("a cut IPv6 header", tcp6(b"")[..53].to_vec(), Counter::Truncated),
    ]
    .map(|(what, frame, reason)| Unbalanced { what, frame, reason })
    .into()
}
