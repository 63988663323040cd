//! GoBGP: the protocol alone, without the kernel's routes.

use std::fs;
use std::process::{Command, Stdio};

use maglev_testing::TempDir;
use maglev_testing::network::Peer;

use super::router::{Kind, Process, Received, Session};

/// gobgpd's configuration for one neighbor.
fn config(session: &Session) -> String {
    let (local, remote) = session.ends();
    let password = session.password.map(|password| format!("auth-password = \"{password}\"")).unwrap_or_default();
    let security = if session.gtsm { "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n" } else { "" };
    let families = if session.v6 { &["ipv4-unicast", "ipv6-unicast"][..] } else { &["ipv4-unicast"] };
    let families = families
        .iter()
        .map(|family| format!("[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{family}\"\n"));
    format!(
        "[global.config]\nas = 65000\nrouter-id = \"10.0.0.1\"\nlocal-address-list = [\"{local}\"]\n\
         [[neighbors]]\n[neighbors.config]\nneighbor-address = \"{remote}\"\npeer-as = {}\n{password}\n\
         [neighbors.transport.config]\npassive-mode = true\n{security}{}",
        super::LOCAL_AS,
        families.collect::<String>()
    )
}

pub(super) fn start(peer: &Peer, directory: &TempDir, session: &Session) -> Vec<Process> {
    let file = directory.path().join("gobgpd.toml");
    fs::write(&file, config(session)).unwrap();
    let file = file.display().to_string();
    peer.ip("link set lo up");
    vec![Process::start(
        peer,
        directory,
        "gobgpd",
        &["-f", &file, "-t", "toml", "--api-hosts", "127.0.0.1:50051", "--pprof-disable"],
    )]
}

pub(super) fn ask(peer: &Peer, words: &str) -> String {
    let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    let output = peer.run(move || Command::new("gobgp").args(words).stdin(Stdio::null()).output().unwrap());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(super) fn received(peer: &Peer, prefix: &str) -> Option<Received> {
    let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
    let text = ask(peer, &format!("-j global rib {prefix} -a {family}"));
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    let paths = value.as_object()?.values().next()?;
    let attributes = paths.get(0)?["attrs"].as_array()?.clone();
    let of = |number: u64| attributes.iter().find(move |attribute| attribute["type"] == number);
    let standard = of(8).map(|found| &found["communities"]).and_then(serde_json::Value::as_array).cloned();
    let mut communities: Vec<String> = standard
        .unwrap_or_default()
        .iter()
        .filter_map(serde_json::Value::as_u64)
        .map(|number| format!("{}:{}", number >> 16, number & 0xffff))
        .collect();
    for large in of(32).and_then(|found| found["value"].as_array()).into_iter().flatten() {
        communities.push(format!("{}:{}:{}", large["ASN"], large["LocalData1"], large["LocalData2"]));
    }
    for extended in of(16).and_then(|found| found["value"].as_array()).into_iter().flatten() {
        communities.push(extended["value"].as_str().unwrap_or_default().to_owned());
    }
    let path = of(2)?["as_paths"].get(0)?["asns"].as_array()?.iter().map(ToString::to_string).collect::<Vec<_>>();
    Some(Received {
        next_hop: of(3).or(of(14))?["nexthop"].as_str()?.to_owned(),
        as_path: path.join(" "),
        med: of(4).and_then(|found| found["metric"].as_u64()).and_then(|med| u32::try_from(med).ok()),
        communities,
    })
}

pub(super) fn count(peer: &Peer) -> usize {
    let text = ask(peer, "-j global rib summary");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    value["num_path"].as_u64().unwrap_or(0) as usize
}

#[test]
fn over_ipv4() {
    super::over_ipv4(Kind::GoBgp);
}

#[test]
fn over_ipv6() {
    super::over_ipv6(Kind::GoBgp);
}

#[test]
fn wrong_password() {
    super::wrong_password(Kind::GoBgp);
}

#[test]
fn wrong_as() {
    super::wrong_as(Kind::GoBgp);
}

#[test]
fn ten_thousand_prefixes() {
    super::ten_thousand(Kind::GoBgp);
}

#[test]
fn reasons_are_reported() {
    super::reasons(Kind::GoBgp);
}

#[test]
fn ttl_1() {
    super::ttl_1(Kind::GoBgp);
}
