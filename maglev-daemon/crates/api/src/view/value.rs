//! Ports and protocols as JSON and text.

use std::fmt;
use std::num::NonZeroU16;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A VIP's port: a number, or `any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port(pub Option<NonZeroU16>);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(port) => port.fmt(f),
            None => f.write_str("any"),
        }
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(port) => serializer.serialize_u16(port.get()),
            None => serializer.serialize_str("any"),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Port;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port from 1 to 65535, or \"any\"")
            }

            fn visit_u64<E: de::Error>(self, port: u64) -> Result<Port, E> {
                let number = u16::try_from(port).ok().and_then(NonZeroU16::new);
                number
                    .map(|port| Port(Some(port)))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(port), &self))
            }

            fn visit_str<E: de::Error>(self, port: &str) -> Result<Port, E> {
                if port == "any" { Ok(Port(None)) } else { Err(E::invalid_value(de::Unexpected::Str(port), &self)) }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl From<maglev_model::Protocol> for Protocol {
    fn from(protocol: maglev_model::Protocol) -> Self {
        match protocol {
            maglev_model::Protocol::Tcp => Self::Tcp,
            maglev_model::Protocol::Udp => Self::Udp,
        }
    }
}

impl From<Protocol> for maglev_model::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}
