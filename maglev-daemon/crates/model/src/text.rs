//! The domain's values as text: how an operator writes them, and how they are shown. It must not know which file or
//! command line the text came from.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::{AdminState, Backend, Change, Name, Pool, SettingsChange, Vip, Weight};

/// An invalid value: one line that names the value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadValue(pub String);

impl Name {
    /// The longest name, in bytes.
    pub const MAX_LENGTH: usize = 63;

    /// Reads a name.
    ///
    /// # Errors
    /// The text is empty, too long, or holds other characters than a name may.
    pub fn parse(text: &str) -> Result<Self, BadValue> {
        let starts_well = text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if starts_well && text.len() <= Self::MAX_LENGTH && text.bytes().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(BadValue(format!(
            "{} is not a name; allowed: 1 to {} of a-z A-Z 0-9 . _ -, the first a letter or digit",
            shown(text),
            Self::MAX_LENGTH
        )))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        Self::parse(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Weight {
    /// The default weight of a backend.
    pub const DEFAULT: Self = Self(100);

    /// Reads a weight, 0 to 65535.
    ///
    /// # Errors
    /// The text is not a whole number in that range.
    pub fn parse(text: &str) -> Result<Self, BadValue> {
        match text.parse() {
            Ok(weight) if is_decimal(text) => Ok(Self(weight)),
            _ => Err(BadValue(format!("{} is not a weight; allowed: 0 to 65535", shown(text)))),
        }
    }
}

impl FromStr for Weight {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        Self::parse(text)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads an IP address of either family.
///
/// # Errors
/// The text is not an address.
pub fn parse_address(text: &str) -> Result<IpAddr, BadValue> {
    text.parse().map_err(|_| {
        BadValue(format!("{} is not an IP address; expected one such as 10.0.1.11 or 2001:db8::11", shown(text)))
    })
}

/// Reads an address with its port, one end of a flow.
///
/// # Errors
/// The text is not such an address.
pub fn parse_endpoint(text: &str) -> Result<SocketAddr, BadValue> {
    text.parse().map_err(|_| {
        let expected = "expected one such as 198.51.100.7:40000 or [2001:db8::7]:40000";
        BadValue(format!("{} is not an address with a port; {expected}", shown(text)))
    })
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) served by {}", self.name, self.service, self.pool)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, address, weight, state, mtu: _ } = self;
        write!(f, "{name} ({address}) weight {weight}")?;
        if *state == AdminState::Active { Ok(()) } else { write!(f, " {state}") }
    }
}

impl fmt::Display for Pool {
    /// Its name, and its settings where they are not the default ones.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, settings, health: _, backends: _ } = self;
        let settings = SettingsChange::from_default(settings);
        if settings.is_empty() { name.fmt(f) } else { write!(f, "{name} with {settings}") }
    }
}

impl fmt::Display for Change {
    /// The order: `add backend web4 (10.0.1.14) weight 100 to pool web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddVip(vip) => write!(f, "add VIP {vip}"),
            Self::RemoveVip(name) => write!(f, "remove VIP {name}"),
            Self::SetVip { vip, change } => write!(f, "set {change} for VIP {vip}"),
            Self::AddPool(pool) => write!(f, "add pool {pool}"),
            Self::RemovePool(name) => write!(f, "remove pool {name}"),
            Self::AddBackend { pool, backend } => write!(f, "add backend {backend} to pool {pool}"),
            Self::RemoveBackend { pool, backend, force } => {
                let forced = if *force { ", forced" } else { "" };
                write!(f, "remove backend {backend} from pool {pool}{forced}")
            }
            Self::SetWeight { pool, backend, weight } => {
                write!(f, "set weight of backend {backend} of pool {pool} to {weight}")
            }
            Self::SetState { pool, backend, change } => write!(f, "{change} backend {backend} of pool {pool}"),
            Self::SetPool { pool, change, health } => {
                let between = if change.is_empty() || health.is_empty() { "" } else { ", " };
                write!(f, "set {change}{between}{health} for pool {pool}")
            }
            Self::SetCheck { pool, backend, own: Some(_) } => {
                write!(f, "set check overrides for backend {backend} of pool {pool}")
            }
            Self::SetCheck { pool, backend, own: None } => {
                write!(f, "remove check overrides of backend {backend} of pool {pool}")
            }
        }
    }
}

