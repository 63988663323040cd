//! Backends that an operator drains or disables, and settings of a pool: where new connections go, and what
//! outlives the daemon.

use anyhow::{Context, Result, ensure};
use maglev_e2e::lab::{Backend, Balancer, Site, addresses::WWW4, skip};
use serde_json::Value;

#[test]
fn a_drained_backend_gets_no_new_connections_until_it_is_undrained() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let table = |site: &Site| -> Result<Value> {
        Ok(site.balancers[0].maglev_json(&["pool", "show", "four"])?["table_digest"].clone())
    };
    let before = table(&site)?;
    run(&site, "backend drain four web1")?;
    assert_eq!(states(&site.balancers[0])?, ["draining", "active", "active"]);
    assert_eq!(answering(&site)?, ["web2", "web3"]);
    refused(&site, "backend drain four web1", "already draining")?;
    refused(&site, "backend enable four web1", "undrain it instead")?;

    // The order is on the disk, with its time, before it is acknowledged.
    site.balancers[0].kill()?;
    site.balancers[0].restart()?;
    let drained = site.balancers[0].maglev_json(&["backend", "show", "four", "web1"])?;
    ensure!(drained["state"] == "draining" && drained["since"].as_u64().is_some_and(|since| since > 0), "{drained}");
    assert_eq!(answering(&site)?, ["web2", "web3"]);

    run(&site, "backend drain four web2")?;
    refused(&site, "backend drain four web3", "leaves none")?;
    refused(&site, "backend disable four web3", "leaves none")?;
    assert_eq!(answering(&site)?, ["web3"]);
    run(&site, "backend undrain four web1")?;
    run(&site, "backend undrain four web2")?;
    assert_eq!(states(&site.balancers[0])?, ["active"; 3]);
    assert_eq!(answering(&site)?, ["web1", "web2", "web3"]);
    assert_eq!(table(&site)?, before, "the table is what it was");
    Ok(())
}

#[test]
fn a_disabled_backend_gets_nothing_until_it_is_enabled() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(1)?;
    run(&site, "backend drain four web3")?;
    run(&site, "backend disable four web3")?;
    assert_eq!(states(&site.balancers[0])?, ["active", "active", "disabled"]);
    assert_eq!(answering(&site)?, ["web1", "web2"]);
    refused(&site, "backend undrain four web3", "enable it instead")?;
    run(&site, "backend enable four web3")?;
    assert_eq!(states(&site.balancers[0])?, ["active"; 3]);
    assert_eq!(answering(&site)?, ["web1", "web2", "web3"]);
    Ok(())
}

#[test]
fn settings_of_a_pool_outlive_the_daemon() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    run(&site, "pool add quic --tracking always --learning 30s --udp keep")?;
    run(&site, "pool set quic --idle 5m --tracking exception")?;
    site.balancers[0].kill()?;
    site.balancers[0].restart()?;
    let pool = site.balancers[0].maglev_json(&["pool", "show", "quic"])?;
    assert_eq!(pool["tracking"], "exception");
    let expected = serde_json::json!({ "learning_seconds": 30, "idle_seconds": 300, "udp": "keep" });
    assert_eq!(pool["transition"], expected);
    let text = site.balancers[0].maglev_ok(&["pool", "show", "quic"])?;
    ensure!(text.contains("learning 30s, idle 5m, udp keep"), "{text}");
    Ok(())
}

fn run(site: &Site, command: &str) -> Result<()> {
    site.balancers[0].maglev_ok(&command.split(' ').collect::<Vec<_>>())?;
    Ok(())
}

fn refused(site: &Site, command: &str, reason: &str) -> Result<()> {
    let answer = site.balancers[0].maglev(&command.split(' ').collect::<Vec<_>>())?;
    let lines = answer.stderr.lines().count();
    ensure!(answer.code == 1 && lines == 1 && answer.stderr.contains(reason), "maglev {command}: {answer:?}");
    Ok(())
}

/// The backends that new connections reach.
fn answering(site: &Site) -> Result<Vec<String>> {
    let outcomes = site.lab.client().requests(&[(WWW4, Backend::PORT).into()], 300, 16)?;
    outcomes.all_answered()?;
    Ok(outcomes.by_backend().into_keys().map(str::to_owned).collect())
}

/// The states of pool `four`'s backends, in JSON and in the table alike.
fn states(balancer: &Balancer) -> Result<Vec<String>> {
    let backends = balancer.maglev_json(&["backend", "list", "four"])?;
    let state = |backend: &Value| backend["state"].as_str().map(str::to_owned);
    let states: Option<Vec<_>> = backends.as_array().context("maglev backend list")?.iter().map(state).collect();
    let states = states.with_context(|| format!("a backend has a state: {backends}"))?;
    let text = balancer.maglev_ok(&["backend", "list", "four"])?;
    let agree =
        text.lines().skip(1).zip(&states).all(|(line, state)| line.split("  ").any(|cell| cell.trim() == state));
    ensure!(agree, "{states:?} are not in\n{text}");
    Ok(states)
}
