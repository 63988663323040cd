//! IPv6 (RFC 8200).

use maglev_common::hash::{Transport, Tuple6};
use zerocopy::byteorder::{BE, LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_ref};

use super::{Fragment, HOPS, Inner, Ip, Parsed, Span, bounded, checksum, equals, ipv4, is_sound, l4};
use crate::env::{Chain, Packet};

/// Bytes of the fixed header.
pub const HEADER: usize = 40;
/// The protocol number of an encapsulated IPv6 packet (RFC 2473).
pub const IN_IP: u8 = 41;

/// Extension headers that are followed (RFC 8200 section 4, RFC 4302): hop-by-hop options, routing, fragment, authentication,
/// destination options.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
/// How many of them are followed, and how many bytes.
const MOST_EXTENSIONS: usize = 8;
const MOST_BYTES: usize = 512;

/// The fixed header.
///
/// ```text
///  0                               4                6          7       8           24                40
/// +-------------------------------+----------------+----------+-------+-----------+------------------+
/// | 6 | traffic class | flow label| payload length | next hdr | hops  | source    | destination      |
/// +-------------------------------+----------------+----------+-------+-----------+------------------+
/// ```
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv6 {
    /// Version, traffic class and flow label.
    pub version_class_label: U32<BE>,
    /// Bytes after this header.
    pub payload_length: U16<BE>,
    /// Protocol number of what follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source and destination address as four words.
    pub addresses: [U64<LE>; 4],
}

impl Ipv6 {
    /// The header of a packet made here that answers one with these addresses, with so many bytes behind it.
    #[inline(always)]
    pub fn answer([a, b, c, d]: [U64<LE>; 4], payload: u16, next_header: u8, traffic_class: u8) -> Self {
        Self {
            version_class_label: U32::new(6 << 28 | u32::from(traffic_class) << 20),
            payload_length: U16::new(payload),
            next_header,
            hop_limit: HOPS,
            addresses: [c, d, a, b],
        }
    }

    /// The version: 6, or the packet is malformed.
    #[inline(always)]
    pub const fn version(&self) -> u32 {
        self.version_class_label.get() >> 28
    }

    /// DSCP in the high six bits, ECN in the low two.
    #[inline(always)]
    pub const fn traffic_class(&self) -> u8 {
        (self.version_class_label.get() >> 20) as u8
    }

    /// The destination address.
    #[inline(always)]
    pub const fn destination(&self) -> [u64; 2] {
        [self.addresses[2].get(), self.addresses[3].get()]
    }
}

/// The sum of the pseudo-header that checksums cover (RFC 8200 section 8.1), for a payload of so many bytes.
#[inline(always)]
pub fn pseudo_sum(addresses: &[U64<LE>; 4], payload: u16, protocol: u8) -> u64 {
    let words: &[U32<LE>; 8] = transmute_ref!(addresses);
    checksum::sum(words) + u64::from(payload.swap_bytes()) + u64::from(u16::from(protocol).swap_bytes())
}

/// The first eight bytes of an extension header.
///
/// ```text
///  0             1        2        3                                8
/// +-------------+--------+--------+--------------------------------+
/// | next header | length | routing: type, segments left; else … |
/// +-------------+--------+--------+--------------------------------+
/// ```
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Extension {
    next_header: u8,
    /// Beyond the first eight bytes: in units of eight, or of four beyond the first eight for an authentication header.
    length: u8,
    /// Of a fragment header, its offset in the high 13 bits and *more fragments* in the lowest.
    kind_segments: U16<BE>,
    rest: [u8; 4],
}

const _: () = assert!(MOST_BYTES + size_of::<Extension>() + 255 * 8 <= Chain::MOST);

