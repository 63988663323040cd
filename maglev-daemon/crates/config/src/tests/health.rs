//! Tests of checks in `services.yaml`.

use super::*;
use maglev_model::{Check, Hysteresis, OnAllDead, Override, Percent, PoolHealth, Probe, Request, Tls, Via, shown};
use maglev_testing::matrix::Row;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Services with this check of pool `web`.
fn with_check(check: &str) -> String {
    format!("pools:\n  - name: web\n    check: {{ {check} }}\n    backends: []\nvips: []\n")
}

fn read(check: &str) -> Check {
    let services = decode_services(Path::new("services.yaml"), &with_check(check), &rules()).unwrap();
    let pool = &services.pools[&Name::parse("web").unwrap()];
    Check::clone(pool.health.check.as_ref().unwrap())
}

fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn tcp() -> Check {
    Check {
        probe: Probe::Tcp,
        interval: milliseconds(2_000),
        timeout: milliseconds(1_000),
        jitter: milliseconds(200),
        hysteresis: Hysteresis { fall: 2, rise: 3 },
        port: None,
        via: Via::Direct,
    }
}

#[test]
fn a_check_of_each_kind_is_read_with_its_defaults() {
    assert_eq!(read("kind: tcp, via: direct"), tcp());
    let fast = Check { interval: milliseconds(333), timeout: milliseconds(166), jitter: milliseconds(33), ..tcp() };
    assert_eq!(read("kind: tcp, via: direct, interval: 333ms"), fast);
    let all = "kind: tcp, via: direct, interval: 5s, timeout: 3s, jitter: 1s, fall: 1, rise: 9, port: 8080";
    let expected = Check {
        interval: milliseconds(5_000),
        timeout: milliseconds(3_000),
        jitter: milliseconds(1_000),
        hysteresis: Hysteresis { fall: 1, rise: 9 },
        port: NonZeroU16::new(8_080),
        ..tcp()
    };
    assert_eq!(read(all), expected);
    let request = Request { path: "/".into(), host: None, status: 200..=299, body: None };
    assert_eq!(read("kind: http, via: direct").probe, Probe::Http(request.clone()));
    let asked = Request {
        path: "/healthz?x=1".into(),
        host: Some("www.example.org:8080".into()),
        status: 200..=200,
        body: Some("ok".into()),
    };
    let text = "via: direct, path: /healthz?x=1, host: \"www.example.org:8080\", status: 200, body: ok";
    assert_eq!(read(&format!("kind: http, {text}")).probe, Probe::Http(asked.clone()));
    let tls = |name: &str, of_host, verify| Tls { name: name.into(), of_host, verify };
    assert_eq!(read(&format!("kind: https, {text}")).probe, Probe::Https(asked, tls("www.example.org", true, true)));
    let of_sni = read("kind: https, via: direct, sni: a.example, verify: false");
    assert_eq!(of_sni.probe, Probe::Https(request, tls("a.example", false, false)));
    let both = read("kind: https, via: direct, sni: a.example, host: b.example");
    let Probe::Https(Request { host: Some(host), .. }, named) = both.probe else { panic!() };
    assert_eq!((host.as_str(), named), ("b.example", tls("a.example", false, true)));
    let of_udp = read("kind: udp, via: direct, payload: \"\\0ping\", expect: pong");
    assert_eq!(of_udp.probe, Probe::Udp { payload: b"\0ping".to_vec(), expect: b"pong".to_vec() });
    for (text, vip) in
        [("", None), (", via: encap", None), (", vip: www", Some("www")), (", via: encap, vip: www", Some("www"))]
    {
        let vip = vip.map(|vip| Name::parse(vip).unwrap());
        assert_eq!(read(&format!("kind: tcp{text}")), Check { via: Via::Encap { vip }, ..tcp() }, "{text}");
    }
    let of_dns = read("kind: dns, via: direct, query: example.org, rcode: nxdomain");
    assert_eq!(of_dns.probe, Probe::Dns { query: "example.org".into(), rcode: 3 });
}

