//! How packets are sent to a pool's backends and how it keeps connections while they change, and changes to that. It must not know
//! how that is done.

use std::fmt;
use std::time::Duration;

use maglev_common::encap::EncapKind;
use maglev_common::settings::{Tracking, UdpPolicy};

use super::time::{Range, WrittenDuration};
use super::{BadValue, Name, Refusal, Services, shown};

/// How packets are sent to a pool's backends, and how it keeps connections while they change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// For which packets the flow table is consulted.
    pub tracking: Tracking,
    /// How the flows of a slot move to a new owner.
    pub transition: TransitionSettings,
    /// Backends that must be able to serve for its VIPs to be announced.
    pub min_healthy: u32,
    /// How packets for its backends are encapsulated.
    pub encap: EncapKind,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            tracking: Tracking::default(),
            transition: TransitionSettings::default(),
            min_healthy: 1,
            encap: EncapKind::default(),
        }
    }
}

/// How the flows of a slot move to a new owner while the old one is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransitionSettings {
    /// How long flows of the previous owner are learned: 1 s to 1 h, in whole seconds, not beyond `idle`.
    pub learning: Duration,
    /// How long a silent flow is remembered: 10 s to 4 h, in whole seconds.
    pub idle: Duration,
    /// The owner of an unknown flow that is not TCP while its slot is learning: its first packet cannot be distinguished from a
    /// later one.
    pub udp: UdpPolicy,
}

/// A change to a pool's settings; fields that are `None` stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SettingsChange {
    /// For which packets the flow table is consulted.
    pub tracking: Option<Tracking>,
    /// How long flows of the previous owner are learned.
    pub learning: Option<Duration>,
    /// How long a silent flow is remembered.
    pub idle: Option<Duration>,
    /// The owner of an unknown flow that is not TCP.
    pub udp: Option<UdpPolicy>,
    /// How many backends must be healthy for the pool's VIPs to be announced.
    pub min_healthy: Option<u32>,
    /// How packets for its backends are encapsulated.
    pub encap: Option<EncapKind>,
}

const LEARNING: Range =
    Range { what: "a learning time", least: Duration::from_secs(1), most: Duration::from_secs(3_600) };
const IDLE: Range =
    Range { what: "an idle time", least: Duration::from_secs(10), most: Duration::from_secs(4 * 3_600) };

impl Default for TransitionSettings {
    fn default() -> Self {
        Self { learning: Duration::from_secs(120), idle: Duration::from_secs(15 * 60), udp: UdpPolicy::default() }
    }
}

impl TransitionSettings {
    /// Whether the values are allowed, each alone and together.
    ///
    /// # Errors
    /// The first value that is not.
    pub fn check(&self) -> Result<(), BadValue> {
        let Self { learning, idle, udp: _ } = self;
        LEARNING.check(*learning)?;
        IDLE.check(*idle)?;
        if learning > idle {
            let (learning, idle) = (WrittenDuration(*learning), WrittenDuration(*idle));
            return Err(BadValue(format!(
                "learning {learning} is longer than idle {idle}; allowed: at most the idle time"
            )));
        }
        Ok(())
    }
}

impl SettingsChange {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The change from the defaults to these settings.
    pub fn from_default(settings: &PoolSettings) -> Self {
        let PoolSettings { tracking, transition: TransitionSettings { learning, idle, udp }, min_healthy, encap } =
            *settings;
        let PoolSettings { transition: default, min_healthy: least, .. } = PoolSettings::default();
        Self {
            tracking: Some(tracking).filter(|&tracking| tracking != Tracking::default()),
            learning: Some(learning).filter(|&learning| learning != default.learning),
            idle: Some(idle).filter(|&idle| idle != default.idle),
            udp: Some(udp).filter(|&udp| udp != default.udp),
            min_healthy: Some(min_healthy).filter(|&number| number != least),
            encap: Some(encap).filter(|&encap| encap != EncapKind::default()),
        }
    }

    /// These settings with the change made.
    pub fn applied_to(&self, settings: &PoolSettings) -> PoolSettings {
        let PoolSettings { tracking, transition: TransitionSettings { learning, idle, udp }, min_healthy, encap } =
            *settings;
        let transition = TransitionSettings {
            learning: self.learning.unwrap_or(learning),
            idle: self.idle.unwrap_or(idle),
            udp: self.udp.unwrap_or(udp),
        };
        PoolSettings {
            tracking: self.tracking.unwrap_or(tracking),
            transition,
            min_healthy: self.min_healthy.unwrap_or(min_healthy),
            encap: self.encap.unwrap_or(encap),
        }
    }
}

