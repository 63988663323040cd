//! Faults that were found by running the product: files that are written but cannot be read, and empty files.

use super::*;
use crate::tree::{Node, Value};
use crate::{bounds, tree};
use maglev_common::maps::{MAX_MEMBERS, MAX_POOLS, MAX_VIPS};
use maglev_model::{
    Affinity, Check, EncapKind, Hysteresis, Override, Percent, PoolHealth, Probe, Request, Tls, Unserved, Via,
};
use maglev_testing::matrix::{Row, is_full, timed};
use std::num::NonZeroU16;
use std::sync::Arc;

/// The longest name with this end.
fn long(kind: char, n: u32) -> Name {
    Name::parse(&format!("{kind}{}{n:06}", "x".repeat(56))).unwrap()
}

fn https(longest: usize) -> Check {
    let request = Request {
        path: format!("/{}", "p".repeat(longest - 1)),
        host: Some("a.example.org:65535".to_owned()),
        status: 100..=599,
        body: Some("\u{1}".repeat(longest)),
    };
    Check {
        probe: Probe::Https(request, Tls { name: "b.example.org".to_owned(), of_host: false, verify: false }),
        interval: Duration::from_millis(3_599_999),
        timeout: Duration::from_millis(59_999),
        jitter: Duration::from_millis(1_799_999),
        hysteresis: Hysteresis { fall: 100, rise: 100 },
        port: NonZeroU16::new(65_535),
        via: Via::Encap { vip: Some(long('v', 0)) },
    }
}

/// As many objects as possible, each with every setting; backends' overrides by their number.
fn full(own: impl Fn(u32) -> Override) -> Services {
    let settings = PoolSettings {
        tracking: Tracking::Always,
        transition: TransitionSettings {
            learning: Duration::from_secs(3_599),
            idle: Duration::from_secs(14_399),
            udp: UdpPolicy::Keep,
        },
        min_healthy: MAX_MEMBERS,
        encap: EncapKind::Gue,
    };
    let mut services = Services::default();
    for n in 0..pools() {
        // A file with the longest texts for all of them is longer than any that is read.
        let check = Arc::new(https(if n < FEW { 1_024 } else { 1 }));
        let (check, slow_start) = (Some(check), Duration::from_millis(3_599_999));
        let health = PoolHealth { check, slow_start, panic: Percent(100), ..PoolHealth::default() };
        services.pools.insert(long('p', n), Pool { settings, health, ..Pool::new(long('p', n)) }.into());
    }
    for n in 0..members() {
        let pool = services.pool_mut(&long('p', n % pools())).unwrap();
        let [.., a, b] = n.to_be_bytes();
        let address = format!("2001:db8:ffff:ffff:ffff:ffff:ff{a:02x}:ff{b:02x}").parse().unwrap();
        let state = AdminState::Draining { since: Some(UnixTime::MAX) };
        let backend = Backend { name: long('b', n), address, weight: Weight(u16::MAX), state, mtu: None };
        pool.health.overrides.insert(backend.name.clone(), own(n));
        pool.backends.insert(backend.name.clone(), backend);
    }
    let communities: std::collections::BTreeSet<Community> =
        (0..32).map(|n| format!("4294967295:4294967295:{}", u32::MAX - n).parse().unwrap()).collect();
    for n in 0..vips() {
        let service =
            Service::parse("2001:db8:1111:2222:3333:4444:5555:6666", &(10_000 + n).to_string(), "tcp").unwrap();
        let by = AnnounceBy::Prefix("2001:db8:1111:2222:3333:4444:5555:6600/120".parse().unwrap());
        let announce = Announce {
            by,
            communities: if n < FEW { communities.clone() } else { std::collections::BTreeSet::default() },
        };
        let (when_empty, affinity) = (Unserved::Reset, Affinity::FiveTuple);
        let vip = Vip { name: long('v', n), service, pool: long('p', n % pools()), announce, when_empty, affinity };
        services.vips.insert(vip.name.clone(), vip);
    }
    services
}

/// Pools and VIPs with the longest texts.
const FEW: u32 = 512;

/// As many as possible; as many as are allowed by default in the suite.
fn pools() -> u32 {
    if is_full() { MAX_POOLS } else { maglev_common::maps::DEFAULT_POOLS }
}

