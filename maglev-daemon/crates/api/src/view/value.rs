//! Addresses, ports and protocols of VIPs as JSON and text.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use ipnet::IpNet;
use maglev_model::{BadValue, Ports, parse_network, shown_network};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A VIP's addresses: one without its length, or a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub IpNet);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&shown_network(self.0))
    }
}

impl FromStr for Address {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        parse_network(text).map(Self)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&shown_network(self.0))
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A VIP's ports: a number, a range such as `8000-8100`, or `any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port(pub Ports);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Port {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        text.parse().map(Self)
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.single() {
            Some(port) => serializer.serialize_u16(port.get()),
            None => serializer.collect_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Port;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port from 1 to 65535, a range such as \"8000-8100\", or \"any\"")
            }

            fn visit_u64<E: de::Error>(self, port: u64) -> Result<Port, E> {
                let number = u16::try_from(port).ok().and_then(NonZeroU16::new);
                number
                    .map(|port| Port(Ports::one(port)))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(port), &self))
            }

            fn visit_str<E: de::Error>(self, ports: &str) -> Result<Port, E> {
                match ports.parse::<Ports>() {
                    // A number is one in JSON too.
                    Ok(ports) if ports.single().is_none() => Ok(Port(ports)),
                    Ok(_) => Err(E::invalid_value(de::Unexpected::Str(ports), &self)),
                    Err(bad) => Err(E::custom(bad)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The protocol of a VIP or a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// UDP-Lite.
    UdpLite,
    /// ESP.
    Esp,
    /// GRE.
    Gre,
    /// Every protocol.
    Any,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        maglev_model::Protocol::from(*self).fmt(f)
    }
}

impl From<maglev_model::Protocol> for Protocol {
    fn from(protocol: maglev_model::Protocol) -> Self {
        match protocol {
            maglev_model::Protocol::Tcp => Self::Tcp,
            maglev_model::Protocol::Udp => Self::Udp,
            maglev_model::Protocol::Sctp => Self::Sctp,
            maglev_model::Protocol::UdpLite => Self::UdpLite,
            maglev_model::Protocol::Esp => Self::Esp,
            maglev_model::Protocol::Gre => Self::Gre,
            maglev_model::Protocol::Any => Self::Any,
        }
    }
}

impl From<Protocol> for maglev_model::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp,
            Protocol::UdpLite => Self::UdpLite,
            Protocol::Esp => Self::Esp,
            Protocol::Gre => Self::Gre,
            Protocol::Any => Self::Any,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_ports_and_protocols_are_read_as_they_are_written() {
        type Parts = (Address, Port, Protocol);
        for json in [
            r#"["203.0.113.10",443,"tcp"]"#,
            r#"["2001:db8::10","any","udp"]"#,
            r#"["203.0.113.0/28","8000-8100","udplite"]"#,
            r#"["2001:db8::/64","any","any"]"#,
        ] {
            let read: Parts = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), json);
        }
        for (json, said) in [
            (r#"["203.0.113.1/28",443,"tcp"]"#, "203.0.113.1/28 has host bits set; write 203.0.113.0/28"),
            (r#"["203.0.113.10",0,"tcp"]"#, "expected a port from 1 to 65535, a range such as"),
            (r#"["203.0.113.10","443","tcp"]"#, "expected a port from 1 to 65535, a range such as"),
            (r#"["203.0.113.10","90-80","tcp"]"#, "90-80 ends before it begins; write 80-90"),
            (r#"["203.0.113.10",443,"icmp"]"#, "unknown variant `icmp`"),
        ] {
            let refused = serde_json::from_str::<Parts>(json).unwrap_err().to_string();
            assert!(refused.contains(said), "{refused}");
        }
    }
}
