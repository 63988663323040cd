//! The worlds that are fuzzed: each has VIPs of every kind, and differs in its settings.

use std::net::IpAddr;

use maglev_common::encap::EncapKind;
use maglev_common::settings::{Echo, Mss, Unserved};
use maglev_model::table::{NO_OWNER, Table};
use maglev_model::{Affinity, Name, Service, Weight};

use super::{Backend, DecapWorld, Hop, INGRESS, Interface, Pool, Transition, Vip, World};

/// The interface frames come in by.
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// A MAC address that it takes frames to as well.
const ALSO: [u8; 6] = [0, 0, 0x5e, 0, 1, 7];
/// Of a VLAN device on it.
const VLAN: [u8; 6] = [2, 0, 0, 0, 0, 3];
/// Of another interface.
const OTHER: [u8; 6] = [6, 0, 0x5e, 0, 0x53, 2];
/// The index of that.
const ELSEWHERE: u32 = 7;

/// Pools, by their places.
mod pool {
    pub(super) const PLAIN: usize = 0;
    pub(super) const SIX: usize = 1;
    pub(super) const EMPTY: usize = 2;
    pub(super) const UNRESOLVED: usize = 3;
    pub(super) const ELSEWHERE: usize = 4;
    pub(super) const MIXED: usize = 5;
    pub(super) const NARROW: usize = 6;
}

/// The services of every world: addresses, ports, protocol, pool, and whether packets are reset while that is empty.
const SERVICES: [(&str, &str, &str, usize, bool); 46] = [
    ("203.0.113.10", "443", "tcp", pool::PLAIN, false),
    ("203.0.113.10", "443", "udp", pool::SIX, false),
    ("203.0.113.10", "80", "tcp", pool::EMPTY, true),
    ("203.0.113.10", "80", "udp", pool::EMPTY, true),
    ("203.0.113.10", "81", "tcp", pool::EMPTY, false),
    ("203.0.113.10", "81", "udp", pool::EMPTY, false),
    ("203.0.113.10", "82", "tcp", pool::UNRESOLVED, true),
    ("203.0.113.10", "83", "udp", pool::ELSEWHERE, false),
    ("203.0.113.10", "84", "tcp", pool::MIXED, false),
    ("203.0.113.10", "85", "tcp", pool::NARROW, false),
    ("203.0.113.10", "85", "udp", pool::NARROW, false),
    ("203.0.113.10", "8000-8100", "tcp", pool::ELSEWHERE, false),
    ("203.0.113.10", "8050", "tcp", pool::MIXED, false),
    ("203.0.113.10", "8000-8100", "udp", pool::MIXED, false),
    ("203.0.113.10", "5000", "sctp", pool::PLAIN, false),
    ("203.0.113.10", "5000", "udplite", pool::SIX, false),
    ("203.0.113.11", "any", "esp", pool::MIXED, false),
    ("203.0.113.11", "any", "gre", pool::PLAIN, false),
    ("203.0.113.11", "any", "tcp", pool::SIX, false),
    ("203.0.113.12", "any", "sctp", pool::EMPTY, true),
    ("203.0.113.16/28", "any", "any", pool::MIXED, false),
    ("203.0.113.20", "443", "tcp", pool::PLAIN, false),
    ("203.0.113.16/30", "7000-7999", "udp", pool::ELSEWHERE, false),
    ("198.18.0.0/15", "any", "any", pool::NARROW, false),
    ("198.18.7.0/24", "any", "any", pool::EMPTY, true),
    ("2001:db8::10", "443", "tcp", pool::PLAIN, false),
    ("2001:db8::10", "443", "udp", pool::SIX, false),
    ("2001:db8::10", "80", "tcp", pool::EMPTY, true),
    ("2001:db8::10", "80", "udp", pool::EMPTY, true),
    ("2001:db8::10", "81", "tcp", pool::EMPTY, false),
    ("2001:db8::10", "82", "udp", pool::UNRESOLVED, true),
    ("2001:db8::10", "83", "udp", pool::ELSEWHERE, false),
    ("2001:db8::10", "84", "tcp", pool::MIXED, false),
    ("2001:db8::10", "85", "tcp", pool::NARROW, false),
    ("2001:db8::10", "8000-8100", "tcp", pool::MIXED, false),
    ("2001:db8::10", "8000-8100", "udp", pool::NARROW, false),
    ("2001:db8::10", "5000", "sctp", pool::SIX, false),
    ("2001:db8::10", "5000", "udplite", pool::PLAIN, false),
    ("2001:db8::11", "any", "esp", pool::MIXED, false),
    ("2001:db8::11", "any", "gre", pool::PLAIN, false),
    ("2001:db8::11", "any", "udp", pool::ELSEWHERE, false),
    ("2001:db8::12", "any", "any", pool::EMPTY, true),
    ("2001:db8:8000::/33", "any", "any", pool::MIXED, false),
    ("2001:db8:8000::/64", "1-1023", "tcp", pool::PLAIN, false),
    ("2001:db8:8000::7", "443", "tcp", pool::SIX, false),
    ("2001:db8:9000::/36", "any", "any", pool::EMPTY, true),
];