/// Whether the text is digits alone: `u16::from_str` would take a sign too.
pub(super) fn is_decimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Input as an error line shows it: on one line, in quotes unless it is plain, and never endlessly long.
pub fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    if !text.is_empty() && text.len() <= LONGEST && text.chars().all(plain) {
        return text.to_owned();
    }
    let cut: String = text.chars().take(LONGEST).collect();
    let dots = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{dots}")
}

/// Reads an operator's reason for an order: one line that fits into a shutdown message to neighbors.
///
/// # Errors
/// It is empty, too long, or more than a line.
pub fn parse_reason(text: &str) -> Result<String, BadValue> {
    const LONGEST: usize = 160;
    let fits = (1..=LONGEST).contains(&text.len()) && !text.contains(char::is_control) && text.trim() == text;
    fits.then(|| text.to_owned())
        .ok_or_else(|| BadValue(format!("{} is not a reason; allowed: one line of 1 to {LONGEST} bytes", shown(text))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HealthChange, PoolSettings, Ports, StateChange, UnixTime, parse_network};
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn names_are_what_a_file_and_a_shell_can_carry() {
        for good in ["a", "web1", "0", "Web_1.eu-west", &"x".repeat(63)] {
            assert_eq!(Name::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".hidden", "-flag", "_x", "a b", "a/b", "é", "a\n", &"x".repeat(64)] {
            let line = Name::parse(bad).unwrap_err().to_string();
            assert!(line.contains("is not a name") && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn weights_name_value_and_range() {
        assert_eq!(Weight::parse("65535"), Ok(Weight(65_535)));
        for bad in ["70000", "-1", "+1", "1.5", "", "x"] {
            assert!(Weight::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Weight::parse("70000").unwrap_err().to_string(), "70000 is not a weight; allowed: 0 to 65535");
    }

    #[test]
    fn a_change_is_shown_in_one_sentence() {
        let name = |text| Name::parse(text).unwrap();
        let backend = Backend {
            name: name("web4"),
            address: [10, 0, 1, 14].into(),
            weight: Weight(100),
            state: AdminState::Active,
            mtu: None,
        };
        let change = Change::AddBackend { pool: name("web"), backend };
        assert_eq!(change.to_string(), "add backend web4 (10.0.1.14) weight 100 to pool web");
        let change = Change::SetWeight { pool: name("web"), backend: name("web4"), weight: Weight(5) };
        assert_eq!(change.to_string(), "set weight of backend web4 of pool web to 5");
        let change = StateChange::Drain { now: UnixTime(1) };
        let change = Change::SetState { pool: name("web"), backend: name("web4"), change };
        assert_eq!(change.to_string(), "drain backend web4 of pool web");
        let change = SettingsChange { learning: Some(Duration::from_secs(30)), ..SettingsChange::default() };
        let settings = change.applied_to(&PoolSettings::default());
        assert_eq!(
            Change::SetPool { pool: name("web"), change, health: HealthChange::default() }.to_string(),
            "set learning 30s for pool web"
        );
        let pool = Pool { settings, ..Pool::new(name("web")) };
        assert_eq!(Change::AddPool(pool).to_string(), "add pool web with learning 30s");
    }

    proptest! {
        #[test]
        fn whatever_is_refused_is_refused_in_one_short_line(text in ".{0,300}") {
            for error in [Name::parse(&text).err(), Weight::parse(&text).err(), text.parse::<Ports>().err(), parse_network(&text).err()].into_iter().flatten() {
                let line = error.to_string();
                prop_assert!(!line.contains('\n') && line.chars().count() < 1_100);
            }
        }
    }
}
