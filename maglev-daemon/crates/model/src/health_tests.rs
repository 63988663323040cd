//! Tests of changes to how a pool's backends are checked.

use super::*;
use crate::{AdminState, Backend, Change, OuterSources, Pool, Rules, SettingsChange, Weight};

const SECOND: Duration = Duration::from_secs(1);

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn check(probe: Probe) -> Arc<Check> {
    let (hysteresis, port, via) = (Hysteresis::default(), None, Via::Direct);
    Arc::new(Check { probe, interval: SECOND * 2, timeout: SECOND, jitter: SECOND / 5, hysteresis, port, via })
}

fn http() -> Arc<Check> {
    check(Probe::Http(Request { path: "/".into(), host: None, status: 200..=299, body: None }))
}

/// Pool `web` with backend `a` whose backends are checked like this.
fn services(check: Option<Arc<Check>>) -> Services {
    let rules =
        Rules { outer: OuterSources { v4: Some("10.64.0.0/24".parse().unwrap()), v6: None }, ..Rules::default() };
    let mut services = Services::default();
    let health = PoolHealth { check, ..PoolHealth::default() };
    services.admit(Change::AddPool(Pool { health, ..Pool::new(name("web")) }), &rules).unwrap();
    let (address, weight, state) = ([10, 0, 1, 1].into(), Weight::DEFAULT, AdminState::Active);
    let backend = Backend { name: name("a"), address, weight, state, mtu: None };
    services.admit(Change::AddBackend { pool: name("web"), backend }, &rules).unwrap();
    services
}

fn set(services: &mut Services, health: HealthChange) -> Result<PoolHealth, Refusal> {
    let change = SettingsChange::default();
    services.admit(Change::SetPool { pool: name("web"), change, health }, &Rules::default())?;
    Ok(services.pools[&name("web")].health.clone())
}

fn own(services: &mut Services, backend: &str, own: Option<Override>) -> Result<PoolHealth, Refusal> {
    services.admit(Change::SetCheck { pool: name("web"), backend: name(backend), own }, &Rules::default())?;
    Ok(services.pools[&name("web")].health.clone())
}

fn conflict<T>(line: &str) -> Result<T, Refusal> {
    Err(Refusal::Conflict(line.to_owned()))
}

#[test]
fn checks_are_turned_on_changed_and_turned_off() {
    let mut services = services(None);
    let nothing = HealthChange::default();
    let (panic, slow_start) = (Some(Percent(30)), Some(SECOND * 30));
    let on = HealthChange { check: Some(Some(http())), panic, ..nothing.clone() };
    let expected = PoolHealth { check: Some(http()), panic: Percent(30), ..PoolHealth::default() };
    assert_eq!(set(&mut services, on), Ok(expected.clone()));
    let slower = HealthChange { slow_start, ..nothing.clone() };
    let expected = PoolHealth { slow_start: SECOND * 30, ..expected };
    assert_eq!(set(&mut services, slower), Ok(expected.clone()));
    let port = Override { port: NonZeroU16::new(8_080), ..Override::default() };
    assert_eq!(own(&mut services, "a", Some(port.clone())).unwrap().overrides[&name("a")], port);
    let tcp = HealthChange { check: Some(Some(check(Probe::Tcp))), ..nothing.clone() };
    assert_eq!(set(&mut services, tcp).unwrap().overrides.len(), 1, "a port is of every check");
    let off = HealthChange { check: Some(None), ..nothing };
    assert_eq!(set(&mut services, off), Ok(PoolHealth::default()), "and nothing is left of it");
}

#[test]
fn a_setting_that_does_not_fit_is_refused_and_changes_nothing() {
    let mut without = services(None);
    let nothing = HealthChange::default();
    for (change, key) in [
        (HealthChange { panic: Some(Percent(0)), ..nothing.clone() }, "panic"),
        (HealthChange { slow_start: Some(SECOND), ..nothing.clone() }, "slow_start"),
        (HealthChange { on_all_dead: Some(OnAllDead::Keep), ..nothing.clone() }, "on_all_dead"),
    ] {
        let line = format!("pool web: {key} has no effect without a check; give the pool a check too");
        assert_eq!(set(&mut without, change), conflict(&line));
    }
    let port = Override { port: NonZeroU16::new(8_080), ..Override::default() };
    let line = "backend a of pool web: has no effect without a check; give the pool a check first";
    assert_eq!(own(&mut without, "a", Some(port)), conflict(line));

    let mut with = services(Some(http()));
    let path = Override { path: Some("/a".into()), ..Override::default() };
    let line = "unknown backend b in pool web; known: a";
    assert_eq!(own(&mut with, "b", Some(path.clone())), conflict(line));
    own(&mut with, "a", Some(path.clone())).unwrap();
    let before = with.clone();
    let learning = Some(SECOND * 5);
    let both = Change::SetPool {
        pool: name("web"),
        change: SettingsChange { learning, ..SettingsChange::default() },
        health: HealthChange { check: Some(Some(check(Probe::Tcp))), ..nothing },
    };
    let line = "pool web: backend a has its own path, which is not a key of a tcp check; remove it first";
    assert_eq!(with.admit(both, &Rules::default()), conflict(line));
    assert_eq!(with, before, "all or nothing");
    assert_eq!(own(&mut with, "a", None).unwrap().overrides.len(), 0);
    set(&mut with, HealthChange { check: Some(Some(check(Probe::Tcp))), ..HealthChange::default() }).unwrap();
    let line = "backend a of pool web: check.path is not a key of a tcp check; allowed: port";
    assert_eq!(own(&mut with, "a", Some(path)), conflict(line));
}

