//! The operator's side of a drain: what it would move, what is left of it, when it is over; and flow tables that are too
//! small, which are never silent.

use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use maglev_e2e::{
    client::held::Kind,
    lab::{self, Answer, Balancer, skip},
    trial::{Setting, Trial},
};
use serde_json::Value;

const SLOTS: u64 = 65_537;

fn setting(tracking: &'static [&'static str]) -> Setting {
    Setting {
        balancers: 1,
        backends: 4,
        spare: 0,
        tracking,
        learning: 2,
        idle: 10,
        held: 200,
        pace: Duration::from_millis(400),
        silence: Duration::from_secs(1),
        arrivals: 0,
        flows: None,
        on_stop: "detach",
    }
}

#[test]
fn a_drain_is_planned_awaited_and_then_nothing_is_cut() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let trial = Trial::begin(&setting(&["exception"]))?;
    let held = trial.homes().get("web1").copied().context("a connection on web1")? as u64;

    let balancer = &trial.site.balancers[0];
    let before = balancer.maglev_json(&["status"])?;
    let plan = json(balancer, "plan backend drain exception web1")?;
    assert_eq!((&plan["change"], &plan["cuts"]), (&"drain backend web1 of pool exception".into(), &false.into()));
    assert_eq!(plan["active_flows"], 0, "flows of settled slots are not recorded: {plan}");
    let after = balancer.maglev_json(&["status"])?;
    assert_eq!((&before["services_digest"], &before["backends"]), (&after["services_digest"], &after["backends"]));

    // Connections that stay on it are counted, and keep it from being removed.
    let late = maglev(balancer, "backend drain exception web1 --wait --timeout 8s")?;
    ensure!(late.code == 1 && late.stdout.is_empty(), "{late:?}");
    let last = late.stderr.lines().last().context("a last line")?;
    ensure!(last.starts_with("maglev: web1 is not drained after 8s: 0 slots are learning for it and "), "{late:?}");
    let pinned = backend(balancer, "web1")?["pinned_flows"].as_u64().context("a number")?;
    // A flow whose packets come by several CPUs is known to each of them.
    ensure!(pinned >= held, "{pinned} flows pinned, {held} connections held");
    assert_eq!(shares(&after, "slots")?, shares(&plan, "slots_before")?);
    assert_eq!(shares(&balancer.maglev_json(&["status"])?, "slots")?, shares(&plan, "slots_after")?);
    let moving = json(balancer, "pool show exception")?["in_transition"].clone();
    ensure!(moving["tracked_slots"].as_u64() > Some(0) && moving["learning_seconds_left"].is_null(), "{moving}");
    ensure!(moving["learning_slots"] == 0 && moving["pinned_flows"].as_u64() >= Some(held), "{moving}");
    for command in ["backend remove exception web1", "plan backend remove exception web1"] {
        let refused = maglev(balancer, command)?;
        ensure!(refused.code == 1 && refused.stderr.contains("flows are pinned to it; wait"), "{refused:?}");
    }
    let plan = json(balancer, "plan backend remove exception web1 --force")?;
    assert_eq!((&plan["moved_slots"], &plan["cuts"]), (&0.into(), &true.into()));

    trial.leave(1);
    let balancer = &trial.site.balancers[0];
    let drained = maglev(balancer, "backend drain exception web1 --wait --timeout 1m")?;
    assert_eq!((drained.code, drained.stdout.as_str()), (0, "web1 is drained: no flow is left; safe to stop\n"));
    ensure!(drained.stderr.contains("flows are pinned to it"), "progress is reported: {drained:?}");
    let removed = maglev(balancer, "backend remove exception web1")?;
    assert_eq!(removed.code, 0, "{removed:?}");
    let [report] = trial.finish()?.try_into().ok().context("one report")?;
    report.none_broken(&Kind::ALL)
}

#[test]
fn a_wait_ends_when_the_order_is_taken_back() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut trial = Trial::begin(&setting(&["exception"]))?;
    for (order, reason) in [("undrain", "was undrained"), ("remove --force", "was removed")] {
        let balancer = &mut trial.site.balancers[0];
        let socket = balancer.socket();
        let ended = thread::scope(|scope| {
            let waiting = scope.spawn(|| lab::maglev(&socket, &["backend", "drain", "exception", "web2", "--wait"]));
            balancer.await_status("a backend that is draining", |status| {
                let mut backends = status["backends"].as_array().into_iter().flatten();
                backends.any(|backend| backend["state"] == "draining" && backend["learning_slots"] != 0)
            })?;
            let (order, force) = order.split_once(' ').unwrap_or((order, ""));
            let words = ["backend", order, "exception", "web2", force];
            balancer.maglev_ok(&words[..if force.is_empty() { 4 } else { 5 }])?;
            waiting.join().map_err(|_| anyhow::anyhow!("the wait panicked"))?
        })?;
        let last = ended.stderr.lines().last().context("a last line")?;
        let expected = format!("maglev: web2 {reason} while it drained");
        assert_eq!((ended.code, last), (1, expected.as_str()));
    }
    Ok(())
}

