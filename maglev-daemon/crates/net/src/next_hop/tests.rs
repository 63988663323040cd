//! The resolver against the kernel: real interfaces, routes and neighbors in namespaces of the test's own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use maglev_model::Resolution;
use maglev_testing::network::{Peer, in_namespace_async, ip, ip_batch, sysctl};
use tokio::sync::mpsc;

use super::Found;
use super::driver::Driver;
use super::{Resolver, Settings};
use crate::links;

mod faults;

/// Far longer than any event takes to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

struct Followed {
    resolver: Resolver,
    events: mpsc::Receiver<Found>,
    known: BTreeMap<IpAddr, Resolution>,
    /// Breaks the first sockets.
    cut: Box<dyn Fn()>,
}

impl Followed {
    fn new(addresses: &[&str]) -> Self {
        // Neighbors are asked again each second instead of each half minute.
        Self::at(&Settings { keep_fresh: Duration::from_secs(1), ..Settings::USUAL }, addresses)
    }

    fn at(settings: &Settings, addresses: &[&str]) -> Self {
        let (sender, events) = mpsc::channel(64);
        let driver = Driver::open(sender, settings).unwrap();
        let cut = Box::new(driver.breaker());
        let mut followed = Self { resolver: Resolver::run(driver), events, known: BTreeMap::new(), cut };
        followed.follow(addresses);
        followed
    }

    fn follow(&mut self, addresses: &[&str]) {
        self.resolver.follow(addresses.iter().map(|text| address(text)).collect::<BTreeSet<_>>());
    }

