//! The next hop to an address, as far as it is known. It must not know netlink.

use std::fmt;
use std::net::IpAddr;

/// The next hop to a backend's or a VIP's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Packets are sent on this interface to the neighbor with this MAC address.
    Resolved {
        /// The outgoing interface's index.
        interface: u32,
        /// The neighbor's MAC address.
        mac: [u8; 6],
        /// The gateway, if the backend is not on-link.
        gateway: Option<IpAddr>,
        /// The MTU of the route, in bytes, if it has its own: it counts where it is smaller than the interface's.
        mtu: Option<u32>,
    },
    /// No packet can be sent yet; the text is the reason ("no route to 10.0.1.11", "neighbor 10.0.0.1 on eth1 does not
    /// answer").
    Unresolved(String),
}

impl Resolution {
    const WAITING: &str = "waiting for ";

    /// No packet can be sent until this is known, which may take a moment.
    pub fn waiting(what: impl fmt::Display) -> Self {
        Self::Unresolved(format!("{}{what}", Self::WAITING))
    }

    /// Whether it is not known yet if packets can be sent.
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::Unresolved(why) if why.starts_with(Self::WAITING))
    }
}
