//! The conditions of a capture, as text: TCP flags.

use std::fmt;
use std::str::FromStr;

/// TCP flags that a segment has, and others that it has not: `syn,!ack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags {
    /// Those that decide: bits of the fourteenth byte of a TCP header (RFC 9293 section 3.1).
    pub mask: u8,
    /// Of them, those that are set.
    pub set: u8,
}

const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

impl FromStr for TcpFlags {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut flags = Self::default();
        for part in text.split(',') {
            let (name, is_set) = part.strip_prefix('!').map_or((part, true), |name| (name, false));
            let Some(bit) = NAMES.iter().position(|known| *known == name) else {
                let allowed = NAMES.join(", ");
                return Err(format!(
                    "unknown TCP flag {}; allowed: {allowed}, each with ! if clear",
                    crate::shown(part)
                ));
            };
            if flags.mask >> bit & 1 != 0 {
                return Err(format!("TCP flag {name} is named twice"));
            }
            flags.mask |= 1 << bit;
            flags.set |= u8::from(is_set) << bit;
        }
        Ok(flags)
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = NAMES.iter().enumerate().filter(|(bit, _)| self.mask >> bit & 1 != 0);
        for (n, (bit, name)) in named.enumerate() {
            let (comma, not) = (if n == 0 { "" } else { "," }, if self.set >> bit & 1 == 0 { "!" } else { "" });
            write!(f, "{comma}{not}{name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_written() {
        let flags: TcpFlags = "syn,!ack".parse().unwrap();
        assert_eq!((flags.mask, flags.set, flags.to_string().as_str()), (0x12, 0x02, "syn,!ack"));
        for (text, why) in [("", "unknown TCP flag"), ("SYN", "allowed: fin, syn"), ("syn,!syn", "named twice")] {
            let error = text.parse::<TcpFlags>().unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
