//! Tests of the files: every error is reported, in one pass, with its line and field.

use super::*;
use ipnet::IpNet;
use maglev_common::maps::{MAX_POOLS, MAX_VIPS};
use maglev_model::{
    AdminState, Affinity, Announce, AnnounceBy, Backend, Change, Community, EncapKind, Limits, Mtu, Name, OuterSources,
    Pool, PoolSettings, Ports, Protocol, Service, Tracking, TransitionSettings, UdpPolicy, UnixTime, Unserved, Vip,
    Weight,
};
use maglev_model::{Rules, Services};
use proptest::prelude::*;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod decap;
mod faults;
mod health;

fn rules() -> Rules {
    let outer =
        OuterSources { v4: Some("10.64.0.0/24".parse().unwrap()), v6: Some("2001:db8:64::/64".parse().unwrap()) };
    Rules { limits: Limits::default(), outer }
}

/// There are no files with passwords.
fn no_secret(_: &Path) -> Result<String, String> {
    Err("there is none".to_owned())
}

fn lines(problems: &Problems) -> Vec<String> {
    problems.lines().collect()
}

fn node_problems(text: &str) -> Vec<String> {
    lines(&node::decode(Path::new("maglev.yaml"), text, no_secret).problems)
}

fn service_problems(text: &str) -> Vec<String> {
    lines(&decode_services(Path::new("services.yaml"), text, &rules()).unwrap_err())
}

const GOOD: &str = r#"
interfaces: [{ name: eth0, also: ["00:00:5e:00:01:0A"] }, { name: eth1, mode: generic }]
encap: { kind: ipip, source: 10.64.11.0/24, source6: "2001:db8:64::1" }
hash_key: "000102030405060708090a0b0c0d0e0f"
services: services.yaml
api: { socket: /run/m.sock, metrics: "127.0.0.1:9642" }
limits: { vips: 10 }
flow_table: { flows: 458752 }
trace: true
"#;

#[test]
fn a_good_node_is_read_whole() {
    let config = node::decode(Path::new("/etc/maglev/maglev.yaml"), GOOD, no_secret);
    assert!(config.problems.is_empty(), "{}", config.problems);
    let config = config.config.unwrap();
    assert_eq!(config.interfaces[0].also, [[0, 0, 0x5e, 0, 1, 10]]);
    assert_eq!(config.interfaces[1], Interface { name: "eth1".to_owned(), mode: Mode::Generic, also: Vec::new() });
    assert_eq!(config.services, PathBuf::from("/etc/maglev/services.yaml"));
    assert_eq!(config.limits, Limits { vips: 10, ..Limits::default() });
    assert_eq!(config.flow_sets, maglev_common::maps::DEFAULT_FLOW_SETS);
    assert_eq!(config.outer.v6, Some("2001:db8:64::1/128".parse().unwrap()));
    let key: Vec<u8> = (0..16).collect();
    assert_eq!(config.hash_key, maglev_common::hash::HashKey::from_bytes(key.try_into().unwrap()));
    assert_eq!(config.metrics, Some("127.0.0.1:9642".parse().unwrap()));
    assert_eq!((config.pin, config.on_stop), (Some(PathBuf::from("/sys/fs/bpf/maglev")), OnStop::Keep));
}

#[test]
fn a_file_with_an_unknown_key_is_no_configuration() {
    let text = "interfaces: [{ name: eth0 }]\nencap: { kind: ipip, source: 10.64.11.0/24 }\n\
                hash_key: 0f1e2d3c4b5a69788796a5b4c3d2e1f0\nhash_kex: 7\n";
    let draft = node::decode(Path::new("maglev.yaml"), text, no_secret);
    assert_eq!((draft.config.is_some(), draft.problems.count()), (false, 1));
}

