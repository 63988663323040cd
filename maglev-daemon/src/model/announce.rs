//! What a VIP says of how routers are told of it. It must not know BGP, nor whether they are.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::{BadValue, Community, Vip, shown};

/// How a VIP is announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announce {
    /// By which prefix.
    pub by: AnnounceBy,
    /// Communities of the prefix.
    pub communities: BTreeSet<Community>,
}

/// By which prefix a VIP is announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnnounceBy {
    /// Its own address: a /32 or /128.
    #[default]
    Address,
    /// A prefix that it shares with others.
    Prefix(IpNet),
    /// Not at all.
    Nothing,
}

impl Vip {
    /// The prefix by which it is announced.
    pub fn prefix(&self) -> Option<IpNet> {
        match self.announce.by {
            AnnounceBy::Address => Some(IpNet::from(self.service.address)),
            AnnounceBy::Prefix(prefix) => Some(prefix),
            AnnounceBy::Nothing => None,
        }
    }

    /// Whether the prefix is one that holds the address.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn check_prefix(&self) -> Result<(), BadValue> {
        let address: IpAddr = self.service.address;
        match self.announce.by {
            AnnounceBy::Prefix(prefix) if !prefix.contains(&address) => Err(BadValue(format!(
                "VIP {}: {address} is outside {prefix}, by which it is to be announced; choose a prefix that holds it",
                self.name
            ))),
            _ => Ok(()),
        }
    }
}

impl FromStr for AnnounceBy {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        /// Wider than this is no range of VIPs, but a mistake that takes the traffic of others.
        const WIDEST: u8 = 8;
        match (text, text.parse::<IpNet>()) {
            ("true", _) => Ok(Self::Address),
            ("false", _) => Ok(Self::Nothing),
            (_, Ok(prefix)) if prefix.trunc() != prefix => {
                Err(BadValue(format!("{prefix} has host bits set; write {}", prefix.trunc())))
            }
            (_, Ok(prefix)) if prefix.prefix_len() >= WIDEST => Ok(Self::Prefix(prefix)),
            _ => Err(BadValue(format!(
                "{} is not how a VIP is announced; allowed: true, false, or a prefix of {WIDEST} bits or more such as \
                 203.0.113.0/24",
                shown(text)
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Name, Service};

    #[test]
    fn a_vip_is_announced_by_its_address_by_a_prefix_or_not_at_all() {
        let vip = |by: &str| Vip {
            name: Name::parse("www").unwrap(),
            service: Service::parse("203.0.113.10", "443", "tcp").unwrap(),
            pool: Name::parse("web").unwrap(),
            announce: Announce { by: by.parse().unwrap(), ..Announce::default() },
        };
        let prefix = |text: &str| Some(text.parse().unwrap());
        assert_eq!(vip("true").prefix(), prefix("203.0.113.10/32"));
        assert_eq!(vip("203.0.113.0/24").prefix(), prefix("203.0.113.0/24"));
        assert_eq!(vip("false").prefix(), None);
        assert!(vip("203.0.113.0/24").check_prefix().is_ok());
        for outside in ["203.0.112.0/24", "2001:db8::/32"] {
            let line = vip(outside).check_prefix().unwrap_err().to_string();
            assert!(line.contains(&format!("VIP www: 203.0.113.10 is outside {outside}")), "{line}");
        }
        for bad in ["yes", "0.0.0.0/0", "203.0.113.10", "203.0.113.10/24", ""] {
            assert!(bad.parse::<AnnounceBy>().is_err(), "{bad}");
        }
    }
}
