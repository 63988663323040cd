//! Tests of the `bgp` section.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use crate::decode::Collector;
use crate::tree;
use maglev_model::bgp::{Neighbor, Password, Role};
use maglev_testing::TempDir;

const BOTH: Outlives = Outlives { killed: true, stopped: true };

/// Reads any file.
fn secret(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| error.to_string())
}

/// The section in this text, or its errors: `field: message`.
fn decoded(file: &Path, text: &str) -> Result<Bgp, Vec<String>> {
    decoded_for(BOTH, file, text)
}

fn decoded_for(outlives: Outlives, file: &Path, text: &str) -> Result<Bgp, Vec<String>> {
    let root = tree::parse(file, text).unwrap();
    let out = Collector::new(file);
    let found = decode(&Field::root(&root, &out), Origin { file, read_secret: secret }, outlives);
    let problems: Vec<String> =
        out.finish().iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect();
    if problems.is_empty() { Ok(found.unwrap()) } else { Err(problems) }
}

fn neighbor(rest: &str) -> String {
    format!("{{ local_as: 65010, router_id: 10.0.0.11, neighbors: [{{ address: 10.0.0.1, remote_as: 65000{rest} }}] }}")
}

#[test]
fn a_short_section_means_the_usual() {
    let bgp = decoded(Path::new("maglev.yaml"), &neighbor("")).unwrap();
    let mut expected = Neighbor::new([10, 0, 0, 1].into(), 65_000);
    expected.ipv6 = false;
    assert_eq!(bgp.neighbors, [expected]);
    assert_eq!((bgp.local_as, bgp.on_stop, bgp.graceful_restart), (65_010, OnStop::Keep, Some(120)));
    assert_eq!(bgp.on_drain, OnDrain::default());
}

#[test]
fn neighbors_keep_no_prefix_that_is_not_forwarded() {
    let (nothing, killed) = (Outlives { killed: false, stopped: false }, Outlives { stopped: false, ..BOTH });
    let found = |outlives, more: &str| {
        let text = neighbor("").replace("local_as", &format!("{more}local_as"));
        decoded_for(outlives, Path::new("x"), &text).map_err(|problems| problems.join("; "))
    };
    assert_eq!(found(nothing, "").unwrap().graceful_restart, None);
    assert_eq!(found(nothing, "graceful_restart: off, ").unwrap().graceful_restart, None);
    assert_eq!(found(killed, "").unwrap().graceful_restart, Some(120));
    assert_eq!(found(killed, "graceful_restart: off, ").unwrap().graceful_restart, None);
    assert_eq!(found(BOTH, "on_stop: keep, ").unwrap().on_stop, OnStop::Keep);
    assert_eq!(found(BOTH, "on_stop: withdraw, ").unwrap().on_stop, OnStop::Withdraw);
    assert_eq!(found(BOTH, "graceful_restart: off, ").unwrap().on_stop, OnStop::Withdraw);
    assert_eq!(found(killed, "").unwrap().on_stop, OnStop::Withdraw);
    let said = found(nothing, "graceful_restart: 60s, ").unwrap_err();
    assert!(said.contains("it needs dataplane.pin; allowed with `pin: off`: off"), "{said}");
    let said = found(killed, "on_stop: keep, ").unwrap_err();
    assert!(said.contains("allowed with detach: withdraw"), "{said}");
    let said = found(BOTH, "on_stop: keep, graceful_restart: off, ").unwrap_err();
    assert!(said.contains("on_stop: keep needs graceful_restart"), "{said}");
}

