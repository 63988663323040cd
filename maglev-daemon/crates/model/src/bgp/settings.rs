//! What an operator says of the speaker: who we are, and each neighbour. It must not know how a session goes.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use crate::{BadValue, Community, shown};

/// The port of BGP.
pub const PORT: u16 = 179;

/// How long a silent neighbour is held for alive unless told otherwise: a third of it is the pace of KEEPALIVEs.
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
    /// What a stop means.
    pub on_stop: OnStop,
    /// What is said of a prefix that is about to go, beside the community.
    pub on_drain: OnDrain,
    /// How long neighbours keep our routes while we restart; `None` is not at all. Only for a node whose packet path goes
    /// on without the daemon.
    pub graceful_restart: Option<u16>,
    /// The neighbours, by name.
    pub neighbors: Vec<Neighbor>,
}

/// What becomes of routes when the daemon is told to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStop {
    /// Neighbours are told and drop them.
    #[default]
    Withdraw,
    /// The sessions end without a word, so that neighbours keep them for the time of a graceful restart.
    Keep,
}

/// What makes routers prefer others while a node drains, if the community does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnDrain {
    /// MULTI_EXIT_DISC instead of the neighbour's.
    pub med: Option<u32>,
    /// How often our AS is said once more, beside the neighbour's times.
    pub prepend: u8,
}

/// A neighbour: a router that is told our prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its name on the command line: its address unless told otherwise.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its AS number.
    pub remote_as: u32,
    /// Our address towards it; the system chooses unless told otherwise.
    pub source: Option<IpAddr>,
    /// Where it listens, or where we listen for it if it is passive.
    pub port: u16,
    /// The key of TCP MD5 signatures (RFC 2385).
    pub password: Option<Password>,
    /// Hops to it beyond the first, for a neighbour that is not on a link of ours.
    pub multihop: Option<u8>,
    /// Only packets with the TTL of that distance count (RFC 5082).
    pub gtsm: bool,
    /// Seconds of silence after which it counts as dead: 0 is never, otherwise at least 3.
    pub hold_time: u16,
    /// Seconds between KEEPALIVEs; a third of the hold time unless told otherwise.
    pub keepalive: Option<u16>,
    /// Whether it is told IPv4 prefixes.
    pub ipv4: bool,
    /// Whether it is told IPv6 prefixes.
    pub ipv6: bool,
    /// The next hop of IPv4 prefixes, if it is not our address.
    pub next_hop: Option<IpAddr>,
    /// The next hop of IPv6 prefixes, if it is not our address.
    pub next_hop6: Option<IpAddr>,
    /// Communities on everything that is announced to it.
    pub communities: BTreeSet<Community>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// How often our AS is said once more.
    pub prepend: u8,
    /// LOCAL_PREF, within our AS.
    pub local_pref: Option<u32>,
    /// What we are to it (RFC 9234).
    pub role: Option<Role>,
    /// It dials, we listen.
    pub passive: bool,
}

impl Neighbor {
    /// A neighbour of which no more is said than it has to be.
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

/// What a speaker is to its neighbour (RFC 9234, section 4.1).
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