#[test]
fn another_host_of_a_backend_is_another_server_unless_the_server_is_named() {
    let of = |pool: Option<&str>, sni: Option<&str>, own: &str| {
        let request = Request { path: "/".into(), host: pool.map(str::to_owned), status: 200..=299, body: None };
        let name = sni.or(pool).unwrap().to_owned();
        let tls = Tls { name, of_host: sni.is_none(), verify: true };
        let own = Override { host: Some(own.to_owned()), ..Override::default() };
        let Probe::Https(request, tls) = own.applied_to(&check(Probe::Https(request, tls))).probe else { panic!() };
        (request.host.unwrap(), tls.name)
    };
    let named = |host: &str, name: &str| (host.to_owned(), name.to_owned());
    assert_eq!(of(Some("a.example"), None, "b.example:8443"), named("b.example:8443", "b.example"));
    assert_eq!(of(Some("a.example"), None, "[2001:db8::1]:8443"), named("[2001:db8::1]:8443", "2001:db8::1"));
    assert_eq!(of(Some("a.example"), Some("c.example"), "b.example"), named("b.example", "c.example"));
    assert_eq!(of(None, Some("c.example"), "b.example"), named("b.example", "c.example"));
}

#[test]
fn hosts_name_servers() {
    let rows = [
        ("www.example.org", Some("www.example.org")),
        ("www.example.org.", Some("www.example.org.")),
        ("www.example.org:8443", Some("www.example.org")),
        ("192.0.2.1:443", Some("192.0.2.1")),
        ("[2001:db8::1]:8443", Some("2001:db8::1")),
        ("[2001:db8::1]", Some("2001:db8::1")),
        ("", None),
        (".", None),
        (":80", None),
        ("2001:db8::1", None),
        ("[192.0.2.1]", None),
        ("[2001:db8::1", None),
        ("[2001:db8::1]8443", None),
        ("a.example:", None),
        ("a.example:0", None),
        ("a.example:+80", None),
        ("-a.example", None),
        ("a!b", None),
        ("a..b", None),
    ];
    for (host, name) in rows {
        assert_eq!(server_name(host), name, "{host}");
    }
}

#[test]
fn a_change_is_shown_in_short() {
    let (panic, slow_start) = (Some(Percent(30)), Some(SECOND * 30));
    let health = HealthChange { check: Some(Some(http())), panic, slow_start, on_all_dead: Some(OnAllDead::Keep) };
    let change = SettingsChange { learning: Some(SECOND * 5), ..SettingsChange::default() };
    let shown = |change, health| Change::SetPool { pool: name("web"), change, health }.to_string();
    let line = "set learning 5s, check http every 2s, panic 30, slow_start 30s, on_all_dead keep for pool web";
    assert_eq!(shown(change, health), line);
    let off = HealthChange { check: Some(None), ..HealthChange::default() };
    assert_eq!(shown(SettingsChange::default(), off), "set no check for pool web");
}

#[test]
fn shares_and_slow_starts_out_of_range_are_named_with_what_is_allowed() {
    assert_eq!(["0", "100"].map(|text| parse_panic(text).ok()), [0, 100].map(|percent| Some(Percent(percent))));
    for text in ["101", "-1", "50 %", ""] {
        let line = parse_panic(text).unwrap_err().to_string();
        assert!(line.ends_with("is not a share in percent; allowed: 0 (never) to 100"), "{line}");
    }
    let read = ["0s", "500ms", "1h"].map(|text| parse_slow_start(text).ok());
    assert_eq!(read, [0, 500, 3_600_000].map(|time| Some(Duration::from_millis(time))));
    for text in ["3601s", "30", "-1s", ""] {
        let line = parse_slow_start(text).unwrap_err().to_string();
        assert!(line.ends_with("is not a slow start; allowed: 0s to 1h, with a unit such as 500ms or 2s"), "{line}");
    }
}
