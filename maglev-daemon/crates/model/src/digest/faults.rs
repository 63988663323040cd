//! Digests that two releases must agree on. The expected ones were computed by an independent implementation.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use maglev_testing::matrix::Row;

use super::*;
use crate::{
    AdminState, Announce, AnnounceBy, Backend, Check, Community, EncapKind, Hysteresis, Name, OnAllDead, Override,
    Percent, Pool, PoolHealth, PoolSettings, Ports, Probe, Protocol, Request, Service, Tls, Tracking,
    TransitionSettings, UdpPolicy, Via, Vip, Weight,
};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn check(probe: Probe) -> Check {
    Check {
        probe,
        interval: Duration::from_millis(2_000),
        timeout: Duration::from_millis(1_000),
        jitter: Duration::from_millis(200),
        hysteresis: Hysteresis { fall: 2, rise: 3 },
        port: NonZeroU16::new(8_080),
        via: Via::Encap { vip: Some(name("www")) },
    }
}

fn https() -> Probe {
    let request = Request {
        path: "/healthz?a=1".to_owned(),
        host: Some("www.example.org".to_owned()),
        status: 200..=299,
        body: Some("ok\n".to_owned()),
    };
    Probe::Https(request, Tls { name: "www.example.org".to_owned(), of_host: true, verify: true })
}

/// One pool with every setting, and one VIP.
fn services(probe: Probe) -> Services {
    let state = AdminState::Draining { since: Some(crate::UnixTime(1_700_000_000)) };
    let backend = Backend { name: name("web1"), address: [10, 0, 1, 11].into(), weight: Weight(100), state, mtu: None };
    let own = Override { port: NonZeroU16::new(81), path: Some("/own".to_owned()), host: Some("own".to_owned()) };
    let pool = Pool {
        name: name("web"),
        settings: PoolSettings {
            tracking: Tracking::Always,
            transition: TransitionSettings {
                learning: Duration::from_secs(120),
                idle: Duration::from_secs(900),
                udp: UdpPolicy::Keep,
            },
            min_healthy: 2,
            encap: EncapKind::IpIp,
        },
        health: PoolHealth {
            check: Some(Arc::new(check(probe))),
            overrides: [(name("web1"), own)].into(),
            panic: Percent(40),
            slow_start: Duration::from_secs(30),
            on_all_dead: OnAllDead::Withdraw,
        },
        backends: [(name("web1"), backend)].into(),
    };
    let large = Community::Large(65_010, 1, 2);
    let extended = Community::Extended([0, 2, 0xfd, 0xf2, 0, 0, 0, 100]);
    let vip = Vip {
        name: name("www"),
        service: Service::parse("203.0.113.10", "443", "tcp").unwrap(),
        pool: name("web"),
        announce: Announce {
            by: AnnounceBy::Prefix("203.0.113.0/24".parse().unwrap()),
            communities: [large, Community::Standard(65_010, 100), extended].into(),
        },
        when_empty: crate::Unserved::Drop,
        affinity: crate::Affinity::default(),
    };
    Services { pools: [(name("web"), pool.into())].into(), vips: [(name("www"), vip)].into() }
}

fn probes() -> [Probe; 5] {
    let Probe::Https(request, _) = https() else { unreachable!() };
    [
        Probe::Tcp,
        Probe::Http(request),
        https(),
        Probe::Udp { payload: vec![0, 1, 0xff], expect: vec![0x80] },
        Probe::Dns { query: "example.org".to_owned(), rcode: 3 },
    ]
}

#[test]
fn services_have_the_same_digest_in_every_release() {
    let mut row = Row::fault("R3", "services that say all they can have the expected digests");
    const EXPECTED: [&str; 6] =
        ["33ea0ac4b483", "0848b4aa05ab", "376825af5d1d", "bfc1251acd56", "e9b7790b4dfe", "0f76fe3a6b25"];
    let all = probes().map(|probe| Digest::from_services(&services(probe)));
    let empty = Digest::from_services(&Services::default());
    let found: Vec<_> = all.into_iter().chain([empty]).map(|digest| digest.to_string()).collect();
    assert_eq!(found, EXPECTED);
    row.says(format!("{} digests", found.len()));
}

/// One change to each field.
type Change = fn(&mut Pool, &mut Vip);

fn with_check(pool: &mut Pool, change: impl FnOnce(&mut Check)) {
    change(Arc::make_mut(pool.health.check.as_mut().unwrap()));
}

fn with_tls(pool: &mut Pool, change: impl FnOnce(&mut Request, &mut Tls)) {
    with_check(pool, |check| match &mut check.probe {
        Probe::Https(request, tls) => change(request, tls),
        other => panic!("{other:?}"),
    });
}

fn own(pool: &mut Pool) -> &mut Override {
    pool.health.overrides.values_mut().next().unwrap()
}

fn backend(pool: &mut Pool) -> &mut Backend {
    pool.backends.values_mut().next().unwrap()
}

