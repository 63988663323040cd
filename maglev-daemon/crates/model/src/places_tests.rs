//! Tests of [`super`]: of the accepted services that take a packet, one is the most specific; and each refusal.

use proptest::prelude::*;

use super::*;
use crate::{Affinity, Announce, Change, Pool, Rules, Services};

fn service(text: [&str; 3]) -> Service {
    let [address, ports, protocol] = text;
    Service::parse(address, ports, protocol).unwrap()
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn vip(text: &str, service: Service) -> Vip {
    Vip {
        name: name(text),
        service,
        pool: name("web"),
        announce: Announce::default(),
        when_empty: crate::Unserved::Drop,
        affinity: Affinity::FiveTuple,
    }
}

/// What is said of the last VIP, added after the others; the first is v0.
fn said(all: &[[&str; 3]]) -> Result<(), String> {
    let mut services = Services::default();
    services.admit(Change::AddPool(Pool::new(name("web"))), &Rules::default()).unwrap();
    let mut last = Ok(());
    for (n, text) in all.iter().enumerate() {
        last.unwrap();
        let vip = vip(&format!("v{n}"), service(*text));
        last = services.admit(Change::AddVip(vip), &Rules::default());
    }
    last.map_err(|refusal| refusal.to_string())
}

#[test]
fn ranges_of_ports_are_nested_or_apart() {
    const AT: &str = "203.0.113.10";
    let first = [AT, "8000-8100", "tcp"];
    for accepted in [
        [AT, "8000", "tcp"],
        [AT, "8000-8099", "tcp"],
        [AT, "7000-8100", "tcp"],
        [AT, "8101-8200", "tcp"],
        [AT, "any", "tcp"],
        [AT, "8050-8200", "udp"],
        ["203.0.113.11", "8050-8200", "tcp"],
        ["203.0.113.0/28", "8050-8200", "tcp"],
        [AT, "any", "any"],
    ] {
        assert_eq!(said(&[first, accepted]), Ok(()), "{accepted:?}");
    }
    let line = said(&[first, [AT, "8050-8200", "tcp"]]).unwrap_err();
    assert_eq!(
        line,
        "VIP v1: 203.0.113.10:8050-8200/tcp shares ports with VIP v0 (203.0.113.10:8000-8100/tcp), and neither range is \
         within the other; choose ports within 8000-8100, around them, or apart from them"
    );
    let line = said(&[first, first]).unwrap_err();
    assert!(line.starts_with("203.0.113.10:8000-8100/tcp is already VIP v0; "), "{line}");
}

#[test]
fn services_that_cannot_be_are_refused_with_what_is_allowed() {
    for (text, expected) in [
        (["203.0.0.0/7", "any", "tcp"], "VIP v0: 202.0.0.0/7 is too wide; allowed: IPv4 prefixes from /8 to /32"),
        (["2001::/15", "any", "tcp"], "is too wide; allowed"),
        (["224.0.0.0/8", "any", "udp"], "VIP v0: 224.0.0.0/8 contains 224.0.0.0, a multicast address"),
        (["127.0.0.0/24", "any", "any"], "contains 127.0.0.0, a loopback address"),
        (["169.0.0.0/8", "any", "any"], "VIP v0: 169.0.0.0/8 contains 169.254.0.0, a link-local address"),
        (["169.254.8.0/24", "any", "any"], "169.254.8.0/24 contains 169.254.8.0, a link-local address"),
        (["fe80::/64", "any", "any"], "contains fe80::, a link-local address"),
        (["::/64", "any", "any"], "contains ::, the unspecified address"),
        (["::ffff:10.0.0.0/104", "any", "any"], "an IPv4-mapped address"),
        (["127.0.0.1", "80", "tcp"], "VIP v0: 127.0.0.1 is a loopback address"),
        (["203.0.113.10", "80", "esp"], "VIP v0: esp has no port 80; allowed: port any, or protocol tcp, udp, sctp"),
        (["203.0.113.10", "80-90", "any"], "VIP v0: any protocol has no port 80-90; allowed: port any"),
    ] {
        let [address, ports, protocol] = text;
        let network: IpNet = address.parse::<IpNet>().unwrap_or_else(|_| address.parse::<IpAddr>().unwrap().into());
        let line = said(&[[&shown_network(network.trunc()), ports, protocol]]).unwrap_err();
        assert!(line.contains(expected), "{line}");
    }
}

#[test]
fn a_line_of_rules_and_the_lengths_of_prefixes_have_limits() {
    let ports: Vec<String> = (0..MAX_RULES).map(|n| format!("{}-{}", 1_000 + 10 * n, 1_005 + 10 * n)).collect();
    let mut all: Vec<[&str; 3]> = ports[1..].iter().map(|ports| ["203.0.113.10", ports.as_str(), "tcp"]).collect();
    all.push(["203.0.113.10", "80", "tcp"]);
    all.push(["203.0.113.0/24", "any", "tcp"]);
    assert_eq!(said(&all), Ok(()));
    for last in [["203.0.113.10", &ports[0], "tcp"], ["203.0.0.0/16", "443", "udp"]] {
        let line = said(&[&all[..], &[last]].concat()).unwrap_err();
        assert!(
            line.contains(": 203.0.113.10 would have 33 VIPs of a prefix") && line.ends_with("at most 32"),
            "{line}"
        );
    }
    assert_eq!(said(&[&all[..], &[["203.0.113.11", "any", "any"]]].concat()), Ok(()));
    let nets: Vec<String> = (0..9).map(|n| format!("10.{n}.0.0/{}", 16 + n)).collect();
    let mut all: Vec<[&str; 3]> = nets[..8].iter().map(|net| [net.as_str(), "any", "tcp"]).collect();
    all.push(["2001:db8::/32", "any", "tcp"]);
    all.push(["10.8.0.0/23", "any", "tcp"]);
    assert_eq!(said(&all), Ok(()));
    let line = said(&[&all[..], &[[&nets[8], "any", "tcp"]]].concat()).unwrap_err();
    let expected = "VIP v10: /24 would be another length of prefix; allowed: at most 8 over all VIPs of a family, which \
                    have /16, /17, /18, /19, /20, /21, /22, /23";
    assert_eq!(line, expected);
}

fn any_service() -> impl Strategy<Value = Service> {
    let network = (0_u32..64, 26_u8..=32).prop_map(|(host, length)| {
        IpNet::new(IpAddr::from((0xcb00_7100_u32 + host).to_be_bytes()), length).unwrap().trunc()
    });
    let port = |n: u16| std::num::NonZeroU16::new(n).unwrap();
    let ports = prop_oneof![
        Just(Ports::Any),
        (1_u16..20).prop_map(move |n| Ports::one(port(n))),
        (1_u16..20, 0_u16..9)
            .prop_map(move |(first, more)| Ports::Range { first: port(first), last: port(first + more) })
    ];
    let protocol = prop::sample::select(&[Protocol::Tcp, Protocol::Sctp, Protocol::Esp, Protocol::Any][..]);
    (network, ports, protocol).prop_map(|(network, ports, protocol)| Service {
        network,
        ports: if protocol.has_ports() { ports } else { Ports::Any },
        protocol,
    })
}

#[test]
fn vips_with_affinity_by_source_are_compared_with_a_packet_one_by_one() {
    let mut services = Services::default();
    services.admit(Change::AddPool(Pool::new(name("web"))), &Rules::default()).unwrap();
    let at = |port: usize| service(["203.0.113.10", &port.to_string(), "tcp"]);
    let set = |services: &mut Services, n: usize| {
        let change = crate::VipChange { affinity: Some(Affinity::Prefix(24)), ..crate::VipChange::default() };
        services.admit(Change::SetVip { vip: name(&format!("v{n}")), change }, &Rules::default())
    };
    for n in 1..=MAX_RULES {
        services.admit(Change::AddVip(vip(&format!("v{n}"), at(n))), &Rules::default()).unwrap();
        set(&mut services, n).unwrap();
    }
    let line =
        "203.0.113.10 would have 33 VIPs of a prefix, of several ports, of any protocol, or with affinity by source";
    let more = Vip { affinity: Affinity::Source, ..vip("more", at(99)) };
    let refused = services.admit(Change::AddVip(more), &Rules::default()).unwrap_err().to_string();
    assert!(refused.contains(line), "{refused}");
    services.admit(Change::AddVip(vip("v99", at(99))), &Rules::default()).unwrap();
    let refused = set(&mut services, 99).unwrap_err().to_string();
    assert!(refused.contains(line), "{refused}");
    set(&mut services, 1).unwrap();
}

proptest! {
    #[test]
    fn of_accepted_services_one_is_the_most_specific_for_a_packet(
        wanted in prop::collection::vec(any_service(), 1..60),
        packets in prop::collection::vec((0_u32..64, prop::sample::select(&[6_u8, 132, 50, 47, 99][..]), 1_u16..30), 50),
    ) {
        let mut places = Places::default();
        let accepted: Vec<Service> =
            wanted.into_iter().filter(|service| places.try_insert(&vip("www", *service))).collect();
        for (host, protocol, port) in packets {
            let address = IpAddr::from((0xcb00_7100_u32 + host).to_be_bytes());
            prop_assert_eq!(places.hold(address), accepted.iter().any(|service| service.network.contains(&address)));
            let takes = |service: &&Service| {
                let packet = Ports::one(std::num::NonZeroU16::new(port).unwrap());
                service.network.contains(&address)
                    && (service.protocol == Protocol::Any || service.protocol.number() == protocol)
                    && service.ports.contains(packet)
            };
            let mut takers: Vec<_> = accepted.iter().filter(takes).collect();
            takers.sort_by_key(|service| service.specificity());
            for pair in takers.windows(2) {
                prop_assert!(pair[0].specificity() < pair[1].specificity(), "{} and {}", pair[0], pair[1]);
                prop_assert!(!pair[1].covers(pair[0]), "{} is more specific than {}", pair[1], pair[0]);
            }
        }
    }

    #[test]
    fn a_service_is_read_as_it_is_written(service in any_service()) {
        let Service { network, ports, protocol } = service;
        let read = Service::parse(&shown_network(network), &ports.to_string(), &protocol.to_string());
        prop_assert_eq!(read, Ok(service));
    }
}
