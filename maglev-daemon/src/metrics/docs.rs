//! `docs/metrics.md`: every family with its labels, and every counter of packets. Compared with the code; `cargo xtask docs` writes it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use maglev_api::testing;
use maglev_common::counters::Counter;
use maglev_testing::docs;

use super::text::Family;
use super::*;

/// Labels with few values, which the code knows.
const ENUMERATED: [&str; 7] = ["state", "phase", "health", "result", "stage", "file", "outcome"];

/// The last words of names that are units.
const UNITS: [&str; 4] = ["bytes", "packets", "percent", "seconds"];

/// A node on which every family has series.
fn node() -> (Status, Counters, BgpNeighbors, BgpRoutes) {
    let (mut status, mut counters, neighbors, routes) = tests::everything();
    let (mode, link) = ("native".to_owned(), "up".to_owned());
    let (name, attached, index, mtu) = ("eth0".to_owned(), true, 2, 1_500);
    status.interfaces.push(view::Interface { name, renamed_to: None, mode, attached, link, index, mtu });
    status.vips.push(view::Vip {
        name: "www".into(),
        address: "203.0.113.10".parse().unwrap(),
        port: view::Port(maglev_model::Ports::Any),
        protocol: view::Protocol::Tcp,
        pool: "web".into(),
        when_empty: view::Unserved::Drop,
        affinity: "5-tuple".into(),
        error: None,
        health: view::VipHealth::default(),
    });
    status.memory.maps.push(view::MapMemory { name: "counts".into(), bytes: 1 });
    let backend = testing::backend("web1");
    counters.backends.push(view::BackendTraffic { pool: backend.pool, backend: backend.name, packets: 7, bytes: 420 });
    let (interface, source) = ("eth0".to_owned(), "driver".to_owned());
    counters.interfaces.push(view::InterfaceCounter { interface, source, name: "tx_errors".into(), packets: 0 });
    counters.counters.extend(Counter::ALL.iter().map(|counter| view::Counter {
        name: counter.name().into(),
        outcome: counter.outcome().as_str().into(),
        packets: 0,
        help: counter.help().into(),
    }));
    (status, counters, neighbors, routes)
}

#[test]
fn the_page_has_every_family() {
    let (status, counters, neighbors, routes) = node();
    let families = registered(&status, &counters, (&neighbors, &routes)).families;
    let without: Vec<_> =
        families.iter().filter(|family| family.series.is_empty()).map(|family| &family.name).collect();
    assert!(without.is_empty(), "give the node of this test series of {without:?}: they name the labels");
    let rows: String = families.iter().map(row).collect();
    docs::hold(
        "docs/metrics.md",
        "metrics",
        &format!("| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n{rows}"),
    );
}

fn row(family: &Family) -> String {
    let Family { name, kind, help, series } = family;
    let stem = name.strip_suffix("_total").unwrap_or(name);
    let unit = UNITS.into_iter().find(|unit| stem.ends_with(&format!("_{unit}"))).unwrap_or("");
    let labels = series.first().into_iter().flatten().map(|(label, _)| labelled(label, series));
    format!("| `{name}` | {kind} | {unit} | {} | {help} |\n", labels.collect::<Vec<_>>().join(", "))
}

/// A label, with its values if the code knows them.
fn labelled(label: &str, series: &[Vec<(&'static str, String)>]) -> String {
    if !ENUMERATED.contains(&label) {
        return format!("`{label}`");
    }
    let values = series.iter().flatten().filter(|(name, _)| *name == label).map(|(_, value)| value.as_str());
    let values: BTreeSet<_> = values.collect();
    format!("`{label}`: {}", values.into_iter().collect::<Vec<_>>().join(", "))
}

#[test]
fn the_page_has_every_family_of_a_backend() {
    let (status, counters) = decap::tests::backend();
    let families = decap::registered(&status, &counters).families;
    assert!(families.iter().all(|family| !family.series.is_empty()));
    let rows: String = families.iter().map(row).collect();
    docs::hold(
        "docs/metrics.md",
        "metrics of a backend",
        &format!("| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n{rows}"),
    );
}

#[test]
fn the_page_has_every_counter() {
    let mut table = String::from("| `reason` | `outcome` | packets |\n|---|---|---|\n");
    for counter in Counter::ALL {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| `{}` | {} | {} |", counter.name(), counter.outcome().as_str(), counter.help());
    }
    docs::hold("docs/metrics.md", "counters", &table);
}

/// The metrics in expressions of PromQL, with the labels by which their series are selected.
fn selected(rules: &str) -> Vec<(&str, Vec<&str>)> {
    let expressions = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let metrics = expressions.flat_map(|expression| {
        expression.match_indices("maglev_").map(|(at, _)| {
            let rest = &expression[at..];
            let (name, rest) =
                rest.split_at(rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()));
            let selectors =
                rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
            let labels = selectors.split(',').filter_map(|selector| selector.split(['=', '!']).next());
            (name, labels.map(str::trim).filter(|label| !label.is_empty()).collect())
        })
    });
    metrics.collect()
}

#[test]
fn metrics_and_labels_of_an_expression_are_found() {
    let rule = "expr: 'sum (rate(maglev_a_total{x=\"1\", y!=\"2\"}[5m])) > 1 unless maglev_b == 0'\nfor: maglev_c";
    assert_eq!(selected(rule), [("maglev_a_total", vec!["x", "y"]), ("maglev_b", vec![])]);
}

/// Metrics that a page or an alert names are there, with labels that they have.
#[test]
fn every_metric_in_a_page_or_an_alert_exists() {
    let (status, counters, neighbors, routes) = node();
    let mut families = registered(&status, &counters, (&neighbors, &routes)).families;
    let (status, counters) = decap::tests::backend();
    families.extend(decap::registered(&status, &counters).families);
    let known = |name: &str, labels: Vec<&str>| {
        let family = families.iter().find(|family| family.name == name);
        let has = |label: &&str| family.is_some_and(|family| family.series[0].iter().any(|(known, _)| known == label));
        family.is_some() && labels.iter().all(has)
    };
    let mut unknown = Vec::new();
    let rules = std::fs::read_to_string(docs::root().join("deploy/monitoring/alerts.yaml")).unwrap();
    for (name, labels) in selected(&rules) {
        if !known(name, labels) {
            unknown.push(format!("alerts.yaml: {name}"));
        }
    }
    for page in docs::pages() {
        for code in page.text.split('`').filter(|code| code.starts_with("maglev_")) {
            let (name, labels) = code.trim_end_matches('}').split_once('{').unwrap_or((code, ""));
            let labels = labels.split(',').filter(|label| !label.is_empty()).collect();
            if !known(name, labels) {
                unknown.push(format!("{}: {code}", page.path));
            }
        }
    }
    assert!(unknown.is_empty(), "metrics that do not exist: {}", unknown.join(", "));
}
