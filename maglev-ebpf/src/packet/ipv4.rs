//! IPv4 (RFC 791).

use core::hint::black_box;

use maglev_common::hash::{Transport, Tuple4};
use zerocopy::byteorder::{BE, LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_ref};

use super::{Fragment, HOPS, Inner, Ip, Parsed, Span, bounded, checksum, equals, ipv6, is_sound, l4};
use crate::env::Packet;

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// The protocol number of an encapsulated IPv4 packet (RFC 2003).
pub const IN_IP: u8 = 4;

/// *More fragments* and the fragment offset: not zero in a fragment.
pub(super) const FRAGMENT: u16 = 0x3fff;
/// *Don't fragment*.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// The fragment offset alone, in units of eight bytes: zero in the first fragment.
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// *More fragments* alone: not set in the last one.
const MORE_FRAGMENTS: u16 = 0x2000;

/// A header without options.
///
/// ```text
///  0     1      2        4       6            8     9          10         12       16           20
/// +-----+------+--------+-------+------------+-----+----------+----------+--------+------------+
/// | 4|5 | TOS  | length | ident | flags/frag | TTL | protocol | checksum | source | destination|
/// +-----+------+--------+-------+------------+-----+----------+----------+--------+------------+
/// ```
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv4 {
    /// Version in the high four bits, header length in words in the low four.
    pub version_ihl: u8,
    /// DSCP in the high six bits, ECN in the low two.
    pub traffic_class: u8,
    /// The packet's length, header included.
    pub length: U16<BE>,
    /// Identification.
    pub identification: U16<BE>,
    /// Flags in the high three bits, fragment offset in the rest.
    pub flags_fragment: U16<BE>,
    /// Time to live.
    pub ttl: u8,
    /// Protocol number of the payload.
    pub protocol: u8,
    /// Header checksum.
    pub checksum: U16<BE>,
    /// Source and destination address, little-endian.
    pub addresses: U64<LE>,
}

impl Ipv4 {
    /// The header of a packet made here that answers one with these addresses, with so many bytes behind it. It is not to be
    /// fragmented.
    #[inline(always)]
    pub fn answer(addresses: u64, payload: u16, protocol: u8, traffic_class: u8) -> Self {
        let mut header = Self {
            version_ihl: 0x45,
            traffic_class,
            length: U16::new(HEADER as u16 + payload),
            identification: U16::ZERO,
            flags_fragment: U16::new(DONT_FRAGMENT),
            ttl: HOPS,
            protocol,
            checksum: U16::ZERO,
            addresses: U64::new(addresses.rotate_left(32)),
        };
        let words: &[U32<LE>; HEADER / 4] = transmute_ref!(&header);
        let checksum = checksum::finish(checksum::folded(checksum::sum(words)));
        header.checksum = U16::from_bytes(checksum.to_le_bytes());
        header
    }

    /// Whether this is a fragment, first or later.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        self.flags_fragment.get() & FRAGMENT != 0
    }

    /// Whether this is version 4 with a header of twenty bytes.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        self.version_ihl == 0x45
    }

    /// The version: 4, or the packet is malformed.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// The header's length in bytes, as it says itself.
    #[inline(always)]
    pub const fn header_length(&self) -> usize {
        (self.version_ihl as usize & 0xf) * 4
    }

    /// The destination address.
    #[inline(always)]
    pub const fn destination(&self) -> u32 {
        (self.addresses.get() >> 32) as u32
    }
}

/// What the options of a header say of its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Options {
    /// Nothing that matters to the path.
    Plain,
    /// The sender chose its route.
    SourceRoute,
    /// They end in the midst of one.
    Malformed,
}

/// Options (RFC 791 section 3.1): a byte of type, and for all but these two one of length, which counts both.
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;
/// Bytes of options that a header may have.
const MOST_OPTIONS: usize = 40;

impl Options {
    /// Reads the options at an offset of the frame.
    #[inline(always)]
    fn read(packet: &impl Packet, start: usize, length: usize) -> Self {
        let mut at = 0;
        for _ in 0..MOST_OPTIONS {
            if at >= length {
                return Self::Plain;
            }
            // The second byte may belong to the next header, and is ignored then.
            let Some(&[kind, bytes]) = packet.view::<[u8; 2]>(start + at) else {
                return Self::read_last(packet, start + at);
            };
            match kind {
                END_OF_OPTIONS => return Self::Plain,
                LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Self::SourceRoute,
                _ => {}
            }
            // Worked out rather than branched upon: the verifier would follow each branch of each turn by itself.
            let padding = equals(kind, NO_OPERATION);
            let step = padding + (1 - padding) * usize::from(bytes);
            if step + padding < 2 || at + step > length {
                return Self::Malformed;
            }
            at = bounded(at + step, 63);
        }
        Self::Plain
    }

    /// Reads the last byte of a frame, together with the one before: the verifier does not know where a byte alone lies.
    #[inline(always)]
    fn read_last(packet: &impl Packet, at: usize) -> Self {
        let Some(pair) = packet.view::<U16<BE>>(bounded(at - 1, 1_023)) else { return Self::Malformed };
        match black_box(pair.get()) as u8 {
            END_OF_OPTIONS | NO_OPERATION => Self::Plain,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => Self::SourceRoute,
            _ => Self::Malformed,
        }
    }
}

