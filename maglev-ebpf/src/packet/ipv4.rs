//! IPv4 (RFC 791).

use maglev_common::hash::{Transport, Tuple4};
use zerocopy::byteorder::{BE, LE, U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Inner, Ip, Parsed, l4};
use crate::env::Packet;

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// The protocol number of an encapsulated IPv4 packet (RFC 2003).
pub const IN_IP: u8 = 4;

/// *More fragments* and the fragment offset: not zero in a fragment.
pub(super) const FRAGMENT: u16 = 0x3fff;
const VERSION_4_NO_OPTIONS: u8 = 0x45;

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
    /// Whether this is a fragment, first or later.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        self.flags_fragment.get() & FRAGMENT != 0
    }

    /// Whether this is version 4 with a header of twenty bytes.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        self.version_ihl == VERSION_4_NO_OPTIONS
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

    /// What a header other than a plain one is.
    #[inline(always)]
    const fn peculiarity(&self) -> Parsed<Tuple4> {
        if self.version_ihl >> 4 == 4 && self.version_ihl & 0xf > 5 { Parsed::Options } else { Parsed::Malformed }
    }
}

impl Ip for Tuple4 {
    type Address = u32;
    const IN_IP: u8 = IN_IP;

    #[inline(always)]
    fn parse(packet: &impl Packet, l3: usize) -> Parsed<Self> {
        let Some(header) = packet.view::<Ipv4>(l3) else { return Parsed::Truncated };
        if !header.is_plain() {
            return header.peculiarity();
        }
        if header.is_fragment() {
            return Parsed::Fragment;
        }
        let length = u32::from(header.length.get());
        if l3 + length as usize > packet.len() {
            return Parsed::Malformed;
        }
        if header.ttl == 0 {
            return Parsed::HopLimit;
        }
        let (payload, transport) = (length.saturating_sub(HEADER as u32), l3 + HEADER);
        let ports = match header.protocol {
            l4::TCP => l4::tcp(packet, transport, payload),
            l4::UDP => l4::udp(packet, transport, payload),
            l4::ICMP => return Parsed::Icmp,
            _ => return Parsed::OtherProtocol,
        };
        let Some(ports) = ports else { return Parsed::Malformed };
        let tuple = Tuple4 { addresses: header.addresses.get(), transport: Transport::new(ports, header.protocol) };
        Parsed::Flow(Inner { tuple, l3, length, transport })
    }

    #[inline(always)]
    fn read_destination(packet: &impl Packet, l3: usize) -> Option<u32> {
        Some(packet.view::<Ipv4>(l3)?.destination())
    }

    #[inline(always)]
    fn read_length(packet: &impl Packet, l3: usize) -> Option<u32> {
        Some(u32::from(packet.view::<Ipv4>(l3)?.length.get()))
    }

    #[inline(always)]
    fn traffic_class(start: u16) -> u8 {
        (start >> 8) as u8
    }
}