fn vips() -> u32 {
    if is_full() { MAX_VIPS } else { maglev_common::maps::DEFAULT_VIPS }
}

fn most() -> Rules {
    Rules { limits: Limits::MOST, ..rules() }
}

/// As many as possible; an eighth of them in the suite.
fn members() -> u32 {
    if is_full() { MAX_MEMBERS } else { MAX_MEMBERS / 8 }
}

fn port(n: u32) -> Override {
    Override { port: NonZeroU16::new(u16::try_from(n % 65_535 + 1).unwrap()), ..Override::default() }
}

/// Scalars, lists and maps, keys included.
fn values(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(values).sum(),
        Value::Map(entries) => entries.iter().map(|entry| 1 + values(&entry.node)).sum(),
        _ => 0,
    }
}

/// Writes services, and reads them again. Returns how many bytes that took.
fn round_trip(services: &Services) -> u64 {
    let text = encode_services(services);
    assert!(text.len() as u64 <= bounds::LARGEST, "a file of {} bytes is not written", text.len());
    let read = decode_services(Path::new("services.yaml"), &text, &most()).unwrap();
    assert!(read == *services, "what is read is not what was written");
    text.len() as u64
}

#[test]
fn services_at_every_limit_are_read_again() {
    let mut row = Row::fault("C1", "services.yaml at every limit is read as it was written");
    let services =
        full(|n| Override { path: Some("/healthz".to_owned()), host: Some("c.example.org".to_owned()), ..port(n) });
    assert_eq!((services.backend_count(), services.vips.len()), (members() as usize, vips() as usize));
    assert_eq!(services.validate(&most()), []);
    let bytes = round_trip(&services);
    let held = values(&tree::parse(Path::new("services.yaml"), &encode_services(&services)).unwrap());
    assert!(held <= bounds::VALUES, "{held} values; the bound is {}", bounds::VALUES);
    row.says(format!("{held} values of {} that are reckoned with, {bytes} bytes", bounds::VALUES));
}

#[test]
fn a_change_to_many_pools_of_checked_backends_is_read_again() {
    let _row = Row::fault("C1", "27 pools of 1,000 backends with a port of their own, and one VIP more");
    let mut services = Services::default();
    let check = Arc::new(parse_check("kind: tcp, via: direct").unwrap());
    let pools = if is_full() { 27 } else { 3 };
    for n in 0..pools {
        let name = Name::parse(&format!("p{n}")).unwrap();
        let health = PoolHealth { check: Some(Arc::clone(&check)), ..PoolHealth::default() };
        services.admit(Change::AddPool(Pool { health, ..Pool::new(name.clone()) }), &rules()).unwrap();
        let mut pool = Pool::clone(&services.pools[&name]);
        for m in 0..1_000_u32 {
            let address = IpAddr::from((0x0a00_0000 + n * 1_000 + m + 1).to_be_bytes());
            let name = Name::parse(&format!("b{m}")).unwrap();
            pool.health.overrides.insert(name.clone(), parse_override("port: 8080").unwrap());
            let backend =
                Backend { name: name.clone(), address, weight: Weight(100), state: AdminState::Active, mtu: None };
            pool.backends.insert(name, backend);
        }
        services.pools.insert(name, pool.into());
    }
    let service = Service::parse("203.0.113.10", "80", "tcp").unwrap();
    let vip = Vip {
        name: long('v', 0),
        service,
        pool: Name::parse("p0").unwrap(),
        announce: Announce::default(),
        when_empty: Unserved::Drop,
        affinity: Affinity::default(),
    };
    let next = services.apply(&Change::AddVip(vip), &rules()).unwrap();
    round_trip(&next);
}

