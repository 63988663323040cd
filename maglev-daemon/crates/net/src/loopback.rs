//! The addresses on the loopback device, followed: those that this host takes as its own and announces to no link. It must
//! not know why they matter.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::MulticastGroup;
use tokio::time::Instant;

use super::connection::{self, Sockets};
use super::error::NetError;
use super::links::sleep_until;

/// The index that `lo` has in every network namespace.
const LOOPBACK: u32 = 1;

/// Follows the loopback addresses of one network namespace.
pub struct Loopback {
    sockets: Sockets,
    /// When all addresses are to be read, changed or not.
    due: Option<Instant>,
}

impl Loopback {
    /// Starts to follow the loopback addresses of the calling thread's network namespace; needs a tokio runtime.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn start() -> Result<Self, NetError> {
        const GROUPS: &[MulticastGroup] = &[MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        Ok(Self { sockets: Sockets::open("loopback addresses", GROUPS)?, due: None })
    }

    /// The addresses that the host owns by its loopback device: an IPv4 address with its prefix, all of which is local there,
    /// and an IPv6 address alone. [`Self::changed`] returns later changes.
    ///
    /// # Errors
    /// Netlink cannot be asked.
    pub async fn list(&self) -> Result<BTreeSet<IpNet>, NetError> {
        let request = self.sockets.requests.handle.address().get().set_link_index_filter(LOOPBACK);
        let messages = connection::all("list loopback addresses", request.execute()).await?;
        Ok(messages.iter().filter_map(local).collect())
    }

    /// The same, once an address of this host changed. Where netlink fails, it is asked until it answers. Nothing is lost if
    /// the wait is given up.
    pub async fn changed(&mut self) -> BTreeSet<IpNet> {
        loop {
            match self.next().await {
                Ok(addresses) => {
                    self.sockets.works();
                    self.due = None;
                    return addresses;
                }
                Err(failure) => {
                    // Changes during the outage are read after it.
                    self.due = Some(Instant::now());
                    self.sockets.renew(failure).await;
                }
            }
        }
    }

    async fn next(&mut self) -> Result<BTreeSet<IpNet>, NetError> {
        let Self { sockets, due } = self;
        tokio::select! {
            notice = sockets.notices.next() => drop(notice?),
            () = sleep_until(*due) => {}
        }
        *due = Some(Instant::now());
        // A flood of notices is answered once.
        while sockets.notices.ready().is_some() {}
        self.list().await
    }
}

fn local(message: &AddressMessage) -> Option<IpNet> {
    let found = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    let local = found(|attribute| if let AddressAttribute::Local(local) = attribute { Some(*local) } else { None });
    let address = || found(|attribute| if let AddressAttribute::Address(ip) = attribute { Some(*ip) } else { None });
    let address = local.or_else(address)?;
    let length = if address.is_ipv4() { message.header.prefix_len } else { 128 };
    Some(IpNet::new(address, length).ok()?.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_testing::network::{in_namespace_async, ip};

    #[test]
    fn addresses_that_come_and_go_are_seen() {
        in_namespace_async(|| async {
            let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<BTreeSet<IpNet>>();
            let mut loopback = Loopback::start().unwrap();
            assert_eq!(loopback.list().await.unwrap(), nets(&["127.0.0.0/8", "::1/128"]));
            ip("address add 203.0.113.10/32 dev lo");
            assert_eq!(loopback.changed().await, nets(&["127.0.0.0/8", "::1/128", "203.0.113.10/32"]));
            ip("address add 198.51.100.9/24 dev lo");
            ip("address add 2001:db8::10/64 dev lo nodad");
            let all = nets(&["127.0.0.0/8", "::1/128", "203.0.113.10/32", "198.51.100.0/24", "2001:db8::10/128"]);
            while loopback.changed().await != all {}
            ip("address del 203.0.113.10/32 dev lo");
            while loopback.changed().await.contains(&"203.0.113.10/32".parse().unwrap()) {}
        });
    }
}
