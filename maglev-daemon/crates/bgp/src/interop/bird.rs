//! BIRD 2, and the kernel's routes that it keeps.

use std::fs;
use std::time::Duration;

use maglev_testing::TempDir;
use maglev_testing::network::Peer;

use super::router::{Kind, Process, Received, Session, run};

/// BIRD's configuration for one neighbor.
fn config(session: &Session) -> String {
    let (local, remote) = session.ends();
    let password = session.password.map(|password| format!("password \"{password}\";")).unwrap_or_default();
    let security = if session.gtsm { "ttl security on;" } else { "" };
    let (v4, v6) = if session.v6 {
        ("ipv4 { import all; export none; extended next hop on; };", "ipv6 { import all; export none; };")
    } else {
        ("ipv4 { import all; export none; };", "")
    };
    format!(
        "router id 10.0.0.1; protocol device {{}} protocol direct {{ ipv4; ipv6; }}
         protocol kernel {{ merge paths on; ipv4 {{ export where source = RTS_BGP; import none; }}; }}
         protocol kernel {{ merge paths on; ipv6 {{ export where source = RTS_BGP; import none; }}; }}
         protocol bgp lb {{ local {local} as 65000; neighbor {remote} as {}; passive on; {password} {security}
           connect delay time 1; error wait time 1, 2; graceful restart aware; {v4} {v6} }}",
        super::LOCAL_AS
    )
}

pub(super) fn start(peer: &Peer, directory: &TempDir, session: &Session) -> Vec<Process> {
    let at = |name: &str| directory.path().join(name).display().to_string();
    fs::write(at("bird.conf"), config(session)).unwrap();
    vec![Process::start(peer, directory, "bird", &["-f", "-c", &at("bird.conf"), "-s", &at("bird.ctl")])]
}

pub(super) fn ask(directory: &TempDir, words: &str) -> String {
    let socket = directory.path().join("bird.ctl").display().to_string();
    run("birdc", &[&["-r", "-s", &socket], &words.split(' ').collect::<Vec<_>>()[..]].concat())
}

pub(super) fn received(directory: &TempDir, prefix: &str) -> Option<Received> {
    let text = ask(directory, &format!("show route {prefix} all"));
    let field = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let communities =
        ["BGP.community:", "BGP.large_community:", "BGP.ext_community:"].iter().filter_map(|name| field(name));
    let communities = communities
        .flat_map(|list| list.split(") "))
        .map(|one| one.trim_matches(['(', ')', ' ']).replace(' ', "").replace("rt,", "").replace(',', ":"));
    Some(Received {
        next_hop: field("BGP.next_hop:")?.split(' ').next()?.to_owned(),
        as_path: field("BGP.as_path:")?.to_owned(),
        med: field("BGP.med:").and_then(|med| med.parse().ok()),
        communities: communities.collect(),
    })
}

pub(super) fn count(directory: &TempDir) -> usize {
    let text = ask(directory, "show route count protocol lb");
    text.lines().find_map(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn over_ipv4() {
    super::over_ipv4(Kind::Bird);
}

#[test]
fn over_ipv6() {
    super::over_ipv6(Kind::Bird);
}

#[test]
fn wrong_password() {
    super::wrong_password(Kind::Bird);
}

#[test]
fn wrong_as() {
    super::wrong_as(Kind::Bird);
}

#[test]
fn ten_thousand_prefixes() {
    super::ten_thousand(Kind::Bird);
}

#[test]
fn reasons_are_reported() {
    super::reasons(Kind::Bird);
}

#[test]
fn ttl_1() {
    super::ttl_1(Kind::Bird);
}

#[test]
fn a_withdrawn_prefix_leaves_the_kernel() {
    super::leaves_the_kernel(Kind::Bird, Duration::from_millis(100));
}
