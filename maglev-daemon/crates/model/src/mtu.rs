//! The MTU of a path, as an operator names it. It must not know routes.

use std::fmt;
use std::str::FromStr;

use super::text::is_decimal;
use super::{BadValue, shown};

/// The MTU of a path in bytes, IP header included: [`Self::LEAST`] to [`Self::MOST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtu(u16);

impl Mtu {
    /// The least that a link of IPv6 has (RFC 8200 section 5).
    pub const LEAST: u16 = 1_280;
    /// The most that the packet path keeps of a path: `maglev_common::backend::PathMtu`.
    pub const MOST: u16 = 16_382;

    /// This many bytes, if they are within the bounds.
    pub fn new(bytes: u16) -> Option<Self> {
        (Self::LEAST..=Self::MOST).contains(&bytes).then_some(Self(bytes))
    }

    /// In bytes.
    pub const fn bytes(self) -> u16 {
        self.0
    }
}

impl FromStr for Mtu {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bytes = text.parse().ok().filter(|_| is_decimal(text));
        bytes.and_then(Self::new).ok_or_else(|| {
            BadValue(format!("{} is not an MTU; allowed: {} to {} bytes", shown(text), Self::LEAST, Self::MOST))
        })
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtus_are_read_within_their_bounds() {
        assert_eq!(["1280", "16382"].map(|text| text.parse::<Mtu>().map(Mtu::bytes)), [Ok(1_280), Ok(16_382)]);
        for text in ["1279", "16383", "70000", "+1400", "", "auto"] {
            let refused = text.parse::<Mtu>().unwrap_err().to_string();
            assert!(refused.ends_with("is not an MTU; allowed: 1280 to 16382 bytes"), "{refused}");
        }
    }
}
