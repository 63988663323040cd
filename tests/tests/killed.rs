//! The daemon is killed in mid-transition and started again, over and over, while connections are held: the data plane
//! outlives it, and the next daemon goes on where the last one was.
//!
//! The pool learns for 8 s here, not for 120 s. A trial is about time: it has a program of its own, beside which no other
//! runs.

use std::time::Duration;

use anyhow::{Result, ensure};
use maglev_e2e::{
    client::held::Kind,
    lab::{Balancer, skip},
    trial::{Change, Setting, Trial},
};
use serde_json::Value;

const LEARNING: Duration = Duration::from_secs(8);

#[test]
fn a_daemon_killed_in_mid_transition_and_started_again_breaks_nothing() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut trial = Trial::begin(&Setting {
        balancers: 1,
        backends: 4,
        spare: 1,
        tracking: &["exception"],
        learning: LEARNING.as_secs(),
        idle: 12,
        held: 5_000,
        pace: Duration::from_millis(2_500),
        silence: LEARNING * 9 / 10,
        arrivals: 200,
        flows: None,
        on_stop: "detach",
    })?;
    let forwarding_since = forwarding(&trial.site.balancers[0])?["since"].clone();

    // Learning: killed in its midst, no daemon for a while, and another one that continues to its end.
    let drained = trial.change(Change::Drain(1))?;
    trial.pass_learning(drained, 0.3);
    trial.site.balancers[0].kill()?;
    trial.pass_learning(drained, 0.6);
    restart(&mut trial)?;
    let learning = in_transition(&trial)?["learning_seconds_left"].as_u64();
    ensure!(learning.is_some_and(|left| (1..=4).contains(&left)), "{learning:?} s are left, not what was left before");

    // A further change, and killed the moment it was acknowledged.
    let added = trial.change(Change::Add(5))?;
    trial.site.balancers[0].kill()?;
    restart(&mut trial)?;
    // Killed while learning, and no daemon when it ends.
    trial.pass_learning(added, 0.5);
    trial.site.balancers[0].kill()?;
    trial.pass_learning(added, 1.2);
    restart(&mut trial)?;
    let tracked = in_transition(&trial)?;
    ensure!(tracked["learning_slots"] == 0, "learning ended meanwhile: {tracked}");

    // In quick succession: drained, undrained, killed each time.
    for change in [Change::Weight(2, 250), Change::Undrain(1), Change::Drain(3)] {
        trial.change(change)?;
        trial.site.balancers[0].kill()?;
        restart(&mut trial)?;
    }
    trial.await_learned()?;
    let now = forwarding(&trial.site.balancers[0])?;
    let difference = now["since"].as_u64().zip(forwarding_since.as_u64()).map(|(now, then)| now.abs_diff(then));
    ensure!(difference.is_some_and(|seconds| seconds <= 1), "{now}, {forwarding_since} at first");
    for report in trial.finish()? {
        println!("killed and started again: {report}");
        report.none_broken(&Kind::ALL)?;
    }
    Ok(())
}

/// Starts the daemon again; it must go on with what is there.
fn restart(trial: &mut Trial) -> Result<()> {
    let balancer = &mut trial.site.balancers[0];
    balancer.restart()?;
    let status = forwarding(balancer)?;
    ensure!(status["adopted"] == true, "{status}\n{}", balancer.log());
    Ok(())
}

fn forwarding(balancer: &Balancer) -> Result<Value> {
    Ok(balancer.maglev_json(&["status"])?["forwarding"].clone())
}

/// Of the only pool.
fn in_transition(trial: &Trial) -> Result<Value> {
    Ok(trial.site.balancers[0].maglev_json(&["status"])?["pools"][0]["in_transition"].clone())
}
