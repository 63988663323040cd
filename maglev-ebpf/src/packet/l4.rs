//! The transport headers (RFC 9293, RFC 768): ports, and what a TCP segment means to its flow.

use zerocopy::byteorder::{LE, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::env::Packet;

/// ICMP.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMPV6: u8 = 58;

/// Bytes of a TCP header without options.
const TCP_HEADER: u16 = 20;
/// Bytes of a UDP header.
const UDP_HEADER: u16 = 8;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

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

/// What a packet means to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Opens a TCP connection: SYN set, ACK, RST and FIN clear.
    Syn,
    /// Any TCP segment with RST set: it ends a connection and never begins one.
    Rst,
    /// Any other TCP segment.
    Other,
    /// A UDP datagram.
    Datagram,
}

/// What was read of a transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Source port, then destination port, as four bytes read little-endian.
    pub ports: u32,
    /// What the packet means to its flow.
    pub segment: Segment,
}

/// Reads a TCP header that has `length` bytes of IP payload; `None` if that cannot hold it.
#[inline(always)]
pub fn tcp(packet: &impl Packet, offset: usize, length: u16) -> Option<Transport> {
    if length < TCP_HEADER {
        return None;
    }
    let header = packet.view::<TcpStart>(offset)?;
    let segment = match header.flags & (SYN | ACK | RST | FIN) {
        SYN => Segment::Syn,
        flags if flags & RST != 0 => Segment::Rst,
        _ => Segment::Other,
    };
    Some(Transport { ports: header.ports.get(), segment })
}

/// Reads a UDP header that has `length` bytes of IP payload; `None` if that cannot hold it.
#[inline(always)]
pub fn udp(packet: &impl Packet, offset: usize, length: u16) -> Option<Transport> {
    if length < UDP_HEADER {
        return None;
    }
    let ports = packet.view::<U32<LE>>(offset)?.get();
    Some(Transport { ports, segment: Segment::Datagram })
}

/// The destination port of a pair of ports: its two network-order bytes read little-endian.
#[inline(always)]
pub const fn destination_port(ports: u32) -> u16 {
    (ports >> 16) as u16
}
