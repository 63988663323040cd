//! The addresses that this host uses itself: its own and those of its gateways, followed. It must not know which VIPs
//! there are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use maglev_model::Host;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteVia};
use rtnetlink::MulticastGroup;
use tokio::time::Instant;

use super::connection::{self, Requests, Sockets};
use super::error::NetError;

/// The notices that may change them.
const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Nexthop,
];

/// The pause between two reads, at least: a routing daemon changes many routes.
const REST: Duration = Duration::from_millis(200);
/// A read that takes long rests for so many times as long: all routes of the internet take seconds.
const REST_TIMES: u32 = 20;

/// Follows the addresses of one network namespace.
pub struct Watch {
    sockets: Sockets,
    /// When to read again, if something changed.
    due: Option<Instant>,
    /// When that may be at the earliest.
    rested: Instant,
}

impl Watch {
    /// Starts to follow the addresses of the calling thread's network namespace; needs a tokio runtime.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn start() -> Result<Self, NetError> {
        Ok(Self { sockets: Sockets::open("addresses and gateways", &GROUPS)?, due: None, rested: Instant::now() })
    }

    /// The addresses as they are now.
    ///
    /// # Errors
    /// Netlink cannot be asked.
    pub async fn read(&self) -> Result<Host, NetError> {
        self.sockets.requests.host().await
    }

    /// The addresses, once something changed that may concern them. Where netlink fails, it is asked until it answers.
    /// Nothing is lost if the wait is given up.
    pub async fn changed(&mut self) -> Host {
        loop {
            match self.next().await {
                Ok(host) => {
                    self.sockets.works();
                    return host;
                }
                Err(failure) => {
                    self.due = Some(Instant::now());
                    self.sockets.renew(failure).await;
                }
            }
        }
    }

    async fn next(&mut self) -> Result<Host, NetError> {
        let Self { sockets, due, rested } = self;
        loop {
            tokio::select! {
                notice = sockets.notices.next() => {
                    notice?;
                    due.get_or_insert(*rested);
                }
                () = super::links::sleep_until(*due) => break,
            }
        }
        let began = Instant::now();
        let host = sockets.requests.host().await?;
        *due = None;
        *rested = Instant::now() + REST.max(began.elapsed() * REST_TIMES);
        Ok(host)
    }
}

impl Requests {
    async fn host(&self) -> Result<Host, NetError> {
        let links = self.links().await?;
        let names: BTreeMap<u32, String> = links.into_iter().map(|link| (link.index, link.name)).collect();
        let addresses = connection::all("list addresses", self.handle.address().get().execute()).await?;
        let mut host = Host::default();
        for message in &addresses {
            let name = names.get(&message.header.index).map_or("an interface", String::as_str);
            host.own.extend(address(message).map(|own| (own, name.to_owned())));
        }
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            for message in connection::all("list routes", self.handle.route().get(request).execute()).await? {
                let to = destination(&message);
                for gateway in gateways(&message.attributes) {
                    host.gateways.entry(gateway).or_insert_with(|| to.clone());
                }
            }
        }
        Ok(host)
    }
}

/// The host's own address: of a point-to-point interface `Address` is the other end's.
fn address(message: &AddressMessage) -> Option<IpAddr> {
    let of = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    let local = of(|attribute| if let AddressAttribute::Local(own) = attribute { Some(*own) } else { None });
    local.or_else(|| of(|attribute| if let AddressAttribute::Address(own) = attribute { Some(*own) } else { None }))
}

fn destination(message: &RouteMessage) -> String {
    let to = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(to)) => Some(IpAddr::V4(*to)),
        RouteAttribute::Destination(RouteAddress::Inet6(to)) => Some(IpAddr::V6(*to)),
        _ => None,
    });
    to.map_or_else(
        || "the default route".to_owned(),
        |to| format!("the route to {to}/{}", message.header.destination_prefix_length),
    )
}

/// The gateways of a route, of all its paths.
fn gateways(attributes: &[RouteAttribute]) -> Vec<IpAddr> {
    let of = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(to)) | RouteAttribute::Via(RouteVia::Inet(to)) => {
            vec![IpAddr::V4(*to)]
        }
        RouteAttribute::Gateway(RouteAddress::Inet6(to)) | RouteAttribute::Via(RouteVia::Inet6(to)) => {
            vec![IpAddr::V6(*to)]
        }
        RouteAttribute::MultiPath(paths) => paths.iter().flat_map(|path| gateways(&path.attributes)).collect(),
        _ => Vec::new(),
    };
    attributes.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_testing::network::{in_namespace_async, ip};

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn own_addresses_and_gateways_of_both_families_are_followed() {
        in_namespace_async(|| async {
            ip("link add eth1 type veth peer name eth2");
            ip("link set eth2 up");
            ip("link set eth1 up");
            ip("addr add 10.9.0.1/24 dev eth1");
            ip("addr add fd09::1/64 dev eth1 nodad");
            let mut watch = Watch::start().unwrap();
            let before = watch.read().await.unwrap();
            assert_eq!(before.own.get(&at("10.9.0.1")), Some(&"eth1".to_owned()));
            assert!(before.own.contains_key(&at("fd09::1")) && before.gateways.is_empty());
            for (command, gateway, to) in [
                ("route add default via 10.9.0.2", "10.9.0.2", "the default route"),
                (
                    "route add 10.8.0.0/16 nexthop via 10.9.0.2 nexthop via 10.9.0.3",
                    "10.9.0.3",
                    "the route to 10.8.0.0/16",
                ),
                ("-6 route add fd08::/64 via fd09::2", "fd09::2", "the route to fd08::/64"),
            ] {
                ip(command);
                while watch.changed().await.gateways.get(&at(gateway)).is_none_or(|found| found != to) {}
            }
            ip("addr add 203.0.113.10/32 dev lo");
            while !watch.changed().await.own.contains_key(&at("203.0.113.10")) {}
            ip("addr del 203.0.113.10/32 dev lo");
            while watch.changed().await.own.contains_key(&at("203.0.113.10")) {}
        });
    }
}