    /// Awaits that an address is as wanted, now or by a later event.
    async fn until(&mut self, of: &str, wanted: impl Fn(&Resolution) -> bool) -> Resolution {
        let of = address(of);
        let Self { events, known, .. } = self;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(resolution) = known.get(&of).filter(|resolution| wanted(resolution)) {
                    return resolution.clone();
                }
                let Some(Found { address, resolution }) = events.recv().await else {
                    panic!("the resolver ended");
                };
                known.insert(address, resolution);
            }
        });
        let found = found.await;
        found.unwrap_or_else(|_| panic!("{of} did not come to be as wanted: {known:?}"))
    }

    async fn until_mac(&mut self, of: &str, wanted: [u8; 6]) -> Resolution {
        self.until(of, |found| matches!(found, Resolution::Resolved { mac, .. } if *mac == wanted)).await
    }

    async fn until_text(&mut self, of: &str, wanted: &str) {
        self.until(of, |found| *found == Resolution::Unresolved(wanted.to_owned())).await;
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

/// A neighbor 10.9.0.2, fd09::2 on eth1 with [`MAC`], behind which 10.8.0.0/16 lies.
fn neighbour() -> Peer {
    let peer = Peer::new();
    peer.connect("eth1", "eth0");
    sysctl("ipv6/conf/eth1/accept_dad", "0");
    ip("addr add 10.9.0.1/24 dev eth1");
    ip("addr add fd09::1/64 dev eth1 nodad");
    peer.ip("link set eth0 address 02:00:00:00:00:02");
    peer.ip("addr add 10.9.0.2/24 dev eth0");
    peer.ip("addr add fd09::2/64 dev eth0 nodad");
    peer
}

async fn index(name: &str) -> u32 {
    links::list().await.unwrap().into_iter().find(|link| link.name == name).unwrap().index
}

#[test]
fn on_link_and_behind_a_gateway_in_both_families() {
    in_namespace_async(|| async {
        let _peer = neighbour();
        ip("route add 10.8.0.0/16 via 10.9.0.2");
        ip("route add 10.7.0.0/16 via inet6 fd09::2 dev eth1");
        ip("-6 route add fd08::/64 via fd09::2");
        let interface = index("eth1").await;
        let mut followed = Followed::new(&["10.9.0.2", "10.8.1.1", "10.7.1.1", "fd09::2", "fd08::1", "10.6.0.1"]);
        for (of, gateway) in [
            ("10.9.0.2", None),
            ("10.8.1.1", Some("10.9.0.2")),
            ("fd09::2", None),
            ("fd08::1", Some("fd09::2")),
            ("10.7.1.1", Some("fd09::2")),
        ] {
            let resolution = followed.until_mac(of, MAC).await;
            assert_eq!(
                resolution,
                Resolution::Resolved { interface, mac: MAC, gateway: gateway.map(address), mtu: None },
                "{of}"
            );
        }
    });
}

#[test]
fn a_route_that_leads_nowhere_is_unresolved_with_its_reason() {
    in_namespace_async(|| async {
        let _peer = neighbour();
        ip("route add blackhole 10.5.0.0/16");
        ip("-6 route add unreachable fd05::/64");
        let mut followed = Followed::new(&["10.6.0.1"]);
        followed.until_text("10.6.0.1", "no route to 10.6.0.1").await;
        followed.follow(&["10.9.0.1"]);
        followed.until_text("10.9.0.1", "10.9.0.1 is an address of this host").await;
        for of in ["10.5.0.1", "fd05::1"] {
            followed.follow(&[of]);
            followed.until_text(of, &format!("the route to {of} is unreachable, blackhole or prohibit")).await;
        }
        followed.follow(&["10.9.0.77"]);
        followed.until_text("10.9.0.77", "neighbor 10.9.0.77 on eth1 does not answer").await;
    });
}

#[test]
fn a_neighbor_that_changes_its_mac_or_dies_or_comes_late_is_noticed() {
    in_namespace_async(|| async {
        let peer = neighbour();
        let mut followed = Followed::new(&["10.9.0.2", "10.9.0.3"]);
        followed.until_mac("10.9.0.2", MAC).await;
        // As a failover does: the address answers from another card, and the kernel is notified.
        ip("neigh replace 10.9.0.2 lladdr 02:00:00:00:00:03 dev eth1 nud reachable");
        followed.until_mac("10.9.0.2", OTHER_MAC).await;
        // It is dead to the kernel: asked for anew, it answers with its own card.
        ip("neigh del 10.9.0.2 dev eth1");
        followed.until_mac("10.9.0.2", MAC).await;
        // The other one did not answer yet; it does once it is there.
        peer.ip("addr add 10.9.0.3/24 dev eth0");
        followed.until_mac("10.9.0.3", MAC).await;
    });
}

#[test]
fn a_neighbor_that_dies_silently_is_noticed() {
    in_namespace_async(|| async {
        let peer = neighbour();
        // The kernel's own patience, shortened: stale at once, one second until it asks, then three questions.
        for (name, value) in
            [("base_reachable_time_ms", "200"), ("delay_first_probe_time", "1"), ("retrans_time_ms", "50")]
        {
            sysctl(&format!("ipv4/neigh/eth1/{name}"), value);
        }
        let mut followed = Followed::new(&["10.9.0.2"]);
        followed.until_mac("10.9.0.2", MAC).await;
        peer.ip("link set eth0 arp off");
        followed.until_text("10.9.0.2", "neighbor 10.9.0.2 on eth1 does not answer").await;
        peer.ip("link set eth0 arp on");
        followed.until_mac("10.9.0.2", MAC).await;
    });
}

#[test]
fn notices_lost_in_a_flood_cause_a_full_read() {
    in_namespace_async(|| async {
        let _peer = neighbour();
        let mut followed = Followed::new(&["10.9.0.2"]);
        followed.until_mac("10.9.0.2", MAC).await;
        // The test's only thread does not read meanwhile: the socket's buffer holds a few hundred notices, so the last
        // one, which counts, is lost.
        let mut batch: String =
            (0..4_000).map(|n| format!("route add 10.100.{}.{}/32 dev eth1\n", n / 250, n % 250)).collect();
        batch.push_str("neigh replace 10.9.0.2 lladdr 02:00:00:00:00:03 dev eth1 nud permanent\n");
        ip_batch(&batch);
        followed.until_mac("10.9.0.2", OTHER_MAC).await;
    });
}

#[test]
fn an_address_that_is_no_longer_followed_is_no_longer_reported() {
    in_namespace_async(|| async {
        let _peer = neighbour();
        let mut followed = Followed::new(&["10.9.0.2"]);
        followed.until_mac("10.9.0.2", MAC).await;
        followed.follow(&["fd09::2"]);
        followed.until_mac("fd09::2", MAC).await;
        followed.known.clear();
        ip("neigh replace 10.9.0.2 lladdr 02:00:00:00:00:03 dev eth1 nud reachable");
        ip("-6 neigh replace fd09::2 lladdr 02:00:00:00:00:03 dev eth1 nud reachable");
        followed.until_mac("fd09::2", OTHER_MAC).await;
        assert!(!followed.known.contains_key(&address("10.9.0.2")));
    });
}

#[test]
fn an_address_that_is_followed_anew_is_reported_anew() {
    in_namespace_async(|| async {
        let _peer = neighbour();
        let mut followed = Followed::new(&["10.9.0.2"]);
        followed.until_mac("10.9.0.2", MAC).await;
        // A new follower forgets earlier reports; the resolver has no turn in between.
        followed.known.clear();
        followed.follow(&[]);
        followed.follow(&["10.9.0.2"]);
        followed.until_mac("10.9.0.2", MAC).await;
    });
}

#[test]
fn a_link_that_goes_down_and_a_route_that_is_withdrawn_come_back() {
    in_namespace_async(|| async {
        let peer = neighbour();
        ip("route add 10.8.0.0/16 via 10.9.0.2");
        let mut followed = Followed::new(&["10.8.0.1"]);
        followed.until_mac("10.8.0.1", MAC).await;

        ip("route del 10.8.0.0/16");
        followed.until_text("10.8.0.1", "no route to 10.8.0.1").await;
        ip("route add 10.8.0.0/16 via 10.9.0.2");
        followed.until_mac("10.8.0.1", MAC).await;

        peer.ip("link set eth0 down");
        followed.until_text("10.8.0.1", "interface eth1 has no carrier").await;
        peer.ip("link set eth0 up");
        followed.until_mac("10.8.0.1", MAC).await;

        ip("link set eth1 down");
        followed.until_text("10.8.0.1", "no route to 10.8.0.1").await;
        ip("link set eth1 up");
        ip("route add 10.8.0.0/16 via 10.9.0.2");
        followed.until_mac("10.8.0.1", MAC).await;
    });
}

#[test]
fn a_better_route_through_another_gateway_is_taken() {
    in_namespace_async(|| async {
        let peer = neighbour();
        let second = Peer::new();
        second.connect("eth2", "eth0");
        ip("addr add 10.10.0.1/24 dev eth2");
        second.ip("link set eth0 address 02:00:00:00:00:03");
        second.ip("addr add 10.10.0.2/24 dev eth0");
        ip("route add 10.8.0.0/16 via 10.9.0.2");
        let mut followed = Followed::new(&["10.8.0.1"]);
        followed.until_mac("10.8.0.1", MAC).await;
        ip("route add 10.8.0.1/32 via 10.10.0.2");
        followed.until_mac("10.8.0.1", OTHER_MAC).await;
        ip("link del eth2");
        followed.until_mac("10.8.0.1", MAC).await;
        drop(peer);
    });
}

#[test]
fn next_hops_are_followed_on_where_netlink_failed() {
    in_namespace_async(|| async {
        let peer = neighbour();
        let mut followed = Followed::new(&["10.9.0.2"]);
        followed.until_mac("10.9.0.2", MAC).await;
        (followed.cut)();
        // Changes without a listener are found afterwards, and later changes are reported.
        ip("neigh replace 10.9.0.2 lladdr 02:00:00:00:00:03 dev eth1 nud permanent");
        followed.until_mac("10.9.0.2", OTHER_MAC).await;
        followed.follow(&["10.9.0.2", "fd09::2"]);
        followed.until_mac("fd09::2", MAC).await;
        ip("link del eth1");
        followed.until_text("10.9.0.2", "no route to 10.9.0.2").await;
        drop(peer);
    });
}

#[test]
fn a_neighbor_is_reported_while_routes_change_without_end() {
    in_namespace_async(|| async {
        let _peer = neighbour();
        let many: Vec<_> = (0..600).map(|n| format!("10.100.{}.{}", n / 200, n % 200)).collect();
        ip("route add 10.100.0.0/16 via 10.9.0.2");
        let addresses: Vec<_> = many.iter().map(String::as_str).chain(["10.9.0.2"]).collect();
        let mut followed = Followed::new(&addresses);
        for address in &addresses {
            followed.until_mac(address, MAC).await;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let churn = move || {
            while !stopped.load(Ordering::Relaxed) {
                ip_batch(&"route add 10.77.0.0/16 dev eth1\nroute del 10.77.0.0/16 dev eth1\n".repeat(200));
            }
        };
        // A thread starts in the network namespace of the one that starts it.
        let churn = std::thread::spawn(churn);
        for mac in [OTHER_MAC, MAC, OTHER_MAC] {
            let text = mac.map(|byte| format!("{byte:02x}")).join(":");
            ip(&format!("neigh replace 10.9.0.2 lladdr {text} dev eth1 nud permanent"));
            followed.until_mac("10.9.0.2", mac).await;
        }
        stop.store(true, Ordering::Relaxed);
        churn.join().unwrap();
    });
}

#[test]
fn interfaces_are_watched_on_where_netlink_failed() {
    in_namespace_async(|| async {
        let mut watch = links::Watch::start().unwrap();
        watch.breaker()();
        ip("link add eth5 type veth peer name eth6");
        loop {
            // The caller may have other work: a cancelled wait loses nothing.
            let soon = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await;
            if soon.is_ok_and(|links| links.iter().any(|link| link.name == "eth5")) {
                return;
            }
        }
    });
}

#[test]
fn interfaces_are_reported_again_on_request() {
    in_namespace_async(|| async {
        let mut watch = links::Watch::start().unwrap();
        watch.again();
        let links = tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap();
        assert!(links.iter().any(|link| link.name == "lo"));
    });
}

#[test]
fn interfaces_are_watched() {
    in_namespace_async(|| async {
        let mut watch = links::Watch::start().unwrap();
        let peer = neighbour();
        ip("link set eth1 mtu 1400");
        let changed = tokio::time::timeout(PATIENCE, async {
            loop {
                let links = watch.changed().await;
                if links.iter().any(|link| link.name == "eth1" && link.mtu == 1_400) {
                    return;
                }
            }
        });
        changed.await.unwrap();
        drop(peer);
    });
}
