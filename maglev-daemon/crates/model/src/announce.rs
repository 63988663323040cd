//! How a VIP is announced. It must not know BGP, nor whether the VIP is announced now.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

use super::{BadValue, Community, Vip, shown, shown_network};

/// Communities of one list: with those of node and neighbor they must fit into a message.
pub const MAX_COMMUNITIES: usize = 32;

/// How a VIP is announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announce {
    /// By which prefix.
    pub by: AnnounceBy,
    /// Communities of the prefix.
    pub communities: BTreeSet<Community>,
}

/// A change to how a VIP is announced; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceChange {
    /// By which prefix.
    pub by: Option<AnnounceBy>,
    /// All communities of the prefix.
    pub communities: Option<BTreeSet<Community>>,
}

impl AnnounceChange {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How a VIP is announced once this is set.
    #[must_use]
    pub fn applied_to(&self, before: &Announce) -> Announce {
        let communities = self.communities.as_ref().unwrap_or(&before.communities);
        Announce { by: self.by.unwrap_or(before.by), communities: communities.clone() }
    }
}

impl fmt::Display for AnnounceChange {
    /// The change: `announce 203.0.113.0/24, communities 65010:100`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, communities } = self;
        let by = by.map(|by| format!("announce {by}"));
        let communities = communities.as_ref().map(|all| match all.is_empty() {
            true => "no communities".to_owned(),
            false => format!("communities {}", all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
        });
        f.write_str(&by.into_iter().chain(communities).collect::<Vec<_>>().join(", "))
    }
}

/// By which prefix a VIP is announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnnounceBy {
    /// Its own addresses: a /32 or /128, or its prefix.
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
            AnnounceBy::Address => Some(self.service.network),
            AnnounceBy::Prefix(prefix) => Some(prefix),
            AnnounceBy::Nothing => None,
        }
    }

    /// Whether it can be announced so.
    ///
    /// # Errors
    /// The prefix does not hold the address, or there are too many communities for a message.
    pub(super) fn check_announce(&self) -> Result<(), BadValue> {
        let (network, count) = (self.service.network, self.announce.communities.len());
        if count > MAX_COMMUNITIES {
            return Err(BadValue(format!(
                "VIP {}: {count} communities; allowed: at most {MAX_COMMUNITIES}",
                self.name
            )));
        }
        match self.announce.by {
            AnnounceBy::Prefix(prefix) if !prefix.contains(&network) => Err(BadValue(format!(
                "VIP {}: {} is outside {prefix}, by which it is to be announced; choose a prefix that holds it",
                self.name,
                shown_network(network)
            ))),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for AnnounceBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("true"),
            Self::Nothing => f.write_str("false"),
            Self::Prefix(prefix) => prefix.fmt(f),
        }
    }
}

impl FromStr for AnnounceBy {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        /// A wider prefix is no range of VIPs, but a mistake that attracts other hosts' traffic.
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
    use crate::{Name, Service};

    #[test]
    fn a_vip_is_announced_by_its_address_by_a_prefix_or_not_at_all() {
        let vip = |by: &str| Vip {
            name: Name::parse("www").unwrap(),
            service: Service::parse("203.0.113.10", "443", "tcp").unwrap(),
            pool: Name::parse("web").unwrap(),
            announce: Announce { by: by.parse().unwrap(), ..Announce::default() },
            when_empty: crate::Unserved::Drop,
            affinity: crate::Affinity::default(),
        };
        let prefix = |text: &str| Some(text.parse().unwrap());
        assert_eq!(vip("true").prefix(), prefix("203.0.113.10/32"));
        assert_eq!(vip("203.0.113.0/24").prefix(), prefix("203.0.113.0/24"));
        assert_eq!(vip("false").prefix(), None);
        assert!(vip("203.0.113.0/24").check_announce().is_ok());
        for outside in ["203.0.112.0/24", "2001:db8::/32"] {
            let line = vip(outside).check_announce().unwrap_err().to_string();
            assert!(line.contains(&format!("VIP www: 203.0.113.10 is outside {outside}")), "{line}");
        }
        let wide = Vip { service: Service::parse("203.0.113.0/28", "any", "any").unwrap(), ..vip("true") };
        assert_eq!(wide.prefix(), prefix("203.0.113.0/28"));
        let part = Vip { announce: Announce { by: "203.0.113.0/29".parse().unwrap(), ..Announce::default() }, ..wide };
        let line = part.check_announce().unwrap_err().to_string();
        assert!(line.contains("VIP www: 203.0.113.0/28 is outside 203.0.113.0/29"), "{line}");
        for bad in ["yes", "0.0.0.0/0", "203.0.113.10", "203.0.113.10/24", ""] {
            assert!(bad.parse::<AnnounceBy>().is_err(), "{bad}");
        }
    }
}