#[test]
fn every_error_in_a_check_names_the_allowed_values() {
    let in_a_row = "is not a number of checks in a row; allowed: 1 to 100";
    let rows = [
        ("via: direct", ".kind: missing; expected one of tcp, http, https, udp, dns".to_owned()),
        ("kind: icmp, via: direct", ".kind: icmp is not a kind of check; allowed: tcp, http, https, udp, dns".into()),
        ("kind: tcp, via: tunnel", ".via: tunnel is not a check path; allowed: encap, direct".into()),
        (
            "kind: tcp, via: direct, vip: www",
            ".vip: applies only to `via: encap`; remove it".into(),
        ),
        (
            "kind: tcp, via: direct, timeout: 2s",
            ".timeout: a timeout of 2s with an interval of 2s; allowed: a timeout shorter than the interval".into(),
        ),
        (
            "kind: tcp, via: direct, interval: 1s, timeout: 3s",
            ".timeout: a timeout of 3s with an interval of 1s; allowed: a timeout shorter than the interval".into(),
        ),
        (
            "kind: tcp, via: direct, interval: 50ms",
            ".interval: 50ms is not an interval; allowed: 100ms to 1h, with a unit such as 500ms or 2s".into(),
        ),
        (
            "kind: tcp, via: direct, timeout: 0s",
            ".timeout: 0s is not a timeout; allowed: 10ms to 1m, with a unit such as 500ms or 2s".into(),
        ),
        (
            "kind: tcp, via: direct, jitter: 1001ms",
            ".jitter: 1001ms is not a jitter; allowed: 0s to 1s, with a unit such as 500ms or 2s".into(),
        ),
        ("kind: tcp, via: direct, rise: 0", format!(".rise: 0 {in_a_row}")),
        ("kind: tcp, via: direct, fall: 101", format!(".fall: 101 {in_a_row}")),
        ("kind: tcp, via: direct, port: 0", ".port: 0 is not a port; allowed: 1 to 65535".into()),
        (
            "kind: tcp, via: direct, path: /",
            ".path: not a key of a tcp check; allowed: none beside those of every check".into(),
        ),
        (
            "kind: http, via: direct, sni: a",
            ".sni: not a key of a http check; allowed: path, status, body, host".into(),
        ),
        ("kind: http, via: direct, path: healthz", ".path: healthz is not a path; allowed: such as /healthz or /healthz?deep=no, without spaces, # and what URLs encode".into()),
        (
            "kind: http, via: direct, path: \"/a\\r\\nhost: b\"",
            ".path: \"/a\\r\\nhost: b\" is not a path; allowed: such as /healthz or /healthz?deep=no, without spaces, # and what URLs encode".into(),
        ),
        (
            "kind: http, via: direct, status: 99",
            ".status: 99 is not a status; allowed: 100 to 599, or a range such as 200-399".into(),
        ),
        (
            "kind: http, via: direct, status: 300-200",
            ".status: 300-200 is not a status; allowed: 100 to 599, or a range such as 200-399".into(),
        ),
        ("kind: https, via: direct", ": an https check needs a server's name; set `sni`, or `host`".into()),
        (
            "kind: https, via: direct, sni: \"a b\"",
            ".sni: \"a b\" is not a server's name; allowed: such as www.example.org, 192.0.2.1 or 2001:db8::1".into(),
        ),
        ("kind: https, via: direct, sni: a, verify: maybe", ".verify: expected true or false, found text".into()),
        ("kind: udp, via: direct, payload: a", ".expect: missing; expected the first bytes of the answer".into()),
        (
            "kind: dns, via: direct, query: a..b",
            ".query: a..b is not a name that can be queried; allowed: such as example.org".into(),
        ),
        (
            "kind: dns, via: direct, query: a, rcode: ok",
            ".rcode: ok is not a response code; allowed: noerror, formerr, servfail, nxdomain, notimp, refused".into(),
        ),
        ("kind: tcp, via: direct, every: 1s", ".every: unknown key; allowed: kind, interval, timeout, fall, rise, jitter, port, via, vip, path, status, body, host, sni, verify, payload, expect, query, rcode".into()),
    ];
    for (check, expected) in rows {
        let mut row = Row::health("config", check);
        let reported = service_problems(&with_check(check));
        assert_eq!(reported, [format!("services.yaml:3: pools[0].check{expected}")], "{check}");
        row.says(expected.trim_start_matches(['.', ':', ' ']));
    }
}

