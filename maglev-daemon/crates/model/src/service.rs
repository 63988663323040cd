//! The packets of a VIP: which it takes, which of two services is more specific, and how they are written. It must not know
//! the other VIPs.

use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use ipnet::IpNet;

use super::text::is_decimal;
use super::{BadValue, shown};

/// The protocol of a VIP's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
    /// SCTP, IP protocol 132.
    Sctp,
    /// UDP-Lite, IP protocol 136.
    UdpLite,
    /// IPsec's ESP, IP protocol 50: without ports.
    Esp,
    /// GRE, IP protocol 47: without ports.
    Gre,
    /// Every protocol.
    Any,
}

/// The destination ports of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// Every port, and packets without one.
    Any,
    /// The first to the last, which is not below the first; both the same: one port.
    Range {
        /// The first.
        first: NonZeroU16,
        /// The last.
        last: NonZeroU16,
    },
}

/// The packets of a VIP: destination addresses, ports and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// The destination addresses, without host bits; a prefix of full length is one address.
    pub network: IpNet,
    /// The destination ports.
    pub ports: Ports,
    /// The protocol.
    pub protocol: Protocol,
}

impl Protocol {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 7] = [Self::Tcp, Self::Udp, Self::Sctp, Self::UdpLite, Self::Esp, Self::Gre, Self::Any];

    /// The protocol number in the IP header; 0 for every protocol.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
            Self::UdpLite => 136,
            Self::Esp => 50,
            Self::Gre => 47,
            Self::Any => 0,
        }
    }

    /// The protocol with this number in the IP header, if VIPs can have it; 0 is every protocol.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|found| found.number() == number)
    }

    /// Whether its packets have ports at a place of their own; only then can a VIP take some ports.
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Sctp | Self::UdpLite)
    }

    /// The word by which it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::UdpLite => "udplite",
            Self::Esp => "esp",
            Self::Gre => "gre",
            Self::Any => "any",
        }
    }
}

impl FromStr for Protocol {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        Self::ALL.into_iter().find(|found| found.word() == text).ok_or_else(|| {
            let allowed = Self::ALL.map(Self::word).join(", ");
            BadValue(format!("{} is not a protocol; allowed: {allowed}", shown(text)))
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl Ports {
    /// One port.
    pub const fn one(port: NonZeroU16) -> Self {
        Self::Range { first: port, last: port }
    }

    /// The port, if it is only one.
    pub fn single(self) -> Option<NonZeroU16> {
        self.first().filter(|first| self == Self::one(*first))
    }

    /// The first port of a range or the only one; none of every port.
    pub const fn first(self) -> Option<NonZeroU16> {
        match self {
            Self::Any => None,
            Self::Range { first, last: _ } => Some(first),
        }
    }

    /// How many there are: 65,536 if every port.
    pub fn count(self) -> u32 {
        match self {
            Self::Any => 1 << 16,
            Self::Range { first, last } => u32::from(last.get() - first.get()) + 1,
        }
    }

    /// Whether every port of the other is one of these.
    pub fn contains(self, other: Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Range { .. }, Self::Any) => false,
            (Self::Range { first, last }, Self::Range { first: from, last: to }) => first <= from && to <= last,
        }
    }

    /// Whether some port is one of both.
    pub fn overlaps(self, other: Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Range { first, last }, Self::Range { first: from, last: to }) => first <= to && from <= last,
        }
    }
}

impl FromStr for Ports {
    type Err = BadValue;

    /// Reads a VIP's ports: 1 to 65535, a range such as 8000-8100, or `any`.
    fn from_str(text: &str) -> Result<Self, BadValue> {
        let port = |text: &str| text.parse().ok().filter(|_| is_decimal(text));
        let range = match text.split_once('-') {
            None => port(text).map(|port| (port, port)),
            Some((first, last)) => port(first).zip(port(last)),
        };
        match range {
            _ if text == "any" => Ok(Self::Any),
            Some((first, last)) if first <= last => Ok(Self::Range { first, last }),
            Some((first, last)) => Err(BadValue(format!("{text} ends before it begins; write {last}-{first}"))),
            None => Err(BadValue(format!(
                "{} is not a port; allowed: 1 to 65535, a range such as 8000-8100, or any",
                shown(text)
            ))),
        }
    }
}

impl fmt::Display for Ports {
    /// `443`, `8000-8100`, `any`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.pad("any"),
            Self::Range { first, last } if first == last => first.fmt(f),
            Self::Range { first, last } => f.pad(&format!("{first}-{last}")),
        }
    }
}