#[test]
fn a_file_beyond_the_limits_is_rejected_with_our_message() {
    let _row =
        Row::fault("C1", "a file with more values or levels than are read is refused by our limits, not the parser's");
    let count = if is_full() { bounds::MOST_VALUES } else { 1 };
    let many = format!("pools: [{}]\nvips: []\n", "1,".repeat(count));
    let deep = format!("pools: {}{}\nvips: []\n", "[".repeat(100), "]".repeat(100));
    let aliases = format!("pools: [{{ name: &a b }}]\nvips: [{}]\n", "*a,".repeat(40_000));
    let limits =
        format!("values, twice what 32767 backends, {MAX_POOLS} pools and {MAX_VIPS} VIPs take; remove what is beyond");
    let many = if is_full() { many } else { deep.clone() };
    let limits = if is_full() { limits.as_str() } else { "levels" };
    for (text, expected) in [(many, limits), (deep, "nested deeper than 64 levels"), (aliases, "write the values out")]
    {
        let problems = service_problems(&text);
        assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?}");
        assert!(!problems[0].contains("budget"), "{problems:?}");
    }
}

#[test]
fn an_empty_file_does_not_remove_everything() {
    let _row = Row::fault("C5", "a key without a value, or without either list, is refused with what to write");
    let line = |n: u64, field: &str, what: &str| format!("services.yaml:{n}: {field}: {what}");
    let nothing = |key: &str| format!("expected a list, found nothing; write `{key}: []` for none");
    let missing = |key: &str| format!("missing; expected a list; write `{key}: []` for none");
    let rows = [
        ("pools:\nvips:\n", vec![line(1, "pools", &nothing("pools")), line(2, "vips", &nothing("vips"))]),
        ("pools: []\n", vec![line(1, "vips", &missing("vips"))]),
        ("vips: []\n", vec![line(1, "pools", &missing("pools"))]),
        ("pools:\n  - name: web\n    backends:\nvips: []\n", vec![line(3, "pools[0].backends", &nothing("backends"))]),
    ];
    for (text, expected) in rows {
        assert_eq!(service_problems(text), expected, "{text:?}");
    }
    assert_eq!(decode_services(Path::new("services.yaml"), "pools: []\nvips: []\n", &rules()), Ok(Services::default()));
}

#[test]
fn a_whole_pool_is_admitted_in_proportion_to_its_size() {
    let mut row = Row::fault("R7", "32,767 backends of one pool are read");
    let mut services = Services::default();
    let name = Name::parse("web").unwrap();
    let mut pool = Pool::new(name.clone());
    for n in 0..members() {
        let address = IpAddr::from((0x0a00_0001 + n).to_be_bytes());
        let backend =
            Backend { name: long('b', n), address, weight: Weight(100), state: AdminState::Active, mtu: None };
        pool.backends.insert(backend.name.clone(), backend);
    }
    services.pools.insert(name.clone(), pool.into());
    let text = encode_services(&services);
    let (read, decoded) = timed(|| decode_services(Path::new("services.yaml"), &text, &rules()));
    assert!(read.unwrap() == services);
    let (refusals, validated) = timed(|| services.validate(&rules()));
    assert_eq!(refusals, []);
    // As it was before: each backend by a scan of those before it; for an eighth of them, which takes a 64th of the time.
    let mut scanned = Services::default();
    scanned.admit(Change::AddPool(Pool::new(name.clone())), &rules()).unwrap();
    let few: Vec<_> = services.pools[&name].backends.values().take(members() as usize / 8).cloned().collect();
    let add = |backend| scanned.admit(Change::AddBackend { pool: name.clone(), backend }, &rules()).unwrap();
    let ((), before) = timed(|| few.into_iter().for_each(add));
    let before = before * 64;
    let [decoded, validated, before] = [decoded, validated, before].map(|time| time.as_millis());
    row.says(format!("read in {decoded} ms, admitted in {validated} ms; by scans about {before} ms"));
}

#[test]
fn of_many_errors_the_first_thousand_are_kept_and_the_others_counted() {
    let _row = Row::fault("C1", "a file of nothing but errors is refused in bounded memory");
    let text = format!("pools: [{}1]\nvips: []\n", "1,\n".repeat(100_000));
    let problems = decode_services(Path::new("services.yaml"), &text, &rules()).unwrap_err();
    let lines: Vec<_> = problems.lines().collect();
    assert_eq!((problems.count(), lines.len()), (100_001, 1_001));
    assert!(lines[0].starts_with("services.yaml:1: pools[0]: "), "{}", lines[0]);
    assert_eq!(lines[1_000], "99001 more errors");
}
