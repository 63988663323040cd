//! Events, as operators follow them, and checks that they ask for.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use maglev_e2e::lab::{Balancer, Process, Site, binary, skip};
use serde_json::Value;

const CHECK: &str = "kind: http, via: direct, port: 80, interval: 500ms, timeout: 400ms, jitter: 50ms";

#[test]
fn a_follower_receives_events_and_resumes_where_it_was() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let mut follower = follow(&site, "follower", None)?;
    check_four(&mut site)?;
    site.backends[0].stop_server()?;
    await_received(&mut follower, "that web1 is unhealthy", |event| is_web1(event, "unhealthy"))?;
    let down =
        received(&follower)?.into_iter().find(|event| is_web1(event, "unhealthy")).context("web1 is unhealthy")?;
    ensure!(down["reason"] == "connect: refused" && down["level"] == "warning", "{down}");
    ensure!(down["text"] == "backend web1 of pool four is unhealthy: connect: refused", "{down}");

    // It is interrupted, and begins again after the last event that it received.
    follower.stop()?;
    let last = received(&follower)?.pop().context("events")?;
    let lab = &site.lab;
    site.backends[0].start_server(lab)?;
    let mut again = follow(&site, "again", last["sequence"].as_u64())?;
    await_received(&mut again, "that web1 is healthy", |event| is_web1(event, "healthy"))?;
    let (before, after) = (received(&follower)?, received(&again)?);
    let sequences = before.iter().chain(&after).map(|event| event["sequence"].as_u64().unwrap_or(0));
    let sequences: Vec<u64> = sequences.collect();
    ensure!(sequences.is_sorted_by(|one, next| one + 1 == *next), "each once, and none left out: {sequences:?}");
    let has = |name: &str| before.iter().any(|event| event["event"] == name);
    ensure!(has("started") && has("changed"), "{before:?}");
    ensure!(!has("prefix"), "nothing is announced without BGP: {before:?}");
    ensure!(before.iter().filter(|event| event["event"] == "backend_health").count() >= 4, "{before:?}");

    // The same by the command that does not follow.
    let balancer = &mut site.balancers[0];
    let after_last = balancer.maglev_ok(&["events", "--after", &last["sequence"].to_string()])?;
    ensure!(after_last.contains("backend web1 of pool four is healthy"), "{after_last}");
    ensure!(!after_last.contains("unhealthy") && !after_last.contains("started"), "{after_last}");
    let all = balancer.maglev_ok(&["events"])?;
    println!("{all}");
    ensure!(all.contains("maglevd") && all.contains("started") && all.contains("warning"), "{all}");

    // The daemon goes away: that is what it says, and how it ends.
    balancer.stop()?;
    let status = again.wait()?;
    assert_eq!(status.code(), Some(3), "{}", again.log());
    ensure!(received(&again)?.iter().any(|event| event["event"] == "stopping"), "{}", again.stdout()?);
    Ok(())
}

#[test]
fn a_requested_check_shows_its_result_and_counts_for_nothing() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    refused(&site.balancers[0], "backend check four web1", 1, "pool four has no check")?;
    check_four(&mut site)?;
    let text = site.balancers[0].maglev_ok(&["backend", "check", "four", "web1"])?;
    ensure!(text.contains("10.3.1.2:80") && text.contains("direct") && text.trim_end().ends_with("ok"), "{text}");

    // Checked once in an hour from here on, so that what follows can come of nothing else.
    let rarely = CHECK.replace("interval: 500ms", "interval: 1h").replace("jitter: 50ms", "jitter: 0s");
    site.balancers[0].maglev_ok(&["pool", "set", "four", "--check", &rarely])?;
    site.backends[0].stop_server()?;
    for _ in 0..5 {
        let answer = site.balancers[0].maglev(&["backend", "check", "four", "web1", "--output", "json"])?;
        let report: Value = serde_json::from_str(&answer.stdout).context("a report")?;
        let target = &report["targets"][0];
        ensure!(
            answer.code == 1 && answer.stderr == "maglev: backend web1 of pool four fails its check\n",
            "{answer:?}"
        );
        ensure!(target["passed"] == false && target["error"] == "connect: refused", "{report}");
        ensure!(target["destination"] == "10.3.1.2:80" && target["kind"] == "http", "{report}");
    }
    let shown = site.balancers[0].maglev_json(&["backend", "show", "four", "web1"])?;
    ensure!(shown["health"]["state"] == "healthy" && shown["slots"].as_u64() > Some(20_000), "{shown}");

    let balancer = &site.balancers[0];
    refused(balancer, "backend check four web9", 1, "unknown backend web9 in pool four")?;
    refused(balancer, "backend check nosuch web1", 1, "unknown pool nosuch")?;
    balancer.maglev_ok(&["backend", "disable", "four", "web2"])?;
    refused(balancer, "backend check four web2", 1, "backend web2 of pool four is disabled")
}

