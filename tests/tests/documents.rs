//! The commands of the manual, as they stand there: each is run on a node of the lab whose objects have the names that the pages
//! use, and must do what it is there for. Backends' addresses and the revision to go back to are the lab's.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use maglev_e2e::lab::{
    Affinity, Backend, Balancer, Services, Settings, Site, Topology, Vip, addresses::WWW4, router::Kind, skip,
};
use maglev_testing::docs;

/// Commands that another test runs, or that do not end.
const ELSEWHERE: [(&str, &str); 3] = [
    ("maglev events --follow", "it does not end: tests/events.rs"),
    ("maglev capture --vip www --outcome dropped -w lost.pcapng", "it waits for packets: tests/capture.rs"),
    ("maglev decap status", "on a backend with the service: tests/decap_service.rs"),
];

/// What the lab's servers answer a check of the pages: they have no `/healthz`.
const FAILED_CHECK: &str = "HTTP 404";

/// The backends of the pages.
const BACKENDS: [(&str, u8); 4] = [("10.0.1.11", 1), ("10.0.1.12", 2), ("10.0.1.13", 3), ("10.0.1.14", 4)];

/// The revision that the pages go back to.
const REVISION: &str = "41";

#[test]
fn every_command_of_the_manual_does_what_it_is_there_for() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let topology = Topology::standard(1).routed_by(Kind::Bird);
    let mut site = Site::with_settings(topology, |_| Services { pools: vec![], vips: vec![] }, Settings::announcing)?;
    let (mut ran, mut passed_over) = (0, 0);
    for (place, commands) in blocks() {
        prepare(&mut site, &commands).with_context(|| format!("before {place}"))?;
        for command in commands {
            let line = command.words.join(" ");
            if ELSEWHERE.iter().any(|(other, _)| *other == line) {
                passed_over += 1;
                continue;
            }
            println!("{}: {line}", command.place);
            run(&site, &command.words[1..]).with_context(|| format!("{}: {line}", command.place))?;
            ran += 1;
        }
    }
    assert_eq!(passed_over, ELSEWHERE.len(), "of those that run elsewhere");
    ensure!(ran > 30, "only {ran} commands were found");
    Ok(())
}

/// The blocks that have commands of `maglev`, by page and line of their beginning.
fn blocks() -> Vec<(String, Vec<docs::Command>)> {
    let commands: Vec<_> = docs::fenced().into_iter().filter(|command| command.is(&["maglev"])).collect();
    let block = |fence: docs::Fence| {
        let lines = fence.line + 1..=fence.line + fence.text.lines().count();
        let holds = |command: &&docs::Command| {
            let place = command.place.rsplit_once(':');
            place.is_some_and(|(page, line)| page == fence.page && line.parse().is_ok_and(|line| lines.contains(&line)))
        };
        let held: Vec<_> = commands.iter().filter(holds).cloned().collect();
        (!held.is_empty()).then(|| (fence.place(), held))
    };
    docs::fences().into_iter().filter_map(block).collect()
}

/// Gives the node the state in which the commands of a block are used: a pool of four backends and its VIP, but for what they add or
/// apply.
fn prepare(site: &mut Site, commands: &[docs::Command]) -> Result<()> {
    let names = |words: &[&str]| {
        commands.iter().any(|command| words.iter().all(|word| command.words.iter().any(|w| w == word)))
    };
    let mut pool = site.lab.pool("web", WWW4, &[(1, 100), (2, 100), (3, 100), (4, 100)]);
    pool.affinity = Some(Affinity { tracking: "exception", learning: 1, idle: 10 });
    pool.backends.retain(|(backend, ..)| !names(&["backend", "add", backend]));
    let vip = Vip::new("www", (WWW4, Backend::PORT), "tcp", "web");
    let balancer = &mut site.balancers[0];
    apply(balancer, &Services { pools: vec![], vips: vec![] })?;
    if names(&["pool", "add", "web"]) || names(&["apply", "services.yaml"]) {
        return Ok(());
    }
    let vips = if names(&["vip", "add", "www"]) { vec![] } else { vec![vip] };
    apply(balancer, &Services { pools: vec![pool], vips })?;
    balancer.await_next_hops()
}

fn apply(balancer: &Balancer, services: &Services) -> Result<()> {
    let file = balancer.services().with_file_name("prepared.yaml");
    fs::write(&file, services.to_string())?;
    balancer.maglev_ok(&["services", "apply", &text(&file), "--force"])?;
    Ok(())
}

/// Runs a command, on the node's files, and what its page says it comes after; and undoes an order that holds for the node.
fn run(site: &Site, words: &[String]) -> Result<()> {
    let balancer = &site.balancers[0];
    let mut words = words.to_vec();
    for word in &mut words {
        if let Some((_, n)) = BACKENDS.iter().find(|(address, _)| address == word) {
            *word = site.lab.backend_address(*n, WWW4).to_string();
        } else if word == REVISION {
            *word = revision_before_a_change(balancer)?;
        } else if word.ends_with(".yaml") {
            let file = balancer.services().with_file_name(format!("of-the-manual-{word}"));
            if word == "services.yaml" {
                fs::write(&file, of_the_manual(site)?)?;
            }
            *word = text(&file);
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["backend", "remove", pool, backend] = words[..] {
        balancer.maglev_ok(&["backend", "drain", pool, backend, "--wait", "--timeout", "60s"])?;
    }
    if words.starts_with(&["backend", "check"]) {
        let checked = balancer.maglev(&words)?;
        ensure!(checked.code == 1 && checked.stdout.contains(FAILED_CHECK), "{checked:?}");
        return Ok(());
    }
    balancer.maglev_ok(&words)?;
    if words.starts_with(&["node", "drain"]) {
        balancer.maglev_ok(&["node", "undrain"])?;
    }
    Ok(())
}

/// Changes a weight; returns the revision before that.
fn revision_before_a_change(balancer: &Balancer) -> Result<String> {
    let newest = balancer.maglev_json(&["history"])?["revisions"][0]["revision"].as_u64().context("a revision")?;
    balancer.maglev_ok(&["backend", "weight", "web", "web1", &newest.to_string()])?;
    Ok(newest.to_string())
}

/// The file of services that the manual shows, with the addresses of the lab's backends.
fn of_the_manual(site: &Site) -> Result<String> {
    let shown = docs::fences().into_iter().find(|fence| fence.mark("file") == Some("services.yaml"));
    let shown = shown.context("no page shows a services.yaml")?.text;
    Ok(BACKENDS
        .iter()
        .fold(shown, |text, (address, n)| text.replace(address, &site.lab.backend_address(*n, WWW4).to_string())))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
