//! What is checked of a pool's backends, and what follows from it, as an operator sets it. It must not know how a check is
//! made.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::Name;

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
    /// Whether the certificate is verified, by the authorities that the system trusts.
    pub verify: bool,
}

/// The names of DNS response codes (RFC 1035, section 4.1.1), by number.
pub(crate) const RCODES: [&str; 6] = ["noerror", "formerr", "servfail", "nxdomain", "notimp", "refused"];

/// Whether DNS can ask for this name: labels of 1 to 63 bytes, 255 in all with their lengths (RFC 1035, section 2.3.4).
pub(crate) fn is_dns_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let fits = |label: &str| (1..64).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_graphic());
    name.len() + 2 <= 255 && (text == "." || name.split('.').all(fits))
}

impl Default for PoolHealth {
    fn default() -> Self {
        Self { check: None, overrides: BTreeMap::new(), panic: Percent(50), slow_start: Duration::ZERO }
    }
}

impl PoolHealth {
    /// How one of the backends is checked.
    pub fn check_of(&self, backend: &Name) -> Option<Arc<Check>> {
        let check = self.check.as_ref()?;
        Some(match self.overrides.get(backend) {
            Some(different) => Arc::new(different.of(check)),
            None => Arc::clone(check),
        })
    }
}

impl Override {
    /// A check with what is different.
    pub fn of(&self, check: &Check) -> Check {
        let Self { port, path, host } = self;
        let mut check = check.clone();
        check.port = port.or(check.port);
        if let Probe::Http(request) | Probe::Https(request, _) = &mut check.probe {
            request.path = path.clone().unwrap_or_else(|| request.path.clone());
            request.host = host.clone().or_else(|| request.host.clone());
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
