//! What is known of the next hop to an address. It must not know netlink.

use std::fmt;
use std::net::IpAddr;

/// What is known of the next hop to a backend's or a VIP's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Packets leave by this interface to the neighbour with this MAC address.
    Resolved {
        /// The outgoing interface's index.
        interface: u32,
        /// The neighbour's MAC address.
        mac: [u8; 6],
        /// The gateway, if the backend is not on-link.
        gateway: Option<IpAddr>,
        /// The MTU of the route, in bytes, if it has one of its own: where it is smaller than the interface's, it counts.
        mtu: Option<u32>,
    },
    /// Nothing can be sent yet; the text says what is awaited ("no route to 10.0.1.11", "neighbour 10.0.0.1 on eth1
    /// does not answer").
    Unresolved(String),
}

impl Resolution {
    const WAITING: &str = "waiting for ";

    /// Nothing can be sent until this is known, which may take a moment.
    pub fn waiting(what: impl fmt::Display) -> Self {
        Self::Unresolved(format!("{}{what}", Self::WAITING))
    }

    /// Whether it is not known yet if something can be sent.
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::Unresolved(why) if why.starts_with(Self::WAITING))
    }
}
