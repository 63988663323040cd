//! The packet inside a tunnel: whether it may come out of it, and its ECN.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::IPV4;
use crate::oracle::bytes::{adjusted, array, be16};

/// ICMP's redirect, and router advertisements and solicitations (RFC 792, RFC 1256).
const ICMP: u8 = 1;
const ROUTING4: [u8; 3] = [5, 9, 10];
/// Router and neighbor solicitations and advertisements, and redirects (RFC 4861 section 4).
const ICMPV6: u8 = 58;
const DISCOVERY6: [u8; 5] = [133, 134, 135, 136, 137];
/// Headers behind which a host looks for another one (RFC 8200 section 4, RFC 4302, RFC 6275).
const EXTENSIONS: [u8; 6] = [0, 43, 44, 51, 60, 135];

/// The inner packet's IP header.
#[derive(Clone, Debug)]
pub(super) struct Inner {
    /// Where in the frame it begins.
    pub(super) start: usize,
    pub(super) ecn: u8,
    source: IpAddr,
    destination: IpAddr,
    /// Whether it is a message by which hosts and routers of one link configure each other.
    is_discovery: bool,
}

impl Inner {
    /// The header at the start of a tunnel's payload, or the reason why there is none.
    pub(super) fn parse(protocol: u8, frame: &[u8], payload: Range<usize>) -> Result<Self, &'static str> {
        let start = payload.start;
        let (bytes, behind) = frame.split_at_checked(payload.end).ok_or("malformed")?;
        let bytes = bytes.get(start..).ok_or("malformed")?;
        let parsed =
            if protocol == IPV4 { Self::parse4(start, bytes, behind) } else { Self::parse6(start, bytes, behind) };
        parsed.ok_or("malformed")
    }

    fn parse4(start: usize, bytes: &[u8], behind: &[u8]) -> Option<Self> {
        let header: [u8; 20] = array(bytes, 0)?;
        let length = usize::from(header[0] & 15) * 4;
        let total = usize::from(be16(&header, 2)?);
        if header[0] >> 4 != 4 || length < 20 || total < length || total != bytes.len() {
            return None;
        }
        let is_first = be16(&header, 6)? & 0x1fff == 0;
        let is_icmp = header[9] == ICMP && is_first;
        Some(Self {
            start,
            ecn: header[1] & 3,
            source: array::<4>(&header, 12)?.into(),
            destination: array::<4>(&header, 16)?.into(),
            is_discovery: is_icmp && ROUTING4.contains(&icmp_type(bytes.get(length..)?, behind)?),
        })
    }

    fn parse6(start: usize, bytes: &[u8], behind: &[u8]) -> Option<Self> {
        let header: [u8; 40] = array(bytes, 0)?;
        let total = 40 + usize::from(be16(&header, 4)?);
        if header[0] >> 4 != 6 || total != bytes.len() {
            return None;
        }
        let (next, hop_limit) = (header[6], header[7]);
        let is_discovery = if next == ICMPV6 {
            DISCOVERY6.contains(&icmp_type(bytes.get(40..)?, behind)?)
        } else {
            // Behind extension headers it is known by the hop limit alone: with another one it is not valid (RFC 4861 section 7.1).
            hop_limit == 255 && EXTENSIONS.contains(&next)
        };
        Some(Self {
            start,
            ecn: header[1] >> 4 & 3,
            source: array::<16>(&header, 8)?.into(),
            destination: array::<16>(&header, 24)?.into(),
            is_discovery,
        })
    }

    /// Whether the packet may come out of a tunnel, given which addresses are VIPs of this host.
    pub(super) fn admit(&self, is_vip: impl Fn(IpAddr) -> bool) -> Result<(), &'static str> {
        if self.is_discovery {
            return Err("neighbor_discovery");
        }
        if self.source == self.destination || !is_unicast_beyond_link(self.source) {
            return Err("impossible_source");
        }
        if !is_vip(self.destination) || !is_unicast_beyond_link(self.destination) {
            return Err("foreign_destination");
        }
        Ok(())
    }

    /// The frame's type for the packet.
    pub(super) fn ether_type(&self) -> u16 {
        if self.destination.is_ipv4() { 0x0800 } else { 0x86dd }
    }

    /// Writes the ECN field of the packet, with which an IPv4 header's checksum changes by as much (RFC 1624, equation 3).
    pub(super) fn set_ecn(&self, packet: &mut [u8], ecn: u8) {
        if self.destination.is_ipv6() {
            packet[1] = packet[1] & !0x30 | ecn << 4;
            return;
        }
        let word = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let before = word(packet, 0);
        packet[1] = packet[1] & !3 | ecn;
        let after = word(packet, 0);
        if before != after {
            let checksum = adjusted(word(packet, 10), before, after);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
    }
}

/// The type of an ICMP message, unless it is cut short: its code, a byte later, is in the frame at least.
fn icmp_type(message: &[u8], behind: &[u8]) -> Option<u8> {
    let kind = message.first()?;
    (message.len() + behind.len() > 1).then_some(*kind)
}

/// Whether an address can be that of one host that is reached through routers.
fn is_unicast_beyond_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let never = [
                (Ipv4Addr::new(0, 0, 0, 0), 8),
                (Ipv4Addr::new(127, 0, 0, 0), 8),
                (Ipv4Addr::new(169, 254, 0, 0), 16),
                // Multicast, reserved, and the broadcast address.
                (Ipv4Addr::new(224, 0, 0, 0), 3),
            ];
            never.iter().all(|&(of, bits)| (u32::from(address) ^ u32::from(of)) >> (32 - bits) != 0)
        }
        IpAddr::V6(address) => {
            let never = [
                // The unspecified address, loopback, and IPv4 addresses in IPv6 ones.
                (Ipv6Addr::UNSPECIFIED, 96),
                (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
                (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
                (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
            ];
            never.iter().all(|&(of, bits)| (u128::from(address) ^ u128::from(of)) >> (128 - bits) != 0)
        }
    }
}
