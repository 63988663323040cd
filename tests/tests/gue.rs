//! Pools whose packets are encapsulated in GUE: requests, full-size transfers and checks over every combination of families, and a
//! pool that changes from one encapsulation to the other under traffic.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use maglev_e2e::{
    bytes,
    lab::{
        Backend, Site,
        addresses::{ALT4, ALT6, WWW4, WWW6},
        site::counter,
        skip,
    },
    matrix::Matrix,
};

const MB: u64 = 1_000_000;
/// Each VIP of the standard site, and its pool.
const VIPS: [(&str, IpAddr, &str); 4] =
    [("4in4", WWW4, "four"), ("6in4", WWW6, "four"), ("4in6", ALT4, "six"), ("6in6", ALT6, "six")];
/// How long backends may take to be found healthy.
const PATIENCE: Duration = Duration::from_secs(20);

fn count(site: &Site, name: &str) -> Result<u64> {
    counter(&site.balancers[0].maglev_json(&["counters"])?, name)
}

fn set(site: &Site, pool: &str, setting: [&str; 2]) -> Result<()> {
    site.balancers[0].maglev_ok(&["pool", "set", pool, setting[0], setting[1]]).map(drop)
}

#[test]
fn requests_and_transfers_cross_gue_over_every_family() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(1)?;
    narrow(&site)?;
    for pool in ["four", "six"] {
        set(&site, pool, ["--encap", "gue"])?;
        let shown = site.balancers[0].maglev_json(&["pool", "show", pool])?;
        ensure!(shown["encap"] == "gue", "{shown}");
    }
    let client = site.lab.client();
    for (name, vip, pool) in VIPS {
        let target = SocketAddr::new(vip, Backend::PORT);
        Matrix::Packets.row("gue", &format!("300 requests, 100 datagrams, 5 MB up and down, {name}"), || {
            let before = count(&site, "packet_too_big")?;
            client.requests(&[target], 300, 8)?.all_answered()?;
            client.datagrams(target, 100)?.all_answered()?;
            ensure!(client.upload(target, 5 * MB)?.sha256 == bytes::digest(5 * MB), "other bytes came up");
            ensure!(client.download(target, 5 * MB)? == bytes::digest(5 * MB), "other bytes came down");
            let answers = count(&site, "packet_too_big")? - before;
            // The node's links take 1,540 bytes: a full packet with 32 more, and none with 52 more.
            ensure!((answers > 0) == (pool == "six"), "{answers} packets were answered with the MTU");
            if pool == "four" {
                site.await_balance()?;
            }
            Ok(format!("none lost; {answers} packets answered with the MTU"))
        })?;
    }
    Ok(())
}

#[test]
fn a_pool_changes_its_encapsulation_under_traffic_and_checks_follow() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(1)?;
    for (pool, vip, target) in [("four", "www-tcp", WWW4), ("six", "alt6-tcp", ALT6)] {
        Matrix::Packets.row("gue", &format!("ten changes under requests, and checks, pool {pool}"), || {
            let check =
                format!("kind: http, vip: {vip}, interval: 500ms, timeout: 400ms, jitter: 50ms, rise: 2, fall: 2");
            set(&site, pool, ["--check", &check])?;
            let traffic = site.lab.client().start(&[SocketAddr::new(target, Backend::PORT)], 4_000, 4);
            for n in 0..10 {
                set(&site, pool, ["--encap", ["gue", "ipip"][n % 2]])?;
                traffic.next_outcome();
            }
            set(&site, pool, ["--encap", "gue"])?;
            let outcomes = traffic.stop()?;
            outcomes.all_answered()?;
            let sent = count(&site, "check_sent")?;
            await_healthy(&site, pool)?;
            ensure!(count(&site, "check_sent")? > sent && count(&site, "check_unsent")? == 0, "no check was sent");
            Ok("all answered, all backends healthy".to_owned())
        })?;
    }
    Ok(())
}

/// The node's links take full packets in IP in IP, and no more.
fn narrow(site: &Site) -> Result<()> {
    let node = &site.balancers[0];
    node.netns().ip(&["eth0", "near"].map(|link| format!("link set {link} mtu 1540")))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = node.maglev_json(&["status"])?;
        let interfaces = status["interfaces"].as_array().context("interfaces")?;
        if interfaces.len() == 2 && interfaces.iter().all(|interface| interface["mtu"] == 1_540) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{interfaces:?}");
        thread::yield_now();
    }
}

/// Waits until the checks that are made from now on have found all backends healthy.
fn await_healthy(site: &Site, pool: &str) -> Result<()> {
    let (deadline, first) = (Instant::now() + PATIENCE, count(site, "check_sent")?);
    loop {
        let shown = site.balancers[0].maglev_json(&["pool", "show", pool])?;
        // Three backends, twice each at least, of which each takes several packets.
        if shown["health"]["healthy"] == 3 && count(site, "check_sent")? > first + 30 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{shown}");
        thread::yield_now();
    }
}
