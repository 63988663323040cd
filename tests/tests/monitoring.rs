//! The alert rules for Prometheus: their unit tests, and a real Prometheus that scrapes a node.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use maglev_e2e::{
    client::Client,
    lab::{Process, Site, UPLINK, skip},
};
use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn folder() -> PathBuf {
    repository().join("deploy/monitoring")
}

/// What follows a mark in the lines of a file, up to another.
fn named(text: &str, mark: &str, end: char) -> BTreeSet<String> {
    text.lines().filter_map(|line| Some(line.split_once(mark)?.1.split(end).next()?.to_owned())).collect()
}

#[test]
fn every_alert_fires_and_stays_silent_by_its_unit_test_and_has_a_paragraph() -> Result<()> {
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]] {
        let output = Command::new("promtool").args(arguments).current_dir(folder()).output();
        let output = output.context("cannot start promtool (Debian package prometheus)")?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
    }
    let alerts = named(&fs::read_to_string(folder().join("alerts.yaml"))?, "- alert: ", '\n');
    let tested = named(&fs::read_to_string(folder().join("alerts_test.yaml"))?, "alertname=\"", '"');
    let explained = named(&fs::read_to_string(repository().join("docs/alerts.md"))?, "### ", '\n');
    ensure!(alerts.len() > 20, "{alerts:?}");
    assert_eq!(alerts, tested);
    assert_eq!(alerts, explained);
    Ok(())
}

/// A Prometheus on the first node, which scrapes it each second.
struct Prometheus {
    process: Process,
    client: Client,
}

impl Prometheus {
    fn start(site: &Site) -> Result<Self> {
        let (netns, directory) = (site.balancers[0].netns(), site.lab.directory());
        let config = directory.join("prometheus.yaml");
        let text = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{}]\nscrape_configs:\n  - job_name: \
             maglev\n    static_configs: [{{ targets: [\"127.0.0.1:9642\"], labels: {{ instance: lb1 }} }}]\n",
            fs::canonicalize(folder().join("alerts.yaml"))?.display()
        );
        fs::write(&config, text)?;
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("prometheus").display()));
        command.arg("--web.listen-address=127.0.0.1:9090");
        let process = Process::start("prometheus", netns, &directory, &mut command)?;
        Ok(Self { process, client: Client::new(netns.clone(), Vec::new()) })
    }

    /// Waits until an answer of its API is as wanted, and returns that.
    fn await_answer(&mut self, what: &str, path: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let (client, mut last) = (&self.client, Value::Null);
        let waited = self.process.await_event(what, |_| {
            // It does not listen at once.
            let Ok(text) = client.text(([127, 0, 0, 1], 9_090).into(), path) else { return Ok(false) };
            last = serde_json::from_str(&text).unwrap_or_default();
            Ok(holds(&last["data"]))
        });
        waited.with_context(|| format!("{path}: {last}"))?;
        Ok(last)
    }
}

/// The alerts of an answer, each with its state.
fn states(data: &Value) -> BTreeSet<(String, String)> {
    let alerts = data["alerts"].as_array().map(Vec::as_slice).unwrap_or_default().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    alerts.map(|alert| (text(&alert["labels"]["alertname"]), text(&alert["state"]))).collect()
}

#[test]
fn prometheus_evaluates_every_rule_on_a_node_and_a_pool_without_backends_raises_its_alert() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(1)?;
    let mut prometheus = Prometheus::start(&site)?;
    let up = |data: &Value| data["result"][0]["value"][1] == "1";
    prometheus.await_answer("a scrape", "/api/v1/query?query=up", up)?;
    // By the CLI's table and by the driver's counters: series of the kernel and of the driver.
    let path = "/api/v1/query?query=count%20by%20(interface,source)(maglev_interface_lost_packets_total)";
    let lost = prometheus.await_answer("series of interfaces", path, |data| data["result"].as_array().is_some())?;
    let lost = lost.to_string();
    ensure!([UPLINK, "kernel", "driver"].iter().all(|word| lost.contains(word)), "{lost}");

    let rules = |data: &Value| -> Vec<(String, String)> {
        let groups = data["groups"].as_array().map(Vec::as_slice).unwrap_or_default().iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().map(Vec::as_slice).unwrap_or_default());
        rules.map(|rule| (rule["name"].to_string(), rule["health"].as_str().unwrap_or_default().to_owned())).collect()
    };
    let evaluated = |data: &Value| {
        let rules = rules(data);
        rules.len() > 20 && rules.iter().all(|(_, health)| health == "ok")
    };
    prometheus.await_answer("every rule evaluated", "/api/v1/rules", evaluated)?;
    let quiet = prometheus.await_answer("the alerts", "/api/v1/alerts", |data| data["alerts"].is_array())?;
    assert_eq!(states(&quiet["data"]), BTreeSet::new(), "a healthy node raises no alert");

    for backend in ["web1", "web2", "web3"] {
        site.balancers[0].maglev_ok(&["backend", "disable", "four", backend, "--force"])?;
    }
    let empty = ("MaglevPoolEmpty".to_owned(), "pending".to_owned());
    prometheus.await_answer("the alert of an empty pool", "/api/v1/alerts", |data| states(data).contains(&empty))?;
    Ok(())
}
