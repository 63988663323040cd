//! BGP communities as an operator writes them: `65010:100` (RFC 1997), `65010:1:2` (large, RFC 8092), `rt:65010:100`
//! and `bandwidth:65010:1250000` (extended, RFC 4360 and RFC 10005). It must not know how routers use them.

use std::fmt;
use std::str::FromStr;

use super::{BadValue, shown};

/// A community of any of the three kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// RFC 1997: an AS number and a value of it, 16 bits each.
    Standard(u16, u16),
    /// RFC 4360, as it is sent.
    Extended([u8; 8]),
    /// RFC 8092: an AS number and two values of it.
    Large(u32, u32, u32),
}

/// Communities with names of their own: RFC 8326, RFC 7999 and RFC 1997.
const NAMED: [(&str, Community); 4] = [
    ("graceful-shutdown", Community::GRACEFUL_SHUTDOWN),
    ("blackhole", Community::Standard(65_535, 666)),
    ("no-export", Community::Standard(65_535, 65_281)),
    ("no-advertise", Community::Standard(65_535, 65_282)),
];

/// High and low type octets of the extended communities that have a name.
const ROUTE_TARGET: [u8; 2] = [0x00, 0x02];
const ROUTE_TARGET_4: [u8; 2] = [0x02, 0x02];
const ROUTE_ORIGIN: [u8; 2] = [0x00, 0x03];
const ROUTE_ORIGIN_4: [u8; 2] = [0x02, 0x03];
const BANDWIDTH: [u8; 2] = [0x40, 0x04];

impl Community {
    /// RFC 8326: prefer any other path, this one is about to be withdrawn.
    pub const GRACEFUL_SHUTDOWN: Self = Self::Standard(65_535, 0);

    /// Link bandwidth (RFC 10005): a share for weighted ECMP, in bytes a second. The AS has 16 bits there; a larger one is
    /// sent as `AS_TRANS`.
    pub fn bandwidth(asn: u32, bytes_per_second: f32) -> Self {
        const AS_TRANS: u16 = 23_456;
        let [a, b] = u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes();
        let [high, low] = BANDWIDTH;
        let [c, d, e, f] = bytes_per_second.to_be_bytes();
        Self::Extended([high, low, a, b, c, d, e, f])
    }

    /// Whether it is a link bandwidth.
    pub const fn is_bandwidth(&self) -> bool {
        let [high, low] = BANDWIDTH;
        matches!(self, Self::Extended([a, b, ..]) if *a == high && *b == low)
    }

    /// `rt` and `ro`: two octets of AS and four of value, or the other way round.
    fn from_as(two: [u8; 2], four: [u8; 2], asn: u32, value: u32) -> Option<Self> {
        if let Ok(asn) = u16::try_from(asn) {
            let ([high, low], [a, b], [c, d, e, f]) = (two, asn.to_be_bytes(), value.to_be_bytes());
            return Some(Self::Extended([high, low, a, b, c, d, e, f]));
        }
        let ([high, low], [a, b, c, d]) = (four, asn.to_be_bytes());
        let [e, f] = u16::try_from(value).ok()?.to_be_bytes();
        Some(Self::Extended([high, low, a, b, c, d, e, f]))
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some((_, named)) = NAMED.iter().find(|(name, _)| *name == text) {
            return Some(*named);
        }
        let parts: Vec<&str> = text.split(':').collect();
        match parts[..] {
            [asn, value] => Some(Self::Standard(number(asn)?, number(value)?)),
            ["rt", asn, value] => Self::from_as(ROUTE_TARGET, ROUTE_TARGET_4, number(asn)?, number(value)?),
            ["ro", asn, value] => Self::from_as(ROUTE_ORIGIN, ROUTE_ORIGIN_4, number(asn)?, number(value)?),
            ["bandwidth", asn, bytes] => Some(Self::bandwidth(number(asn)?, number::<u32>(bytes)? as f32)),
            [asn, first, second] => Some(Self::Large(number(asn)?, number(first)?, number(second)?)),
            _ => None,
        }
    }
}

/// A decimal number, digits only.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

impl FromStr for Community {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        Self::parse(text).ok_or_else(|| {
            BadValue(format!(
                "{} is not a community; allowed: such as 65010:100, 65010:1:2, rt:65010:100, ro:65010:100, \
                 bandwidth:65010:1250000, graceful-shutdown, blackhole, no-export, no-advertise",
                shown(text)
            ))
        })
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Standard(asn, value) => write!(f, "{asn}:{value}"),
            Self::Large(asn, first, second) => write!(f, "{asn}:{first}:{second}"),
            Self::Extended([high, low, a, b, c, d, e, f_]) => {
                let (two, four) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f_]));
                let (wide, narrow) = (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f_]));
                match [high, low] {
                    ROUTE_TARGET => write!(f, "rt:{two}:{four}"),
                    ROUTE_ORIGIN => write!(f, "ro:{two}:{four}"),
                    ROUTE_TARGET_4 => write!(f, "rt:{wide}:{narrow}"),
                    ROUTE_ORIGIN_4 => write!(f, "ro:{wide}:{narrow}"),
                    BANDWIDTH => write!(f, "bandwidth:{two}:{}", f32::from_bits(four)),
                    _ => write!(f, "extended:{high:02x}{low:02x}:{wide:08x}{narrow:04x}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_are_read_as_they_are_shown() {
        for text in [
            "65010:100",
            "0:0",
            "65010:1:2",
            "4200000000:0:4294967295",
            "rt:65010:100",
            "ro:1:4294967295",
            "rt:4200000000:7",
            "bandwidth:65010:1250000",
        ] {
            assert_eq!(text.parse::<Community>().map(|community| community.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("graceful-shutdown".parse(), Ok(Community::Standard(65_535, 0)));
        assert_eq!(
            "bandwidth:65010:1250000".parse(),
            Ok(Community::Extended([0x40, 4, 0xfd, 0xf2, 0x49, 0x98, 0x96, 0x80]))
        );
    }

    #[test]
    fn what_is_no_community_is_refused() {
        for text in [
            "",
            "65010",
            "65536:1",
            "1:65536",
            "-1:2",
            "+1:2",
            "1:2:3:4",
            "rt:4200000000:65536",
            "x:1",
            "1:4294967296:1",
        ] {
            let line = text.parse::<Community>().unwrap_err().to_string();
            assert!(line.contains("is not a community; allowed: such as 65010:100"), "{line}");
        }
    }
}
