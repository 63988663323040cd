//! FRR: zebra and bgpd.

use std::fs;
use std::time::Duration;

use maglev_testing::TempDir;
use maglev_testing::network::Peer;

use super::router::{Kind, Process, Received, Session, run};

/// bgpd's configuration for one neighbor.
fn config(session: &Session) -> String {
    let (_, remote) = session.ends();
    let mut lines = vec![
        "router bgp 65000".to_owned(),
        " bgp router-id 10.0.0.1".into(),
        " no bgp ebgp-requires-policy".into(),
        " no bgp default ipv4-unicast".into(),
        " no bgp network import-check".into(),
        " bgp bestpath as-path multipath-relax".into(),
        format!(" neighbor {remote} remote-as {}", super::LOCAL_AS),
        format!(" neighbor {remote} passive"),
    ];
    lines.extend(session.password.map(|password| format!(" neighbor {remote} password {password}")));
    if session.gtsm {
        lines.push(format!(" neighbor {remote} ttl-security hops 1"));
    }
    if session.v6 {
        lines.push(format!(" neighbor {remote} capability extended-nexthop"));
    }
    let families = if session.v6 { &["ipv4", "ipv6"][..] } else { &["ipv4"] };
    for family in families {
        lines.push(format!(
            " address-family {family} unicast\n  neighbor {remote} activate\n  maximum-paths 16\n exit-address-family"
        ));
    }
    lines.join("\n") + "\n"
}

pub(super) fn start(peer: &Peer, directory: &TempDir, session: &Session) -> Vec<Process> {
    let at = |name: &str| directory.path().join(name).display().to_string();
    fs::write(at("bgpd.conf"), config(session)).unwrap();
    fs::write(at("zebra.conf"), "").unwrap();
    run("chown", &["-R", "frr:frr", &at("")]);
    let common = |name: &str| {
        let [file, pid, socket, directory] =
            [at(&format!("{name}.conf")), at(&format!("{name}.pid")), at("zserv"), at("")];
        ["-u", "frr", "-g", "frr", "-f", &file, "-i", &pid, "-z", &socket, "--vty_socket", &directory, "-P", "0"]
            .map(str::to_owned)
            .to_vec()
    };
    let begin = |program: &'static str, name: &str| {
        let arguments = common(name);
        Process::start(peer, directory, program, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let zebra = begin("/usr/lib/frr/zebra", "zebra");
    // bgpd gives up for a while if zebra does not listen yet.
    let listens = std::time::Instant::now() + super::PATIENCE;
    while !directory.path().join("zserv").exists() {
        assert!(std::time::Instant::now() < listens, "zebra does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    vec![begin("/usr/lib/frr/bgpd", "bgpd"), zebra]
}

pub(super) fn ask(directory: &TempDir, words: &str) -> String {
    run("vtysh", &["--vty_socket", &directory.path().display().to_string(), "-d", "bgpd", "-c", words])
}

pub(super) fn received(directory: &TempDir, prefix: &str) -> Option<Received> {
    let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
    let text = ask(directory, &format!("show bgp {family} unicast {prefix} json"));
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    let path = value["paths"].get(0)?;
    let list = |name: &str| path[name]["string"].as_str().unwrap_or_default().replace("RT:", "");
    let communities = ["community", "largeCommunity", "extendedCommunity"].map(list).join(" ");
    let hops = path["nexthops"].as_array()?;
    let global = hops.iter().find(|hop| hop["scope"].as_str() != Some("link-local"))?;
    Some(Received {
        next_hop: global["ip"].as_str()?.to_owned(),
        as_path: path["aspath"]["string"].as_str()?.to_owned(),
        med: path["metric"].as_u64().and_then(|med| u32::try_from(med).ok()),
        communities: communities.split(' ').map(str::to_owned).collect(),
    })
}

pub(super) fn count(directory: &TempDir) -> usize {
    let text = ask(directory, "show bgp ipv4 unicast summary json");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    value["peers"]["10.0.0.11"]["pfxRcd"].as_u64().unwrap_or(0) as usize
}

pub(super) fn shut_down(directory: &TempDir) {
    let at = directory.path().display().to_string();
    let lines = ["configure terminal", "router bgp 65000", "neighbor 10.0.0.11 shutdown message new line card"];
    let words = lines.iter().flat_map(|line| ["-c", line]).collect::<Vec<_>>();
    run("vtysh", &[&["--vty_socket", &at, "-d", "bgpd"], &words[..]].concat());
}

#[test]
fn over_ipv4() {
    super::over_ipv4(Kind::Frr);
}

#[test]
fn over_ipv6() {
    super::over_ipv6(Kind::Frr);
}

#[test]
fn wrong_password() {
    super::wrong_password(Kind::Frr);
}

#[test]
fn wrong_as() {
    super::wrong_as(Kind::Frr);
}

#[test]
fn ten_thousand_prefixes() {
    super::ten_thousand(Kind::Frr);
}

#[test]
fn reasons_are_reported() {
    super::reasons(Kind::Frr);
}

#[test]
fn ttl_1() {
    super::ttl_1(Kind::Frr);
}

/// bgpd passes routes to zebra, which gathers changes.
#[test]
fn a_withdrawn_prefix_leaves_the_kernel() {
    super::leaves_the_kernel(Kind::Frr, Duration::from_secs(2));
}
