//! Tests of [`super`]: each refusal, the names in it, and that nothing changed.

use super::*;
use crate::{AdminState, Limits, Service, Weight};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn rules() -> Rules {
    let outer = OuterSources { v4: Some("10.64.0.0/24".parse().unwrap()), v6: None };
    Rules { limits: Limits { vips: 3, pools: 3, backends: 3 }, outer }
}

fn backend(text: &str, address: &str) -> Backend {
    let (address, state) = (address.parse().unwrap(), AdminState::Active);
    Backend { name: name(text), address, weight: Weight::DEFAULT, state, mtu: None }
}

fn add_backend(pool: &str, text: &str, address: &str) -> Change {
    Change::AddBackend { pool: name(pool), backend: backend(text, address) }
}

fn add_vip(text: &str, address: &str, port: &str, pool: &str) -> Change {
    let service = Service::parse(address, port, "tcp").unwrap();
    Change::AddVip(Vip {
        name: name(text),
        service,
        pool: name(pool),
        announce: crate::Announce::default(),
        when_empty: crate::Unserved::Drop,
        affinity: crate::Affinity::default(),
    })
}

fn services(changes: impl IntoIterator<Item = Change>) -> Services {
    changes.into_iter().fold(Services::default(), |services, change| services.apply(&change, &rules()).unwrap())
}

fn web() -> Services {
    services([
        Change::AddPool(Pool::new(name("web"))),
        add_backend("web", "web1", "10.0.1.11"),
        add_vip("www", "203.0.113.10", "443", "web"),
    ])
}

#[test]
fn conflicts_are_named_with_their_remedy() {
    use Change::{AddPool, RemoveBackend, RemovePool, RemoveVip, SetWeight};
    let rows: [(Change, &str); 10] = [
        (add_vip("w", "203.0.113.11", "443", "wbe"), "unknown pool wbe; known: web"),
        (add_vip("www", "203.0.113.11", "443", "web"), "there is already a VIP www; choose another name"),
        (
            add_vip("w", "203.0.113.10", "443", "web"),
            "203.0.113.10:443/tcp is already VIP www; remove it first, or choose another address, port or protocol",
        ),
        (RemoveVip(name("w")), "unknown VIP w; known: www"),
        (AddPool(Pool::new(name("web"))), "there is already a pool web; choose another name"),
        (RemovePool(name("web")), "pool web serves VIPs (www); remove them first"),
        (add_backend("web", "web1", "10.0.1.12"), "there is already a backend web1 in pool web; choose another name"),
        (
            add_backend("web", "web2", "10.0.1.11"),
            "10.0.1.11 is already backend web1 of pool web; remove it first, or choose another address",
        ),
        (
            RemoveBackend { pool: name("web"), backend: name("web9"), force: true },
            "unknown backend web9 in pool web; known: web1",
        ),
        (SetWeight { pool: name("api"), backend: name("web1"), weight: Weight(1) }, "unknown pool api; known: web"),
    ];
    for (change, line) in rows {
        let mut services = web();
        assert_eq!(services.admit(change, &rules()), Err(Refusal::Conflict(line.to_owned())));
        assert_eq!(services, web());
    }
}

