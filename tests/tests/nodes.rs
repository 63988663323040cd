//! Two load balancers that came to the same services by different ways hold the same tables, byte for byte, and choose
//! the same backend for a flow.

use anyhow::{Context, Result};
use maglev_e2e::lab::{
    Affinity, Backend, Balancer, Lab, Pool, Services, Site, Vip,
    addresses::{WWW4, WWW6},
    skip,
};
use serde_json::Value;

#[test]
fn the_history_of_a_table_does_not_show() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::new(2, services)?;
    let addresses: Vec<String> = (1..=4).map(|n| site.lab.backend_address(n, WWW4).to_string()).collect();
    let add = |n: usize, weight| format!("backend add web web{n} --address {} --weight {weight}", addresses[n - 1]);
    run(&site.balancers[0], &[add(1, 100), add(2, 50), add(3, 100), add(4, 7)])?;
    let other_way = [
        add(4, 7),
        add(2, 900),
        add(3, 1),
        "backend remove web web4".to_owned(),
        "backend weight web web2 0".to_owned(),
        add(1, 100),
        "backend weight web web3 100".to_owned(),
        add(4, 7),
        "backend weight web web2 50".to_owned(),
    ];
    run(&site.balancers[1], &other_way)?;

    // A table holds the backends that can be reached, so both look when all can.
    site.balancers.iter_mut().try_for_each(Balancer::await_next_hops)?;
    let [one, other] = [0, 1].map(|n| site.balancers[n].maglev_json(&["status"]));
    let (one, other) = (one?, other?);
    for digest in ["services_digest", "hash_key_digest"] {
        assert_eq!(one[digest], other[digest], "{digest}");
        assert!(one[digest].as_str().is_some_and(|digest| !digest.is_empty()), "{digest}");
    }
    assert_eq!(tables(&one)?, tables(&other)?);

    // A different weight shows in the digests, and the same weight makes them equal again.
    run(&site.balancers[1], &["backend weight web web4 8".to_owned()])?;
    let changed = site.balancers[1].maglev_json(&["status"])?;
    assert_ne!(tables(&one)?, tables(&changed)?);
    assert_ne!(one["services_digest"], changed["services_digest"]);
    run(&site.balancers[0], &["backend weight web web4 8".to_owned()])?;
    assert_eq!(tables(&site.balancers[0].maglev_json(&["status"])?)?, tables(&changed)?);

    // Whichever of the two a flow meets, it reaches the same backend, once no slot's history counts any more.
    for balancer in &mut site.balancers {
        balancer.await_status("settled slots", |status| {
            let moving = &status["pools"][0]["in_transition"];
            moving["learning_slots"] == 0 && moving["tracked_slots"] == 0
        })?;
    }
    let targets = [WWW4, WWW6].map(|vip| (vip, Backend::PORT).into());
    let outcomes = site.lab.client().requests(&targets, 200, 8)?;
    outcomes.all_answered()?;
    for outcome in &outcomes.0 {
        let client = outcome.local.context("an answered request has a port")?.to_string();
        for balancer in &site.balancers {
            let explained = balancer.maglev_json(&["flow", "explain", &client, &outcome.target.to_string(), "tcp"])?;
            assert_eq!(explained["backend"].as_str(), outcome.answer.as_deref().ok(), "{}", balancer.name());
        }
    }
    Ok(())
}

fn services(lab: &Lab) -> Services {
    let affinity = Some(Affinity { tracking: "exception", learning: 1, idle: 10 });
    Services {
        pools: vec![Pool { affinity, ..lab.pool("web", WWW4, &[]) }],
        vips: vec![
            Vip::new("www", (WWW4, Backend::PORT), "tcp", "web"),
            Vip::new("www6", (WWW6, Backend::PORT), "tcp", "web"),
        ],
    }
}

fn run(balancer: &Balancer, commands: &[String]) -> Result<()> {
    for command in commands {
        balancer.maglev_ok(&command.split(' ').collect::<Vec<_>>())?;
    }
    Ok(())
}

/// The digest of each pool's table.
fn tables(status: &Value) -> Result<Vec<(&str, &str)>> {
    let pools = status["pools"].as_array().context("status has pools")?;
    pools
        .iter()
        .map(|pool| Some((pool["name"].as_str()?, pool["table_digest"].as_str()?)))
        .collect::<Option<_>>()
        .context("a pool has a name and a table digest")
}
