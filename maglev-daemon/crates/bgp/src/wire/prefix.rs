//! Address families, and prefixes as they stand in UPDATE messages: a length in bits and as many octets as it needs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::reader::Reader;

/// A family of unicast prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

/// The subsequent address family of unicast (RFC 4760).
pub(super) const UNICAST: u8 = 1;

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    pub(crate) const fn from_prefix(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::Ipv4,
            IpNet::V6(_) => Self::Ipv6,
        }
    }

    /// The number of the address family.
    pub(super) const fn afi(self) -> u16 {
        match self {
            Self::Ipv4 => 1,
            Self::Ipv6 => 2,
        }
    }

    /// The family with these numbers, if it is one of ours.
    pub(super) const fn from_numbers(afi: u16, safi: u8) -> Option<Self> {
        match (afi, safi) {
            (1, UNICAST) => Some(Self::Ipv4),
            (2, UNICAST) => Some(Self::Ipv6),
            _ => None,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// How many octets a prefix takes.
pub(super) fn encoded_len(prefix: &IpNet) -> usize {
    1 + octets(prefix.prefix_len())
}

const fn octets(bits: u8) -> usize {
    (bits as usize).div_ceil(8)
}

pub(super) fn encode(out: &mut Vec<u8>, prefix: &IpNet) {
    let bits = prefix.prefix_len();
    out.push(bits);
    match prefix.network() {
        IpAddr::V4(address) => out.extend(address.octets().iter().take(octets(bits))),
        IpAddr::V6(address) => out.extend(address.octets().iter().take(octets(bits))),
    }
}

/// All prefixes of a field; `None` if one is cut off or longer than its family allows (RFC 7606, section 5.3).
pub(super) fn decode_all(mut field: Reader<'_>, family: Family) -> Option<Vec<IpNet>> {
    let mut prefixes = Vec::new();
    while !field.is_empty() {
        prefixes.push(decode(&mut field, family)?);
    }
    Some(prefixes)
}

fn decode(field: &mut Reader<'_>, family: Family) -> Option<IpNet> {
    let bits = field.u8()?;
    let given = field.take(octets(bits))?;
    let prefix = match family {
        Family::Ipv4 => IpNet::V4(Ipv4Net::new(Ipv4Addr::from(padded(given)?), bits).ok()?),
        Family::Ipv6 => IpNet::V6(Ipv6Net::new(Ipv6Addr::from(padded(given)?), bits).ok()?),
    };
    Some(prefix.trunc())
}

fn padded<const N: usize>(given: &[u8]) -> Option<[u8; N]> {
    let mut octets = [0; N];
    octets.get_mut(..given.len())?.copy_from_slice(given);
    Some(octets)
}
