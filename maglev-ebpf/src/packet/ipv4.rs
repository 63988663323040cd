//! IPv4 (RFC 791).

use maglev_common::counters::Counter;
use maglev_common::hash::{Transport, Tuple4};
use zerocopy::byteorder::{BE, LE, U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Inner, l4};
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

    /// Why a header other than a plain one is not handled.
    const fn peculiarity(&self) -> Counter {
        if self.version_ihl >> 4 == 4 && self.version_ihl & 0xf > 5 { Counter::Options } else { Counter::Malformed }
    }
}

/// Parses the IPv4 packet at an offset.
///
/// # Errors
/// Why it is not balanced.
#[inline(always)]
pub fn parse(packet: &impl Packet, offset: usize) -> Result<Inner<Tuple4>, Counter> {
    let header = packet.view::<Ipv4>(offset).ok_or(Counter::Truncated)?;
    if !header.is_plain() {
        return Err(header.peculiarity());
    }
    if header.is_fragment() {
        return Err(Counter::Fragment);
    }
    let length = u32::from(header.length.get());
    if offset + length as usize > packet.len() {
        return Err(Counter::Malformed);
    }
    if header.ttl == 0 {
        return Err(Counter::HopLimit);
    }
    let payload = length.saturating_sub(HEADER as u32);
    let ports = match header.protocol {
        l4::TCP => l4::tcp(packet, offset + HEADER, payload),
        l4::UDP => l4::udp(packet, offset + HEADER, payload),
        l4::ICMP => return Err(Counter::Icmp),
        _ => return Err(Counter::OtherProtocol),
    };
    let ports = ports.ok_or(Counter::Malformed)?;
    let tuple = Tuple4 { addresses: header.addresses.get(), transport: Transport::new(ports, header.protocol) };
    Ok(Inner { tuple, length, transport: offset + HEADER })
}

/// The destination of the IPv4 packet at an offset, whatever else is wrong with it.
#[inline(always)]
pub fn destination(packet: &impl Packet, offset: usize) -> Option<u32> {
    Some(packet.view::<Ipv4>(offset)?.destination())
}