#[test]
fn every_option_is_read() {
    let directory = TempDir::new();
    let secret = directory.path().join("secret");
    fs::write(&secret, "s3cret\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let text = "\
local_as: 4200000010
router_id: 10.0.0.11
communities: ['65010:1']
link_bandwidth: 10G
on_stop: keep
on_drain: { med: 1000, prepend: 2 }
graceful_restart: 2m
neighbors:
  - { name: tor1, address: '2001:db8::1', remote_as: 65000, source: '2001:db8::11', port: 1790, password_file: secret,
      multihop: 2, gtsm: true, hold_time: 30s, keepalive: 5s, families: [ipv4, ipv6], next_hop: 10.0.0.11,
      next_hop6: '2001:db8::12', communities: ['1:2', '1:2:3'], med: 0, prepend: 3, role: customer, passive: true }
";
    let bgp = decoded(&directory.path().join("maglev.yaml"), text).unwrap();
    assert_eq!((bgp.on_stop, bgp.graceful_restart, bgp.communities.len()), (OnStop::Keep, Some(120), 2));
    assert!(bgp.communities.contains(&"bandwidth:23456:1250000000".parse().unwrap()), "{bgp:?}");
    assert_eq!(bgp.on_drain, OnDrain { med: Some(1_000), prepend: 2 });
    let [found] = &bgp.neighbors[..] else { panic!("{bgp:?}") };
    let expected = Neighbor {
        name: "tor1".into(),
        address: "2001:db8::1".parse().unwrap(),
        remote_as: 65_000,
        source: Some("2001:db8::11".parse().unwrap()),
        port: 1_790,
        password: Password::new("s3cret"),
        multihop: Some(2),
        gtsm: true,
        hold_time: 30,
        keepalive: Some(5),
        ipv4: true,
        ipv6: true,
        next_hop: Some([10, 0, 0, 11].into()),
        next_hop6: Some("2001:db8::12".parse().unwrap()),
        communities: ["1:2".parse().unwrap(), "1:2:3".parse().unwrap()].into(),
        med: Some(0),
        prepend: 3,
        local_pref: None,
        role: Some(Role::Customer),
        passive: true,
    };
    assert_eq!(*found, expected);
    assert!(!format!("{found:?}").contains("s3cret"));
}

#[test]
fn all_errors_are_reported_at_once_each_with_its_field() {
    let text = "\
local_as: 0
router_id: 300.1.1.1
neighbors:
  - { address: 224.0.0.1, remote_as: 23456 }
  - { address: 10.0.0.1, remote_as: 65000, hold_time: 2s, med: -1, role: boss, frobnicate: 1 }
";
    let problems = decoded(Path::new("maglev.yaml"), text).unwrap_err();
    let starts = [
        "local_as: 0 is not an AS number; allowed: 1 to 4294967294, but not 23456",
        "router_id: 300.1.1.1 is not a router id; allowed: four numbers such as 10.0.0.11, not all 0",
        "neighbors[0].address: 224.0.0.1 is",
        "neighbors[0].remote_as: 23456 is not an AS number; allowed: 1 to 4294967294, but not 23456",
        "neighbors[1].hold_time: 2s is not a hold time; allowed: 0s (never), or 3s to 65535s",
        "neighbors[1].med: -1 is out of range; allowed: 0 to 4294967295",
        "neighbors[1].role: boss is not a role; allowed: provider,",
        "neighbors[1].frobnicate: unknown key; allowed: name, address,",
    ];
    for start in starts {
        assert!(problems.iter().any(|problem| problem.starts_with(start)), "{start}: {problems:#?}");
    }
    assert_eq!(problems.len(), starts.len(), "{problems:#?}");
}

#[test]
fn keys_that_do_not_fit_together_are_rejected() {
    for (rest, part) in [
        (", source: '2001:db8::1'", "are of different families"),
        (", families: [ipv4, ipv6]", "need next_hop6"),
        (", families: []", "families is empty"),
        (", next_hop6: 10.0.0.1", "IPv6 prefixes need an IPv6 next hop"),
        (", keepalive: 9s", "keepalive 9s is not below hold_time 9s"),
        (", local_pref: 100", "local_pref is for neighbors in AS 65010; this one is in 65000"),
        (", communities: [1]", "1 is not a community"),
        (" }, { address: 10.0.0.1, remote_as: 1", "10.0.0.1 is the address of an earlier neighbor too"),
    ] {
        let problems = decoded(Path::new("maglev.yaml"), &neighbor(rest)).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(part), "{rest}: {problems:?}");
    }
    for (rest, part) in [
        ("link_bandwidth: 10", "10 is not a bandwidth; allowed: 1 to 65535 with K, M, G or T bits a second"),
        ("link_bandwidth: 0G", "0G is not a bandwidth"),
        ("link_bandwidth: +1G", "+1G is not a bandwidth"),
        ("link_bandwidth: 1G, communities: ['bandwidth:1:2']", "link_bandwidth and bandwidth:1:2 in communities"),
    ] {
        let text = neighbor("").replacen("{ ", &format!("{{ {rest}, "), 1);
        let problems = decoded(Path::new("maglev.yaml"), &text).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(part), "{rest}: {problems:?}");
    }
    let internal = "{ local_as: 1, router_id: 1.1.1.1, neighbors: [{ address: 10.0.0.1, remote_as: 1, prepend: 1 }] }";
    assert!(decoded(Path::new("x"), internal).unwrap_err()[0].contains("are for neighbors in other ASes"));
}

#[test]
fn a_password_is_one_line_and_in_no_message() {
    let directory = TempDir::new();
    let problem = |text: Option<&str>| {
        let path = directory.path().join("secret");
        text.into_iter().for_each(|text| fs::write(&path, text).unwrap());
        decoded(&directory.path().join("maglev.yaml"), &neighbor(", password_file: secret")).unwrap_err().remove(0)
    };
    let missing = problem(None);
    assert!(missing.starts_with("neighbors[0].password_file: No such file"), "{missing}");
    let empty = problem(Some("\n"));
    assert!(empty.contains("holds no password; expected one line of 1 to 80 characters"), "{empty}");
    let long = problem(Some(&"x".repeat(81)));
    assert!(long.contains("holds no password") && !long.contains("xxx"), "{long}");
}
