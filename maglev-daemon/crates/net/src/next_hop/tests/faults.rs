//! Faults that were found by running the product: what changes the kernel's choice without a notice of its own, and routes
//! with several gateways.

use maglev_testing::matrix::Row;

use super::*;

const D1: [&str; 3] =
    ["a next hop object is deleted", "a group of next hop objects loses a member", "a next hop object is replaced"];

/// Two gateways on eth1: 10.9.0.2 with [`MAC`] and 10.9.0.3 with [`OTHER_MAC`].
fn two_gateways() -> [Peer; 2] {
    let [first, second] = [Peer::new(), Peer::new()];
    ip("link add bridge type bridge stp_state 0 mcast_snooping 0 forward_delay 0");
    for (port, (peer, last)) in ["port2", "port3"].into_iter().zip([(&first, 2), (&second, 3)]) {
        peer.connect(port, "eth0");
        ip(&format!("link set {port} master bridge"));
        peer.ip(&format!("link set eth0 address 02:00:00:00:00:0{last}"));
        peer.ip(&format!("addr add 10.9.0.{last}/24 dev eth0"));
        peer.ip(&format!("addr add fd09::{last}/64 dev eth0 nodad"));
    }
    ip("link set bridge up");
    sysctl("ipv6/conf/bridge/accept_dad", "0");
    ip("addr add 10.9.0.1/24 dev bridge");
    ip("addr add fd09::1/64 dev bridge nodad");
    [first, second]
}

#[test]
fn next_hop_objects_that_change_are_noticed() {
    let [deleted, group, replaced] = D1;
    {
        let _row = Row::fault("D1", deleted);
        in_namespace_async(|| async {
            let _gateways = two_gateways();
            ip("nexthop add id 7 via 10.9.0.3 dev bridge");
            ip("route add 10.8.0.0/16 via 10.9.0.2 metric 100");
            ip("route add 10.8.0.0/24 nhid 7");
            let mut followed = Followed::new(&["10.8.0.1"]);
            followed.until_mac("10.8.0.1", OTHER_MAC).await;
            ip("nexthop del id 7");
            followed.until_mac("10.8.0.1", MAC).await;
        });
    }
    {
        let _row = Row::fault("D1", group);
        in_namespace_async(|| async {
            let _gateways = two_gateways();
            ip("nexthop add id 7 via 10.9.0.2 dev bridge");
            ip("nexthop add id 8 via 10.9.0.3 dev bridge");
            ip("nexthop add id 9 group 7/8");
            ip("route add 10.8.0.0/16 nhid 9");
            let mut followed = Followed::new(&["10.8.0.1"]);
            followed.until("10.8.0.1", |found| matches!(found, Resolution::Resolved { .. })).await;
            for (wanted, members) in [(MAC, "7"), (OTHER_MAC, "8")] {
                ip(&format!("nexthop replace id 9 group {members}"));
                followed.until_mac("10.8.0.1", wanted).await;
            }
        });
    }
    let _row = Row::fault("D1", replaced);
    in_namespace_async(|| async {
        let _gateways = two_gateways();
        // Routes are not announced again then, and do not say where they lead.
        sysctl("ipv4/nexthop_compat_mode", "0");
        for (family, id, gateways, prefix, of) in [
            ("-4", 4, ["10.9.0.2", "10.9.0.3"], "10.8.0.0/16", "10.8.0.1"),
            ("-6", 6, ["fd09::2", "fd09::3"], "fd08::/64", "fd08::1"),
        ] {
            ip(&format!("{family} nexthop add id {id} via {} dev bridge", gateways[0]));
            ip(&format!("{family} route add {prefix} nhid {id}"));
            let mut followed = Followed::new(&[of]);
            followed.until_mac(of, MAC).await;
            ip(&format!("{family} nexthop replace id {id} via {} dev bridge", gateways[1]));
            followed.until_mac(of, OTHER_MAC).await;
        }
    });
}

