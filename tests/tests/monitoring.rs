//! Alert rules for Prometheus and the dashboard for Grafana: the rules' unit tests, and a real Prometheus that scrapes a node and
//! evaluates every rule and every query.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use maglev_e2e::{
    client::Client,
    lab::{
        Backend, Process, Services, Settings, Site, Topology, UPLINK, Vip,
        addresses::{WWW4, WWW6},
        router::Kind,
        skip,
    },
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
    for arguments in [
        ["check", "config", "prometheus.yaml"],
        ["check", "rules", "alerts.yaml"],
        ["test", "rules", "alerts_test.yaml"],
    ] {
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

/// A node with a checked pool, and a router that it announces VIPs to: every series is there.
fn site() -> Result<Site> {
    let services = |lab: &maglev_e2e::lab::Lab| Services {
        pools: vec![lab.pool("four", WWW4, &[(1, 100), (2, 100), (3, 100)])],
        vips: vec![
            Vip::new("www", (WWW4, Backend::PORT), "tcp", "four"),
            Vip::new("www6", (WWW6, Backend::PORT), "tcp", "four"),
        ],
    };
    let mut site = Site::with_settings(Topology::standard(1).routed_by(Kind::Bird), services, Settings::announcing)?;
    let file = site.balancers[0].services();
    let text = fs::read_to_string(&file)?;
    let check = "check: { kind: http, path: /, via: direct, port: 80, interval: 500ms, timeout: 250ms }";
    fs::write(&file, text.replacen("- name: four\n", &format!("- name: four\n    {check}\n"), 1))?;
    site.balancers[0].maglev_ok(&["reload"])?;
    for vip in [WWW4, WWW6] {
        site.router()?.await_route(vip, &[1])?;
    }
    Ok(site)
}

/// The queries of the dashboard, of every node and over ten seconds.
fn queries() -> Result<Vec<String>> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(folder().join("dashboard.json"))?)?;
    let panels = dashboard["panels"].as_array().context("panels")?.iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries = targets.filter_map(|target| target["expr"].as_str());
    Ok(queries.map(|query| query.replace("$instance", ".*").replace("$__rate_interval", "10s")).collect())
}

/// A text as a part of a URL.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn prometheus_evaluates_every_rule_and_query_on_a_node_and_a_pool_without_backends_raises_its_alert() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = site()?;
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
    let quiet = |data: &Value| data["alerts"].is_array() && states(data).is_empty();
    prometheus.await_answer("no alert on a healthy node", "/api/v1/alerts", quiet)?;

    let queries = queries()?;
    ensure!(queries.len() > 15, "{queries:?}");
    for query in queries {
        let path = format!("/api/v1/query?query={}", encoded(&query));
        let has_data = |data: &Value| data["result"].as_array().is_some_and(|series| !series.is_empty());
        prometheus.await_answer(&format!("data of {query}"), &path, has_data)?;
    }

    for backend in ["web1", "web2", "web3"] {
        site.balancers[0].maglev_ok(&["backend", "disable", "four", backend, "--force"])?;
    }
    let empty = ("MaglevPoolEmpty".to_owned(), "pending".to_owned());
    prometheus.await_answer("the alert of an empty pool", "/api/v1/alerts", |data| states(data).contains(&empty))?;
    Ok(())
}