impl Services {
    /// Applies a change. Whether learning and idle time agree may depend on the pool's settings.
    pub(super) fn set_settings(&mut self, pool: &Name, change: &SettingsChange) -> Result<(), Refusal> {
        let SettingsChange { tracking: _, learning, idle, udp: _, min_healthy, encap: _ } = change;
        min_healthy.map_or(Ok(()), |number| parse_min_healthy(&number.to_string()).map(drop))?;
        learning.map_or(Ok(()), |learning| LEARNING.check(learning))?;
        idle.map_or(Ok(()), |idle| IDLE.check(idle))?;
        let pool = self.pool_mut(pool)?;
        let settings = change.applied_to(&pool.settings);
        settings.transition.check().map_err(|bad| match (learning, idle) {
            (Some(_), Some(_)) => Refusal::from(bad),
            _ => Refusal::Conflict(format!("pool {}: {bad}", pool.name)),
        })?;
        pool.settings = settings;
        Ok(())
    }
}

/// Reads a tracking mode.
///
/// # Errors
/// The text is not a tracking mode.
pub fn parse_tracking(text: &str) -> Result<Tracking, BadValue> {
    let found = [Tracking::Exception, Tracking::Always].into_iter().find(|tracking| tracking_word(*tracking) == text);
    found.ok_or_else(|| BadValue(format!("{} is not a tracking mode; allowed: exception, always", shown(text))))
}

/// The word for a tracking mode.
pub const fn tracking_word(tracking: Tracking) -> &'static str {
    match tracking {
        Tracking::Exception => "exception",
        Tracking::Always => "always",
    }
}

/// Reads a policy for UDP.
///
/// # Errors
/// The text is not such a policy.
pub fn parse_udp(text: &str) -> Result<UdpPolicy, BadValue> {
    let found = [UdpPolicy::New, UdpPolicy::Keep].into_iter().find(|policy| udp_word(*policy) == text);
    found.ok_or_else(|| BadValue(format!("{} is not a policy for UDP; allowed: new, keep", shown(text))))
}

/// The word for a policy for UDP.
pub const fn udp_word(policy: UdpPolicy) -> &'static str {
    match policy {
        UdpPolicy::New => "new",
        UdpPolicy::Keep => "keep",
    }
}

/// Reads an encapsulation.
///
/// # Errors
/// The text is not an encapsulation.
pub fn parse_encap(text: &str) -> Result<EncapKind, BadValue> {
    let found = [EncapKind::IpIp, EncapKind::Gue].into_iter().find(|kind| encap_word(*kind) == text);
    found.ok_or_else(|| BadValue(format!("{} is not an encapsulation; allowed: ipip, gue", shown(text))))
}

/// The word for an encapsulation.
pub const fn encap_word(kind: EncapKind) -> &'static str {
    match kind {
        EncapKind::IpIp => "ipip",
        EncapKind::Gue => "gue",
    }
}

/// Reads how many backends must be able to serve.
///
/// # Errors
/// The text is not such a number.
pub fn parse_min_healthy(text: &str) -> Result<u32, BadValue> {
    let most = maglev_common::maps::MAX_MEMBERS;
    text.parse().ok().filter(|number| *number <= most).ok_or_else(|| {
        BadValue(format!(
            "{} is not a number of backends; allowed: 0 (announce whatever happens) to {most}",
            shown(text)
        ))
    })
}

/// Reads a learning time, 1 s to 1 h.
///
/// # Errors
/// The text is not a duration in that range.
pub fn parse_learning(text: &str) -> Result<Duration, BadValue> {
    LEARNING.parse(text)
}

/// Reads an idle time, 10 s to 4 h.
///
/// # Errors
/// The text is not a duration in that range.
pub fn parse_idle(text: &str) -> Result<Duration, BadValue> {
    IDLE.parse(text)
}

impl fmt::Display for SettingsChange {
    /// The change: `tracking always, learning 30s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tracking, learning, idle, udp, min_healthy, encap } = self;
        let named = [
            tracking.map(|tracking| format!("tracking {}", tracking_word(tracking))),
            learning.map(|learning| format!("learning {}", WrittenDuration(learning))),
            idle.map(|idle| format!("idle {}", WrittenDuration(idle))),
            udp.map(|udp| format!("udp {}", udp_word(udp))),
            min_healthy.map(|number| format!("min_healthy {number}")),
            encap.map(|encap| format!("encap {}", encap_word(encap))),
        ];
        f.write_str(&named.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, HealthChange, Pool, Rules};

    const SECOND: Duration = Duration::from_secs(1);

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn transition(learning: u32, idle: u32) -> TransitionSettings {
        TransitionSettings { learning: SECOND * learning, idle: SECOND * idle, ..TransitionSettings::default() }
    }

    fn pool(transition: TransitionSettings) -> Result<Services, Refusal> {
        let settings = PoolSettings { transition, ..PoolSettings::default() };
        Services::default().apply(&Change::AddPool(Pool { settings, ..Pool::new(name("web")) }), &Rules::default())
    }

    fn set(services: &Services, change: SettingsChange) -> Result<PoolSettings, Refusal> {
        let next = services.apply(
            &Change::SetPool { pool: name("web"), change, health: HealthChange::default() },
            &Rules::default(),
        )?;
        Ok(next.pools[&name("web")].settings)
    }

