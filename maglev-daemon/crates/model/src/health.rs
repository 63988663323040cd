//! What is checked of a pool's backends, and what follows from it, as an operator sets it. It must not know how a check is
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

/// How many checks in a row must end alike for a backend's health to change.
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

/// What a pool says of its backends' health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolHealth {
    /// How its backends are checked; `None`: they are not.
    pub check: Option<Arc<Check>>,
    /// What is different for single backends, by name.
    pub overrides: BTreeMap<Name, Override>,
    /// Below this share of healthy backends, all are used; 0 is never.
    pub panic: Percent,
    /// How long a backend that comes back takes to reach its full weight; zero: it has it at once.
    pub slow_start: Duration,
    /// What follows once none of them answers anything.
    pub on_all_dead: OnAllDead,
}

/// What becomes of a pool's VIPs once none of its backends has answered anything for 60 s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnAllDead {
    /// They are withdrawn: other nodes may reach the backends.
    #[default]
    Withdraw,
    /// They stay announced.
    Keep,
}

/// Other checks for a pool; what is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthChange {
    /// How its backends are checked. `Some(None)`: they are not, and whatever else is said of their checks goes.
    pub check: Option<Option<Arc<Check>>>,
    /// Below which share all are used.
    pub panic: Option<Percent>,
    /// How long a backend that comes back takes to reach its full weight.
    pub slow_start: Option<Duration>,
    /// What follows once none of its backends answers anything.
    pub on_all_dead: Option<OnAllDead>,
}

/// How a backend is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked, and what must be answered.
    pub probe: Probe,
    /// How long from one check to the next: 100 ms to 1 h.
    pub interval: Duration,
    /// How long a check may last: shorter than the interval.
    pub timeout: Duration,
    /// By how much at most the next check comes early: at most half of the interval.
    pub jitter: Duration,
    /// How many checks in a row decide.
    pub hysteresis: Hysteresis,
    /// The port that is checked, if it is not the VIP's.
    pub port: Option<NonZeroU16>,
    /// The way there.
    pub via: Via,
}

/// What of a check is different for one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Override {
    /// The port.
    pub port: Option<NonZeroU16>,
    /// The path of a request.
    pub path: Option<String>,
    /// The host that a request names.
    pub host: Option<String>,
}

/// The way of a check to its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// To the backend's own address.
    Direct,
    /// To a VIP, encapsulated as the clients' packets are; to each of the pool's VIPs if none is named.
    Encap {
        /// The VIP.
        vip: Option<Name>,
    },
}

/// What is asked, and what must be answered.
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
        /// What it holds.
        payload: Vec<u8>,
        /// What the answer begins with.
        expect: Vec<u8>,
    },
    /// A query is answered.
    Dns {
        /// The name that is asked for; its addresses (A).
        query: String,
        /// The response code of the answer.
        rcode: u8,
    },
}

/// A GET request, and what must be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The path, with a query if there is one.
    pub path: String,
    /// The host it names, if that is not the address.
    pub host: Option<String>,
    /// Which status is good.
    pub status: RangeInclusive<u16>,
    /// What the body must hold.
    pub body: Option<String>,
}

/// TLS as a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The server's name, which is asked for and which its certificate must hold.
    pub name: String,
    /// Whether that is the name of the host that the request names, because no other was given.
    pub of_host: bool,
    /// Whether the certificate is verified, by the authorities that the system trusts.
    pub verify: bool,
}

/// The names of DNS response codes (RFC 1035, section 4.1.1), by number.
pub const RCODES: [&str; 6] = ["noerror", "formerr", "servfail", "nxdomain", "notimp", "refused"];

/// Whether DNS can ask for this name: labels of 1 to 63 bytes, 255 in all with their lengths (RFC 1035, section 2.3.4).
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
    /// It does not fit what the pool has.
    pub fn applied_to(&self, health: &PoolHealth) -> Result<PoolHealth, String> {
        let Self { check, panic, slow_start, on_all_dead } = self;
        let Some(check) = check.clone().unwrap_or_else(|| health.check.clone()) else {
            let key = panic.map(|_| "panic").or(slow_start.map(|_| "slow_start"));
            let key = key.or(on_all_dead.map(|_| "on_all_dead"));
            return match key {
                None => Ok(PoolHealth::default()),
                Some(key) => {
                    Err(format!("{key} is without effect where nothing is checked; give the pool a check too"))
                }
            };
        };
        let misfit = health.overrides.iter().find_map(|(name, own)| Some((name, own.misfit(&check)?)));
        if let Some((name, key)) = misfit {
            let kind = check.probe.kind();
            return Err(format!(
                "backend {name} has a {key} of its own, which is not of a {kind} check; remove that first"
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
    /// What is set: `check http every 2s, panic 50`.
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

    /// Sets what of its pool's check is different for a backend.
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
            return Err(conflict("without effect where nothing is checked; give the pool a check first".to_owned()));
        };
        if let Some(key) = own.misfit(check) {
            let kind = check.probe.kind();
            return Err(conflict(format!("check.{key} is not of a {kind} check; allowed: port")));
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

/// Reads what follows once no backend of a pool answers anything.
///
/// # Errors
/// The text is no such rule.
pub fn parse_on_all_dead(text: &str) -> Result<OnAllDead, BadValue> {
    let found = [OnAllDead::Withdraw, OnAllDead::Keep].into_iter().find(|rule| rule.as_str() == text);
    found.ok_or_else(|| BadValue(format!("{} is not a rule; allowed: withdraw, keep", shown(text))))
}

/// Reads below which share of healthy backends all are used.
///
/// # Errors
/// The text is no such share.
pub fn parse_panic(text: &str) -> Result<Percent, BadValue> {
    text.parse()
        .ok()
        .filter(|percent| *percent <= 100)
        .map(Percent)
        .ok_or_else(|| BadValue(format!("{} is not a share in percent; allowed: 0 (never) to 100", shown(text))))
}

/// Reads how long a backend that comes back takes to reach its full weight.
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
    /// What of it has no place in a check.
    pub fn misfit(&self, check: &Check) -> Option<&'static str> {
        let Self { port: _, path, host } = self;
        let of_http = matches!(check.probe, Probe::Http(_) | Probe::Https(..));
        let key = path.as_ref().map(|_| "path").or(host.as_ref().map(|_| "host"));
        key.filter(|_| !of_http)
    }

    /// A check with what is different. Another host is another server, unless the server has a name of its own.
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
