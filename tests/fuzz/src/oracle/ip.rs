//! IP packets (RFC 791, RFC 8200) as far as a load balancer reads them. Nothing is read beyond the end that a packet's own length
//! says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bytes::{array, be16, be32};
use super::link::Family;

/// Protocol numbers.
pub(crate) mod protocol {
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const IPV4: u8 = 4;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const IPV6: u8 = 41;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const SCTP: u8 = 132;
    pub(crate) const UDP_LITE: u8 = 136;

    /// Whether a protocol's header begins with ports, and the least bytes that it has.
    pub(crate) const fn least_with_ports(protocol: u8) -> Option<usize> {
        match protocol {
            TCP => Some(20),
            UDP | UDP_LITE => Some(8),
            SCTP => Some(12),
            _ => None,
        }
    }
}

/// Extension headers of IPv6 that lead to another header (RFC 8200 section 4, RFC 4302).
mod extension {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
    /// How many a packet may have, and how many bytes of them (docs/packets.md).
    pub(super) const MOST: usize = 8;
    pub(super) const MOST_BYTES: usize = 512;
}

/// Bytes of a header without options or extension headers.
pub(crate) const fn least_header(family: Family) -> usize {
    match family {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

/// A packet that is not refused by its IP header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) family: Family,
    /// From its IP header to its end.
    pub(crate) bytes: &'a [u8],
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// DSCP and ECN.
    pub(crate) class: u8,
    /// Of what follows the IP header and all extension headers.
    pub(crate) protocol: u8,
    /// Where that begins.
    pub(crate) transport: usize,
    /// What it is a fragment of.
    pub(crate) fragment: Option<Fragment>,
}

/// A fragment's place in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) identification: u32,
    /// In bytes.
    pub(crate) offset: usize,
    pub(crate) more: bool,
    /// Bytes of the datagram that it holds.
    pub(crate) payload: usize,
    /// The protocol of these.
    pub(crate) protocol: u8,
}

/// The addresses of a packet, source and destination, whatever else is wrong with it; `None` if its header is cut short.
pub(crate) fn addresses(bytes: &[u8], family: Family) -> Option<[IpAddr; 2]> {
    bytes.get(..least_header(family))?;
    Some(match family {
        Family::V4 => [12, 16].map(|at| Ipv4Addr::from(array(bytes, at).unwrap_or_default()).into()),
        Family::V6 => [8, 24].map(|at| Ipv6Addr::from(array(bytes, at).unwrap_or_default()).into()),
    })
}

/// Parses a packet whose first header is whole. What follows it in the frame may follow here.
///
/// # Errors
/// The counter of the reason for which it is refused.
pub(crate) fn parse(bytes: &[u8], family: Family) -> Result<Packet<'_>, &'static str> {
    match family {
        Family::V4 => parse4(bytes),
        Family::V6 => parse6(bytes),
    }
}

fn parse4(frame: &[u8]) -> Result<Packet<'_>, &'static str> {
    let [source, destination] = addresses(frame, Family::V4).ok_or("truncated")?;
    let [version_ihl, class, ..] = *frame else { return Err("truncated") };
    let header = usize::from(version_ihl & 0xf) * 4;
    let length = usize::from(be16(frame, 2).ok_or("truncated")?);
    if version_ihl >> 4 != 4 || header < 20 || length < header {
        return Err("malformed");
    }
    let bytes = frame.get(..length).ok_or("malformed")?;
    let ([ttl, protocol], flags) = (array(bytes, 8).ok_or("malformed")?, be16(bytes, 6).ok_or("malformed")?);
    if ttl == 0 {
        return Err("hop_limit");
    }
    options(&bytes[20..header])?;
    let (more, offset) = (flags & 0x2000 != 0, usize::from(flags & 0x1fff) * 8);
    let identification = be16(bytes, 4).unwrap_or_default().into();
    let fragment = Fragment { identification, offset, more, payload: length - header, protocol };
    let fragment = (more || offset != 0).then_some(fragment);
    Ok(Packet { family: Family::V4, bytes, source, destination, class, protocol, transport: header, fragment })
}

