//! How a pool's backends are checked, and the consequences of failures, as an operator sets them. It must not know how a check is
//! made.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;

use super::time::{WrittenDuration, parse_duration};
use super::{BadValue, Name, Refusal, Services, shown};

/// How many checks in a row must have the same result to change a backend's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hysteresis {
    /// Failures that make a healthy backend unhealthy; at least 1.
    pub fall: u32,
    /// Successes that make an unhealthy backend healthy; at least 1.
    pub rise: u32,
}

/// A part of a whole, 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

/// A pool's health settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolHealth {
    /// How its backends are checked; `None`: not checked.
    pub check: Option<Arc<Check>>,
    /// The overrides of single backends, by name.
    pub overrides: BTreeMap<Name, Override>,
    /// Below this share of healthy backends the pool fails open and uses all; 0: never.
    pub panic: Percent,
    /// How long a recovered backend takes to reach its full weight; zero: no slow start.
    pub slow_start: Duration,
    /// What happens once no backend answers.
    pub on_all_dead: OnAllDead,
}

/// What happens to a pool's VIPs once no backend has answered anything for 60 s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnAllDead {
    /// They are withdrawn: other nodes may reach the backends.
    #[default]
    Withdraw,
    /// They stay announced.
    Keep,
}

/// A change to a pool's health settings; fields that are `None` stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthChange {
    /// How its backends are checked. `Some(None)`: not checked, and all overrides are removed.
    pub check: Option<Option<Arc<Check>>>,
    /// Below which share of healthy backends the pool fails open.
    pub panic: Option<Percent>,
    /// How long a recovered backend takes to reach its full weight.
    pub slow_start: Option<Duration>,
    /// What happens once no backend answers.
    pub on_all_dead: Option<OnAllDead>,
}

/// How a backend is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The request, and the expected answer.
    pub probe: Probe,
    /// How long from one check to the next: 100 ms to 1 h.
    pub interval: Duration,
    /// How long a check may last: shorter than the interval.
    pub timeout: Duration,
    /// By how much at most the next check comes early: at most half of the interval.
    pub jitter: Duration,
    /// How many checks in a row change a backend's health.
    pub hysteresis: Hysteresis,
    /// The port that is checked, if it is not the VIP's.
    pub port: Option<NonZeroU16>,
    /// The path of its packets.
    pub via: Via,
}

/// The override of a check for one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Override {
    /// The port.
    pub port: Option<NonZeroU16>,
    /// The path of a request.
    pub path: Option<String>,
    /// The host that a request names.
    pub host: Option<String>,
}

/// The path of a check's packets to the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// To the backend's own address.
    Direct,
    /// To a VIP, encapsulated like client packets; by default to each of the pool's VIPs.
    Encap {
        /// The VIP.
        vip: Option<Name>,
    },
}

/// The request, and the expected answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A connection is accepted.
    Tcp,
    /// A request is answered.
    Http(Request),
    /// A request is answered over TLS.
    Https(Request, Tls),
    /// A datagram is answered.
    Udp {
        /// Its bytes.
        payload: Vec<u8>,
        /// The first bytes of the answer.
        expect: Vec<u8>,
    },
    /// A query is answered.
    Dns {
        /// The name to query; its addresses (A).
        query: String,
        /// The response code of the answer.
        rcode: u8,
    },
}

/// A GET request, and the expected answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The path, with a query if there is one.
    pub path: String,
    /// The host in the request, if it is not the address.
    pub host: Option<String>,
    /// The accepted status codes.
    pub status: RangeInclusive<u16>,
    /// A text that the body must contain.
    pub body: Option<String>,
}

/// TLS as a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The server's name: sent to the server (SNI), and required in its certificate.
    pub name: String,
    /// Whether the name is the host of the request, because no other was given.
    pub of_host: bool,
    /// Whether the certificate is verified against the authorities that the system trusts.
    pub verify: bool,
}

