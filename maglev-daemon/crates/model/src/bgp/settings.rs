//! An operator's settings of the speaker: our AS and router id, and each neighbor. It must not know how a session runs.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use crate::{BadValue, Community, shown};

/// The port of BGP.
pub const PORT: u16 = 179;

/// The default hold time: a silent neighbor counts as dead after it. KEEPALIVEs are sent at a third of it.
pub const HOLD_TIME: u16 = 9;

/// The speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bgp {
    /// Our AS number.
    pub local_as: u32,
    /// Our identifier, unique in our AS.
    pub router_id: Ipv4Addr,
    /// Communities on everything that is announced.
    pub communities: BTreeSet<Community>,
    /// What happens to prefixes when the daemon is stopped.
    pub on_stop: OnStop,
    /// The attributes of a prefix that is about to be withdrawn, beside the community.
    pub on_drain: OnDrain,
    /// How long neighbors keep our routes while we restart; `None`: not at all. Only for a node whose packet path keeps forwarding
    /// without the daemon.
    pub graceful_restart: Option<u16>,
    /// The neighbors, by name.
    pub neighbors: Vec<Neighbor>,
}

/// What happens to prefixes when the daemon is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStop {
    /// They are withdrawn.
    #[default]
    Withdraw,
    /// The sessions end without a NOTIFICATION, so that neighbors keep the prefixes for the time of a graceful restart.
    Keep,
}

/// What makes routers prefer other nodes while this one drains, if they ignore the community.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnDrain {
    /// MULTI_EXIT_DISC instead of the neighbor's.
    pub med: Option<u32>,
    /// How often our AS is prepended, in addition to the neighbor's setting.
    pub prepend: u8,
}

/// A neighbor: a router to which we announce prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its name on the command line; by default its address.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its AS number.
    pub remote_as: u32,
    /// Our address towards it; by default the system's choice.
    pub source: Option<IpAddr>,
    /// Where it listens, or where we listen for it if it is passive.
    pub port: u16,
    /// The key of TCP MD5 signatures (RFC 2385).
    pub password: Option<Password>,
    /// Hops to it beyond the first, for a neighbor that is not on a link of ours.
    pub multihop: Option<u8>,
    /// Only packets with the TTL of that distance are accepted (RFC 5082).
    pub gtsm: bool,
    /// Seconds of silence after which it counts as dead: 0 is never, otherwise at least 3.
    pub hold_time: u16,
    /// Seconds between KEEPALIVEs; by default a third of the hold time.
    pub keepalive: Option<u16>,
    /// Whether IPv4 prefixes are announced to it.
    pub ipv4: bool,
    /// Whether IPv6 prefixes are announced to it.
    pub ipv6: bool,
    /// The next hop of IPv4 prefixes, if it is not our address.
    pub next_hop: Option<IpAddr>,
    /// The next hop of IPv6 prefixes, if it is not our address.
    pub next_hop6: Option<IpAddr>,
    /// Communities on everything that is announced to it.
    pub communities: BTreeSet<Community>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// How often our AS is prepended.
    pub prepend: u8,
    /// LOCAL_PREF, within our AS.
    pub local_pref: Option<u32>,
    /// Our role towards it (RFC 9234).
    pub role: Option<Role>,
    /// The neighbor connects; we listen.
    pub passive: bool,
}

impl Neighbor {
    /// A neighbor with default settings.
    pub fn new(address: IpAddr, remote_as: u32) -> Self {
        Self {
            name: address.to_string(),
            address,
            remote_as,
            source: None,
            port: PORT,
            password: None,
            multihop: None,
            gtsm: false,
            hold_time: HOLD_TIME,
            keepalive: None,
            ipv4: true,
            ipv6: true,
            next_hop: None,
            next_hop6: None,
            communities: BTreeSet::new(),
            med: None,
            prepend: 0,
            local_pref: None,
            role: None,
            passive: false,
        }
    }

    /// The time between KEEPALIVEs if nothing shorter is agreed upon.
    pub fn pace(&self, hold_time: u16) -> Duration {
        let third = Duration::from_millis(u64::from(hold_time) * 1_000 / 3);
        self.keepalive.map_or(third, |keepalive| third.min(Duration::from_secs(keepalive.into())))
    }
}

/// A secret that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl Password {
    /// The longest key of TCP MD5 signatures.
    pub const MAX: usize = 80;

    /// A password of 1 to 80 octets.
    pub fn new(text: &str) -> Option<Self> {
        (1..=Self::MAX).contains(&text.len()).then(|| Self(text.as_bytes().to_owned()))
    }

    /// The secret itself.
    pub fn secret(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// The role of a speaker towards its neighbor (RFC 9234, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It provides transit.
    Provider,
    /// It is a route server.
    RouteServer,
    /// It is a client of a route server.
    RouteServerClient,
    /// It buys transit.
    Customer,
    /// Neither.
    Peer,
}

impl Role {
    /// All of them, in the order of their numbers.
    pub const ALL: [(Self, &str); 5] = [
        (Self::Provider, "provider"),
        (Self::RouteServer, "route-server"),
        (Self::RouteServerClient, "route-server-client"),
        (Self::Customer, "customer"),
        (Self::Peer, "peer"),
    ];

    /// Its number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The role with this number on the wire.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).map(|(role, _)| *role)
    }

    /// The role that the other side of this one must have.
    pub const fn counterpart(self) -> Self {
        match self {
            Self::Provider => Self::Customer,
            Self::Customer => Self::Provider,
            Self::RouteServer => Self::RouteServerClient,
            Self::RouteServerClient => Self::RouteServer,
            Self::Peer => Self::Peer,
        }
    }
}

impl FromStr for Role {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(role, _)| *role).ok_or_else(|| {
            let allowed = Self::ALL.map(|(_, name)| name).join(", ");
            BadValue(format!("{} is not a role; allowed: {allowed}", shown(text)))
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Self::ALL[usize::from(self.number())].1)
    }
}
