//! `decap.yaml`: what it means, and each of its mistakes.

use maglev_common::settings::Mss;
use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = include_str!("../../../../../deploy/examples/decap.yaml");

fn decoded(text: &str) -> Result<DecapConfig, Vec<String>> {
    decode_decap(Path::new("/etc/maglev/decap.yaml"), text).map_err(|problems| lines(&problems))
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn the_shortest_file_follows_loopback_and_keeps_decapsulating() {
    let config = decoded("interfaces: [{ name: eth0 }]\nsources: [10.64.11.0/24, \"2001:db8:64::1\"]\n").unwrap();
    let expected = DecapConfig {
        interfaces: vec![Interface { name: "eth0".to_owned(), mode: Mode::Native, also: Vec::new() }],
        sources: nets(&["10.64.11.0/24", "2001:db8:64::1/128"]),
        vips: None,
        mss: Mss::Off,
        pin: Some(PathBuf::from("/sys/fs/bpf/maglev-decap")),
        on_stop: OnStop::Keep,
        socket: PathBuf::from("/run/maglev-decap/maglev-decap.sock"),
        metrics: None,
    };
    assert_eq!(config, expected);
}

#[test]
fn what_is_not_pinned_is_detached() {
    let config = decoded("interfaces: [{ name: eth0 }]\nsources: [10.64.11.0/24]\ndataplane: { pin: off }\n").unwrap();
    assert_eq!((config.pin, config.on_stop), (None, OnStop::Detach));
}

#[test]
fn a_whole_file_is_read() {
    let config = decoded(
        "interfaces: [{ name: eth0 }, { name: eth1, mode: generic }]\nsources: [0.0.0.0/0]\n\
         vips: [203.0.113.10, 2001:db8::/64]\nmss: 1400\ndataplane: { pin: off, on_stop: detach }\n\
         api: { socket: d.sock, metrics: \"[::1]:9102\" }\n",
    );
    let config = config.unwrap();
    assert_eq!(config.interfaces[1], Interface { name: "eth1".to_owned(), mode: Mode::Generic, also: Vec::new() });
    assert_eq!(config.vips, Some(nets(&["203.0.113.10/32", "2001:db8::/64"])));
    assert_eq!((config.mss, config.pin, config.on_stop), (Mss::Limit(1_400), None, OnStop::Detach));
    assert_eq!(config.socket, PathBuf::from("/etc/maglev/d.sock"));
    assert_eq!(config.metrics, Some("[::1]:9102".parse().unwrap()));
}

#[test]
fn the_example_is_valid_and_so_is_each_line_that_it_shows_as_a_comment() {
    assert!(decoded(EXAMPLE).is_ok(), "{:?}", decoded(EXAMPLE));
    let shown = EXAMPLE.lines().map(|line| line.strip_prefix("#:").unwrap_or(line)).collect::<Vec<_>>().join("\n");
    assert_ne!(shown, EXAMPLE.trim_end());
    let config = decoded(&shown).unwrap();
    assert!(config.vips.is_some() && config.mss == Mss::Auto && config.metrics.is_some(), "{config:?}");
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line_its_field_and_what_is_allowed() {
    let text = r#"interfaces: [{ name: eth0 }, { name: a/b, mode: fast }, { name: eth0, also: [] }]
sources: [10.64.11.5/24, 224.0.0.0/4, here]
vips: [203.0.113.10, 203.0.113.10, 127.0.0.1]
mss: 99
peers: []
dataplane: { pin: here, on_stop: stop, pins: 1 }
api: { socket: "", metrics: "10.0.0.1:9102" }
"#;
    let problems = decoded(text).unwrap_err();
    let expected = [
        ":1: interfaces[1].name: a/b is not an interface's name; allowed: 1 to 15 characters without space, / and :",
        ":1: interfaces[1].mode: fast is not a mode; allowed: native, generic",
        ":1: interfaces[2].also: unknown key; allowed: name, mode",
        ":1: interfaces[2].name: eth0 is named twice",
        ":2: sources[0]: 10.64.11.5/24 has host bits set; write 10.64.11.0/24 or the address alone",
        ":2: sources[1]: 224.0.0.0/4 cannot be the source of packets: 224.0.0.0 is a multicast address",
        ":2: sources[2]: here is not an address or prefix; expected one such as 10.64.11.0/24",
        ":3: vips[2]: 127.0.0.1/32 holds no VIP; allowed: no multicast, broadcast, loopback or link-local addresses",
        ":3: vips[1]: 203.0.113.10/32 is in the list twice",
        ":4: mss: 99 is not an MSS; allowed: off, auto, or 536 to 65495 bytes",
        ":5: peers: unknown key; allowed: interfaces, sources, vips, mss, dataplane, api",
        ":6: dataplane.pins: unknown key; allowed: pin, on_stop",
        ":6: dataplane.pin: here is not a pin folder; allowed: such as /sys/fs/bpf/maglev-decap, without dots, or off",
        ":6: dataplane.on_stop: stop is not a stop action; allowed: detach, keep",
        ":7: api.socket: \"\" is not the path of a file",
        ":7: api.metrics: 10.0.0.1:9102 is not a loopback address; allowed: such as 127.0.0.1:9102, or off",
    ];
    assert_eq!(problems, expected.map(|line| format!("/etc/maglev/decap.yaml{line}")));
}

#[test]
fn a_file_without_interfaces_or_sources_unwraps_nothing_by_omission() {
    for (text, field) in [
        ("", "interfaces: missing; expected a list such as [{ name: eth0 }]"),
        ("", "sources: missing; expected a list such as [10.64.11.0/24]"),
        ("interfaces: []", "interfaces: no interface; name at least one, such as [{ name: eth0 }]"),
        ("sources: []", "sources: no source; name at least one address or prefix, such as 10.64.11.0/24"),
        ("vips: []", "vips: no VIP; name at least one, or remove the key: then the addresses on lo are the VIPs"),
        ("vips:", "vips: expected a list, found nothing; write `vips: []` for none"),
        (
            "dataplane: { pin: off, on_stop: keep }",
            "dataplane.on_stop: keep needs a pin folder; allowed with `pin: off`: detach",
        ),
    ] {
        let problems = decoded(text).unwrap_err();
        assert!(problems.iter().any(|problem| problem.ends_with(field)), "{text}: {problems:?}");
    }
}

#[test]
fn as_many_prefixes_are_read_as_the_program_has_room_for() {
    let lists = |sources: u32, vips: u32| {
        let list =
            |count: u32| (0..count).map(|n| std::net::Ipv4Addr::from((10 << 24) + n).to_string()).collect::<Vec<_>>();
        let (sources, vips) = (list(sources).join(", "), list(vips).join(", "));
        decoded(&format!("interfaces: [{{ name: eth0 }}]\nsources: [{sources}]\nvips: [{vips}]\n"))
    };
    assert!(lists(256, 4_096).is_ok());
    let problems = lists(257, 4_097).unwrap_err();
    assert!(problems[0].ends_with("sources: 257 IPv4 prefixes; at most 256 are supported"), "{problems:?}");
    assert!(problems[1].ends_with("vips: 4097 IPv4 prefixes; at most 4096 are supported"), "{problems:?}");
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in "[a-z0-9:{}\\[\\], ./\n\"-]{0,200}") {
        let _ = decoded(&text);
    }
}
