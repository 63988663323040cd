//! The transport headers (RFC 9293, RFC 768, RFC 9260, RFC 3828): ports, and what a TCP segment means to its flow.

use zerocopy::byteorder::{LE, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::env::{Packet, Segment};

/// ICMP.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// SCTP.
pub const SCTP: u8 = 132;
/// UDP-Lite.
pub const UDP_LITE: u8 = 136;

/// Bytes of a TCP header without options.
pub(crate) const TCP_HEADER: u32 = 20;
/// Bytes of a UDP or UDP-Lite header.
pub(super) const UDP_HEADER: u32 = 8;
/// Bytes of SCTP's common header.
const SCTP_HEADER: u32 = 12;

/// The first fourteen bytes of a TCP header.
///
/// ```text
///  0           2           4               8               12      13      14
/// +-----------+-----------+---------------+---------------+-------+-------+
/// | src port  | dst port  | sequence      | acknowledged  | offs. | flags |
/// +-----------+-----------+---------------+---------------+-------+-------+
/// ```
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct TcpStart {
    ports: U32<LE>,
    sequence: [u8; 4],
    acknowledged: [u8; 4],
    offset: u8,
    flags: u8,
}

/// What a packet means to its flow. Read only where it matters: most packets are sent without anyone asking.
///
/// The transport header stands at `offset` and is known to lie within the packet.
#[inline(always)]
pub fn segment(packet: &impl Packet, protocol: u8, offset: usize) -> Segment {
    if protocol != TCP {
        return Segment::DATAGRAM;
    }
    packet.view::<TcpStart>(offset).map_or(Segment::OTHER, |header| Segment::from_flags(header.flags))
}

/// The fields that are read of a TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// As of [`tcp`].
    pub ports: u32,
    /// Bytes of the header, options included, as it says itself: up to 60.
    pub length: usize,
    /// The fourteenth byte.
    pub flags: u8,
}

/// Reads the TCP header that begins at an offset.
#[inline(always)]
pub fn tcp_header(packet: &impl Packet, offset: usize) -> Option<Tcp> {
    let header = packet.view::<TcpStart>(offset)?;
    Some(Tcp { ports: header.ports.get(), length: usize::from(header.offset >> 4) * 4, flags: header.flags })
}

/// The ports of a TCP header, source then destination, as four bytes read little-endian. The header has `length` bytes of IP payload; `None` if that cannot hold it.
#[inline(always)]
pub fn tcp(packet: &impl Packet, offset: usize, length: u32) -> Option<u32> {
    if length < TCP_HEADER {
        return None;
    }
    Some(packet.view::<TcpStart>(offset)?.ports.get())
}

/// The same of a UDP header that has `length` bytes of IP payload; `None` if that cannot hold it.
#[inline(always)]
pub fn udp(packet: &impl Packet, offset: usize, length: u32) -> Option<u32> {
    if length < UDP_HEADER {
        return None;
    }
    Some(packet.view::<U32<LE>>(offset)?.get())
}

/// The ports of a transport header of any protocol, or 0 if it has none; `None` if `length` bytes of IP payload cannot hold it. No sender
/// makes a first fragment that cuts it (RFC 1858 section 3, RFC 7112).
#[inline(always)]
pub fn ports(packet: &impl Packet, protocol: u8, offset: usize, length: u32) -> Option<u32> {
    let least = match protocol {
        TCP => TCP_HEADER,
        SCTP => SCTP_HEADER,
        UDP | UDP_LITE => UDP_HEADER,
        _ => return Some(0),
    };
    if length < least {
        return None;
    }
    Some(packet.view::<U32<LE>>(offset)?.get())
}

/// Whether a protocol's header begins with its ports.
#[inline(always)]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP | UDP_LITE)
}

/// The ports that a quoted transport header at an offset begins with, destination then source, or 0 if its protocol has none; `None`
/// if it is cut off at `end` within the ports. No more of it need be there: an ICMP error may quote eight bytes of it (RFC 792).
#[inline(always)]
pub fn quoted_ports(packet: &impl Packet, protocol: u8, offset: usize, end: usize) -> Option<u32> {
    if !has_ports(protocol) {
        return Some(0);
    }
    let ports = packet.view::<U32<LE>>(offset)?.get();
    (offset + size_of::<u32>() <= end).then_some(ports.rotate_left(16))
}