#[test]
fn a_value_that_no_request_can_hold_is_rejected() {
    let problems = |check: &str| service_problems(&with_check(&format!("via: direct, {check}")));
    let reported = |key: &str, rest: String| [format!("services.yaml:3: pools[0].check.{key}: {rest}")];
    let path = "is not a path; allowed: such as /healthz or /healthz?deep=no, without spaces, # and what URLs encode";
    for wrong in ["/a<b", "/a>b", "/a`b", "/a#b", "/?a#b", "/a b", "a", "/\u{e9}"] {
        assert_eq!(
            problems(&format!("kind: http, path: {wrong:?}")),
            reported("path", format!("{} {path}", shown(wrong)))
        );
    }
    let name = "is not a server's name; allowed: such as www.example.org, 192.0.2.1 or 2001:db8::1";
    let host = "is not a host; allowed: such as www.example.org, www.example.org:8080 or [2001:db8::1]:8080";
    for wrong in ["-a.example", "a!b", "a..b", "[2001:db8::1", "a/b", "a:b", "*.example.org", "192.0.2.256"] {
        let said = problems(&format!("kind: https, sni: {wrong:?}"));
        assert_eq!(said, reported("sni", format!("{} {name}", shown(wrong))));
        let said = problems(&format!("kind: http, host: {wrong:?}"));
        assert_eq!(said, reported("host", format!("{} {host}", shown(wrong))));
        assert_eq!(problems(&format!("kind: https, host: {wrong:?}")), said, "reported once");
    }
    let bare = problems("kind: http, host: \"2001:db8::1\"");
    assert_eq!(bare, reported("host", format!("{} {host}", shown("2001:db8::1"))), "a port would be ambiguous");
}

#[test]
fn an_address_is_the_name_of_a_server() {
    for (said, name) in [
        ("host: \"[2001:db8::1]:8443\"", "2001:db8::1"),
        ("sni: \"[2001:db8::1]:8443\"", "2001:db8::1"),
        ("sni: \"2001:db8::1\"", "2001:db8::1"),
        ("sni: 192.0.2.1", "192.0.2.1"),
        ("host: \"192.0.2.1:8443\"", "192.0.2.1"),
    ] {
        let Probe::Https(_, tls) = read(&format!("kind: https, via: direct, {said}")).probe else { panic!() };
        assert_eq!(tls.name, name, "{said}");
    }
}