/// All worlds of load balancers.
pub fn worlds() -> Vec<World> {
    let plain = base();
    let mut answering = base();
    answering.name = "answering";
    answering.unknown_port = Unserved::Reset;
    answering.echo = Echo::Serving;
    answering.hash_key = *b"another hash key";
    answering.outer4 = net("10.64.8.0/21");
    answering.outer6 = net("fd00:64::/64");
    by_source(&mut answering);
    let mut gue = base();
    gue.name = "gue";
    gue.echo = Echo::Off;
    gue.outer4 = net("10.64.11.7/32");
    gue.outer6 = net("fd00:64::7/128");
    for pool in &mut gue.pools {
        pool.encap = match pool.encap {
            EncapKind::IpIp => EncapKind::Gue,
            EncapKind::Gue => EncapKind::IpIp,
        };
    }
    let mut part = base();
    part.name = "part";
    part.interfaces.iter_mut().filter(|interface| interface.index == INGRESS).for_each(|interface| interface.index = 9);
    part.unknown_port = Unserved::Reset;
    let mut limited = base();
    limited.name = "limited";
    limited.unknown_port = Unserved::Reset;
    limited.answers = Some(10);
    vec![plain, answering, gue, part, limited, learning()]
}

/// Some VIPs' flows find their slots by their sources.
fn by_source(world: &mut World) {
    for (n, vip) in world.vips.iter_mut().enumerate() {
        vip.affinity = match (n % 5, vip.service.network.addr().is_ipv4()) {
            (0, _) => Affinity::Source,
            (1, true) => Affinity::Prefix(25),
            (1, false) => Affinity::Prefix(113),
            _ => Affinity::FiveTuple,
        };
    }
}

/// Pools whose slots changed owners a moment ago, or a while ago, or whose flows are always tracked.
fn learning() -> World {
    let mut world = base();
    world.name = "learning";
    by_source(&mut world);
    for (n, pool) in world.pools.iter_mut().enumerate() {
        let count = pool.backends.len() as u16;
        let previous = |(slot, owner): (usize, &u16)| match slot % 3 {
            0 => Transition::NONE,
            _ => (owner + 1) % count,
        };
        pool.transition = Transition {
            previous: pool.table.iter().enumerate().map(previous).collect(),
            learning: n != pool::NARROW,
            keeps_datagrams: matches!(n, pool::SIX | pool::MIXED),
            always: n == pool::ELSEWHERE,
        };
    }
    world
}

/// All worlds of backends: some addresses, and all, so that only the address itself can be a reason to refuse a packet.
pub fn decap_worlds() -> Vec<DecapWorld> {
    let nets = |texts: &[&str]| texts.iter().map(|text| net(text)).collect();
    let world = |sources: &[&str], vips: &[&str]| DecapWorld {
        sources: nets(sources),
        vips: nets(vips),
        mss: Mss::Off,
        mtu: 65_536,
    };
    vec![
        world(
            &["10.64.0.0/16", "192.168.7.9/32", "fd64::/32"],
            &["203.0.113.10/32", "198.18.0.0/15", "2001:db8:113::/64", "2001:db8::5/128"],
        ),
        world(&["10.0.0.0/8", "fd00::/8"], &["0.0.0.0/0", "::/0"]),
    ]
}

fn net<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

