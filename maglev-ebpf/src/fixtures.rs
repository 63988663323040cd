//! Packets to test with: a frame in a vector, builders for real frames, and the table of those that are not balanced.
//! For this crate's tests and those that run the shipped object in the kernel.
// long: one table, of which a reader looks for one row

use std::vec;
use std::vec::Vec;

use etherparse::{IpDscp, IpEcn, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, PacketBuilder};
use maglev_common::backend::{MemberRecord, Tag};
use maglev_common::counters::Counter;
use maglev_common::template::Template;

use crate::encap::gue;
use crate::env::{Chain, Header, Outer, Packet, Tagged};
use crate::packet::{eth, ipv6};

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
/// A router between client and VIP, which sends ICMP errors.
pub const ROUTER4: [u8; 4] = [192, 0, 2, 1];
/// The same for ICMPv6.
pub const ROUTER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
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

    fn follow(&self, start: usize, length: usize, first: u8, quoted: bool) -> Chain {
        ipv6::follow(self, start, length, first, quoted)
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
        if bytes + eth::HEADER > self.bytes.len() {
            return false;
        }
        self.headroom += bytes;
        self.bytes.drain(..bytes);
        true
    }

    fn encapsulate_in_gue(&mut self, outer: Outer, template: &Template, record: &MemberRecord) -> bool {
        gue::encapsulate(self, outer, template, record)
    }

    /// As the kernel has it: an Ethernet header must remain.
    fn trim(&mut self, length: usize) -> bool {
        if length < eth::HEADER || length > self.bytes.len() {
            return false;
        }
        self.bytes.truncate(length);
        true
    }
}

impl Tagged for VecPacket {
    fn has_tag(&self) -> bool {
        eth::is_tagged(self)
    }

    fn remove_tag(&mut self) -> bool {
        if eth::is_tagged(self) {
            self.bytes.drain(12..12 + eth::TAG);
        }
        true
    }