#[test]
fn checks_are_set_by_the_command_line_and_kept_in_the_file() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    check_four(&mut site)?;
    let balancer = &mut site.balancers[0];
    balancer.maglev_ok(&["pool", "set", "four", "--panic", "30", "--slow-start", "10s"])?;
    balancer.maglev_ok(&["backend", "set", "four", "web1", "--check", "port: 81, path: /elsewhere"])?;
    balancer.await_status("web1 unhealthy on a port of its own", |status| health_of(status, "web1") == "unhealthy")?;
    let reported = balancer.maglev_json(&["pool", "show", "four"])?;
    let health = &reported["health"];
    ensure!(health["panic_percent"] == 30 && health["slow_start_milliseconds"] == 10_000, "{reported}");
    ensure!(health["healthy"] == 2 && health["unhealthy"] == 1, "{reported}");
    let status = balancer.maglev_ok(&["status"])?;
    ensure!(status.contains("2 of 3 backends are healthy, 1 unhealthy"), "{status}");
    // The file holds the same.
    balancer.maglev_ok(&["reload"])?;
    let reloaded = balancer.maglev_json(&["pool", "show", "four"])?;
    ensure!(reloaded["health"]["check"] == health["check"] && reloaded["health"]["unhealthy"] == 1, "{reloaded}");

    let wrong = balancer.maglev(&["pool", "set", "four", "--check", "kind: icmp, via: direct"])?;
    ensure!(wrong.code == 2 && wrong.stderr.contains("check.kind: icmp is not a kind of check"), "{wrong:?}");
    let misfit = balancer.maglev(&["pool", "set", "four", "--check", "kind: tcp, via: direct"])?;
    ensure!(misfit.code == 1 && misfit.stderr.contains("backend web1 has its own path"), "{misfit:?}");
    refused(balancer, "pool set six --panic 30", 1, "give the pool a check too")?;

    balancer.maglev_ok(&["pool", "set", "four", "--no-check"])?;
    balancer.await_status("web1 with slots", |status| {
        pool_backends(status, "four")
            .all(|backend| backend["slots"].as_u64() > Some(20_000) && backend["health"].is_null())
    })?;
    balancer.maglev_ok(&["reload"])?;
    let text = balancer.maglev_ok(&["pool", "show", "four"])?;
    ensure!(text.contains("none: its backends count as healthy"), "{text}");
    Ok(())
}

#[test]
fn one_follower_too_many_is_refused_and_the_others_go_on() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(1)?;
    let balancer = &site.balancers[0];
    let mut followers = Vec::new();
    for n in 0..16 {
        let mut follower = follow(&site, &format!("follower{n}"), None)?;
        await_received(&mut follower, "the start", |event| event["event"] == "started")?;
        followers.push(follower);
    }
    refused(balancer, "events --follow", 1, "16 others follow the events")?;
    balancer.maglev_ok(&["backend", "weight", "four", "web1", "50"])?;
    for follower in &mut followers {
        await_received(follower, "the change", |event| {
            event["change"] == "set weight of backend web1 of pool four to 50"
        })?;
    }
    refused(balancer, "events --after x", 2, "x")
}

/// Follows events in the background, as lines of JSON.
fn follow(site: &Site, name: &str, after: Option<u64>) -> Result<Process> {
    let balancer = &site.balancers[0];
    let mut command = Command::new(binary("maglev")?);
    command.arg("--socket").arg(balancer.socket()).args(["--output", "json", "events", "--follow"]);
    if let Some(after) = after {
        command.args(["--after", &after.to_string()]);
    }
    Process::start(name, balancer.netns(), &site.lab.directory(), &mut command)
}

/// The follower's output so far, except an incomplete line.
fn received(follower: &Process) -> Result<Vec<Value>> {
    let printed = follower.stdout()?;
    let lines = printed.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

fn await_received(follower: &mut Process, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<()> {
    follower.await_event(what, |follower| Ok(received(follower)?.iter().any(&is_it)))
}

fn is_web1(event: &Value, health: &str) -> bool {
    event["event"] == "backend_health" && event["backend"] == "web1" && event["health"] == health
}

/// Has pool `four`'s backends checked, and waits until all are healthy.
fn check_four(site: &mut Site) -> Result<()> {
    site.balancers[0].maglev_ok(&["pool", "set", "four", "--check", CHECK])?;
    site.balancers[0].await_status("healthy backends", |status| {
        pool_backends(status, "four").all(|backend| backend["health"]["state"] == "healthy")
    })
}

fn pool_backends<'a>(status: &'a Value, pool: &'a str) -> impl Iterator<Item = &'a Value> {
    status["backends"].as_array().into_iter().flatten().filter(move |backend| backend["pool"] == pool)
}

fn health_of<'a>(status: &'a Value, backend: &'a str) -> &'a Value {
    pool_backends(status, "four")
        .find(|found| found["name"] == backend)
        .map_or(&Value::Null, |found| &found["health"]["state"])
}

/// A command that is refused in one line which holds this.
fn refused(balancer: &Balancer, command: &str, code: i32, line: &str) -> Result<()> {
    let answer = balancer.maglev(&command.split(' ').collect::<Vec<_>>())?;
    ensure!(answer.code == code && answer.stderr.contains(line), "maglev {command}: {answer:?}");
    ensure!(answer.stderr.lines().count() == 1 && answer.stdout.is_empty(), "maglev {command}: {answer:?}");
    Ok(())
}
