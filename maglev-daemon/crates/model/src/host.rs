//! The addresses that the host uses itself. It must not know netlink.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// The addresses that this host uses itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its own, with the interface's name.
    pub own: BTreeMap<IpAddr, String>,
    /// Gateways, with a prefix that is routed through each.
    pub gateways: BTreeMap<IpAddr, String>,
}