#[test]
fn settings_of_checks_are_read_and_rejected_without_a_check() {
    let pool = |rest: &str| format!("pools:\n  - {{ name: web, {rest} }}\nvips: []\n");
    let check = "check: { kind: http, via: direct }";
    let text = pool(&format!(
        "{check}, panic: 30, slow_start: 30s, backends: [{{ name: a, address: 10.0.1.1, check: {{ port: 81, path: /a, host: b }} }}]"
    ));
    let services = decode_services(Path::new("services.yaml"), &text, &rules()).unwrap();
    let PoolHealth { overrides, panic, slow_start, .. } = &services.pools[&Name::parse("web").unwrap()].health;
    assert_eq!((*panic, *slow_start), (Percent(30), milliseconds(30_000)));
    let (path, host) = (Some("/a".to_owned()), Some("b".to_owned()));
    assert_eq!(overrides[&Name::parse("a").unwrap()], Override { port: NonZeroU16::new(81), path, host });
    let nothing = "has no effect without a check; give the pool a `check`, or remove it";
    let tcp = "check: { kind: tcp, via: direct }";
    let backend = |check: &str| format!("backends: [{{ name: a, address: 10.0.1.1, check: {{ {check} }} }}]");
    for (text, expected) in [
        ("panic: 50".to_owned(), format!("panic: {nothing}")),
        ("slow_start: 30s".into(), format!("slow_start: {nothing}")),
        ("on_all_dead: keep".into(), format!("on_all_dead: {nothing}")),
        (format!("{tcp}, on_all_dead: stay"), "on_all_dead: stay is not an action; allowed: withdraw, keep".to_owned()),
        (backend("port: 81"), format!("backends[0].check: {nothing}")),
        (
            format!("{tcp}, {}", backend("path: /a")),
            "backends[0].check.path: not a key of a tcp check; allowed: port".into(),
        ),
        (
            format!("{tcp}, {}", backend("rise: 1")),
            "backends[0].check.rise: unknown key; allowed: port, path, host".into(),
        ),
        (format!("{tcp}, panic: 101"), "panic: 101 is not a share in percent; allowed: 0 (never) to 100".into()),
        (
            format!("{tcp}, slow_start: 2h"),
            "slow_start: 2h is not a slow start; allowed: 0s to 1h, with a unit such as 500ms or 2s".into(),
        ),
    ] {
        assert_eq!(service_problems(&pool(&text)), [format!("services.yaml:2: pools[0].{expected}")], "{text}");
    }
}

#[test]
fn how_many_rounds_are_the_checkers_fault_is_read_and_checked() {
    let rounds = |text: &str| {
        node::decode(Path::new("maglev.yaml"), &format!("{GOOD}{text}"), no_secret).config.unwrap().common_failure
    };
    assert_eq!((rounds(""), rounds("health: { common_failure: 0 }\n")), (3, 0));
    let reported = node_problems(&format!("{GOOD}health: {{ common_failure: 101 }}\n"));
    assert!(
        reported[0].ends_with("health.common_failure: 101 is not a number of rounds; allowed: 0 (never) to 100"),
        "{reported:?}"
    );
}

#[test]
fn how_long_a_prefix_is_held_down_is_read_and_checked() {
    let held = |text: &str| {
        node::decode(Path::new("maglev.yaml"), &format!("{GOOD}{text}"), no_secret).config.unwrap().hold_down
    };
    let seconds = ["", "health: { hold_down: 0s }\n", "health: { hold_down: 1m }\n"].map(|text| held(text).as_secs());
    assert_eq!(seconds, [10, 0, 60]);
    for wrong in ["2h", "10"] {
        let reported = node_problems(&format!("{GOOD}health: {{ hold_down: {wrong} }}\n"));
        let expected = format!("{wrong} is not a hold-down; allowed: 0s to 1h, with a unit such as 10s");
        assert!(reported[0].ends_with(&format!("health.hold_down: {expected}")), "{reported:?}");
    }
}

#[test]
fn a_removed_backend_takes_its_override_along() {
    let text = "pools:\n  - { name: web, check: { kind: tcp, via: direct }, backends: [{ name: a, address: 10.0.1.1, check: { port: 81 } }] }\nvips: []\n";
    let mut services = decode_services(Path::new("services.yaml"), text, &rules()).unwrap();
    let (pool, backend) = (Name::parse("web").unwrap(), Name::parse("a").unwrap());
    let change = Change::RemoveBackend { pool: pool.clone(), backend, force: false };
    services.admit(change, &rules()).unwrap();
    assert!(services.pools[&pool].health.overrides.is_empty());
}

fn any_text() -> impl Strategy<Value = String> {
    ".{0,20}"
}