fn base() -> World {
    World {
        name: "plain",
        hash_key: *b"a key of a flow ",
        interfaces: interfaces(),
        outer4: net("10.64.11.0/24"),
        outer6: net("fd00:64::/96"),
        pools: pools(),
        vips: SERVICES.iter().map(|service| vip(*service)).collect(),
        unknown_port: Unserved::Drop,
        echo: Echo::Always,
        answers: None,
    }
}

fn vip((address, ports, protocol, pool, resets): (&str, &str, &str, usize, bool)) -> Vip {
    let service = Service::parse(address, ports, protocol).unwrap_or_else(|error| panic!("{address}: {error}"));
    Vip {
        service,
        pool,
        when_empty: if resets { Unserved::Reset } else { Unserved::Drop },
        affinity: Affinity::FiveTuple,
    }
}

fn interfaces() -> Vec<Interface> {
    let interface = |mac, index, mtu, tag| Interface { mac, also: Vec::new(), index, mtu, tag };
    let mut own = interface(OWN, INGRESS, 1_500, None);
    own.also.push(ALSO);
    vec![
        own,
        interface(OTHER, ELSEWHERE, 9_000, None),
        interface(VLAN, INGRESS, 1_496, Some((0x8100, 100))),
        interface(OTHER, ELSEWHERE, 1_500, Some((0x88a8, 0xabc))),
    ]
}

/// A pool's encapsulation, and its backends' addresses and next hops.
type PoolSpec = (EncapKind, Vec<(&'static str, Option<Hop>)>);

fn pools() -> Vec<Pool> {
    let hop = |last, slot, mtu| Some(Hop { mac: [2, 0, 0, 0, 9, last], slot, mtu });
    let specs: [PoolSpec; 7] = [
        (
            EncapKind::IpIp,
            vec![
                ("10.0.1.11", hop(1, 0, None)),
                ("10.0.1.12", hop(2, 0, None)),
                ("10.255.254.253", hop(1, 0, Some(1_500))),
            ],
        ),
        (EncapKind::Gue, vec![("fd00:1::11", hop(3, 0, None)), ("fd00:1:2:3:4:5:6:7", hop(3, 0, None))]),
        (EncapKind::IpIp, vec![]),
        (EncapKind::Gue, vec![("10.0.2.1", None), ("fd00:2::1", None)]),
        (EncapKind::Gue, vec![("10.0.3.1", hop(4, 1, None)), ("fd00:3::1", hop(4, 1, None))]),
        (
            EncapKind::IpIp,
            vec![
                ("10.0.4.1", hop(5, 0, None)),
                ("10.0.4.2", hop(5, 2, None)),
                ("fd00:4::3", hop(6, 3, None)),
                ("fd00:4::4", hop(6, 2, None)),
                ("10.0.4.5", None),
                ("10.0.4.6", hop(7, 1, Some(1_400))),
            ],
        ),
        (
            EncapKind::IpIp,
            vec![
                ("10.0.5.1", hop(8, 0, Some(1_001))),
                ("fd00:5::2", hop(8, 1, Some(1_280))),
                ("10.0.5.3", hop(8, 2, Some(600))),
                ("fd00:5::4", hop(8, 0, Some(1_400))),
            ],
        ),
    ];
    let mut next = 0;
    let mut id = || {
        next += 1;
        next
    };
    let backends = specs.map(|(encap, backends)| {
        let backend = |(address, next_hop): (&str, _)| Backend { id: id(), address: net::<IpAddr>(address), next_hop };
        (encap, backends.into_iter().map(backend).collect::<Vec<_>>())
    });
    let pool = |(encap, backends): (_, Vec<_>)| {
        let table = table(&backends);
        Pool { encap, table, backends, transition: Transition::default() }
    };
    backends.map(pool).into()
}

/// A table in which all backends have the same weight.
fn table(backends: &[Backend]) -> Vec<u16> {
    let names: Vec<Name> = backends.iter().map(|backend| net(&format!("b{:05}", backend.id))).collect();
    let table = Table::build(names.iter().map(|name| (name, Weight(100))));
    // Names are in the order of the backends.
    if names.is_empty() { Vec::new() } else { table.slots().iter().copied().filter(|slot| *slot != NO_OWNER).collect() }
}
