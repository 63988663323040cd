//! Services that change while requests flow: no request fails, and the daemon's files say what was done.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use maglev_e2e::lab::{
    Backend, Balancer, Site, UPLINK,
    addresses::{WWW4, WWW6},
    binary, skip,
};
use serde_json::Value;

#[test]
fn the_demo_loses_nothing_but_what_is_in_flight_on_a_server_that_dies() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let output = Command::new(binary("maglev-lab")?).args(["demo", "--json"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let figures: Value = serde_json::from_slice(&output.stdout).context("--json prints JSON alone")?;
    // The demo itself sees to it that no more are lost with the server than were under way at a time.
    let steps = figures["steps"].as_array().context("steps")?;
    let in_flight: u64 = steps.iter().filter_map(|step| step["lost"]["in_flight"].as_u64()).sum();
    assert_eq!(figures["failed"], in_flight);
    let requests = figures["requests"].as_u64().context("requests")?;
    ensure!(requests >= 20_000, "{requests} requests");
    let done = said.lines().last().context("no last line")?;
    ensure!(done.starts_with(&format!("demo: ok, {requests} requests, {in_flight} failed")), "{done}");
    ensure!(in_flight == 0 || done.ends_with("0 others"), "{done}");
    Ok(())
}

#[test]
fn a_reload_is_a_full_diff_and_a_bad_file_changes_nothing() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let lab = &site.lab;
    let balancer = &mut site.balancers[0];
    let good = fs::read_to_string(balancer.services())?;
    let web = |n| lab.backend_address(n, WWW4);

    // web3 is gone from the file, web4 is new, web1 weighs more: all three take effect.
    let edited = good
        .replace(&format!("name: web3, address: \"{}\"", web(3)), &format!("name: web4, address: \"{}\"", web(4)))
        .replace(&format!("address: \"{}\", weight: 100", web(1)), &format!("address: \"{}\", weight: 200", web(1)));
    fs::write(balancer.services(), &edited)?;
    balancer.maglev_ok(&["reload"])?;
    let expected = [("web1", 200), ("web2", 100), ("web4", 100)];
    assert_eq!(weights(balancer)?, expected.map(|(name, weight)| (name.to_owned(), weight)));
    balancer.await_next_hops()?;
    let outcomes = lab.client().requests(&[(WWW4, Backend::PORT).into()], 300, 16)?;
    outcomes.all_answered()?;
    assert_eq!(outcomes.by_backend().into_keys().collect::<Vec<_>>(), ["web1", "web2", "web4"]);

    // Three mistakes: each is named, none of the file is taken over.
    let before = balancer.maglev_json(&["status"])?;
    let bad = edited.replace("weight: 200", "weight: 70000").replace("protocol: udp", "protocol: icmp") + "vipz: []\n";
    fs::write(balancer.services(), &bad)?;
    let answer = balancer.maglev(&["reload"])?;
    assert_eq!(answer.code, 2, "{answer:?}");
    for named in ["weight", "70000", "icmp", "vipz"] {
        ensure!(answer.stderr.contains(named), "{named} is not in {}", answer.stderr);
    }
    let after = balancer.maglev_json(&["status"])?;
    assert_eq!(before["services_digest"], after["services_digest"]);
    assert_eq!(tables(&before), tables(&after));

    // SIGHUP reads the files as well: first the bad one, then a good one.
    balancer.hang_up()?;
    balancer.await_status("a failed reload", |status| status["last_reload"]["successful"] == false)?;
    assert_eq!(balancer.maglev_json(&["status"])?["services_digest"], before["services_digest"]);
    fs::write(balancer.services(), &good)?;
    balancer.hang_up()?;
    balancer.await_status("a successful reload", |status| status["last_reload"]["successful"] == true)?;
    let expected = [("web1", 100), ("web2", 100), ("web3", 100)];
    assert_eq!(weights(balancer)?, expected.map(|(name, weight)| (name.to_owned(), weight)));
    Ok(())
}

#[test]
fn a_change_outlives_the_daemon_however_it_ends() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let lab = &site.lab;
    let balancer = &mut site.balancers[0];
    let address = lab.backend_address(4, WWW4).to_string();
    balancer.maglev_ok(&["backend", "add", "four", "web4", "--address", &address, "--weight", "100"])?;
    balancer.stop()?;
    let link = balancer.netns().ip_json(&["-details", "link", "show", "dev", UPLINK])?;
    ensure!(link[0]["xdp"].is_null(), "SIGTERM detaches: {link}");
    ensure!(!balancer.socket().exists(), "SIGTERM removes the socket");
    balancer.restart()?;
    assert_eq!(weights(balancer)?.len(), 4);

    balancer.maglev_ok(&["backend", "remove", "four", "web1"])?;
    balancer.kill()?;
    balancer.restart()?;
    let expected = ["web2", "web3", "web4"].map(|name| (name.to_owned(), 100));
    assert_eq!(weights(balancer)?, expected);

    let targets = [WWW4, WWW6].map(|vip| (vip, Backend::PORT).into());
    let outcomes = lab.client().requests(&targets, 300, 16)?;
    outcomes.all_answered()?;
    assert_eq!(outcomes.by_backend().into_keys().collect::<Vec<_>>(), ["web2", "web3", "web4"]);
    Ok(())
}

#[test]
fn decap_detaches_and_says_what_it_counted() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    site.lab.client().requests(&[(WWW4, Backend::PORT).into()], 100, 8)?.all_answered()?;
    let packets = site.await_balance()?;
    let mut decapsulated = 0;
    for backend in &mut site.backends {
        // Neighbor discovery goes on until the end: only what is written last equals what is printed.
        let printed = backend.stop_decap()?;
        assert_eq!(backend.counters()?, printed);
        decapsulated += printed["decapsulated"];
        let link = site.lab.netns(backend.name()).ip_json(&["-details", "link", "show", "dev", "eth0"])?;
        ensure!(link[0]["xdp"].is_null(), "SIGTERM detaches: {link}");
    }
    assert_eq!(decapsulated, packets.vips);
    Ok(())
}

/// The digest of each pool's table.
fn tables(status: &Value) -> Vec<Value> {
    let pools = status["pools"].as_array().into_iter().flatten();
    pools.map(|pool| pool["table_digest"].clone()).collect()
}

/// Names and weights in pool `four`.
fn weights(balancer: &Balancer) -> Result<Vec<(String, u64)>> {
    let backends = balancer.maglev_json(&["backend", "list", "four"])?;
    let pair = |backend: &Value| Some((backend["name"].as_str()?.to_owned(), backend["weight"].as_u64()?));
    let pairs = backends.as_array().and_then(|all| all.iter().map(pair).collect());
    pairs.with_context(|| format!("maglev backend list: {backends}"))
}
