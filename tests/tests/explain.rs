//! `maglev flow explain` names the backend that a real flow reached: it runs the code that ran in the kernel.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use maglev_e2e::lab::{
    Backend, Site,
    addresses::{ALT4, WWW4, WWW6},
    skip,
};

#[test]
fn a_thousand_flows_went_where_explain_says() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(2)?;
    let targets = [WWW4, WWW6].map(|vip| SocketAddr::new(vip, Backend::PORT));
    let outcomes = site.lab.client().requests(&targets, 1_000, 16)?;
    outcomes.all_answered()?;
    for (n, outcome) in outcomes.0.iter().enumerate() {
        let client = outcome.local.context("an answered request has a port")?.to_string();
        let balancer = &site.balancers[n % 2];
        let explained = balancer.maglev_json(&["flow", "explain", &client, &outcome.target.to_string(), "tcp"])?;
        assert_eq!(explained["backend"].as_str(), outcome.answer.as_deref().ok(), "{outcome}: {explained}");
        let vip = if outcome.target.is_ipv4() { "www-tcp" } else { "www6-tcp" };
        assert_eq!(explained["vip"], vip, "{explained}");
        assert_eq!(explained["pool"], "four", "{explained}");
        ensure!(explained["slot"].as_u64().is_some_and(|slot| slot < 65_537), "{explained}");
    }
    Ok(())
}

#[test]
fn what_is_not_for_a_vip_is_explained_too() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(1)?;
    let explain = |service: String, protocol| {
        site.balancers[0].maglev_json(&["flow", "explain", "198.51.100.2:40000", &service, protocol])
    };
    let elsewhere = explain("192.0.2.1:80".to_owned(), "tcp")?;
    assert_eq!((&elsewhere["vip"], &elsewhere["outcome"]), (&serde_json::Value::Null, &"passed".into()));
    let other_port = explain(format!("{ALT4}:81"), "tcp")?;
    assert_eq!((&other_port["vip"], &other_port["outcome"]), (&serde_json::Value::Null, &"dropped".into()));
    Ok(())
}