#[test]
fn where_a_node_pins_is_read_and_checked() {
    let dataplane = |text: &str| format!("{GOOD}dataplane: {text}\n");
    let read = |text: &str| {
        let config = node::decode(Path::new("maglev.yaml"), &dataplane(text), no_secret).config.unwrap();
        (config.pin, config.on_stop)
    };
    assert_eq!(read("{ pin: /bpf/lb1, on_stop: keep }"), (Some(PathBuf::from("/bpf/lb1")), OnStop::Keep));
    assert_eq!(read("{ pin: /bpf/lb1 }"), (Some(PathBuf::from("/bpf/lb1")), OnStop::Keep));
    assert_eq!(read("{ on_stop: detach }"), (Some(PathBuf::from("/sys/fs/bpf/maglev")), OnStop::Detach));
    assert_eq!(read("{ pin: off }"), (None, OnStop::Detach));
    for (text, said) in [
        ("{ pin: maglev }", "dataplane.pin: maglev is not a pin folder; allowed: such as /sys/fs/bpf/maglev"),
        ("{ pin: /sys/fs/bpf/lb.1 }", "without dots"),
        ("{ pin: / }", "dataplane.pin: / is not a pin folder"),
        ("{ on_stop: leave }", "dataplane.on_stop: leave is not a stop action; allowed: detach, keep"),
        ("{ pin: off, on_stop: keep }", "dataplane.on_stop: keep needs a pin folder"),
        ("{ pins: x }", "dataplane.pins: unknown key; allowed: pin, on_stop"),
    ] {
        let reported = node_problems(&dataplane(text));
        assert!(reported.len() == 1 && reported[0].contains(said), "{text}: {reported:?}");
    }
}

#[test]
fn the_socket_for_reads_is_another_one() {
    let node = |api: &str| GOOD.replace("{ socket: /run/m.sock, metrics: \"127.0.0.1:9642\" }", api);
    let read =
        |api: &str| node::decode(Path::new("/etc/maglev.yaml"), &node(api), no_secret).config.unwrap().read_socket;
    assert_eq!(read("{ socket: /run/m.sock }"), None);
    assert_eq!(read("{ socket: /run/m.sock, read_socket: /run/r.sock }"), Some(PathBuf::from("/run/r.sock")));
    assert_eq!(read("{ read_socket: r.sock }"), Some(PathBuf::from("/etc/r.sock")));
    for (api, said) in [
        (
            "{ socket: /run/m.sock, read_socket: /run//./m.sock }",
            "maglev.yaml:6: api.read_socket: /run//./m.sock is api.socket; allowed: another path",
        ),
        ("{ read_socket: /run/maglev/maglev.sock }", "/run/maglev/maglev.sock is api.socket; allowed: another path"),
        ("{ read_socket: \"\" }", "api.read_socket: \"\" is not the path of a file"),
        ("{ read_socket: [] }", "api.read_socket: expected text, found a list"),
        ("{ reads: x }", "api.reads: unknown key; allowed: socket, read_socket, metrics"),
    ] {
        let reported = node_problems(&node(api));
        assert!(reported.len() == 1 && reported[0].contains(said), "{api}: {reported:?}");
    }
}