#[test]
fn a_change_without_a_notice_is_found_by_asking_again() {
    let mut row = Row::fault("D1", "no notice arrives: every route is asked for again");
    in_namespace_async(|| async {
        let _gateways = two_gateways();
        ip("route add 10.8.0.0/16 via 10.9.0.2");
        for (last, mac) in [(2, MAC), (3, OTHER_MAC)] {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            ip(&format!("neigh replace 10.9.0.{last} lladdr {mac} dev bridge nud permanent"));
        }
        let settings = Settings { groups: &[], recheck: Duration::from_millis(300), ..Settings::USUAL };
        let mut followed = Followed::at(&settings, &["10.8.0.1"]);
        followed.until_mac("10.8.0.1", MAC).await;
        ip("route replace 10.8.0.0/16 via 10.9.0.3");
        followed.until_mac("10.8.0.1", OTHER_MAC).await;
    });
    row.says("in use: each 10–30 s");
}

#[test]
fn changes_by_rules_and_addresses_are_noticed() {
    {
        let _row = Row::fault("D1", "a rule chooses another table");
        in_namespace_async(|| async {
            let _gateways = two_gateways();
            ip("route add 10.8.0.0/16 via 10.9.0.2");
            ip("route add 10.8.0.0/16 via 10.9.0.3 table 77");
            ip("-6 route add fd08::/64 via fd09::2");
            ip("-6 route add fd08::/64 via fd09::3 table 77");
            let mut followed = Followed::new(&["10.8.0.1", "fd08::1"]);
            for of in ["10.8.0.1", "fd08::1"] {
                followed.until_mac(of, MAC).await;
            }
            ip("rule add to 10.8.0.0/16 lookup 77 priority 10");
            ip("-6 rule add to fd08::/64 lookup 77 priority 10");
            for of in ["10.8.0.1", "fd08::1"] {
                followed.until_mac(of, OTHER_MAC).await;
            }
        });
    }
    let _row = Row::fault("D1", "an address comes, and the destination is on-link");
    in_namespace_async(|| async {
        let [_first, second] = two_gateways();
        ip("route add default via 10.9.0.2");
        second.ip("addr add 10.7.0.9/24 dev eth0");
        let mut followed = Followed::new(&["10.7.0.9"]);
        followed.until_mac("10.7.0.9", MAC).await;
        ip("addr add 10.7.0.1/24 dev bridge");
        followed.until_mac("10.7.0.9", OTHER_MAC).await;
    });
}

/// Of several gateways one dies silently, and lives again.
async fn one_of_two_dies(of: &str, second: &Peer) -> String {
    let mut followed = Followed::new(&[of]);
    // The weight chooses it.
    followed.until_mac(of, OTHER_MAC).await;
    second.ip("link set eth0 arp off");
    let began = std::time::Instant::now();
    followed.until_mac(of, MAC).await;
    let lost = began.elapsed();
    second.ip("link set eth0 arp on");
    let began = std::time::Instant::now();
    followed.until_mac(of, OTHER_MAC).await;
    format!("left after {} ms, back after {} ms", lost.as_millis(), began.elapsed().as_millis())
}

#[test]
fn of_two_gateways_one_dies_silently() {
    for (case, route) in [
        ("one of two gateways dies silently", "nexthop via 10.9.0.2 nexthop via 10.9.0.3 weight 250"),
        ("the same in a group of next hop objects", "nhid 9"),
    ] {
        let mut row = Row::fault("D2", case);
        let (sender, said) = std::sync::mpsc::channel();
        in_namespace_async(move || async move {
            let [_first, second] = two_gateways();
            ip("nexthop add id 7 via 10.9.0.2 dev bridge");
            ip("nexthop add id 8 via 10.9.0.3 dev bridge");
            ip("nexthop add id 9 group 7/8,250");
            ip(&format!("route add 10.8.0.0/16 {route}"));
            sender.send(one_of_two_dies("10.8.0.1", &second).await).unwrap();
        });
        row.says(said.recv().unwrap());
    }
}