/// The names of DNS response codes (RFC 1035, section 4.1.1), by number.
pub const RCODES: [&str; 6] = ["noerror", "formerr", "servfail", "nxdomain", "notimp", "refused"];

/// Whether this name can be queried: labels of 1 to 63 bytes, 255 in all with their lengths (RFC 1035, section 2.3.4).
pub fn is_dns_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let fits = |label: &str| (1..64).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_graphic());
    name.len() + 2 <= 255 && (text == "." || name.split('.').all(fits))
}

/// The name of the server that a host names, which may have a port; an address of IPv6 stands in brackets.
pub fn server_name(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').filter(|(address, _)| address.parse::<Ipv6Addr>().is_ok())?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let digits = |port: &&str| port.bytes().all(|byte| byte.is_ascii_digit());
    let port = rest.strip_prefix(':').filter(digits).and_then(|port| port.parse::<NonZeroU16>().ok());
    ((rest.is_empty() || port.is_some()) && ServerName::try_from(name).is_ok()).then_some(name)
}

impl Default for PoolHealth {
    fn default() -> Self {
        let (slow_start, on_all_dead) = (Duration::ZERO, OnAllDead::default());
        Self { check: None, overrides: BTreeMap::new(), panic: Percent(50), slow_start, on_all_dead }
    }
}

impl PoolHealth {
    /// How one of the backends is checked.
    pub fn check_of(&self, backend: &Name) -> Option<Arc<Check>> {
        let check = self.check.as_ref()?;
        Some(match self.overrides.get(backend) {
            Some(different) => Arc::new(different.applied_to(check)),
            None => Arc::clone(check),
        })
    }
}

impl HealthChange {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A pool's health with the change made.
    ///
    /// # Errors
    /// It does not fit the pool's settings.
    pub fn applied_to(&self, health: &PoolHealth) -> Result<PoolHealth, String> {
        let Self { check, panic, slow_start, on_all_dead } = self;
        let Some(check) = check.clone().unwrap_or_else(|| health.check.clone()) else {
            let key = panic.map(|_| "panic").or(slow_start.map(|_| "slow_start"));
            let key = key.or(on_all_dead.map(|_| "on_all_dead"));
            return match key {
                None => Ok(PoolHealth::default()),
                Some(key) => Err(format!("{key} has no effect without a check; give the pool a check too")),
            };
        };
        let misfit = health.overrides.iter().find_map(|(name, own)| Some((name, own.misfit(&check)?)));
        if let Some((name, key)) = misfit {
            let kind = check.probe.kind();
            return Err(format!(
                "backend {name} has its own {key}, which is not a key of a {kind} check; remove it first"
            ));
        }
        Ok(PoolHealth {
            check: Some(check),
            overrides: health.overrides.clone(),
            panic: panic.unwrap_or(health.panic),
            slow_start: slow_start.unwrap_or(health.slow_start),
            on_all_dead: on_all_dead.unwrap_or(health.on_all_dead),
        })
    }
}

impl fmt::Display for HealthChange {
    /// The change: `check http every 2s, panic 50`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, panic, slow_start, on_all_dead } = self;
        let named = [
            check.as_ref().map(|check| match check {
                Some(check) => format!("check {} every {}", check.probe.kind(), WrittenDuration(check.interval)),
                None => "no check".to_owned(),
            }),
            panic.map(|Percent(panic)| format!("panic {panic}")),
            slow_start.map(|slow_start| format!("slow_start {}", WrittenDuration(slow_start))),
            on_all_dead.map(|rule| format!("on_all_dead {}", rule.as_str())),
        ];
        f.write_str(&named.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl Services {
    /// Sets how a pool's backends are checked.
    pub(super) fn set_health(&mut self, pool: &Name, change: &HealthChange) -> Result<(), Refusal> {
        let pool = self.pool_mut(pool)?;
        pool.health =
            change.applied_to(&pool.health).map_err(|bad| Refusal::Conflict(format!("pool {}: {bad}", pool.name)))?;
        Ok(())
    }

    /// Sets a backend's override of its pool's check.
    pub(super) fn set_override(&mut self, pool: &Name, backend: &Name, own: Option<Override>) -> Result<(), Refusal> {
        let pool = self.pool_mut(pool)?;
        if !pool.backends.contains_key(backend) {
            return Err(pool.no_backend(backend));
        }
        let Some(own) = own else {
            pool.health.overrides.remove(backend);
            return Ok(());
        };
        let conflict = |line: String| Refusal::Conflict(format!("backend {backend} of pool {}: {line}", pool.name));
        let Some(check) = &pool.health.check else {
            return Err(conflict("has no effect without a check; give the pool a check first".to_owned()));
        };
        if let Some(key) = own.misfit(check) {
            let kind = check.probe.kind();
            return Err(conflict(format!("check.{key} is not a key of a {kind} check; allowed: port")));
        }
        pool.health.overrides.insert(backend.clone(), own);
        Ok(())
    }
}

impl OnAllDead {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Withdraw => "withdraw",
            Self::Keep => "keep",
        }
    }
}