    #[test]
    fn durations_out_of_range_are_named_with_what_is_allowed() {
        let rows = [
            ("0s", "a learning time; allowed: 1s to 1h, whole seconds with a unit such as 90s or 5m"),
            ("8760h", "a learning time; allowed: 1s to 1h, whole seconds with a unit such as 90s or 5m"),
            ("1500ms", "a learning time; allowed: 1s to 1h, whole seconds with a unit such as 90s or 5m"),
            ("120", "a learning time; allowed: 1s to 1h, whole seconds with a unit such as 90s or 5m"),
        ];
        for (text, rest) in rows {
            assert_eq!(parse_learning(text).unwrap_err().to_string(), format!("{text} is not {rest}"));
        }
        let line = "5s is not an idle time; allowed: 10s to 4h, whole seconds with a unit such as 90s or 5m";
        assert_eq!(parse_idle("5s").unwrap_err().to_string(), line);
        assert_eq!(
            ["1s", "1h", "60000ms"].map(|text| parse_learning(text).ok()),
            [1, 3_600, 60].map(|n| Some(SECOND * n))
        );
        assert_eq!(["10s", "4h"].map(|text| parse_idle(text).ok()), [10, 14_400].map(|n| Some(SECOND * n)));
    }

    #[test]
    fn a_pool_with_impossible_settings_is_not_added() {
        for (wrong, line) in [
            (transition(0, 900), "0s is not a learning time"),
            (transition(3_601, 7_200), "3601s is not a learning time"),
            (transition(1, 9), "9s is not an idle time"),
            (transition(1, 14_401), "14401s is not an idle time"),
            (transition(60, 59), "learning 1m is longer than idle 59s; allowed: at most the idle time"),
            (TransitionSettings { learning: SECOND * 3 / 2, ..transition(1, 10) }, "1500ms is not a learning time"),
        ] {
            let refused = pool(wrong).unwrap_err();
            assert!(matches!(&refused, Refusal::Invalid(text) if text.starts_with(line)), "{refused}");
        }
        assert!(pool(transition(60, 60)).is_ok());
    }

    #[test]
    fn a_change_applies_and_the_rest_stays() {
        let services = pool(transition(30, 600)).unwrap();
        let change = SettingsChange {
            tracking: Some(Tracking::Always),
            udp: Some(UdpPolicy::Keep),
            encap: Some(EncapKind::Gue),
            ..SettingsChange::default()
        };
        let expected = TransitionSettings { udp: UdpPolicy::Keep, ..transition(30, 600) };
        let expected =
            PoolSettings { tracking: Tracking::Always, transition: expected, min_healthy: 1, encap: EncapKind::Gue };
        assert_eq!(set(&services, change), Ok(expected));
        let change = SettingsChange { learning: Some(SECOND), idle: Some(SECOND * 10), ..SettingsChange::default() };
        assert_eq!(set(&services, change).unwrap().transition, transition(1, 10));
        assert_eq!(SettingsChange::from_default(&expected).applied_to(&PoolSettings::default()), expected);
        assert!(SettingsChange::from_default(&PoolSettings::default()).is_empty());
    }

    #[test]
    fn invalid_settings_are_reported() {
        let services = pool(transition(30, 600)).unwrap();
        let none = SettingsChange::default();
        let conflict = |line: &str| Err(Refusal::Conflict(line.to_owned()));
        let invalid = |line: &str| Err(Refusal::Invalid(line.to_owned()));
        let longer = SettingsChange { learning: Some(SECOND * 601), ..none };
        let line = "learning 601s is longer than idle 10m; allowed: at most the idle time";
        assert_eq!(set(&services, longer), conflict(&format!("pool web: {line}")));
        let both = SettingsChange { idle: Some(SECOND * 600), ..longer };
        assert_eq!(set(&services, both), invalid(line), "whatever the pool has");
        assert_eq!(
            set(&services, none),
            invalid(
                "nothing to set; allowed: tracking, learning, idle, udp, min_healthy, encap, check, panic, slow_start, on_all_dead"
            )
        );
        assert_eq!(set(&Services::default(), longer), conflict("unknown pool web; known: none"));
    }

    #[test]
    fn words_are_read_as_they_are_shown() {
        for tracking in [Tracking::Exception, Tracking::Always] {
            assert_eq!(parse_tracking(tracking_word(tracking)), Ok(tracking));
        }
        for policy in [UdpPolicy::New, UdpPolicy::Keep] {
            assert_eq!(parse_udp(udp_word(policy)), Ok(policy));
        }
        for kind in [EncapKind::IpIp, EncapKind::Gue] {
            assert_eq!(parse_encap(encap_word(kind)), Ok(kind));
        }
        assert_eq!(
            parse_encap("geneve").unwrap_err().to_string(),
            "geneve is not an encapsulation; allowed: ipip, gue"
        );
        let refused = parse_tracking("affinity").unwrap_err().to_string();
        assert_eq!(refused, "affinity is not a tracking mode; allowed: exception, always");
        assert_eq!(parse_udp("old").unwrap_err().to_string(), "old is not a policy for UDP; allowed: new, keep");
    }
}