#[test]
fn addresses_that_cannot_be_served_are_invalid() {
    let rows = [
        ("0.0.0.0", "the unspecified address"),
        ("127.0.0.1", "a loopback address"),
        ("::1", "a loopback address"),
        ("224.0.0.1", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("0.1.2.3", "an address of \"this network\" (0.0.0.0/8)"),
        ("255.255.255.255", "a broadcast or reserved address"),
        ("fe80::1", "a link-local address"),
        ("::ffff:10.0.0.1", "an IPv4-mapped address; write it as IPv4"),
    ];
    for (address, kind) in rows {
        let line = Refusal::Invalid(format!("backend web2: {address} is {kind}"));
        assert_eq!(web().apply(&add_backend("web", "web2", address), &rules()), Err(line));
        let line = Refusal::Invalid(format!("VIP w: {address} is {kind}"));
        assert_eq!(web().apply(&add_vip("w", address, "80", "web"), &rules()), Err(line));
    }
}

#[test]
fn backends_need_an_outer_source_and_an_address_of_their_own() {
    let refused = web().apply(&add_backend("web", "six", "2001:db8::1"), &rules()).unwrap_err();
    let line = "backend six: 2001:db8::1 needs an IPv6 outer source; set encap.source6 in maglev.yaml";
    assert_eq!(refused, Refusal::Invalid(line.to_owned()));
    assert!(matches!(
        web().apply(&add_backend("web", "vip", "203.0.113.10"), &rules()),
        Err(Refusal::Invalid(line)) if line.contains("VIP www")
    ));
    assert!(matches!(
        web().apply(&add_vip("w", "10.0.1.11", "80", "web"), &rules()),
        Err(Refusal::Invalid(line)) if line.contains("10.0.1.11 is the address of backend web1 of pool web")
    ));
    let around = web().apply(&add_vip("w", "10.0.0.0/16", "80", "web"), &rules()).unwrap_err().to_string();
    assert!(
        around.contains("VIP w: 10.0.0.0/16 contains 10.0.1.11, the address of backend web1 of pool web"),
        "{around}"
    );
    let wide = web().apply(&add_vip("w", "198.51.100.0/28", "80", "web"), &rules()).unwrap();
    let within = wide.apply(&add_backend("web", "web2", "198.51.100.15"), &rules()).unwrap_err().to_string();
    assert!(within.contains("198.51.100.15 is within 198.51.100.0/28, the prefix of VIP w"), "{within}");
    assert!(wide.apply(&add_backend("web", "web2", "198.51.100.16"), &rules()).is_ok());
    let mut both = web();
    both.admit(add_vip("w", "198.51.100.0/28", "80", "web"), &rules()).unwrap();
    both.pool_mut(&name("web")).unwrap().backends.insert(name("web2"), backend("web2", "198.51.100.15"));
    assert_eq!(both.validate(&rules()).len(), 1, "a file is admitted by the same rules");
}

#[test]
fn an_address_may_carry_many_ports_and_any() {
    let services = web().apply(&add_vip("alt", "203.0.113.10", "8443", "web"), &rules()).unwrap();
    let services = services.apply(&add_vip("rest", "203.0.113.10", "any", "web"), &rules()).unwrap();
    let refused = services.apply(&add_vip("four", "203.0.113.10", "80", "web"), &rules()).unwrap_err();
    let line = "limit of 3 VIPs reached; raise limits.vips in maglev.yaml or remove one";
    assert_eq!(refused, Refusal::Conflict(line.to_owned()));
}

#[test]
fn a_limit_that_cannot_be_raised_is_not_advised_to_be() {
    let most = Rules { limits: Limits::MOST, ..rules() };
    let mut services = Services::default();
    for n in 0..most.limits.pools {
        services.admit(Change::AddPool(Pool::new(name(&format!("p{n}")))), &most).unwrap();
    }
    let refused = services.admit(Change::AddPool(Pool::new(name("more"))), &most);
    assert_eq!(refused, Err(Refusal::Conflict(format!("limit of {MAX_POOLS} pools reached; remove one"))));
}

#[test]
fn the_last_backend_may_go_and_two_pools_may_share_an_address() {
    let mut services = web();
    services.admit(Change::AddPool(Pool::new(name("api"))), &rules()).unwrap();
    services.admit(add_backend("api", "api1", "10.0.1.11"), &rules()).unwrap();
    services.admit(Change::RemoveBackend { pool: name("web"), backend: name("web1"), force: false }, &rules()).unwrap();
    assert!(services.pools[&name("web")].backends.is_empty());
}

#[test]
fn a_pool_with_a_wrong_backend_is_not_half_added() {
    let mut services = web();
    let good = backend("a", "10.0.1.12");
    let bad = backend("b", "10.0.1.12");
    let backends = [good, bad].map(|backend| (backend.name.clone(), backend)).into();
    let refused = services.admit(Change::AddPool(Pool { backends, ..Pool::new(name("api")) }), &rules());
    assert!(refused.is_err());
    assert_eq!(services, web());
}

#[test]
fn validation_reports_everything_at_once() {
    let everything =
        Rules { outer: OuterSources { v6: Some("2001:db8::/64".parse().unwrap()), ..rules().outer }, ..rules() };
    let services = web().apply(&add_backend("web", "six", "2001:db8::1"), &everything).unwrap();
    let services = services.apply(&add_vip("w6", "2001:db8:1::1", "80", "web"), &everything).unwrap();
    assert_eq!(services.validate(&everything), []);
    let narrow = Rules { limits: Limits { vips: 1, ..rules().limits }, ..rules() };
    assert_eq!(services.validate(&narrow).len(), 2);
}