fn any_request() -> impl Strategy<Value = Request> {
    let status: [RangeInclusive<u16>; 3] = [200..=299, 204..=204, 100..=599];
    let host = prop::option::of("[a-z]{1,9}(:[1-9]{1,4})?");
    ("/[a-z&{}\"]{0,9}([?][a-z?&{}]{0,9})?", host, prop::sample::select(status.to_vec()), prop::option::of(any_text()))
        .prop_map(|(path, host, status, body)| Request { path, host, status, body })
}

fn any_probe() -> impl Strategy<Value = Probe> {
    let tls = ("[a-z]{1,9}", any::<bool>()).prop_map(|(name, verify)| Tls { name, of_host: false, verify });
    let of_host = (any_request(), "[a-z]{1,9}", any::<bool>()).prop_map(|(request, name, verify)| {
        let host = Some(format!("{name}:8443"));
        Probe::Https(Request { host, ..request }, Tls { name, of_host: true, verify })
    });
    prop_oneof![
        Just(Probe::Tcp),
        any_request().prop_map(Probe::Http),
        (any_request(), tls).prop_map(|(request, tls)| Probe::Https(request, tls)),
        of_host,
        (any_text(), any_text())
            .prop_map(|(payload, expect)| Probe::Udp { payload: payload.into(), expect: expect.into() }),
        ("[a-z]{1,9}(\\.[a-z]{1,9}){0,2}", 0_u8..6).prop_map(|(query, rcode)| Probe::Dns { query, rcode }),
    ]
}

fn any_check() -> impl Strategy<Value = Check> {
    let vip = prop::option::of("[a-z]{1,9}").prop_map(|vip| vip.map(|vip| Name::parse(&vip).unwrap()));
    let via = prop_oneof![Just(Via::Direct), vip.prop_map(|vip| Via::Encap { vip })];
    (any_probe(), 100_u64..100_000, 1_u32..=100, 1_u32..=100, any::<u16>(), via).prop_map(
        |(probe, interval, fall, rise, port, via)| {
            let (timeout, jitter) = (milliseconds((interval - 1).min(60_000)), milliseconds(interval / 3));
            let (interval, port) = (milliseconds(interval), NonZeroU16::new(port));
            Check { probe, interval, timeout, jitter, hysteresis: Hysteresis { fall, rise }, port, via }
        },
    )
}

proptest! {
    #[test]
    fn checks_that_are_written_are_read_back(
        check in any_check(),
        panic in 0_u8..=100,
        slow in prop_oneof![Just(0_u64), 1_u64..3_600_000],
        different in prop::option::of(1_u16..),
        on_all_dead in prop_oneof![Just(OnAllDead::Withdraw), Just(OnAllDead::Keep)],
    ) {
        let name = |text| Name::parse(text).unwrap();
        let different = different.map(|port| Override { port: NonZeroU16::new(port), ..Override::default() });
        let health = PoolHealth {
            check: Some(Arc::new(check)),
            overrides: different.into_iter().map(|different| (name("a"), different)).collect(),
            panic: Percent(panic),
            slow_start: milliseconds(slow),
            on_all_dead,
        };
        let mut services = Services::default();
        services.admit(Change::AddPool(Pool { health, ..Pool::new(name("web")) }), &rules()).unwrap();
        let (address, weight, state) = ([10, 0, 1, 1].into(), Weight(1), AdminState::Active);
        let backend = Backend { name: name("a"), address, weight, state, mtu: None };
        services.admit(Change::AddBackend { pool: name("web"), backend }, &rules()).unwrap();
        let text = encode_services(&services);
        prop_assert_eq!(decode_services(Path::new("services.yaml"), &text, &rules()).unwrap(), services, "{}", text);
    }

    #[test]
    fn checks_that_are_shown_are_read_back(check in any_check()) {
        let text = check_text(&check);
        prop_assert_eq!(parse_check(&text), Ok(check.clone()), "{}", &text);
        prop_assert_eq!(parse_check(&format!("  {{{text}}} ")), Ok(check), "{}", &text);
    }
}
