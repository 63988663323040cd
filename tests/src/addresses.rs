//! The addresses of all hosts. The same in every lab: no address is seen outside its namespaces.
//!
//! ```text
//!                                              ┌─ lb1 ──┐ near
//!  client ── 198.51.100/24 ── router ─ 10.2.N ─┤        ├─ switch ── on-link backends and the router
//!            2001:db8:51::/64    │             └─ lb2 ──┘            10.4.0/24     fd00:4::/64
//!                                └─ 10.3.N/24, fd00:3:N::/64 ── backends behind the router
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The CPU that carries all flows from the client on.
pub const FLOWS_CPU: usize = 0;

/// The VIPs' addresses: two of each family, on every backend's `lo`.
pub const VIPS: [IpAddr; 4] = [WWW4, WWW6, ALT4, ALT6];
/// First VIP address, IPv4.
pub const WWW4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
/// First VIP address, IPv6.
pub const WWW6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10));
/// Second VIP address, IPv4.
pub const ALT4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 11));
/// Second VIP address, IPv6.
pub const ALT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x11));

/// The prefixes that hold the VIPs; a router that learns nothing has a route for each.
pub const VIP_PREFIXES: [&str; 2] = ["203.0.113.0/24", "2001:db8:113::/64"];
/// The router's AS number.
pub const ROUTER_AS: u32 = 65_000;
/// The load balancers' AS number.
pub const BALANCERS_AS: u32 = 65_010;
/// Unused addresses: floods come from here, and the router drops the answers.
pub const NOWHERE: &str = "198.18.0.0/15";
/// The first of them.
pub const NOWHERE_FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// The prefixes that hold every load balancer's outer source addresses.
pub const OUTER_SOURCES: [&str; 2] = ["10.64.0.0/16", "fd64::/32"];

/// The outer source prefixes of load balancer `n`, IPv4 and IPv6.
pub fn outer_sources(n: usize) -> [String; 2] {
    [format!("10.64.{n}.0/24"), format!("fd64:0:{n}::/64")]
}

/// One end's addresses on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// IPv4, always with a 24-bit prefix.
    pub v4: Ipv4Addr,
    /// IPv6, always with a 64-bit prefix.
    pub v6: Ipv6Addr,
}

impl Pair {
    /// The address of the family that `like` has.
    pub fn like(&self, like: IpAddr) -> IpAddr {
        if like.is_ipv4() { self.v4.into() } else { self.v6.into() }
    }

    /// Lines of `ip` that put both on `device`.
    pub(super) fn assign(&self, device: &str) -> [String; 2] {
        [format!("address add {}/24 dev {device}", self.v4), format!("address add {}/64 dev {device} nodad", self.v6)]
    }

    /// Lines of `ip` that make both the default gateway.
    pub(super) fn default_route(&self) -> [String; 2] {
        [format!("route add default via {}", self.v4), format!("route add ::/0 via {}", self.v6)]
    }
}

/// The client's hosts on its link.
pub const CLIENTS: std::ops::Range<u8> = 2..10;

/// The client's link; `host` 1 is the router's end.
pub fn client(host: u8) -> Pair {
    Pair { v4: Ipv4Addr::new(198, 51, 100, host), v6: Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, host.into()) }
}

/// The link between the router (`host` 1) and load balancer `n` (`host` 2).
pub fn balancer(n: u8, host: u8) -> Pair {
    private(2, n, host)
}

/// The link between the router (`host` 1) and backend `n` behind it (`host` 2).
pub fn behind_router(n: u8, host: u8) -> Pair {
    private(3, n, host)
}

/// The shared segment: the router is host 1, backends follow from 10, load balancers from 100.
pub fn on_link(host: u8) -> Pair {
    private(4, 0, host)
}

fn private(net: u8, subnet: u8, host: u8) -> Pair {
    Pair {
        v4: Ipv4Addr::new(10, net, subnet, host),
        v6: Ipv6Addr::new(0xfd00, net.into(), subnet.into(), 0, 0, 0, 0, host.into()),
    }
}
