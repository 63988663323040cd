//! Inputs and outputs of the machine. It must not know their effects.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use maglev_model::bgp::{Cause, Neighbor, OnDrain, Route};

/// One of the two places for a connection. A dialled connection is always the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    First,
    Second,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::First, Self::Second];

    pub(super) const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// How we end sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a NOTIFICATION: the neighbor drops our prefixes.
    Cease(String),
    /// Without a NOTIFICATION: the neighbor keeps our prefixes for the time of a graceful restart.
    Silent,
    /// The neighbor is no longer configured: it drops our prefixes.
    Removed,
}

/// The settings of a neighbor that may change while its session runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Configured {
    /// The neighbor, with the communities of all.
    pub(crate) neighbor: Arc<Neighbor>,
    /// The attributes of a prefix that is about to be withdrawn.
    pub(crate) on_drain: OnDrain,
}

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    Start,
    Stop(End),
    /// End the session and begin again.
    Reset(String),
    /// Go on with these settings; begin again if the session depends on what changed.
    Configure(Configured),
    Announce(Vec<(IpNet, Arc<Route>)>),
    Withdraw(Vec<IpNet>),
    /// Everything wanted has been announced: End-of-RIB may be sent.
    Complete,
    /// The dialled connection is established; this is our address.
    Connected(IpAddr),
    /// A connection comes in: one of the others makes room for it, if there is none. See [`super::Peer::vacancy`].
    Incoming,
    /// The connection that came in has this place; this is our address.
    Accepted(Side, IpAddr),
    /// A connection failed or was closed, and why.
    Closed(Side, String),
    Bytes(Side, &'a [u8]),
    /// All messages are sent.
    Flushed(Side),
    /// Time has passed.
    Tick,
}

/// An order to the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Dial,
    /// Send this; [`Input::Flushed`] reports when it is sent.
    Send(Side, Vec<u8>),
    /// Close this connection, or give up dialling, once all messages are sent.
    Close(Side),
    /// The session is up.
    Up,
    /// The session, or an attempt at one, ended, and why.
    Down(Cause),
    /// Something an operator may want to know.
    Log(String),
}

/// The state of the session, in the RFC's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Idle,
    Active,
    Connect,
    OpenSent,
    OpenConfirm,
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Connect => "connect",
            Self::OpenSent => "open-sent",
            Self::OpenConfirm => "open-confirm",
            Self::Established => "established",
        })
    }
}