#[test]
fn of_two_ipv6_gateways_one_dies_silently() {
    let mut row = Row::fault("D2", "one of two IPv6 gateways dies silently");
    let (sender, said) = std::sync::mpsc::channel();
    in_namespace_async(move || async move {
        let [_first, second] = two_gateways();
        ip("-6 route add fd08::/64 nexthop via fd09::2 nexthop via fd09::3 weight 250");
        let mut followed = Followed::new(&["fd08::1"]);
        followed.until_mac("fd08::1", OTHER_MAC).await;
        second.ip("addr del fd09::3/64 dev eth0");
        let began = std::time::Instant::now();
        followed.until_mac("fd08::1", MAC).await;
        sender.send(format!("left after {} ms", began.elapsed().as_millis())).unwrap();
    });
    row.says(said.recv().unwrap());
}

#[test]
fn a_gateway_that_the_kernel_calls_failed_is_left_at_once() {
    let _row = Row::fault("D2", "the kernel says that one of two gateways failed");
    in_namespace_async(|| async {
        let [_first, second] = two_gateways();
        ip("route add 10.8.0.0/16 nexthop via 10.9.0.2 nexthop via 10.9.0.3 weight 250");
        let mut followed = Followed::new(&["10.8.0.1"]);
        followed.until_mac("10.8.0.1", OTHER_MAC).await;
        second.ip("link set eth0 arp off");
        ip("neigh change 10.9.0.3 dev bridge nud failed");
        followed.until_mac("10.8.0.1", MAC).await;
    });
}

#[test]
fn a_routes_mtu_is_known_and_followed() {
    for (family, of, route) in [
        ("IPv4", "10.8.0.1", "route replace 10.8.0.0/16 via 10.9.0.2"),
        ("IPv6", "fd08::1", "-6 route replace fd08::/64 via fd09::2"),
    ] {
        let _row = Row::fault("D4", &format!("an {family} route has an MTU of its own, and loses it"));
        in_namespace_async(move || async move {
            let _peer = neighbour();
            let with = |wanted: Option<u32>| move |found: &Resolution| matches!(found, Resolution::Resolved { mtu, .. } if *mtu == wanted);
            ip(&format!("{route} mtu lock 1400"));
            let mut followed = Followed::new(&[of]);
            followed.until(of, with(Some(1_400))).await;
            ip(route);
            followed.until(of, with(None)).await;
        });
    }
}

/// The CPU time of this thread, in the kernel too.
fn cpu() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

#[test]
fn the_cost_of_a_look_up() {
    let mut row = Row::fault("D1", "what it costs to ask for routes again");
    let (sender, said) = std::sync::mpsc::channel();
    in_namespace_async(move || async move {
        let _gateways = two_gateways();
        ip("route add 10.8.0.0/16 nexthop via 10.9.0.2 nexthop via 10.9.0.3");
        let requests = crate::connection::Requests::open().unwrap();
        let many = if std::env::var_os("MAGLEV_FULL").is_some() { 20_000_u32 } else { 500 };
        let began = cpu();
        for n in 0..many {
            let address = std::net::Ipv4Addr::from(0x0a08_0000 + n % 60_000).into();
            let request = requests.handle.route().get(super::super::messages::route_request(address)).execute();
            let answer = crate::connection::part("ask", &mut std::pin::pin!(request)).await.unwrap().unwrap();
            assert!(super::super::messages::route(&answer).unwrap().has_choice());
        }
        let each = (cpu() - began).as_secs_f64() * 1e6 / f64::from(many);
        sender
            .send(format!(
                "{each:.0} µs of CPU each: {:.1} % of a CPU for 32,767 backends",
                each * 32_767.0 / 20e6 * 100.0
            ))
            .unwrap();
    });
    row.says(said.recv().unwrap());
}
