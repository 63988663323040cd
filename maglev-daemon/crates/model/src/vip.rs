//! The settings of a VIP, how a node handles packets to its address, and changes to these. It must not know how either is carried out.

use std::fmt;

use maglev_common::settings::{Echo, Unserved};

use super::places::{self, Places};
use super::{Affinity, AnnounceChange, BadValue, Name, Refusal, Services, Vip, shown};

/// How a node handles packets to VIPs' addresses that no VIP takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketSettings {
    /// The handling of packets for ports that no VIP has.
    pub unknown_port: Unserved,
    /// Which echo requests are answered.
    pub echo: Echo,
}

/// A change to a VIP; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VipChange {
    /// How it is announced.
    pub announce: AnnounceChange,
    /// The handling of its packets while its pool has no backend.
    pub when_empty: Option<Unserved>,
    /// By what its flows find their slots.
    pub affinity: Option<Affinity>,
}

impl VipChange {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A VIP once this is set.
    #[must_use]
    pub fn applied_to(&self, before: &Vip) -> Vip {
        Vip {
            announce: self.announce.applied_to(&before.announce),
            when_empty: self.when_empty.unwrap_or(before.when_empty),
            affinity: self.affinity.unwrap_or(before.affinity),
            ..before.clone()
        }
    }
}

impl From<AnnounceChange> for VipChange {
    fn from(announce: AnnounceChange) -> Self {
        Self { announce, ..Self::default() }
    }
}

impl fmt::Display for VipChange {
    /// The change: `announce 203.0.113.0/24, when_empty reset, affinity source`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { announce, when_empty, affinity } = self;
        let announce = Some(announce).filter(|change| !change.is_empty()).map(ToString::to_string);
        let when_empty = when_empty.map(|unserved| format!("when_empty {}", unserved_word(unserved)));
        let affinity = affinity.map(|affinity| format!("affinity {affinity}"));
        f.write_str(&announce.into_iter().chain(when_empty).chain(affinity).collect::<Vec<_>>().join(", "))
    }
}

impl Services {
    pub(super) fn set_vip(&mut self, name: &Name, change: &VipChange) -> Result<(), Refusal> {
        if change.is_empty() {
            return Err(Refusal::Invalid(
                "nothing to set; allowed: announce, communities, when_empty, affinity".to_owned(),
            ));
        }
        let before = self.vips.get(name).ok_or_else(|| self.no_vip(name))?;
        let vip = change.applied_to(before);
        vip.check_announce()?;
        vip.check_affinity()?;
        if before.has_key() && !vip.has_key() {
            let others = || self.vips.values().filter(|other| other.name != vip.name);
            if let Some(clash) = others().collect::<Places>().clash(&vip) {
                return Err(places::refusal(&vip, &clash, others()));
            }
        }
        self.vips.insert(name.clone(), vip);
        Ok(())
    }
}

/// Reads the handling of packets that no backend can be given.
///
/// # Errors
/// The text is no such rule.
pub fn parse_unserved(text: &str) -> Result<Unserved, BadValue> {
    let found = [Unserved::Drop, Unserved::Reset].into_iter().find(|unserved| unserved_word(*unserved) == text);
    found.ok_or_else(|| {
        BadValue(format!("{} is not a rule for packets without a backend; allowed: drop, reset", shown(text)))
    })
}

/// The word for the handling of packets that no backend can be given.
pub const fn unserved_word(unserved: Unserved) -> &'static str {
    match unserved {
        Unserved::Drop => "drop",
        Unserved::Reset => "reset",
    }
}

/// Reads which echo requests are answered.
///
/// # Errors
/// The text is no such rule.
pub fn parse_echo(text: &str) -> Result<Echo, BadValue> {
    match text {
        "always" => Ok(Echo::Always),
        "serving" => Ok(Echo::Serving),
        "off" => Ok(Echo::Off),
        _ => Err(BadValue(format!("{} is not a rule for echo requests; allowed: always, serving, off", shown(text)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Announce, AnnounceBy, Change, Pool, Rules, Service};

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn services() -> Services {
        let mut services = Services::default();
        let service = Service::parse("203.0.113.10", "443", "tcp").unwrap();
        let (announce, when_empty, affinity) = (Announce::default(), Unserved::default(), Affinity::default());
        let vip = Vip { name: name("www"), service, pool: name("web"), announce, when_empty, affinity };
        for change in [Change::AddPool(Pool::new(name("web"))), Change::AddVip(vip)] {
            services.admit(change, &Rules::default()).unwrap();
        }
        services
    }

    #[test]
    fn a_change_is_made_and_said_and_the_rest_stays() {
        let mut services = services();
        let reset = VipChange { when_empty: Some(Unserved::Reset), ..VipChange::default() };
        let off = AnnounceChange { by: Some(AnnounceBy::Nothing), communities: None };
        for (change, said, unserved) in [
            (reset.clone(), "set when_empty reset for VIP www", Unserved::Reset),
            (off.clone().into(), "set announce false for VIP www", Unserved::Reset),
            (
                VipChange { announce: off, when_empty: Some(Unserved::Drop), affinity: Some(Affinity::Source) },
                "set announce false, when_empty drop, affinity source for VIP www",
                Unserved::Drop,
            ),
        ] {
            let change = Change::SetVip { vip: name("www"), change };
            assert_eq!(change.to_string(), said);
            services.admit(change, &Rules::default()).unwrap();
            assert_eq!(services.vips[&name("www")].when_empty, unserved);
        }
        assert_eq!(services.vips[&name("www")].announce.by, AnnounceBy::Nothing);
        assert_eq!(services.vips[&name("www")].affinity, Affinity::Source);
        let longer = VipChange { affinity: Some(Affinity::Prefix(33)), ..VipChange::default() };
        let refused = services.admit(Change::SetVip { vip: name("www"), change: longer }, &Rules::default());
        assert_eq!(
            refused.unwrap_err().to_string(),
            "VIP www: affinity source/33 is longer than an address of its family; allowed: source/1 to source/32"
        );
        let nothing = Change::SetVip { vip: name("www"), change: VipChange::default() };
        let refused = services.admit(nothing, &Rules::default()).unwrap_err().to_string();
        assert_eq!(refused, "nothing to set; allowed: announce, communities, when_empty, affinity");
        let unknown = Change::SetVip { vip: name("dns"), change: reset };
        assert!(services.admit(unknown, &Rules::default()).unwrap_err().to_string().contains("dns"));
    }

    #[test]
    fn words_are_read_as_they_are_shown() {
        for unserved in [Unserved::Drop, Unserved::Reset] {
            assert_eq!(parse_unserved(unserved_word(unserved)), Ok(unserved));
        }
        let refused = parse_unserved("refuse").unwrap_err().to_string();
        assert_eq!(refused, "refuse is not a rule for packets without a backend; allowed: drop, reset");
        assert_eq!(["always", "serving", "off"].map(parse_echo), [Echo::Always, Echo::Serving, Echo::Off].map(Ok));
        let refused = parse_echo("never").unwrap_err().to_string();
        assert_eq!(refused, "never is not a rule for echo requests; allowed: always, serving, off");
    }
}