#[test]
fn if_every_flow_is_tracked_a_plan_counts_them_and_a_table_too_small_is_reported() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let trial = Trial::begin(&setting(&["always"]))?;
    let homes = trial.homes();
    let balancer = &trial.site.balancers[0];
    let plan = json(balancer, "plan backend remove always web1")?;
    let (active, held) = (plan["active_flows"].as_u64().context("a number")?, homes["web1"] as u64);
    // Some stand on slots that move though their owner stays, and some connections have ended lately.
    ensure!(active >= held, "{active} active, {held} held: {plan}");
    ensure!(active < homes.values().sum::<usize>() as u64, "{active} active, of all {homes:?}");
    assert_eq!((&plan["cuts"], &plan["tracking"]), (&true.into(), &"always".into()));
    let status = balancer.maglev_json(&["status"])?;
    assert_eq!((&status["flow_table"]["flow_table_full"], &status["flow_table"]["since"]), (&0.into(), &Value::Null));
    drop(trial);

    // Eight buckets of seven on each CPU. With twice as many connections some buckets are full. With many more none ever is:
    // entries that are written over before they are confirmed hold nothing, and connections displace each other.
    for held in [120, 2_000] {
        let mut trial = Trial::begin(&Setting { flows: Some(56), held, ..setting(&["always"]) })?;
        let balancer = &mut trial.site.balancers[0];
        balancer.await_status("flow tables that are too small", |status| !status["flow_table"]["since"].is_null())?;
        balancer.await_log("the flow tables have no room for all flows")?;
        let text = balancer.maglev_ok(&["status"])?;
        ensure!(text.lines().any(|line| line.starts_with("flow table") && line.contains("TOO SMALL")), "{text}");
        drop(trial);
    }
    Ok(())
}

#[test]
fn flows_that_hardly_find_room_are_warned_of() -> Result<()> {
    if skip() {
        return Ok(());
    }
    // Eight buckets of seven on each CPU; a quarter of the connections is to be pinned.
    let mut trial = Trial::begin(&Setting { flows: Some(56), held: 400, ..setting(&["exception"]) })?;
    let balancer = &mut trial.site.balancers[0];
    let quiet = maglev(balancer, "plan backend drain exception web1")?;
    ensure!(quiet.code == 0 && quiet.stderr.is_empty(), "{quiet:?}");
    balancer.maglev_ok(&["backend", "drain", "exception", "web1"])?;
    balancer.await_status("flow tables that are more than half full", |status| {
        let pinned = status["pools"][0]["in_transition"]["pinned_flows"].as_u64();
        pinned.zip(status["flow_table"]["room"].as_u64()).is_some_and(|(pinned, room)| pinned > room / 2)
    })?;
    let warning = "flows would take more than half of the flow tables' room for ";
    let text = balancer.maglev_ok(&["status"])?;
    ensure!(text.contains(warning), "{text}");
    for command in ["plan backend drain exception web2", "backend drain exception web2"] {
        let warned = maglev(balancer, command)?;
        ensure!(warned.code == 0 && warned.stderr.contains(warning), "{warned:?}");
    }
    Ok(())
}

fn maglev(balancer: &Balancer, command: &str) -> Result<Answer> {
    balancer.maglev(&command.split(' ').collect::<Vec<_>>())
}

fn json(balancer: &Balancer, command: &str) -> Result<Value> {
    balancer.maglev_json(&command.split(' ').collect::<Vec<_>>())
}

fn backend(balancer: &Balancer, name: &str) -> Result<Value> {
    json(balancer, &format!("backend show exception {name}"))
}

/// The slots of each backend, as a status or a plan shows them: all there are.
fn shares(view: &Value, field: &str) -> Result<BTreeSet<(String, u64)>> {
    let backends = view["backends"].as_array().context("backends")?;
    let share = |backend: &Value| Some((backend["name"].as_str()?.to_owned(), backend[field].as_u64()?));
    let shares: Option<BTreeSet<_>> = backends.iter().map(share).collect();
    let shares = shares.with_context(|| format!("{field} of each backend in {view}"))?;
    assert_eq!(shares.iter().map(|(_, slots)| slots).sum::<u64>(), SLOTS, "{view}");
    Ok(shares)
}
