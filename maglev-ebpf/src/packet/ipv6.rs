//! IPv6 (RFC 8200).

use maglev_common::hash::{Transport, Tuple6};
use zerocopy::byteorder::{BE, LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Inner, Ip, Parsed, l4};
use crate::env::Packet;

/// Bytes of the fixed header.
pub const HEADER: usize = 40;
/// The protocol number of an encapsulated IPv6 packet (RFC 2473).
pub const IN_IP: u8 = 41;

/// Extension headers, by the IANA registry: hop-by-hop, routing, ESP, AH, destination options, mobility, HIP, shim6.
const EXTENSIONS: [u8; 8] = [0, 43, 50, 51, 60, 135, 139, 140];
const FRAGMENT: u8 = 44;

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

    /// What a header is that neither TCP nor UDP follows.
    #[inline(always)]
    fn peculiarity(&self) -> Parsed<Tuple6> {
        match self.next_header {
            l4::ICMPV6 => Parsed::Icmp,
            FRAGMENT => Parsed::Fragment,
            header if EXTENSIONS.contains(&header) => Parsed::ExtensionHeader,
            _ => Parsed::OtherProtocol,
        }
    }
}

impl Ip for Tuple6 {
    type Address = [u64; 2];
    const IN_IP: u8 = IN_IP;

    #[inline(always)]
    fn parse(packet: &impl Packet, l3: usize) -> Parsed<Self> {
        let Some(header) = packet.view::<Ipv6>(l3) else { return Parsed::Truncated };
        let payload = u32::from(header.payload_length.get());
        let transport = l3 + HEADER;
        if header.version() != 6 || transport + payload as usize > packet.len() {
            return Parsed::Malformed;
        }
        if header.hop_limit == 0 {
            return Parsed::HopLimit;
        }
        let ports = match header.next_header {
            l4::TCP => l4::tcp(packet, transport, payload),
            l4::UDP => l4::udp(packet, transport, payload),
            _ => return header.peculiarity(),
        };
        let Some(ports) = ports else { return Parsed::Malformed };
        let addresses = header.addresses.map(U64::get);
        let tuple = Tuple6 { addresses, transport: Transport::new(ports, header.next_header) };
        Parsed::Flow(Inner { tuple, l3, length: HEADER as u32 + payload, transport })
    }

    #[inline(always)]
    fn read_destination(packet: &impl Packet, l3: usize) -> Option<[u64; 2]> {
        Some(packet.view::<Ipv6>(l3)?.destination())
    }

    #[inline(always)]
    fn read_length(packet: &impl Packet, l3: usize) -> Option<u32> {
        Some(HEADER as u32 + u32::from(packet.view::<Ipv6>(l3)?.payload_length.get()))
    }

    #[inline(always)]
    fn traffic_class(start: u16) -> u8 {
        (start.swap_bytes() >> 4) as u8
    }
}
