//! By what the flows of a VIP find their slots. It must not know how a packet is hashed.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

use super::text::is_decimal;
use super::{BadValue, Vip, shown};

/// By what the flows of a VIP find their slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// Addresses, ports and protocol: each connection on its own.
    #[default]
    FiveTuple,
    /// The source address: all connections of a client go to one backend.
    Source,
    /// As many of the source address's first bits, at least 1: likewise those of a network.
    Prefix(u8),
}

impl Affinity {
    const EXPECTED: &str = "allowed: 5-tuple, source, or source and a prefix length such as source/24";

    /// The bits of a source address that count, for a VIP of these addresses; 0 if all that identifies a flow does.
    pub fn source_bits(self, network: IpNet) -> u8 {
        match self {
            Self::FiveTuple => 0,
            Self::Source => network.max_prefix_len(),
            Self::Prefix(length) => length,
        }
    }
}

impl Vip {
    /// Whether the packet path finds it by a key of its own: one address, one port, and each connection on its own. Any other is one of
    /// the rules of its address.
    pub fn has_key(&self) -> bool {
        self.service.is_single() && self.affinity == Affinity::FiveTuple
    }

    /// Whether a source address has as many bits as its affinity says.
    pub(super) fn check_affinity(&self) -> Result<(), BadValue> {
        let Self { name, affinity, .. } = self;
        let longest = self.service.network.max_prefix_len();
        match affinity {
            Affinity::Prefix(length) if *length > longest => Err(BadValue(format!(
                "VIP {name}: affinity {affinity} is longer than an address of its family; allowed: source/1 to source/{longest}"
            ))),
            _ => Ok(()),
        }
    }
}

impl FromStr for Affinity {
    type Err = BadValue;

    /// Reads `5-tuple`, `source` or `source/1` to `source/128`.
    fn from_str(text: &str) -> Result<Self, BadValue> {
        let refused = || BadValue(format!("{} is not an affinity; {}", shown(text), Self::EXPECTED));
        match text {
            "5-tuple" => Ok(Self::FiveTuple),
            "source" => Ok(Self::Source),
            _ => {
                let length = text.strip_prefix("source/").filter(|length| is_decimal(length)).ok_or_else(refused)?;
                match length.parse() {
                    Ok(length @ 1..=128) => Ok(Self::Prefix(length)),
                    _ => Err(BadValue(format!("{} is not a prefix length; allowed: 1 to 128", shown(length)))),
                }
            }
        }
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FiveTuple => f.pad("5-tuple"),
            Self::Source => f.pad("source"),
            Self::Prefix(length) => f.pad(&format!("source/{length}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinities_are_read_as_they_are_shown() {
        for affinity in [Affinity::FiveTuple, Affinity::Source, Affinity::Prefix(1), Affinity::Prefix(128)] {
            assert_eq!(affinity.to_string().parse(), Ok(affinity));
        }
        for (text, line) in [
            ("client", "client is not an affinity; allowed: 5-tuple, source, or source and a prefix length"),
            ("source/", r#""" is not a prefix length; allowed: 1 to 128"#),
            ("source/+1", "source/+1 is not an affinity"),
            ("source/0", "0 is not a prefix length; allowed: 1 to 128"),
            ("source/129", "129 is not a prefix length; allowed: 1 to 128"),
            ("source/999", "999 is not a prefix length; allowed: 1 to 128"),
        ] {
            let refused = text.parse::<Affinity>().unwrap_err().to_string();
            assert!(refused.starts_with(line), "{refused}");
        }
    }

    #[test]
    fn as_many_bits_count_as_the_family_has() {
        let [four, six] = ["203.0.113.10/32", "2001:db8::/64"].map(|text| text.parse::<IpNet>().unwrap());
        let bits = |network| {
            [Affinity::FiveTuple, Affinity::Source, Affinity::Prefix(24)].map(|affinity| affinity.source_bits(network))
        };
        assert_eq!((bits(four), bits(six)), ([0, 32, 24], [0, 128, 24]));
    }
}
