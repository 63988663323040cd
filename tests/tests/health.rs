//! Health checks of real servers: who stops serving leaves the table, who serves again comes back; and who is left alone
//! when all fail at once.

use std::cell::RefCell;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use maglev_e2e::{
    lab::{Backend, Site, addresses::WWW4, skip},
    matrix::Matrix,
};
use serde_json::Value;

const CHECK: &str = "check: { kind: http, via: direct, port: 80, interval: 500ms, timeout: 250ms, jitter: 50ms }";

/// What a failure is found out within: `fall × interval + timeout`.
const FOUND_OUT: Duration = Duration::from_millis(2 * 500 + 250);

/// On a machine that does something else too.
const ROOM: Duration = Duration::from_secs(2);

#[test]
fn a_backend_whose_server_stops_leaves_the_table_until_it_serves_again() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    check_four(&mut site, CHECK)?;
    Matrix::Health.row("lab", "a process stops: out of the table", || {
        site.backends[0].stop_server()?;
        let stopped = Instant::now();
        await_four(&mut site, "web1 without slots", |backends| backends[0]["slots"] == 0)?;
        let took = stopped.elapsed();
        ensure!(took < FOUND_OUT + ROOM, "{took:?}");
        Ok(format!("after {} ms; promised: {} ms", took.as_millis(), FOUND_OUT.as_millis()))
    })?;
    let pool = site.balancers[0].maglev_json(&["pool", "show", "four"])?;
    ensure!(pool["backends"][0]["learning_slots"] == 0, "the dead have no flows to learn: {pool}");
    let health = &pool["backends"][0]["health"];
    ensure!(health["state"] == "unhealthy" && health["last"]["error"] == "connect: refused", "{health}");
    let text = site.balancers[0].maglev_ok(&["backend", "list", "four"])?;
    ensure!(text.contains("unhealthy for") && text.contains("connect: refused ("), "{text}");
    assert_eq!(answering(&site)?, ["web2", "web3"]);

    // What is known of health outlives neither the daemon nor what it did.
    site.balancers[0].kill()?;
    site.balancers[0].restart()?;
    assert_eq!(answering(&site)?, ["web2", "web3"]);

    let lab = &site.lab;
    site.backends[0].start_server(lab)?;
    await_four(&mut site, "web1 with slots", |backends| backends[0]["slots"].as_u64() > Some(20_000))?;
    assert_eq!(answering(&site)?, ["web1", "web2", "web3"]);
    Ok(())
}

#[test]
fn when_all_fail_all_are_used() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    check_four(&mut site, CHECK)?;
    site.backends.iter_mut().try_for_each(Backend::stop_server)?;
    site.balancers[0].await_log("every check fails at once")?;
    site.balancers[0].await_log("PANIC")?;
    await_four(&mut site, "slots of all", |all| all.iter().all(|backend| backend["slots"].as_u64() > Some(20_000)))?;
    let pool = site.balancers[0].maglev_json(&["pool", "show", "four"])?;
    ensure!(pool["panic"] == true, "{pool}");
    let lab = &site.lab;
    site.backends.iter_mut().try_for_each(|backend| backend.start_server(lab))?;
    site.balancers[0].await_log("panic is over")?;
    await_four(&mut site, "healthy backends", |all| all.iter().all(|backend| backend["health"]["state"] == "healthy"))?;
    assert_eq!(answering(&site)?, ["web1", "web2", "web3"]);
    Ok(())
}

#[test]
fn a_pool_that_slow_starts_gives_a_backend_its_share_by_and_by() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    check_four(&mut site, &format!("{CHECK}\n    slow_start: 10s"))?;
    site.backends[0].stop_server()?;
    await_four(&mut site, "web1 without slots", |backends| backends[0]["slots"] == 0)?;
    let lab = &site.lab;
    site.backends[0].start_server(lab)?;
    await_four(&mut site, "web1 with slots", |backends| backends[0]["slots"].as_u64() > Some(0))?;
    let began = Instant::now();
    let seen = RefCell::new(Vec::new());
    await_four(&mut site, "web1 with its share", |backends| {
        let (slots, percent) = (backends[0]["slots"].as_f64(), backends[0]["health"]["weight_percent"].as_u64());
        seen.borrow_mut().extend(slots.zip(percent).map(|(slots, percent)| (began.elapsed(), slots, percent)));
        percent == Some(100)
    })?;
    let mut told = 0;
    for (at, slots, percent) in seen.into_inner() {
        if std::mem::replace(&mut told, percent) != percent {
            println!("{:5} ms: {percent:3} % of its weight, {slots} slots", at.as_millis());
        }
        // With two others of full weight, a part p of the weight is p / (p + 2) of the slots.
        let part = percent as f64 / 100.0;
        let expected = 65_537.0 * part / (part + 2.0);
        ensure!((slots - expected).abs() < 0.02 * expected, "{percent} %: {slots} of {expected}");
        let line = (at.as_secs_f64() / 10.0).clamp(0.1, 1.0);
        let late = ROOM.as_secs_f64() / 10.0;
        ensure!(part < 1.2 * (line + 0.05) && part > 0.8 * (line - late), "{percent} % after {at:?}");
    }
    Ok(())
}

/// Reloads the services with this for pool `four`, and waits until all its backends are healthy.
fn check_four(site: &mut Site, check: &str) -> Result<()> {
    let path = site.balancers[0].services();
    let text = fs::read_to_string(&path).context("services.yaml")?;
    let text = text.replacen("- name: four\n", &format!("- name: four\n    {check}\n"), 1);
    fs::write(&path, text).context("services.yaml")?;
    site.balancers[0].maglev_ok(&["reload"])?;
    await_four(site, "healthy backends", |all| all.iter().all(|backend| backend["health"]["state"] == "healthy"))
}

/// Waits until pool `four`'s backends are as `holds` looks for.
fn await_four(site: &mut Site, what: &str, holds: impl Fn(&[&Value]) -> bool) -> Result<()> {
    site.balancers[0].await_status(what, |status| {
        let of_four = status["backends"].as_array().into_iter().flatten().filter(|backend| backend["pool"] == "four");
        holds(&of_four.collect::<Vec<_>>())
    })
}

/// The backends that new connections reach.
fn answering(site: &Site) -> Result<Vec<String>> {
    let outcomes = site.lab.client().requests(&[(WWW4, Backend::PORT).into()], 300, 16)?;
    outcomes.all_answered()?;
    Ok(outcomes.by_backend().into_keys().map(str::to_owned).collect())
}