const CHANGES: [Change; 50] = [
    |pool, _| pool.settings.tracking = Tracking::Exception,
    |pool, _| pool.settings.transition.learning = Duration::from_secs(121),
    |pool, _| pool.settings.transition.idle = Duration::from_secs(901),
    |pool, _| pool.settings.transition.udp = UdpPolicy::New,
    |pool, _| pool.settings.min_healthy = 1,
    |pool, _| pool.settings.encap = EncapKind::Gue,
    |pool, _| pool.health.panic = Percent(0),
    |pool, _| pool.health.slow_start = Duration::ZERO,
    |pool, _| pool.health.on_all_dead = OnAllDead::Keep,
    |pool, _| pool.health.check = None,
    |pool, _| pool.health.overrides.clear(),
    |pool, _| pool.backends.clear(),
    |pool, _| own(pool).port = None,
    |pool, _| own(pool).path = None,
    |pool, _| own(pool).host = None,
    |pool, _| backend(pool).address = [10, 0, 1, 12].into(),
    |pool, _| backend(pool).weight = Weight(1),
    |pool, _| backend(pool).state = AdminState::Active,
    |pool, _| backend(pool).state = AdminState::Disabled { since: None },
    |pool, _| with_check(pool, |check| check.interval += Duration::from_millis(1)),
    |pool, _| with_check(pool, |check| check.timeout += Duration::from_millis(1)),
    |pool, _| with_check(pool, |check| check.jitter += Duration::from_millis(1)),
    |pool, _| with_check(pool, |check| check.hysteresis.fall += 1),
    |pool, _| with_check(pool, |check| check.hysteresis.rise += 1),
    |pool, _| with_check(pool, |check| check.port = None),
    |pool, _| with_check(pool, |check| check.via = Via::Direct),
    |pool, _| with_check(pool, |check| check.via = Via::Encap { vip: None }),
    |pool, _| with_tls(pool, |request, _| request.path.push('x')),
    |pool, _| with_tls(pool, |request, _| request.host = None),
    |pool, _| with_tls(pool, |request, _| request.status = 200..=298),
    |pool, _| with_tls(pool, |request, _| request.body = None),
    |pool, _| with_tls(pool, |_, tls| tls.verify = false),
    |_, vip| vip.service.ports = Ports::Any,
    |_, vip| vip.service.ports = "443-444".parse().unwrap(),
    |_, vip| vip.service.network = "203.0.113.10/31".parse().unwrap(),
    |_, vip| vip.service.network = "203.0.113.8/30".parse().unwrap(),
    |_, vip| vip.service.protocol = Protocol::Sctp,
    |_, vip| vip.service.protocol = Protocol::UdpLite,
    |_, vip| vip.service.protocol = Protocol::Esp,
    |_, vip| vip.service.protocol = Protocol::Gre,
    |_, vip| vip.service.protocol = Protocol::Any,
    |_, vip| vip.service.protocol = Protocol::Udp,
    |_, vip| vip.announce.by = AnnounceBy::Nothing,
    |_, vip| vip.announce.communities.clear(),
    |pool, _| backend(pool).mtu = crate::Mtu::new(1_400),
    |pool, _| backend(pool).mtu = crate::Mtu::new(1_500),
    |_, vip| vip.when_empty = crate::Unserved::Reset,
    |_, vip| vip.affinity = crate::Affinity::Source,
    |_, vip| vip.affinity = crate::Affinity::Prefix(24),
    |_, vip| vip.affinity = crate::Affinity::Prefix(25),
];

#[test]
fn every_field_of_services_counts() {
    let mut row = Row::fault("R3", "each change of a field changes the digest");
    let of = |change: &Change| {
        let mut services = services(https());
        let (pool, vip) = (
            services.pools.values_mut().next().map(Arc::make_mut).unwrap(),
            services.vips.values_mut().next().unwrap(),
        );
        change(pool, vip);
        Digest::from_services(&services)
    };
    let mut all: Vec<_> = CHANGES.iter().map(of).collect();
    all.push(Digest::from_services(&services(https())));
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
    row.says(format!("{count} digests, all different"));
}

#[test]
fn text_cannot_pass_for_another_field() {
    let _row = Row::fault("R3", "text that looks like the next field changes the digest");
    let of = |path: &str, body: &str| {
        let mut services = services(https());
        let (path, body) = (path.to_owned(), Some(body.to_owned()));
        let pool = services.pools.values_mut().next().map(Arc::make_mut).unwrap();
        with_tls(pool, |request, _| (request.path, request.body) = (path, body));
        Digest::from_services(&services)
    };
    assert_ne!(of("/a\nbackend web2 10.0.1.12 1 active", "b"), of("/a", "b"));
    assert_ne!(of("/ab", "c"), of("/a", "bc"));
    assert_ne!(of("/a", ""), of("/", "a"));
}

#[test]
fn nodes_of_old_and_new_hash_show_different_digests() {
    let _row = Row::fault("D11", "the version of the flow hash is in the hash key digest");
    let key = HashKey::from_bytes(std::array::from_fn(|n| n as u8));
    // What 0.1.0 shows for this key, whose hash can be steered; then that of version 2.
    assert_ne!(Digest::from_key(key).to_string(), "74d3d1d6ed4a");
    assert_eq!((VERSION, Digest::from_key(key).to_string().as_str()), (2, "aebca15c0820"));
}