#[test]
fn every_error_in_a_node_is_reported_with_its_line_and_field() {
    let text = "interfaces: [{ name: eth0 }, { name: eth0 }, { name: a/b, mode: fast }]
encap: { kind: gue, source: 10.64.11.7/24, source6: 10.0.0.1 }
hash_key: \"c0ffee\"
service: x
limits: { vips: 70000, pools: 0, backends: many }
api: { metrics: \"0.0.0.0:80\" }
flow_table: { flows: 0 }
trace: yes
bgp: { local_as: 1 }
trace: true
packets: { unknown_port: refuse, echo: [], when_empty: reset }
";
    let [vips, pools] = [("vips", "70000", MAX_VIPS), ("pools", "0", MAX_POOLS)].map(|(key, value, most)| {
        format!("maglev.yaml:5: limits.{key}: {value} is out of range; allowed: 1 to {most}")
    });
    let expected = [
        "maglev.yaml:1: interfaces[1].name: eth0 is named twice",
        "maglev.yaml:1: interfaces[2].name: a/b is not an interface's name; allowed: 1 to 15 characters without space, / and :",
        "maglev.yaml:1: interfaces[2].mode: fast is not a mode; allowed: native, generic",
        "maglev.yaml:2: encap.kind: gue is a setting of pools (encap: gue in services.yaml); allowed: ipip",
        "maglev.yaml:2: encap.source: 10.64.11.7/24 has host bits set; write 10.64.11.0/24 or the address alone",
        "maglev.yaml:2: encap.source6: 10.0.0.1/32 is IPv4; set it as source",
        "maglev.yaml:3: hash_key: 6 characters; expected 32 hexadecimal digits in quotes, the same on every node (`maglevd keygen` makes a key)",
        "maglev.yaml:4: service: unknown key; allowed: interfaces, encap, hash_key, services, api, bgp, drain, limits, flow_table, packets, trace, dataplane, health",
        &vips,
        &pools,
        "maglev.yaml:5: limits.backends: many is out of range; allowed: 1 to 32767",
        "maglev.yaml:6: api.metrics: 0.0.0.0:80 is not a loopback address; allowed: such as 127.0.0.1:9642, or off",
        "maglev.yaml:7: flow_table.flows: 0 is out of range; allowed: 1 to 234881024",
        "maglev.yaml:8: trace: expected true or false, found text",
        "maglev.yaml:9: bgp.router_id: missing; expected such as 10.0.0.11",
        "maglev.yaml:9: bgp.neighbors: missing; expected a list such as [{ address: 10.0.0.1, remote_as: 65000 }]",
        "maglev.yaml:10: trace: given twice, first in line 8",
        "maglev.yaml:11: packets.when_empty: unknown key; allowed: unknown_port, echo",
        "maglev.yaml:11: packets.unknown_port: refuse is not a rule for packets without a backend; allowed: drop, reset",
        "maglev.yaml:11: packets.echo: expected a single value, found a list",
    ];
    assert_eq!(node_problems(text), expected);
}

#[test]
fn every_error_in_further_mac_addresses_is_reported() {
    let also = |list: &str| {
        let text =
            format!("interfaces: [{{ name: eth0, also: {list} }}]\nencap: {{ kind: ipip, source: 10.64.11.0/24 }}\n");
        node_problems(&(text + "hash_key: \"000102030405060708090a0b0c0d0e0f\"\n"))
    };
    let good = r#""00:00:5e:00:01:0a""#;
    for list in ["[]", &format!("[{good}]"), r#"["02:00:00:00:00:01", "02:00:00:00:00:02"]"#] {
        assert!(also(list).is_empty(), "{list}");
    }
    for (list, said) in [
        ("eth1", "interfaces[0].also: "),
        (r#"["00:00:5e:00:01"]"#, "also[0]: 00:00:5e:00:01 is not a MAC address; write it like 00:00:5e:00:01:0a"),
        (r#"["0:0:5e:0:1:a"]"#, "is not a MAC address"),
        (r#"["00:00:5e:00:01:+a"]"#, "is not a MAC address"),
        (r#"["ff:ff:ff:ff:ff:ff"]"#, "ff:ff:ff:ff:ff:ff is a multicast or broadcast address"),
        (r#"["01:00:5e:00:00:12"]"#, "is a multicast or broadcast address"),
        (r#"["00:00:00:00:00:00"]"#, "is not an interface's address"),
        (&format!("[{good}, {good}]"), "also[1]: a MAC address that is in the list twice"),
        (
            r#"["02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03", "02:00:00:00:00:04", "02:00:00:00:00:05"]"#,
            "5 MAC addresses; at most 4 are supported",
        ),
    ] {
        let reported = also(list);
        assert!(reported.len() == 1 && reported[0].contains(said), "{list}: {reported:?}");
    }
}

#[test]
fn missing_keys_and_wrong_types_are_reported() {
    let reported = node_problems("");
    assert_eq!(reported.len(), 3, "{reported:?}");
    assert!(reported.iter().all(|line| line.contains("missing; expected")));
    let reported = node_problems("interfaces: eth0\nencap: [ipip]\nhash_key: 12345678901234567890123456789012\n");
    assert!(
        reported.iter().any(|line| line.starts_with("maglev.yaml:1: interfaces: expected a list, found text")),
        "{reported:?}"
    );
    assert!(reported.iter().any(|line| line.starts_with("maglev.yaml:2: encap: expected keys and values (")));
    assert!(
        reported
            .iter()
            .any(|line| line.starts_with("maglev.yaml:3: hash_key: expected text, found a number; put it in quotes"))
    );
    assert!(reported.iter().all(|line| !line.contains("123456789")), "a key is a secret: {reported:?}");
    assert_eq!(node_problems("- just\n- a list\n").len(), 1);
}

#[test]
fn broken_yaml_is_reported_with_its_line() {
    let reported = node_problems("interfaces: [{ name: eth0 }\nencap: {\n");
    assert_eq!(reported.len(), 1);
    assert!(reported[0].contains("not valid YAML"), "{reported:?}");
    let reported = service_problems("pools: [{ name: web }]\nvips: [ }\n");
    assert!(reported[0].starts_with("services.yaml:2: not valid YAML"), "{reported:?}");
}

#[test]
fn every_error_in_services_is_reported_with_its_line_and_field() {
    let text = "pools:
  - name: web
    check: { kind: http, via: tunnel }
    tracking: affinity
    transition: { learning: 0s, idle: 365d, udp: old, window: 1s }
    backends:
      - { name: web1, address: 10.0.1.11 }
      - { name: web2, address: 10.0.1.12, weight: 70000 }
      - { name: web3, address: 10.0.1.11 }
      - { name: web4, address: 127.0.0.1, wieght: 1 }
      - { address: 10.0.1 }
      - { name: web5, address: 10.0.1.15, state: drained, since: yesterday }
      - { name: web6, address: 10.0.1.16, since: 1700000000 }
  - name: web
    transition: { learning: 30m }
  - name: dns
    transition: { idle: 60 }
vips:
  - { name: www, address: 203.0.113.10, port: 443, protocol: tcp, pool: web }
  - { name: www2, address: 203.0.113.10, port: 443, protocol: tcp, pool: web }
  - { name: alt, address: 203.0.113.10, port: 99999, protocol: icmp, pool: api }
  - { name: api, address: 203.0.113.11, port: any, protocol: udp, pool: api }
";
    let expected = [
        "services.yaml:3: pools[0].check.via: tunnel is not a check path; allowed: encap, direct",
        "services.yaml:4: pools[0].tracking: affinity is not a tracking mode; allowed: exception, always",
        "services.yaml:5: pools[0].transition.window: unknown key; allowed: learning, idle, udp",
        "services.yaml:5: pools[0].transition.learning: 0s is not a learning time; allowed: 1s to 1h, whole seconds with a unit such as 90s or 5m",
        "services.yaml:5: pools[0].transition.idle: 365d is not an idle time; allowed: 10s to 4h, whole seconds with a unit such as 90s or 5m",
        "services.yaml:5: pools[0].transition.udp: old is not a policy for UDP; allowed: new, keep",
        "services.yaml:8: pools[0].backends[1].weight: 70000 is not a weight; allowed: 0 to 65535",
        "services.yaml:9: pools[0].backends[2]: 10.0.1.11 is already backend web1 of pool web; remove it first, or choose another address",
        "services.yaml:10: pools[0].backends[3].wieght: unknown key; allowed: name, address, weight, state, since, check, mtu",
        "services.yaml:10: pools[0].backends[3]: backend web4: 127.0.0.1 is a loopback address",
        "services.yaml:11: pools[0].backends[4].name: missing; expected the backend's name",
        "services.yaml:11: pools[0].backends[4].address: 10.0.1 is not an IP address; expected one such as 10.0.1.11 or 2001:db8::11",
        "services.yaml:12: pools[0].backends[5].state: drained is not a state; allowed: active, draining, disabled",
        "services.yaml:12: pools[0].backends[5].since: yesterday is not a time; allowed: seconds since 1970, 1 to 253402300799",
        "services.yaml:13: pools[0].backends[6].since: only a draining or disabled backend has `since`; this one is active",
        "services.yaml:14: pools[1]: there is already a pool web; choose another name",
        "services.yaml:15: pools[1].transition: learning 30m is longer than idle 15m; allowed: at most the idle time",
        "services.yaml:17: pools[2].transition.idle: 60 is not an idle time; allowed: 10s to 4h, whole seconds with a unit such as 90s or 5m",
        "services.yaml:20: vips[1]: 203.0.113.10:443/tcp is already VIP www; remove it first, or choose another address, port or protocol",
        "services.yaml:21: vips[2].port: 99999 is not a port; allowed: 1 to 65535, a range such as 8000-8100, or any",
        "services.yaml:21: vips[2].protocol: icmp is not a protocol; allowed: tcp, udp, sctp, udplite, esp, gre, any",
        "services.yaml:22: vips[3]: unknown pool api; known: dns, web",
    ];
    assert_eq!(service_problems(text), expected);
}

#[test]
fn states_and_settings_are_read_and_only_what_differs_from_the_default_is_written() {
    let text = "pools:
  - name: dns
    encap: gue
    tracking: always
    transition: { idle: 10m, udp: keep }
    backends:
      - { name: a, address: 10.0.1.21, state: draining, since: 1700000000 }
      - { name: b, address: 10.0.1.22, state: disabled }
  - name: web
    encap: ipip
    tracking: exception
    transition: { learning: 120s, idle: 900s, udp: new }
    backends:
      - { name: a, address: 10.0.1.11, state: active }
vips: []
";
    let services = decode_services(Path::new("services.yaml"), text, &rules()).unwrap();
    let pool = |name| &services.pools[&Name::parse(name).unwrap()];
    let transition =
        TransitionSettings { idle: Duration::from_secs(600), udp: UdpPolicy::Keep, ..TransitionSettings::default() };
    assert_eq!(
        pool("dns").settings,
        PoolSettings { tracking: Tracking::Always, transition, encap: EncapKind::Gue, ..PoolSettings::default() }
    );
    assert_eq!(pool("web").settings, PoolSettings::default());
    let states: Vec<_> = pool("dns").backends.values().map(|backend| backend.state).collect();
    let since = Some(UnixTime(1_700_000_000));
    assert_eq!(states, [AdminState::Draining { since }, AdminState::Disabled { since: None }]);

    let written = encode_services(&services);
    let (_, written) = written.split_once("pools:").unwrap();
    let expected = "
  - name: dns
    encap: gue
    tracking: always
    transition: { idle: 10m, udp: keep }
    backends:
      - { name: a, address: 10.0.1.21, weight: 100, state: draining, since: 1700000000 }
      - { name: b, address: 10.0.1.22, weight: 100, state: disabled }
  - name: web
    backends:
      - { name: a, address: 10.0.1.11, weight: 100 }
vips: []
";
    assert_eq!(written, expected);
}

#[test]
fn services_that_were_cut_off_or_deleted_are_no_order_to_remove_everything() {
    for text in ["", "# only a comment\n", "---\n"] {
        assert!(service_problems(text)[0].contains("empty"), "{text:?}");
    }
    assert_eq!(decode_services(Path::new("services.yaml"), "pools: []\nvips: []\n", &rules()), Ok(Services::default()));
}

#[test]
fn a_configuration_that_cannot_work_is_rejected_at_once() {
    let node = |encap: &str, api: &str| {
        let key = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
        node_problems(&format!("interfaces: [{{ name: a }}]\nencap: {encap}\nhash_key: \"{key}\"\napi: {api}\n"))
    };
    let rows = [
        ("source: 255.255.255.255", "{}", "a broadcast or reserved address"),
        ("source6: \"fe80::1\"", "{}", "a link-local address"),
        ("source6: \"::ffff:10.0.0.1\"", "{}", "an IPv4-mapped address"),
        ("source: 10.0.0.0/7", "{}", "too wide a prefix"),
        ("source: 10.0.0.1", "{ metrics: \"127.0.0.1:0\" }", "has no port"),
        ("source: 10.0.0.1", "{ socket: \"a\\0b\" }", "is not the path of a file"),
    ];
    for (encap, api, part) in rows {
        let reported = node(&format!("{{ kind: ipip, {encap} }}"), api);
        assert!(reported.len() == 1 && reported[0].contains(part), "{reported:?}");
    }
    let reported = node("{ kind: ipip, source: 10.0.0.1 }", &format!("{{ socket: /run/{} }}", "x".repeat(103)));
    assert!(reported[0].ends_with("is too long for a socket: 108 bytes, at most 107"), "{reported:?}");
}

#[test]
fn each_fault_is_one_printable_line() {
    assert_eq!(node_problems("interfaces: 5\nencap: [\n").len(), 1);
    assert_eq!(service_problems("pools: 5\nvips: []\n"), ["services.yaml:1: pools: expected a list, found a number"]);
    let unknown = service_problems("pools: []\nvips: []\n\"a\\nb\": 5\n");
    assert_eq!(unknown, ["services.yaml:3: \"a\\nb\": unknown key; allowed: pools, vips"]);
    assert_eq!(
        service_problems("pools: []\n---\nvips: []\n"),
        ["services.yaml:3: not valid YAML: multiple YAML documents detected"]
    );
}

/// Names, among them some that YAML could read as another type.
fn any_name() -> impl Strategy<Value = Name> {
    prop_oneof!["[a-zA-Z0-9][a-zA-Z0-9._-]{0,8}", "(null|true|no|on|NaN|1e5|0x1f|007|1[.]5|12|y|2001-01-01)"]
        .prop_map(|text| Name::parse(&text).unwrap())
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (1_u8..100, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| IpAddr::from([a, b, c, d])),
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| IpAddr::from([0x2001, 0xdb8, a, 0, 0, 0, 0, b])),
    ]
}

fn any_state() -> impl Strategy<Value = AdminState> {
    let since = || prop::option::of((1..=UnixTime::MAX.0).prop_map(UnixTime));
    prop_oneof![
        Just(AdminState::Active),
        since().prop_map(|since| AdminState::Draining { since }),
        since().prop_map(|since| AdminState::Disabled { since }),
    ]
}

fn any_settings() -> impl Strategy<Value = PoolSettings> {
    let tracking = prop_oneof![Just(Tracking::Exception), Just(Tracking::Always)];
    let udp = prop_oneof![Just(UdpPolicy::New), Just(UdpPolicy::Keep)];
    // Among them the defaults, and some that do not fit together.
    let seconds = |most: u64| prop_oneof![Just(120), Just(900), 1..=most].prop_map(Duration::from_secs);
    let encap = prop_oneof![Just(EncapKind::IpIp), Just(EncapKind::Gue)];
    (tracking, seconds(3_600), seconds(14_400), udp, 0_u32..3, encap).prop_map(
        |(tracking, learning, idle, udp, min_healthy, encap)| PoolSettings {
            tracking,
            transition: TransitionSettings { learning, idle, udp },
            min_healthy,
            encap,
        },
    )
}

fn any_announce() -> impl Strategy<Value = Announce> {
    let by = prop_oneof![
        Just(AnnounceBy::Address),
        Just(AnnounceBy::Nothing),
        any_address().prop_map(|address| AnnounceBy::Prefix(IpNet::new(address, 20).unwrap().trunc())),
    ];
    let communities = ["65010:1", "65010:1:2", "rt:65010:3"].map(|text| text.parse::<Community>().unwrap());
    let communities = prop::sample::subsequence(communities.to_vec(), 0..3);
    (by, communities).prop_map(|(by, communities)| Announce { by, communities: communities.into_iter().collect() })
}

fn any_backend() -> impl Strategy<Value = Backend> {
    let mtu = prop::option::of(Mtu::LEAST..=Mtu::MOST);
    (any_name(), any_address(), any::<u16>().prop_map(Weight), any_state(), mtu).prop_map(
        |(name, address, weight, state, mtu)| Backend { name, address, weight, state, mtu: mtu.and_then(Mtu::new) },
    )
}

type AnyPool = (Name, PoolSettings, Vec<Backend>);
type AnyVip = (Name, IpAddr, u8, u16, u16, u8, usize, Announce, (Unserved, Affinity));

fn any_pools() -> impl Strategy<Value = Vec<AnyPool>> {
    prop::collection::vec((any_name(), any_settings(), prop::collection::vec(any_backend(), 0..5)), 0..4)
}

fn any_vips() -> impl Strategy<Value = Vec<AnyVip>> {
    let unserved = prop_oneof![Just(Unserved::Drop), Just(Unserved::Reset)];
    let bits = (1_u8..=128).prop_map(Affinity::Prefix);
    let affinity = prop_oneof![Just(Affinity::FiveTuple), Just(Affinity::Source), bits];
    let numbers = (any::<u8>(), any::<u16>(), any::<u16>(), 0_u8..7);
    let vip = (any_name(), any_address(), numbers, 0_usize..4, any_announce(), (unserved, affinity)).prop_map(
        |(name, address, (length, port, more, protocol), pool, announce, unserved)| {
            (name, address, length, port, more, protocol, pool, announce, unserved)
        },
    );
    prop::collection::vec(vip, 0..4)
}

/// The part that follows the rules.
fn services(pools: &[AnyPool], vips: &[AnyVip]) -> Services {
    let mut services = Services::default();
    for (pool, settings, backends) in pools {
        let added = Pool { settings: *settings, ..Pool::new(pool.clone()) };
        let _ = services.admit(Change::AddPool(added), &rules());
        for backend in backends {
            let change = Change::AddBackend { pool: pool.clone(), backend: backend.clone() };
            let _ = services.admit(change, &rules());
        }
    }
    for (name, address, length, port, more, protocol, pool, announce, (when_empty, affinity)) in vips {
        let Some((pool, ..)) = pools.get(*pool) else { continue };
        let ports = std::num::NonZeroU16::new(*port);
        let last = |first: std::num::NonZeroU16| if *more < 1_000 { first.saturating_add(*more) } else { first };
        let ports = ports.map_or(Ports::Any, |first| Ports::Range { first, last: last(first) });
        let network = IpNet::new(*address, *length).map_or(IpNet::from(*address), |net| net.trunc());
        let service = Service { network, ports, protocol: Protocol::ALL[usize::from(*protocol)] };
        let vip = Vip {
            name: name.clone(),
            service,
            pool: pool.clone(),
            announce: announce.clone(),
            when_empty: *when_empty,
            affinity: *affinity,
        };
        let _ = services.admit(Change::AddVip(vip), &rules());
    }
    services
}

/// An edit by hand of one line, by number, modulo the file's length.
#[derive(Clone, Debug)]
enum Edit {
    Deleted(usize),
    Doubled(usize),
    /// Moved to the place of another line.
    Moved(usize, usize),
    Indented(usize),
    Replaced(usize, &'static str, &'static str),
    /// A separate line.
    Added(usize, &'static str),
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let replaced = prop_oneof![
        Just(("weight: ", "weight: 7")),
        Just(("name: ", "name: x")),
        Just(("    backends:", "    backends: # here")),
        Just(("pools:", "pools: ")),
        Just(("- ", "-  ")),
        Just((" }", " },")),
        Just(("address: ", "addres: ")),
    ];
    let added = prop_oneof![
        Just("# a comment"),
        Just("    # a comment"),
        Just(""),
        Just("pools:"),
        Just("  - name: new"),
        Just("    backends: []"),
        Just("  - name: \"new"),
        Just("    payload: |"),
        Just("vips: []"),
    ];
    prop_oneof![
        any::<usize>().prop_map(Edit::Deleted),
        any::<usize>().prop_map(Edit::Doubled),
        (any::<usize>(), any::<usize>()).prop_map(|(from, to)| Edit::Moved(from, to)),
        any::<usize>().prop_map(Edit::Indented),
        (any::<usize>(), replaced).prop_map(|(at, (what, by))| Edit::Replaced(at, what, by)),
        (any::<usize>(), added).prop_map(|(at, line)| Edit::Added(at, line)),
    ]
}

impl Edit {
    fn apply(&self, lines: &mut Vec<String>) {
        let count = lines.len().max(1);
        match *self {
            Self::Deleted(at) if !lines.is_empty() => drop(lines.remove(at % count)),
            Self::Doubled(at) if !lines.is_empty() => lines.insert(at % count, lines[at % count].clone()),
            Self::Moved(from, to) if !lines.is_empty() => {
                let line = lines.remove(from % count);
                lines.insert(to % count, line);
            }
            Self::Indented(at) if !lines.is_empty() => lines[at % count].insert_str(0, "  "),
            Self::Replaced(at, what, by) => {
                let found = lines.iter().enumerate().filter(|(_, line)| line.contains(what)).map(|(n, _)| n);
                let found: Vec<_> = found.collect();
                if let Some(&n) = found.get(at % found.len().max(1)) {
                    lines[n] = lines[n].replacen(what, by, 1);
                }
            }
            Self::Added(at, line) => lines.insert(at % count, line.to_owned()),
            Self::Deleted(_) | Self::Doubled(_) | Self::Moved(..) | Self::Indented(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn written_services_are_read_back(
        pools in any_pools(),
        vips in any_vips(),
    ) {
        let services = services(&pools, &vips);
        let text = encode_services(&services);
        prop_assert!(tree::parse_plain(&text).is_some(), "it takes the full parser: {}", text);
        prop_assert_eq!(decode_services(Path::new("services.yaml"), &text, &rules()).unwrap(), services);
    }

    #[test]
    fn texts_of_known_pools_are_the_same_as_new_ones(
        rounds in prop::collection::vec((any_pools(), any_vips(), 0..4_usize), 1..4),
    ) {
        let (mut texts, mut before) = (PoolTexts::default(), Services::default());
        for (pools, vips, kept) in rounds {
            let mut services = services(&pools, &vips);
            // Some pools stay as they are, and share their memory.
            services.pools.extend(std::mem::take(&mut before.pools).into_iter().take(kept));
            prop_assert_eq!(texts.encode(&services), encode_services(&services));
            before = services;
        }
    }

    #[test]
    fn a_file_read_with_known_services_gives_the_same_result_as_alone(
        pools in any_pools(),
        vips in any_vips(),
        known in any::<bool>(),
        edits in prop::collection::vec(any_edit(), 0..4),
    ) {
        let written = services(&pools, &vips);
        let known = if known { written.clone() } else { services(&pools[..pools.len() / 2], &[]) };
        let mut lines: Vec<String> = encode_services(&written).lines().map(str::to_owned).collect();
        edits.iter().for_each(|edit| edit.apply(&mut lines));
        let (file, text) = (Path::new("services.yaml"), lines.join("\n") + "\n");
        let read = |read: Result<Services, Problems>| read.map_err(|problems| problems.to_string());
        prop_assert_eq!(
            read(decode_services_since(file, &text, &rules(), &known)),
            read(decode_services(file, &text, &rules()))
        );
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[-a-z{}\\[\\]:, \n\"0-9&*<!|>#]{0,80}") {
        let _ = node::decode(Path::new("maglev.yaml"), &text, no_secret);
        let _ = decode_services(Path::new("services.yaml"), &text, &rules());
    }
}