impl Service {
    /// Reads the three parts of a service.
    ///
    /// # Errors
    /// The first part that is wrong.
    pub fn parse(address: &str, ports: &str, protocol: &str) -> Result<Self, BadValue> {
        Ok(Self { network: parse_network(address)?, ports: ports.parse()?, protocol: protocol.parse()? })
    }

    /// The first address: the only one, unless it is a prefix.
    pub fn address(&self) -> IpAddr {
        self.network.network()
    }

    /// Whether it is one address rather than a prefix.
    pub fn has_one_address(&self) -> bool {
        self.network.prefix_len() == self.network.max_prefix_len()
    }

    /// Whether it is one address and one port.
    pub fn is_single(&self) -> bool {
        self.has_one_address() && self.ports.single().is_some()
    }

    /// Whether every packet of the other is one of this one's.
    pub fn covers(&self, other: &Self) -> bool {
        let Self { network, ports, protocol } = *self;
        network.contains(&other.network)
            && ports.contains(other.ports)
            && (protocol == Protocol::Any || protocol == other.protocol)
    }

    /// Of two services that take a packet, the one with the greater value gets it: the longer prefix; then the one that
    /// names the protocol; then the one with fewer ports.
    pub fn specificity(&self) -> impl Ord + fmt::Debug + use<> {
        (self.network.prefix_len(), self.protocol != Protocol::Any, Reverse(self.ports.count()))
    }
}

impl fmt::Display for Service {
    /// `203.0.113.10:443/tcp`, `[2001:db8::10]:443/tcp`, `203.0.113.0/28:any/udp`, `[2001:db8::/64]:8000-8100/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, ports, protocol } = self;
        match network {
            IpNet::V4(_) => write!(f, "{}:{ports}/{protocol}", shown_network(*network)),
            IpNet::V6(_) => write!(f, "[{}]:{ports}/{protocol}", shown_network(*network)),
        }
    }
}

/// Reads a VIP's addresses: an IP address, or a prefix.
///
/// # Errors
/// The text is neither, or the prefix has host bits set.
pub fn parse_network(text: &str) -> Result<IpNet, BadValue> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    match text.parse::<IpNet>().or_else(|_| address()) {
        Ok(network) if network.trunc() == network => Ok(network),
        Ok(network) => Err(BadValue(format!("{network} has host bits set; write {}", network.trunc()))),
        Err(_) => Err(BadValue(format!(
            "{} is not an IP address or prefix; expected one such as 203.0.113.10, 2001:db8::10 or 203.0.113.0/28",
            shown(text)
        ))),
    }
}

/// The addresses of a VIP as they are written: one address without its length.
pub fn shown_network(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() { network.addr().to_string() } else { network.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_show_what_they_take() {
        for (address, ports, protocol, shown) in [
            ("203.0.113.10", "443", "tcp", "203.0.113.10:443/tcp"),
            ("2001:db8::10", "443", "tcp", "[2001:db8::10]:443/tcp"),
            ("2001:db8::10", "any", "tcp", "[2001:db8::10]:any/tcp"),
            ("203.0.113.10/32", "80-80", "sctp", "203.0.113.10:80/sctp"),
            ("203.0.113.0/28", "8000-8100", "udplite", "203.0.113.0/28:8000-8100/udplite"),
            ("2001:db8::/64", "any", "any", "[2001:db8::/64]:any/any"),
        ] {
            assert_eq!(Service::parse(address, ports, protocol).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_service_is_refused_with_what_is_allowed() {
        for (address, ports, protocol, line) in [
            ("203.0.113", "1", "tcp", "203.0.113 is not an IP address or prefix; expected one such as 203.0.113.10"),
            ("203.0.113.5/28", "1", "tcp", "203.0.113.5/28 has host bits set; write 203.0.113.0/28"),
            ("2001:db8::1/64", "1", "tcp", "2001:db8::1/64 has host bits set; write 2001:db8::/64"),
            ("::1", "0", "tcp", "0 is not a port; allowed: 1 to 65535, a range such as 8000-8100, or any"),
            ("::1", "80-", "tcp", "80- is not a port; allowed"),
            ("::1", "+80", "tcp", "+80 is not a port; allowed"),
            ("::1", "1-65536", "tcp", "1-65536 is not a port; allowed"),
            ("::1", "90-80", "tcp", "90-80 ends before it begins; write 80-90"),
            ("::1", "1", "icmp", "icmp is not a protocol; allowed: tcp, udp, sctp, udplite, esp, gre, any"),
        ] {
            let refused = Service::parse(address, ports, protocol).unwrap_err().to_string();
            assert!(refused.starts_with(line), "{refused}");
        }
    }
}