/// Reads what happens once no backend of a pool answers.
///
/// # Errors
/// The text is not such a rule.
pub fn parse_on_all_dead(text: &str) -> Result<OnAllDead, BadValue> {
    let found = [OnAllDead::Withdraw, OnAllDead::Keep].into_iter().find(|rule| rule.as_str() == text);
    found.ok_or_else(|| BadValue(format!("{} is not an action; allowed: withdraw, keep", shown(text))))
}

/// Reads the share of healthy backends below which a pool fails open.
///
/// # Errors
/// The text is not such a share.
pub fn parse_panic(text: &str) -> Result<Percent, BadValue> {
    text.parse()
        .ok()
        .filter(|percent| *percent <= 100)
        .map(Percent)
        .ok_or_else(|| BadValue(format!("{} is not a share in percent; allowed: 0 (never) to 100", shown(text))))
}

/// Reads how long a recovered backend takes to reach its full weight.
///
/// # Errors
/// The text is not a duration of at most an hour.
pub fn parse_slow_start(text: &str) -> Result<Duration, BadValue> {
    const LONGEST: Duration = Duration::from_secs(3_600);
    parse_duration(text).filter(|duration| *duration <= LONGEST).ok_or_else(|| {
        let text = shown(text);
        BadValue(format!("{text} is not a slow start; allowed: 0s to 1h, with a unit such as 500ms or 2s"))
    })
}

impl Override {
    /// The keys of an override that this kind of check does not have.
    pub fn misfit(&self, check: &Check) -> Option<&'static str> {
        let Self { port: _, path, host } = self;
        let of_http = matches!(check.probe, Probe::Http(_) | Probe::Https(..));
        let key = path.as_ref().map(|_| "path").or(host.as_ref().map(|_| "host"));
        key.filter(|_| !of_http)
    }

    /// A check with its override. Another host means another server name, unless the name was given.
    pub fn applied_to(&self, check: &Check) -> Check {
        let Self { port, path, host } = self;
        let mut check = check.clone();
        check.port = port.or(check.port);
        if let Probe::Http(request) | Probe::Https(request, _) = &mut check.probe {
            request.path = path.clone().unwrap_or_else(|| request.path.clone());
            request.host = host.clone().or_else(|| request.host.clone());
        }
        if let (Probe::Https(_, tls), Some(name)) = (&mut check.probe, host.as_deref().and_then(server_name))
            && tls.of_host
        {
            tls.name = name.to_owned();
        }
        check
    }
}

impl Default for Hysteresis {
    fn default() -> Self {
        Self { fall: 2, rise: 3 }
    }
}

impl Probe {
    /// Its kinds, as they are written.
    pub const KINDS: [&str; 5] = ["tcp", "http", "https", "udp", "dns"];

    /// The kind, as it is written.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(_) => "http",
            Self::Https(..) => "https",
            Self::Udp { .. } => "udp",
            Self::Dns { .. } => "dns",
        }
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