/// Whether a header of this number is one that is followed.
#[inline(always)]
const fn is_extension(header: u8) -> bool {
    matches!(header, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}

/// Follows the extension headers that begin at an offset of the frame, in the `length` bytes that the packet has from there on;
/// `quoted`: a first fragment is as good as a packet.
#[inline(always)]
pub fn follow(packet: &impl Packet, start: usize, length: usize, first: u8, quoted: bool) -> Chain {
    let (mut header, mut at) = (first, 0);
    for _ in 0..MOST_EXTENSIONS {
        if !is_extension(header) {
            return Chain::Ends(header, at);
        }
        let Some(extension) = packet.view::<Extension>(start + at) else { return Chain::Cut };
        // Worked out rather than branched upon: the verifier would follow each branch of each turn by itself.
        let (fragment, words) = (equals(header, FRAGMENT), equals(header, AUTHENTICATION));
        let units = usize::from(extension.length);
        let next = bounded(at + 8 + (1 - fragment) * (units << (3 - words)), Chain::MOST);
        if next > length {
            return Chain::Cut;
        }
        if next > MOST_BYTES {
            return Chain::TooLong;
        }
        let kind_segments = extension.kind_segments.get();
        match header {
            ROUTING if kind_segments >> 8 == 0 || kind_segments & 0xff != 0 => return Chain::SourceRoute,
            // Neither an offset nor more to come: a packet whole (RFC 6946).
            FRAGMENT if kind_segments & 0xfff9 == 0 || quoted && kind_segments >> 3 == 0 => {}
            FRAGMENT => return Chain::Fragment(at),
            _ => {}
        }
        at = next;
        header = extension.next_header;
    }
    if is_extension(header) {
        return Chain::TooLong;
    }
    Chain::Ends(header, at)
}

impl Ip for Tuple6 {
    type Address = [u64; 2];
    const IN_IP: u8 = IN_IP;
    const HEADER: usize = HEADER;

    #[inline(always)]
    fn parse(packet: &impl Packet, l3: usize) -> Parsed<Self> {
        let Some(header) = packet.view::<Ipv6>(l3) else { return Parsed::Truncated };
        let payload = u32::from(header.payload_length.get());
        if header.version() != 6 || !packet.reaches(l3 + HEADER + payload as usize) {
            return Parsed::Malformed;
        }
        if header.hop_limit == 0 {
            return Parsed::HopLimit;
        }
        let (addresses, length) = (header.addresses, HEADER as u32 + payload);
        let (protocol, transport) = match packet.follow(l3 + HEADER, payload as usize, header.next_header, false) {
            Chain::Ends(protocol, at) => (protocol, l3 + HEADER + at),
            Chain::Fragment(_) => return Parsed::Fragment,
            Chain::SourceRoute => return Parsed::SourceRoute,
            Chain::TooLong => return Parsed::ExtensionHeader,
            Chain::Cut => return Parsed::Malformed,
        };
        let Some(payload) = (l3 as u32 + length).checked_sub(transport as u32) else { return Parsed::Malformed };
        match protocol {
            l4::ICMPV6 => return Parsed::Icmp(Span { l3, length, transport }),
            IN_IP | ipv4::IN_IP => return Parsed::Nested,
            _ => {}
        }
        let Some(ports) = l4::ports(packet, protocol, transport, payload) else { return Parsed::Malformed };
        let tuple = Tuple6 { addresses: addresses.map(U64::get), transport: Transport::new(ports, protocol) };
        Parsed::Flow(Inner { tuple, l3, length, transport })
    }

    #[inline(always)]
    fn fragment(packet: &impl Packet, l3: usize) -> Result<Fragment<Self>, Parsed<Self>> {
        let Some(header) = packet.view::<Ipv6>(l3) else { return Err(Parsed::Truncated) };
        let (addresses, next) = (header.addresses.map(U64::get), header.next_header);
        let behind = usize::from(header.payload_length.get());
        let length = (HEADER + behind) as u32;
        let Chain::Fragment(at) = packet.follow(l3 + HEADER, behind, next, false) else {
            return Err(Parsed::Malformed);
        };
        let start = l3 + HEADER + at;
        let Some(extension) = packet.view::<Extension>(start) else { return Err(Parsed::Malformed) };
        let (position, protocol) = (u32::from(extension.kind_segments.get()), extension.next_header);
        let identification = u32::from_be_bytes(extension.rest);
        let end = (l3 as u32).wrapping_add(length);
        let payload = end.checked_sub((start + size_of::<Extension>()) as u32).ok_or(Parsed::Malformed)?;
        let sound = is_sound(position >> 3, position & 1 != 0, payload, protocol);
        let whole = |ports, protocol| Self { addresses, transport: Transport::new(ports, protocol) };
        if position >> 3 != 0 {
            if !sound {
                return Err(Parsed::Malformed);
            }
            return Ok(Fragment { tuple: whole(0, FRAGMENT), length, transport: None, identification });
        }
        let (protocol, at) = match packet.follow(l3 + HEADER, behind, next, true) {
            Chain::Ends(protocol, at) => (protocol, at),
            Chain::SourceRoute => return Err(Parsed::SourceRoute),
            Chain::TooLong => return Err(Parsed::ExtensionHeader),
            Chain::Fragment(_) | Chain::Cut => return Err(Parsed::Malformed),
        };
        if !sound {
            return Err(Parsed::Malformed);
        }
        if matches!(protocol, IN_IP | ipv4::IN_IP) {
            return Err(Parsed::Nested);
        }
        let transport = l3 + HEADER + at;
        let payload = end.checked_sub(transport as u32).ok_or(Parsed::Malformed)?;
        let ports = l4::ports(packet, protocol, transport, payload).ok_or(Parsed::Malformed)?;
        Ok(Fragment { tuple: whole(ports, protocol), length, transport: Some(transport), identification })
    }

    /// The protocol is left out: in later fragments it need not be the same (RFC 8200 section 4.5).
    #[inline(always)]
    fn datagram(self, number: u32) -> Self {
        Self { transport: Transport::new(number, FRAGMENT), ..self }
    }

    #[inline(always)]
    fn read_destination(packet: &impl Packet, l3: usize) -> Option<[u64; 2]> {
        Some(packet.view::<Ipv6>(l3)?.destination())
    }

    #[inline(always)]
    fn read_source(packet: &impl Packet, l3: usize) -> Option<[u64; 2]> {
        let [high, low, ..] = packet.view::<Ipv6>(l3)?.addresses;
        Some([high.get(), low.get()])
    }

    /// Neither `::`, `::1`, nor in `ff00::/8` (RFC 4291 section 2).
    #[inline(always)]
    fn is_remote_host([high, low]: [u64; 2]) -> bool {
        high as u8 != 0xff && !(high == 0 && (low == 0 || low == 1 << 56))
    }

    #[inline(always)]
    fn turn(packet: &mut impl Packet, l3: usize) {
        let Some(header) = packet.view_mut::<Ipv6>(l3) else { return };
        let [a, b, c, d] = header.addresses;
        header.addresses = [c, d, a, b];
        header.hop_limit = HOPS;
    }

    #[inline(always)]
    fn read_length(packet: &impl Packet, l3: usize) -> Option<u32> {
        Some(HEADER as u32 + u32::from(packet.view::<Ipv6>(l3)?.payload_length.get()))
    }

    #[inline(always)]
    fn traffic_class(start: u16) -> u8 {
        (start.swap_bytes() >> 4) as u8
    }

    #[inline(always)]
    fn quoted(packet: &impl Packet, l3: usize, end: usize) -> Option<Self> {
        let header = packet.view::<Ipv6>(l3)?;
        if header.version() != 6 {
            return None;
        }
        let [a, b, c, d] = header.addresses.map(U64::get);
        let next = header.next_header;
        let behind = end.checked_sub(l3 + HEADER)?;
        let Chain::Ends(protocol, at) = packet.follow(l3 + HEADER, behind, next, true) else { return None };
        let ports = l4::quoted_ports(packet, protocol, l3 + HEADER + at, end)?;
        Some(Self { addresses: [c, d, a, b], transport: Transport::new(ports, protocol) })
    }
}