#[cfg(test)]
mod faults {
    use super::*;
    use crate::{Change, HealthChange, Name, Pool, Refusal, Rules, Service, Services, SettingsChange};
    use maglev_testing::matrix::Row;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    /// A pool with a VIP.
    fn services() -> Services {
        let mut services = Services::default();
        let service = Service::parse("203.0.113.10", "443", "tcp").unwrap();
        let vip = Vip {
            name: name("www"),
            service,
            pool: name("web"),
            announce: Announce::default(),
            when_empty: crate::Unserved::Drop,
            affinity: crate::Affinity::default(),
        };
        for change in [Change::AddPool(Pool::new(name("web"))), Change::AddVip(vip)] {
            services.admit(change, &Rules::default()).unwrap();
        }
        services
    }

    fn set(services: &mut Services, by: Option<&str>, communities: Option<usize>) -> Result<String, Refusal> {
        let by = by.map(|text| text.parse().unwrap());
        let community = |n| Community::Standard(65_010, u16::try_from(n).unwrap());
        let change = AnnounceChange { by, communities: communities.map(|count| (0..count).map(community).collect()) };
        let change = Change::SetVip { vip: name("www"), change: change.into() };
        let said = change.to_string();
        services.admit(change, &Rules::default()).map(|()| said)
    }

    #[test]
    fn what_is_set_holds_up_to_the_limits() {
        let _row = Row::fault("R9", "announce, communities and min_healthy are set, at their limits");
        let mut services = services();
        let said = set(&mut services, Some("203.0.113.0/24"), Some(1)).unwrap();
        assert_eq!(said, "set announce 203.0.113.0/24, communities 65010:0 for VIP www");
        let least = maglev_common::maps::MAX_MEMBERS;
        for (by, communities, min_healthy) in
            [(None, Some(MAX_COMMUNITIES), 0), (Some("false"), None, least), (Some("true"), Some(0), 2)]
        {
            set(&mut services, by, communities).unwrap();
            let change = SettingsChange { min_healthy: Some(min_healthy), ..SettingsChange::default() };
            let change = Change::SetPool { pool: name("web"), change, health: HealthChange::default() };
            services.admit(change, &Rules::default()).unwrap();
        }
        assert_eq!(
            (services.vips[&name("www")].announce.clone(), services.pools[&name("web")].settings.min_healthy),
            (Announce::default(), 2)
        );
    }

    #[test]
    fn what_cannot_be_set_is_refused_with_what_is_allowed() {
        let _row = Row::fault(
            "R9",
            "a prefix without the address, too many communities, nothing and an unknown VIP are refused",
        );
        let mut services = services();
        let before = services.clone();
        let outside = set(&mut services, Some("198.51.100.0/24"), None).unwrap_err().to_string();
        assert!(outside.contains("203.0.113.10 is outside 198.51.100.0/24"), "{outside}");
        let many = set(&mut services, None, Some(MAX_COMMUNITIES + 1)).unwrap_err().to_string();
        assert_eq!(many, "VIP www: 33 communities; allowed: at most 32");
        let nothing = set(&mut services, None, None).unwrap_err().to_string();
        assert_eq!(nothing, "nothing to set; allowed: announce, communities, when_empty, affinity");
        let change = AnnounceChange { by: Some(AnnounceBy::Nothing), communities: None };
        let unknown =
            services.admit(Change::SetVip { vip: name("dns"), change: change.into() }, &Rules::default()).unwrap_err();
        assert!(unknown.to_string().contains("dns") && unknown.to_string().contains("www"), "{unknown}");
        let change =
            SettingsChange { min_healthy: Some(maglev_common::maps::MAX_MEMBERS + 1), ..SettingsChange::default() };
        let change = Change::SetPool { pool: name("web"), change, health: HealthChange::default() };
        let refused = services.admit(change, &Rules::default()).unwrap_err().to_string();
        assert!(refused.contains("allowed: 0 (announce whatever happens) to 32767"), "{refused}");
        assert_eq!(services, before);
    }
}