/// Walks the options (RFC 791 section 3.1): refused are those that end in the midst of one, and source routes.
fn options(mut options: &[u8]) -> Result<(), &'static str> {
    while let [kind, rest @ ..] = options {
        options = match kind {
            0 => return Ok(()),
            1 => rest,
            131 | 137 => return Err("source_route"),
            _ => {
                let length = usize::from(*rest.first().ok_or("malformed")?);
                if length < 2 {
                    return Err("malformed");
                }
                options.get(length..).ok_or("malformed")?
            }
        };
    }
    Ok(())
}

fn parse6(frame: &[u8]) -> Result<Packet<'_>, &'static str> {
    let [source, destination] = addresses(frame, Family::V6).ok_or("truncated")?;
    let start = be32(frame, 0).ok_or("truncated")?;
    let payload = usize::from(be16(frame, 4).ok_or("truncated")?);
    let [next, hop_limit] = array(frame, 6).ok_or("truncated")?;
    if start >> 28 != 6 {
        return Err("malformed");
    }
    let bytes = frame.get(..40 + payload).ok_or("malformed")?;
    if hop_limit == 0 {
        return Err("hop_limit");
    }
    let Chain { protocol, transport, fragment } = follow(bytes, next)?;
    let class = (start >> 20) as u8;
    Ok(Packet { family: Family::V6, bytes, source, destination, class, protocol, transport, fragment })
}

/// What the extension headers of a packet lead to.
pub(crate) struct Chain {
    pub(crate) protocol: u8,
    pub(crate) transport: usize,
    pub(crate) fragment: Option<Fragment>,
}

/// Follows the extension headers of a packet, of which `next` is the first: to the end, or in a later fragment to the fragment
/// header.
///
/// # Errors
/// The counter of the reason for which the packet is refused.
pub(crate) fn follow(bytes: &[u8], mut next: u8) -> Result<Chain, &'static str> {
    use extension::{AUTHENTICATION, DESTINATION, FRAGMENT, HOP_BY_HOP, MOST, MOST_BYTES, ROUTING};
    let (mut at, mut fragment, mut count) = (40, None, 0);
    while matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION) {
        if count == MOST {
            return Err("extension_header");
        }
        count += 1;
        let [following, units, kind, left] = array(bytes, at).ok_or("malformed")?;
        let length = match next {
            FRAGMENT => 8,
            // In units of four bytes, less two (RFC 4302 section 2.2).
            AUTHENTICATION => (usize::from(units) + 2) * 4,
            _ => (usize::from(units) + 1) * 8,
        };
        bytes.get(at..at + length.max(8)).ok_or("malformed")?;
        if at + length - 40 > MOST_BYTES {
            return Err("extension_header");
        }
        if next == ROUTING && (kind == 0 || left != 0) {
            return Err("source_route");
        }
        if next == FRAGMENT {
            let position = be16(bytes, at + 2).ok_or("malformed")?;
            let (offset, more) = (usize::from(position & 0xfff8), position & 1 != 0);
            if (offset != 0 || more) && fragment.is_none() {
                let identification = be32(bytes, at + 4).ok_or("malformed")?;
                let payload = bytes.len() - (at + 8);
                fragment = Some(Fragment { identification, offset, more, payload, protocol: following });
                if offset != 0 {
                    return Ok(Chain { protocol: following, transport: at + 8, fragment });
                }
            } else if offset != 0 {
                // A later fragment within a first one.
                return Err("malformed");
            }
        }
        at += length;
        next = following;
    }
    Ok(Chain { protocol: next, transport: at, fragment })
}

/// The ports that a transport header begins with, or zeroes if its protocol has none; `None` if the packet cannot hold that header.
pub(crate) fn ports(bytes: &[u8], protocol: u8, transport: usize) -> Option<[u8; 4]> {
    let rest = bytes.get(transport..)?;
    match protocol::least_with_ports(protocol) {
        Some(least) if rest.len() < least => None,
        Some(_) => array(rest, 0),
        None => Some([0; 4]),
    }
}

/// Whether an address may be that of a single remote host (RFC 1122 section 3.2.1.3, RFC 4291 section 2).
pub(crate) fn is_remote_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(address) => !(address.is_unspecified() || address.is_loopback() || address.is_multicast()),
    }
}
