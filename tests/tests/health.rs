//! Health checks of real servers: a failed backend is removed from the table, a recovered one is added again; and backends
//! are kept when all fail at once.

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

/// The time to notice a failure: `fall × interval + timeout`.
const FOUND_OUT: Duration = Duration::from_millis(2 * 500 + 250);

/// The time for the switch from the end of the last failed check on.
const SWITCH: Duration = Duration::from_millis(10);

/// What the daemon logs of it.
const TURN: &str = "tables updated after changes of health";

/// Packets a second that show the chosen backends.
const RATE: u32 = 2_000;

/// On a machine that does something else too.
const ROOM: Duration = Duration::from_secs(2);

#[test]
fn a_backend_whose_server_stops_is_removed_from_the_table_until_it_serves_again() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    check_four(&mut site, CHECK)?;
    Matrix::Health.row("lab", "a process stops: out of the table", || {
        let stream = site.lab.client().stream(&[(WWW4, Backend::PORT).into()], RATE);
        stream.pass(1_000)?;
        site.backends[0].stop_server()?;
        let stopped = Instant::now();
        await_four(&mut site, "web1 without slots", |backends| backends[0]["slots"] == 0)?;
        let took = stopped.elapsed();
        ensure!(took < FOUND_OUT + ROOM, "{took:?}");
        let began = stream.began();
        stream.pass(1_000)?;
        let lost = stream.finish()?.lost;
        let last = lost.last().map(|last| (began + last.at).saturating_duration_since(stopped)).unwrap_or_default();
        ensure!(!lost.is_empty() && last < took + ROOM, "{last:?}");
        let [took, last, promised] = [took, last, FOUND_OUT].map(|time| time.as_millis());
        Ok(format!("after {took} ms, and the last of {RATE} packets a second was lost after {last} ms; at most {promised} ms are wanted"))
    })?;
    Matrix::Health.row("lab", "from the end of the last failed check to the table", || {
        let took = switched(&mut site)?;
        ensure!(took < SWITCH + ROOM, "{took:?}");
        Ok(format!(
            "{:.1} ms, by the daemon's log; at most {} ms are wanted",
            took.as_secs_f64() * 1e3,
            SWITCH.as_millis()
        ))
    })?;
    let pool = site.balancers[0].maglev_json(&["pool", "show", "four"])?;
    ensure!(pool["backends"][0]["learning_slots"] == 0, "the dead have no flows to learn: {pool}");
    let health = &pool["backends"][0]["health"];
    ensure!(health["state"] == "unhealthy" && health["last"]["error"] == "connect: refused", "{health}");
    let text = site.balancers[0].maglev_ok(&["backend", "list", "four"])?;
    ensure!(text.contains("unhealthy for") && text.contains("connect: refused ("), "{text}");
    assert_eq!(answering(&site)?, ["web2", "web3"]);

    // A restarted daemon uses the backends that were in use until it has checked anew.
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
    let row = "all fail at once: panic, and all of them are sent to";
    Matrix::Health.row("lab", row, || {
        site.backends.iter_mut().try_for_each(Backend::stop_server)?;
        site.balancers[0].await_log("every check fails at once")?;
        site.balancers[0].await_log("PANIC")?;
        let of_all = |all: &[&Value]| all.iter().all(|backend| backend["slots"].as_u64() > Some(20_000));
        await_four(&mut site, "slots of all", of_all)?;
        let pool = site.balancers[0].maglev_json(&["pool", "show", "four"])?;
        ensure!(pool["panic"] == true, "{pool}");
        Ok("the pool's table holds all three".to_owned())
    })?;
    let lab = &site.lab;
    site.backends.iter_mut().try_for_each(|backend| backend.start_server(lab))?;
    site.balancers[0].await_log("panic of pool four is over")?;
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
    Matrix::Health.row("lab", "slow start's share over time", || {
        let furthest = ramp(&mut site)?;
        Ok(format!("slots within {:.1} % of what each step's weight means; ten steps over 10 s", furthest * 100.0))
    })
}

/// Follows `web1` from its first slots to its whole share. Returns how far its slots were off at most.
fn ramp(site: &mut Site) -> Result<f64> {
    let began = Instant::now();
    let seen = RefCell::new(Vec::new());
    await_four(site, "web1 with its share", |backends| {
        let (slots, percent) = (backends[0]["slots"].as_f64(), backends[0]["health"]["weight_percent"].as_u64());
        seen.borrow_mut().extend(slots.zip(percent).map(|(slots, percent)| (began.elapsed(), slots, percent)));
        percent == Some(100)
    })?;
    let (mut last, mut furthest) = (0, 0.0_f64);
    for (at, slots, percent) in seen.into_inner() {
        if std::mem::replace(&mut last, percent) != percent {
            println!("{:5} ms: {percent:3} % of its weight, {slots} slots", at.as_millis());
        }
        // With two others of full weight, a part p of the weight is p / (p + 2) of the slots.
        let part = percent as f64 / 100.0;
        let expected = 65_537.0 * part / (part + 2.0);
        let off = (slots - expected).abs() / expected;
        ensure!(off < 0.02, "{percent} %: {slots} of {expected}");
        furthest = furthest.max(off);
        let line = (at.as_secs_f64() / 10.0).clamp(0.1, 1.0);
        let late = ROOM.as_secs_f64() / 10.0;
        ensure!(part < 1.2 * (line + 0.05) && part > 0.8 * (line - late), "{percent} % after {at:?}");
    }
    Ok(furthest)
}

/// How long the daemon took to publish what its checks had found last.
fn switched(site: &mut Site) -> Result<Duration> {
    site.balancers[0].await_log(TURN)?;
    let log = site.balancers[0].log();
    let line = log.lines().rfind(|line| line.contains(TURN)).context("no line")?;
    let microseconds = line.split("microseconds=").nth(1).and_then(|rest| rest.split_whitespace().next());
    Ok(Duration::from_micros(microseconds.context(line.to_owned())?.parse()?))
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