    fn add_tag(&mut self, tag: Tag) -> bool {
        eth::insert_tag(self, tag)
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
    let rows: [(_, Change, _); 32] = [
        ("a source route that is cut off", |p| end_with_options(p, &[1, 1, 1, 137]), Counter::SourceRoute),
        ("options that end with the frame", |p| end_with_options(p, &[1, 1, 1, 1]), Counter::OtherProtocol),
        ("an option whose length is beyond the frame", |p| end_with_options(p, &[1, 1, 1, 148]), Counter::Malformed),
        ("a later fragment without its first", |p| p[21] = 2, Counter::FragmentUnknown),
        ("a fragment that is no multiple of eight bytes long", |p| p[20] = 0x20, Counter::Malformed),
        ("a first fragment that cuts its TCP header", |p| (p[17], p[20]) = (36, 0x20), Counter::Malformed),
        ("a later fragment that begins in a TCP header", |p| p[21] = 1, Counter::Malformed),
        ("a fragment that ends beyond 65,535 bytes", |p| (p[20], p[21]) = (0x1f, 0xff), Counter::Malformed),
        ("a fragment without content", |p| (p[17], p[21]) = (20, 2), Counter::Malformed),
        ("a later fragment with a TTL of 0", |p| (p[21], p[22]) = (2, 0), Counter::HopLimit),
        ("a loose source route", |p| insert_options(p, &[1, 131, 3, 4]), Counter::SourceRoute),
        ("a strict source route", |p| insert_options(p, &[137, 7, 4, 198, 51, 100, 1, 0]), Counter::SourceRoute),
        ("an option longer than the header", |p| insert_options(p, &[1, 1, 148, 3]), Counter::Malformed),
        ("an option of one byte that should have two", |p| insert_options(p, &[148, 1, 0, 0]), Counter::Malformed),
        ("options that were never written", |p| p[14] = 0x46, Counter::Malformed),
        ("a header longer than the packet", |p| p[14] = 0x4f, Counter::Malformed),
        ("a header of four words", |p| p[14] = 0x44, Counter::Malformed),
        ("version 5", |p| p[14] = 0x55, Counter::Malformed),
        ("longer than the frame", |p| p[17] += 1, Counter::Malformed),
        ("too short for TCP", |p| p[17] = 39, Counter::Malformed),
        ("shorter than its own header", |p| p[17] = 19, Counter::Malformed),
        ("no length at all", |p| p[17] = 0, Counter::Malformed),
        ("a TTL of 0", |p| p[22] = 0, Counter::HopLimit),
        ("an unknown ICMP message", |p| p[23] = 1, Counter::Icmp),
        ("an ICMP error that quotes nothing", |p| (p[23], p[34]) = (1, 3), Counter::IcmpStray),
        ("ICMP cut short", |p| (p[17], p[23]) = (27, 1), Counter::Malformed),
        ("SCTP to a port without a VIP", |p| p[23] = 132, Counter::NoSuchVip),
        ("SCTP cut short", |p| (p[17], p[23]) = (31, 132), Counter::Malformed),
        ("ESP in IPv4", |p| p[23] = 50, Counter::OtherProtocol),
        ("IPv4 in IP", |p| p[23] = 4, Counter::Nested),
        ("IPv6 in IP", |p| p[23] = 41, Counter::Nested),
        ("another port", |p| p[37] = 81, Counter::NoSuchVip),
    ];
    let fragments: [(_, Change, _); 4] = [
        ("a first fragment of IPv4 in IP", |p| (p[20], p[23]) = (0x20, 4), Counter::Nested),
        ("a first fragment of an echo request", |p| (p[20], p[23]) = (0x20, 1), Counter::Icmp),
        ("a first fragment of GRE", |p| (p[20], p[23]) = (0x20, 47), Counter::OtherProtocol),
        ("a first fragment to another port", |p| (p[20], p[37]) = (0x20, 81), Counter::NoSuchVip),
    ];
    let rows = changed(&tcp4(b""), &rows).into_iter().chain(changed(&tcp4(b"four"), &fragments));
    let rows = rows.chain(changed(&icmp4(3, 4, &reply4()), &stray_rows()));
    rows.chain(changed(&icmp4(8, 0, b"ping"), &echo_rows4())).collect()
}

/// What makes an error one about no flow of a VIP; its quoted packet begins at byte 42.
fn stray_rows() -> [(&'static str, Change, Counter); 5] {
    [
        ("an error about a packet of another address", |p| p[57] ^= 1, Counter::IcmpStray),
        ("an error about a packet from another port", |p| p[63] ^= 1, Counter::IcmpStray),
        ("an error about a later fragment", |p| p[49] = 1, Counter::IcmpStray),
        ("an error about SCTP", |p| p[51] = 132, Counter::IcmpStray),
        ("an error that quotes three bytes of ports", |p| p[17] = 51, Counter::IcmpStray),
    ]
}

fn echo_rows4() -> [(&'static str, Change, Counter); 6] {
    [
        ("an echo request of a multicast address", |p| p[26] = 224, Counter::Unanswerable),
        ("an echo request of a loopback address", |p| p[26] = 127, Counter::Unanswerable),
        ("an echo request of no address", |p| p[26] = 0, Counter::Unanswerable),
        ("an echo request of the broadcast address", |p| p[26..30].fill(255), Counter::Unanswerable),
        ("an echo request of the VIP itself", |p| p[26..30].copy_from_slice(&VIP4), Counter::Unanswerable),
        ("an echo request with options", |p| insert_options(p, &[1, 1, 1, 1]), Counter::Icmp),
    ]
}

/// Every reason for which an IPv6 packet is not balanced. The VIPs are TCP port 80 and UDP port 80.
// long: a table
pub fn unbalanced6() -> Vec<Unbalanced> {
    let rows: [(_, Change, _); 30] = [
        (
            "a first fragment of IPv6 in IPv6",
            |p| {
                extend(p, &[(44, &[0, 1, 0, 0, 0, 1])]);
                p[54] = 41;
                p.extend([0; 4]);
                cut_packet(p, 32);
            },
            Counter::Nested,
        ),
        (
            "a first fragment with a source route behind",
            |p| {
                extend(p, &[(44, &[0, 1, 0, 0, 0, 1]), (43, &[0, 1, 0, 0, 0, 0])]);
                p.extend([0; 4]);
                cut_packet(p, 40);
            },
            Counter::SourceRoute,
        ),
        (
            "a first fragment with nine extension headers",
            |p| {
                let [a, b, c, d, e, f, g, h] = [(60, &[0_u8; 6][..]); 8];
                extend(p, &[(44, &[0, 1, 0, 0, 0, 1]), a, b, c, d, e, f, g, h]);
                p.extend([0; 4]);
                cut_packet(p, 96);
            },
            Counter::ExtensionHeader,
        ),
        ("more than 512 bytes of options", |p| extend(p, &[(60, &[0; 518])]), Counter::ExtensionHeader),
        (
            "a ninth extension header that is a source route",
            |p| {
                let [a, b, c, d, e, f, g, h] = [(60, &[0_u8; 6][..]); 8];
                extend(p, &[a, b, c, d, e, f, g, h, (43, &[0, 1, 0, 0, 0, 0])]);
            },
            Counter::ExtensionHeader,
        ),
        (
            "a source route in the padding",
            |p| (extend(p, &[(0, &[0; 6]), (43, &[0, 1, 0, 0, 0, 0])]), cut_packet(p, 8)).1,
            Counter::Malformed,
        ),
        (
            "a fragment header in the padding",
            |p| (extend(p, &[(0, &[0; 6]), (44, &[0, 16, 0, 0, 0, 1])]), cut_packet(p, 8)).1,
            Counter::Malformed,
        ),
        (
            "options longer than the packet, before more than are followed",
            |p| (extend(p, &[(60, &[0; 518]), (60, &[0; 6])]), cut_packet(p, 80)).1,
            Counter::Malformed,
        ),
        ("hop-by-hop options longer than the packet", |p| p[20] = 0, Counter::Malformed),
        ("a routing header with segments left", |p| extend(p, &[(43, &[4, 1, 0, 0, 0, 0])]), Counter::SourceRoute),
        ("a routing header of type 0", |p| extend(p, &[(43, &[0; 6])]), Counter::SourceRoute),
        ("nine extension headers", |p| extend(p, &[(60, &[0_u8; 6][..]); 9]), Counter::ExtensionHeader),
        ("600 bytes of extension headers", |p| extend(p, &[(60, &[0_u8; 198][..]); 4]), Counter::ExtensionHeader),
        (
            "an IPv6 fragment behind options that is no multiple of eight bytes long",
            |p| extend(p, &[(60, &[0; 6]), (44, &[0, 1, 0, 0, 0, 1])]),
            Counter::Malformed,
        ),
        (
            "a first IPv6 fragment that cuts its TCP header",
            |p| (extend(p, &[(44, &[0, 1, 0, 0, 0, 1])]), p[19] -= 4).0,
            Counter::Malformed,
        ),
        ("an IPv6 fragment in a TCP header", |p| extend(p, &[(44, &[0, 8, 0, 0, 0, 1])]), Counter::Malformed),
        (
            "a later IPv6 fragment without its first",
            |p| extend(p, &[(44, &[0, 16, 0, 0, 0, 1])]),
            Counter::FragmentUnknown,
        ),
        (
            "an IPv6 fragment that ends beyond 65,535 bytes",
            |p| extend(p, &[(44, &[255, 248, 0, 0, 0, 1])]),
            Counter::Malformed,
        ),
        ("an ICMPv6 error that quotes nothing", |p| (p[20], p[54]) = (58, 1), Counter::IcmpStray),
        ("options with nothing behind", |p| (p[20], p[54], p[55], p[19]) = (60, 6, 1, 16), Counter::Malformed),
        ("ESP", |p| p[20] = 50, Counter::OtherProtocol),
        ("IPv6 in IPv6", |p| p[20] = 41, Counter::Nested),
        ("an IPv6 fragment of no known protocol", |p| p[20] = 44, Counter::FragmentUnknown),
        ("an unknown ICMPv6 message", |p| p[20] = 58, Counter::Icmp),
        ("no next header", |p| p[20] = 59, Counter::OtherProtocol),
        ("version 4 in IPv6", |p| p[14] = 0x45, Counter::Malformed),
        ("an IPv6 packet longer than the frame", |p| p[19] += 1, Counter::Malformed),
        ("an IPv6 packet too short for TCP", |p| p[19] = 19, Counter::Malformed),
        ("a hop limit of 0", |p| p[21] = 0, Counter::HopLimit),
        ("another IPv6 port", |p| p[57] = 81, Counter::NoSuchVip),
    ];
    let echo: [(_, Change, _); 4] = [
        ("an echo request of an IPv6 multicast address", |p| p[22] = 0xff, Counter::Unanswerable),
        ("an echo request of `::1`", |p| (p[22..38].fill(0), p[37] = 1).1, Counter::Unanswerable),
        ("an echo request of `::`", |p| p[22..38].fill(0), Counter::Unanswerable),
        ("an echo request of the IPv6 VIP itself", |p| p[22..38].copy_from_slice(&VIP6), Counter::Unanswerable),
    ];
    let redirect: [(_, Change, _); 1] = [("an ICMPv6 redirect", |p| p[54] = 137, Counter::Icmp)];
    let rows = changed(&tcp6(b""), &rows).into_iter().chain(changed(&icmp6(128, 0, b"ping"), &echo));
    rows.chain(changed(&icmp6(2, 0, &reply6()), &redirect)).collect()
}

/// A VLAN tag of a provider, and one of a customer.
const TAGS: [[u8; 4]; 2] = [[0x88, 0xa8, 0, 5], [0x81, 0, 0, 6]];

fn tag(frame: &mut Vec<u8>, tags: &[[u8; 4]]) {
    frame.splice(12..12, tags.concat());
}

/// Puts options behind an IPv4 header without any: whole words of them.
fn insert_options(frame: &mut Vec<u8>, options: &[u8]) {
    frame.splice(34..34, options.iter().copied());
    frame[14] += (options.len() / 4) as u8;
    frame[17] += options.len() as u8;
}

/// The same to a packet of ESP that has no content, in a frame that ends with it.
fn end_with_options(frame: &mut Vec<u8>, options: &[u8]) {
    frame.truncate(34);
    (frame[17], frame[23]) = (20, 50);
    insert_options(frame, options);
}

/// Makes an IPv6 packet this many bytes long behind its header: what is left of its frame is padding.
fn cut_packet(frame: &mut [u8], payload: u16) {
    frame[18..20].copy_from_slice(&payload.to_be_bytes());
}

/// Puts extension headers behind an IPv6 header without any: protocol, and all behind the first two bytes. The length is
/// that of options, in units of eight bytes.
fn extend(frame: &mut Vec<u8>, extensions: &[(u8, &[u8])]) {
    let mut bytes = Vec::new();
    for (n, (_, content)) in extensions.iter().enumerate() {
        let next = extensions.get(n + 1).map_or(frame[20], |(protocol, _)| *protocol);
        bytes.extend([next, ((content.len() + 2) / 8 - 1) as u8]);
        bytes.extend(*content);
    }
    frame[20] = extensions[0].0;
    let length = u16::from_be_bytes([frame[18], frame[19]]) + bytes.len() as u16;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame.splice(54..54, bytes);
}

/// Frames to the VIPs at TCP port 80 that are not plain and are balanced as [`tcp4`] and [`tcp6`] are.
pub fn peculiar() -> Vec<(&'static str, Vec<u8>)> {
    let rows4: [(_, Change); 9] = [
        ("an option numbered 129", |p| insert_options(p, &[129, 4, 0, 0])),
        ("an option numbered 139", |p| insert_options(p, &[1, 139, 3, 0])),
        ("a VLAN tag", |p| tag(p, &TAGS[1..])),
        ("two VLAN tags", |p| tag(p, &TAGS)),
        ("padding options", |p| insert_options(p, &[1; 4])),
        ("a router alert", |p| insert_options(p, &[148, 4, 0, 0])),
        ("an end of options before a source route", |p| insert_options(p, &[0, 131, 3, 4])),
        ("forty bytes of options", |p| insert_options(p, &[1; 40])),
        ("options in a VLAN tag", |p| (insert_options(p, &[1; 8]), tag(p, &TAGS[1..])).1),
    ];
    let rows6: [(_, Change); 9] = [
        ("512 bytes of options", |p| extend(p, &[(60, &[0; 510])])),
        ("IPv6 in a VLAN tag", |p| tag(p, &TAGS[1..])),
        ("hop-by-hop options", |p| extend(p, &[(0, &[0; 6])])),
        ("destination options", |p| extend(p, &[(60, &[0; 22])])),
        ("a routing header that was followed", |p| extend(p, &[(43, &[4, 0, 0, 0, 0, 0])])),
        ("a packet whole in a fragment header", |p| extend(p, &[(44, &[0, 0, 0, 0, 0, 1])])),
        ("an authentication header", |p| {
            extend(p, &[(51, &[0; 22])]);
            // Its length is in words, beyond the first two.
            p[55] = 4;
        }),
        ("eight extension headers", |p| extend(p, &[(60, &[0_u8; 6][..]); 8])),
        ("extension headers in two VLAN tags", |p| (extend(p, &[(0, &[0; 6]), (60, &[0; 6])]), tag(p, &TAGS)).1),
    ];
    let changed = |frame: Vec<u8>, rows: &[(&'static str, Change)]| -> Vec<_> {
        let row = |&(what, change): &(_, Change)| {
            let mut frame = frame.clone();
            change(&mut frame);
            (what, frame)
        };
        rows.iter().map(row).collect()
    };
    [changed(tcp4(b"hello"), &rows4), changed(tcp6(b"hello"), &rows6)].concat()
}

/// A segment of the VIP's to the client of [`tcp4`]: an IP packet without an Ethernet header.
pub fn reply4() -> Vec<u8> {
    let builder = PacketBuilder::ipv4(VIP4, CLIENT4, 60).tcp(PORT, 40_000, 1, 64_000);
    written(|bytes| builder.write(bytes, b"response"))
}

/// The same to the client of [`tcp6`].
pub fn reply6() -> Vec<u8> {
    let builder = PacketBuilder::ipv6(VIP6, CLIENT6, 60).tcp(PORT, 40_000, 1, 64_000);
    written(|bytes| builder.write(bytes, b"response"))
}

/// An ICMP message of a router to the VIP's address, with what follows its header.
pub fn icmp4(kind: u8, code: u8, content: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(ROUTER_MAC, NODE_MAC).ipv4(ROUTER4, VIP4, 61);
    let builder = builder.icmpv4_raw(kind, code, [0, 1, 5, 120]);
    written(|bytes| builder.write(bytes, content))
}

/// The same of ICMPv6.
pub fn icmp6(kind: u8, code: u8, content: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(ROUTER_MAC, NODE_MAC).ipv6(ROUTER6, VIP6, 61);
    let builder = builder.icmpv6_raw(kind, code, [0, 0, 5, 120]);
    written(|bytes| builder.write(bytes, content))
}

/// What is peculiar about a datagram, the datagram whole, and its fragments.
pub type Fragmented = (&'static str, Vec<u8>, Vec<Vec<u8>>);

/// The flow of a datagram to a VIP at UDP port 80, whole, and its fragments, the first one first: some with options, extension
/// headers and tags.
pub fn fragmented() -> Vec<Fragmented> {
    let (whole4, whole6) = (udp4(VIP4, PORT), udp6(PORT));
    // Eight bytes of a UDP header and sixteen of payload, eight more, and three.
    let parts: [(&[u8], u16, bool); 3] = [(&[7; 16], 0, true), (&[8; 8], 3, true), (&[9; 3], 4, false)];
    let fragments4 = |change: Change| {
        let part = |&(content, offset, more): &(&[u8], u16, bool)| {
            let mut frame = whole4[..if offset == 0 { 42 } else { 34 }].to_vec();
            frame.extend(content);
            let length = (frame.len() as u16 - 14).to_be_bytes();
            frame[16..18].copy_from_slice(&length);
            frame[18..22].copy_from_slice(&[7, 9, u8::from(more) << 5, offset as u8]);
            change(&mut frame);
            frame
        };
        parts.iter().map(part).collect::<Vec<_>>()
    };
    let fragments6 = |before: &[(u8, &[u8])], change: Change| {
        let part = |&(content, offset, more): &(&[u8], u16, bool)| {
            let mut frame = whole6[..if offset == 0 { 62 } else { 54 }].to_vec();
            frame.extend(content);
            let length = (frame.len() as u16 - 54).to_be_bytes();
            frame[18..20].copy_from_slice(&length);
            let header = [0, (offset << 3) as u8 | u8::from(more), 0xab, 0xcd, 0, 1];
            extend(&mut frame, &[before, &[(44, &header)]].concat());
            change(&mut frame);
            frame
        };
        parts.iter().map(part).collect::<Vec<_>>()
    };
    std::vec![
        ("a datagram in fragments", whole4.clone(), fragments4(|_| ())),
        ("fragments with options", whole4.clone(), fragments4(|p| insert_options(p, &[148, 4, 0, 0]))),
        ("fragments with two VLAN tags", whole4.clone(), fragments4(|p| tag(p, &TAGS))),
        ("an IPv6 datagram in fragments", whole6.clone(), fragments6(&[], |_| ())),
        ("IPv6 fragments behind options", whole6.clone(), fragments6(&[(0, &[0; 6]), (60, &[0; 14])], |_| ())),
        ("IPv6 fragments with a VLAN tag", whole6.clone(), fragments6(&[], |p| tag(p, &TAGS[1..]))),
    ]
}

/// Errors about the flows of [`tcp4`] and [`tcp6`]: all must reach the backend of these.
pub fn errors() -> Vec<(&'static str, Vec<u8>)> {
    let (reply4, reply6) = (reply4(), reply6());
    let with_options = {
        let mut quoted = [&[0; 14][..], &reply4].concat();
        insert_options(&mut quoted, &[148, 4, 0, 0]);
        quoted.split_off(14)
    };
    let with_extensions = {
        let mut quoted = [&[0; 14][..], &reply6].concat();
        extend(&mut quoted, &[(0, &[0; 6]), (44, &[0, 1, 0, 0, 0, 1])]);
        quoted.split_off(14)
    };
    std::vec![
        ("fragmentation needed", icmp4(3, 4, &reply4)),
        ("port unreachable that quotes eight bytes", icmp4(3, 3, &reply4[..28])),
        ("time exceeded that quotes the ports alone", icmp4(11, 0, &reply4[..24])),
        ("a parameter problem about a packet with options", icmp4(12, 0, &with_options)),
        ("packet too big", icmp6(2, 0, &reply6)),
        ("unreachable that quotes eight bytes", icmp6(1, 3, &reply6[..48])),
        ("hop limit exceeded that quotes the ports alone", icmp6(3, 0, &reply6[..44])),
        ("a parameter problem about a first fragment behind options", icmp6(4, 1, &with_extensions)),
    ]
}

/// Echo requests to the VIPs' addresses, tagged ones among them.
pub fn echoes() -> Vec<(&'static str, Vec<u8>)> {
    let (mut tagged4, mut tagged6) = (icmp4(8, 0, b"ping"), icmp6(128, 0, b"ping"));
    tag(&mut tagged4, &TAGS);
    tag(&mut tagged6, &TAGS[1..]);
    std::vec![
        ("an echo request", icmp4(8, 0, b"ping")),
        ("an empty echo request", icmp4(8, 0, b"")),
        ("a long echo request", icmp4(8, 0, &[0xa5; 1_400])),
        ("an echo request in two VLAN tags", tagged4),
        ("an IPv6 echo request", icmp6(128, 0, b"ping")),
        ("a long IPv6 echo request", icmp6(128, 0, &[0xff; 1_399])),
        ("an IPv6 echo request in a VLAN tag", tagged6),
    ]
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
    let mut tagged = tcp4(b"");
    tag(&mut tagged, &TAGS[1..]);
    std::vec![
        row("to another host's MAC address", HOP_MAC, tcp4(b"hello")),
        row("to another host's MAC address, IPv6", HOP_MAC, tcp6(b"hello")),
        row("to one that differs in its last byte", [2, 0, 0, 0, 0, 0], tcp4(b"hello")),
        row("to the broadcast address", [0xff; 6], tcp4(b"hello")),
        row("to a multicast address", [1, 0, 0x5e, 0, 113, 10], tcp4(b"hello")),
        row("to an IPv6 multicast address", [0x33, 0x33, 0, 0, 0, 10], tcp6(b"hello")),
        row("to no address at all", [0; 6], tcp4(b"hello")),
        row("to another host's MAC address, with a VLAN tag", HOP_MAC, tagged),
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