impl Ip for Tuple4 {
    type Address = u32;
    const IN_IP: u8 = IN_IP;
    const HEADER: usize = HEADER;

    #[inline(always)]
    fn parse(packet: &impl Packet, l3: usize) -> Parsed<Self> {
        let Some(header) = packet.view::<Ipv4>(l3) else { return Parsed::Truncated };
        let (bytes, length) = (header.header_length(), u32::from(header.length.get()));
        if header.version() != 4 || bytes < HEADER || length < bytes as u32 || !packet.reaches(l3 + length as usize) {
            return Parsed::Malformed;
        }
        if header.ttl == 0 {
            return Parsed::HopLimit;
        }
        if bytes > HEADER {
            match Options::read(packet, l3 + HEADER, bytes - HEADER) {
                Options::Plain => {}
                Options::SourceRoute => return Parsed::SourceRoute,
                Options::Malformed => return Parsed::Malformed,
            }
        }
        if header.is_fragment() {
            return Parsed::Fragment;
        }
        let (payload, transport) = (length - bytes as u32, l3 + bytes);
        match header.protocol {
            l4::ICMP => return Parsed::Icmp(Span { l3, length, transport }),
            IN_IP | ipv6::IN_IP => return Parsed::Nested,
            _ => {}
        }
        let Some(ports) = l4::ports(packet, header.protocol, transport, payload) else { return Parsed::Malformed };
        let tuple = Tuple4 { addresses: header.addresses.get(), transport: Transport::new(ports, header.protocol) };
        Parsed::Flow(Inner { tuple, l3, length, transport })
    }

    #[inline(always)]
    fn fragment(packet: &impl Packet, l3: usize) -> Result<Fragment<Self>, Parsed<Self>> {
        let Some(header) = packet.view::<Ipv4>(l3) else { return Err(Parsed::Truncated) };
        let (bytes, length, flags) = (header.header_length(), header.length.get().into(), header.flags_fragment.get());
        let (protocol, addresses) = (header.protocol, header.addresses.get());
        let identification = header.identification.get().into();
        let (offset, payload) = (u32::from(flags & FRAGMENT_OFFSET), u32::wrapping_sub(length, bytes as u32));
        if !is_sound(offset, flags & MORE_FRAGMENTS != 0, payload, protocol) {
            return Err(Parsed::Malformed);
        }
        let first = offset == 0;
        if first && matches!(protocol, IN_IP | ipv6::IN_IP) {
            return Err(Parsed::Nested);
        }
        let ports = if first { l4::ports(packet, protocol, l3 + bytes, payload).ok_or(Parsed::Malformed)? } else { 0 };
        let tuple = Self { addresses, transport: Transport::new(ports, protocol) };
        Ok(Fragment { tuple, length, transport: first.then_some(l3 + bytes), identification })
    }

    #[inline(always)]
    fn datagram(self, number: u32) -> Self {
        Self { transport: Transport::new(number, self.transport.protocol()), ..self }
    }

    #[inline(always)]
    fn read_destination(packet: &impl Packet, l3: usize) -> Option<u32> {
        Some(packet.view::<Ipv4>(l3)?.destination())
    }

    #[inline(always)]
    fn read_source(packet: &impl Packet, l3: usize) -> Option<u32> {
        Some(packet.view::<Ipv4>(l3)?.addresses.get() as u32)
    }

    /// Neither in 0.0.0.0/8 nor 127.0.0.0/8, nor in 224.0.0.0/4 or beyond (RFC 1122 section 3.2.1.3).
    #[inline(always)]
    fn is_remote_host(address: u32) -> bool {
        let first = address as u8;
        first != 0 && first != 127 && first < 224
    }

    #[inline(always)]
    fn turn(packet: &mut impl Packet, l3: usize) {
        let Some(header) = packet.view_mut::<Ipv4>(l3) else { return };
        header.addresses.set(header.addresses.get().rotate_left(32));
        let [before, after] = [header.ttl, HOPS].map(u16::from);
        header.ttl = HOPS;
        // The two addresses are summed in either order.
        let sum = checksum::replaced(header.checksum.get().swap_bytes(), before, after);
        header.checksum.set(sum.swap_bytes());
    }

    #[inline(always)]
    fn read_length(packet: &impl Packet, l3: usize) -> Option<u32> {
        Some(u32::from(packet.view::<Ipv4>(l3)?.length.get()))
    }

    #[inline(always)]
    fn traffic_class(start: u16) -> u8 {
        (start >> 8) as u8
    }

    #[inline(always)]
    fn quoted(packet: &impl Packet, l3: usize, end: usize) -> Option<Self> {
        let header = packet.view::<Ipv4>(l3)?;
        let (bytes, protocol) = (header.header_length(), header.protocol);
        let first = header.flags_fragment.get() & FRAGMENT_OFFSET == 0;
        if header.version() != 4 || bytes < HEADER || !first || l3 + bytes > end {
            return None;
        }
        let addresses = header.addresses.get().rotate_left(32);
        let ports = l4::quoted_ports(packet, protocol, l3 + bytes, end)?;
        Some(Self { addresses, transport: Transport::new(ports, protocol) })
    }
}
