//! Bad input: one line that names the thing and the remedy, the exit code of the contract, and nothing changed.

use std::{fs, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, ensure};
use maglev_e2e::lab::{
    Balancer, Lab, Process, Services, Settings, Site, Topology, UPLINK, binary, site::every_family, skip,
};

/// A command, its exit code, and what its message must name.
type Row<'a> = (&'a str, i32, &'a [&'a str]);

const ROWS: &[Row<'_>] = &[
    ("backend add nosuch web9 --address 10.3.9.2 --weight 1", 1, &["nosuch", "four"]),
    ("backend add four web1 --address 10.3.9.2 --weight 1", 1, &["web1", "four"]),
    ("backend add four web9 --address 10.3.1.2 --weight 1", 1, &["10.3.1.2", "web1"]),
    ("backend add four web9 --address 10.3.9.2 --weight 70000", 2, &["70000", "65535"]),
    ("backend add four web9 --address 10.3.9.2 --weight -1", 2, &["-1"]),
    ("backend add four web9 --address 10.3.9 --weight 1", 2, &["10.3.9"]),
    ("backend add four web9 --address 224.0.0.1 --weight 1", 2, &["224.0.0.1", "multicast"]),
    ("backend add four web9 --address 203.0.113.10 --weight 1", 2, &["203.0.113.10", "www"]),
    // The load balancer has no outer source of this family.
    ("backend add four web9 --address fd00:3:9::2 --weight 1", 2, &["fd00:3:9::2", "source6"]),
    ("backend remove four web9", 1, &["web9", "web1"]),
    ("backend remove nosuch web1", 1, &["nosuch"]),
    ("backend weight four web9 5", 1, &["web9"]),
    ("backend weight four web1 70000", 2, &["70000"]),
    ("backend weight four web1 heavy", 2, &["heavy"]),
    ("backend drain four web9", 1, &["web9", "web1"]),
    ("backend undrain four web1", 1, &["web1", "four", "not draining"]),
    ("backend enable four web1", 1, &["web1", "four", "not disabled"]),
    ("backend disable nosuch web1", 1, &["nosuch", "four"]),
    ("backend drain four web9 --wait", 1, &["web9", "web1"]),
    ("backend drain four web1 --wait --timeout 0s", 2, &["timeout", "0s", "1s to 24h"]),
    ("backend drain four web1 --wait --timeout soon", 2, &["timeout", "soon", "1s to 24h"]),
    ("backend drain four web1 --timeout 20m", 2, &["--wait"]),
    ("plan backend add four web1 --address 10.3.9.2 --weight 1", 1, &["web1", "four"]),
    ("plan backend add four web9 --address 224.0.0.1 --weight 1", 2, &["224.0.0.1", "multicast"]),
    ("plan backend remove four web9", 1, &["web9", "web1"]),
    ("plan backend drain nosuch web1", 1, &["nosuch", "four"]),
    ("plan backend undrain four web1", 1, &["web1", "four", "not draining"]),
    ("plan backend weight four web1 70000", 2, &["70000"]),
    ("plan vip remove www-tcp", 2, &["vip"]),
    ("vip add www-tcp --address 203.0.113.99 --port 80 --protocol tcp --pool four", 1, &["www-tcp"]),
    ("vip add other --address 203.0.113.10 --port 80 --protocol tcp --pool four", 1, &["203.0.113.10", "www-tcp"]),
    ("vip add other --address 203.0.113.99 --port 80 --protocol tcp --pool nosuch", 1, &["nosuch"]),
    ("vip add other --address 203.0.113.99 --port 80 --protocol icmp --pool four", 2, &["sctp"]),
    ("vip add other --address 203.0.113.99 --port 70000 --protocol tcp --pool four", 2, &["70000"]),
    ("vip add other --address 10.3.1.2 --port 80 --protocol tcp --pool four", 2, &["10.3.1.2", "web1"]),
    ("vip add other --address 10.2.1.2 --port 80 --protocol tcp --pool four", 1, &["10.2.1.2", "this node", UPLINK]),
    ("vip remove nosuch", 1, &["nosuch"]),
    ("vip show nosuch", 1, &["nosuch"]),
    ("pool add four", 1, &["four"]),
    ("pool remove four", 1, &["four", "www"]),
    ("pool remove nosuch", 1, &["nosuch"]),
    ("pool add bad/name", 2, &["bad/name"]),
    ("pool add more --learning 8760h", 2, &["learning", "8760h", "1s to 1h"]),
    ("pool add more --learning 20m", 2, &["learning 20m", "idle 15m"]),
    ("pool set four --learning 0s", 2, &["learning", "0s", "1s to 1h"]),
    ("pool set four --idle 60", 2, &["idle", "60", "10s to 4h"]),
    ("pool set four --tracking none", 2, &["tracking", "none", "exception, always"]),
    ("pool set four --udp old", 2, &["udp", "old", "new, keep"]),
    ("pool set four --idle 1m", 1, &["four", "learning 2m", "idle 1m"]),
    ("pool set four", 2, &["--learning"]),
    ("pool set nosuch --learning 5s", 1, &["nosuch", "four"]),
    ("flow explain 198.51.100.2 203.0.113.10:80 tcp", 2, &["198.51.100.2"]),
    ("flow explain [2001:db8::1]:1 203.0.113.10:80 tcp", 2, &["203.0.113.10"]),
    ("frobnicate", 2, &["frobnicate"]),
];

#[test]
fn bad_commands_are_refused_and_change_nothing() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let lab = Lab::new(Topology::standard(1))?;
    let settings = Settings { sources: [Some("10.64.1.0/24".to_owned()), None], ..Settings::new(1) };
    let balancer = Balancer::start(&lab, 1, &settings, &four(&lab))?;
    let state = || -> Result<_> {
        let status = balancer.maglev_json(&["status"])?;
        Ok((fs::read_to_string(balancer.services())?, status["services_digest"].clone(), status["pools"].clone()))
    };
    let before = state()?;
    let mut faults = Vec::new();
    for (command, code, named) in ROWS {
        let answer = balancer.maglev(&command.split(' ').collect::<Vec<_>>())?;
        let lines = answer.stderr.lines().count();
        let missing: Vec<_> = named.iter().filter(|name| !answer.stderr.contains(**name)).collect();
        if answer.code != *code || lines != 1 || !missing.is_empty() || !answer.stdout.is_empty() {
            faults.push(format!("maglev {command}: expected {code}, naming {missing:?}: {answer:?}"));
        }
        if state()? != before {
            faults.push(format!("maglev {command}: something changed"));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn a_full_table_is_refused_by_its_limit() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let lab = Lab::new(Topology::standard(1))?;
    let settings = Settings { more: "limits: { vips: 2, pools: 1, backends: 3 }\n".to_owned(), ..Settings::new(1) };
    let balancer = Balancer::start(&lab, 1, &settings, &four(&lab))?;
    for (command, key) in [
        ("backend add four web9 --address 10.3.9.2 --weight 1", "limits.backends"),
        ("pool add more", "limits.pools"),
        ("vip add more --address 203.0.113.99 --port 80 --protocol tcp --pool four", "limits.vips"),
    ] {
        let answer = balancer.maglev(&command.split(' ').collect::<Vec<_>>())?;
        assert_eq!(answer.code, 1, "{answer:?}");
        ensure!(answer.stderr.contains(key), "{key} is not in {}", answer.stderr);
    }
    Ok(())
}

#[test]
fn a_daemon_that_is_not_there_is_said_to_be() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let balancer = &mut site.balancers[0];
    balancer.stop()?;
    let answer = balancer.maglev(&["status"])?;
    assert_eq!((answer.code, answer.stdout.as_str(), answer.stderr.lines().count()), (3, "", 1), "{answer:?}");
    ensure!(answer.stderr.contains(&balancer.socket().display().to_string()), "{answer:?}");
    Ok(())
}

#[test]
fn a_config_with_many_mistakes_has_all_of_them_listed() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let lab = Lab::new(Topology::standard(1))?;
    let config = lab.directory().join("broken.yaml");
    let text = "interfaces: [{ name: eth0, mode: fast }]\nencap: { kind: gue, source: 10.64.1.7/24 }\nhash_key: \"c0ffee\"\n\
                servces: x\napi: { metrics: \"0.0.0.0:80\" }\n";
    fs::write(&config, text)?;
    let fields = ["interfaces[0].mode", "encap.kind", "encap.source", "hash_key", "servces", "api.metrics"];
    for command in ["check", "run"] {
        let mut maglevd = Command::new(binary("maglevd")?);
        let output = lab.netns("lb1").run(|| Ok(maglevd.args([command, "--config"]).arg(&config).output()?))?;
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        for field in fields {
            ensure!(said.contains(field), "{command}: {field} is not in {said}");
        }
    }
    Ok(())
}

#[test]
fn a_daemon_that_cannot_forward_does_not_start() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let lab = Lab::new(Topology::standard(1))?;
    // Someone else's program is named and left alone.
    let mut pass = Command::new(binary("maglevd")?);
    pass.args(["pass", "--interface", UPLINK]);
    let mut foreign = Process::start("foreign", &lab.netns("lb1"), &lab.directory(), &mut pass)?;
    foreign.await_line("ready")?;
    let program = |netns: &maglev_e2e::lab::Netns| -> Result<_> {
        let link = netns.ip_json(&["-details", "link", "show", "dev", UPLINK])?;
        link[0]["xdp"]["prog"]["id"].as_u64().context("no program is attached")
    };
    let before = program(&lab.netns("lb1"))?;
    refused(&lab, &Settings::new(1), &[UPLINK, "pass"])?;
    assert_eq!(program(&lab.netns("lb1"))?, before);
    ensure!(foreign.stop()?.success(), "the pass program ends cleanly");
    Ok(())
}

#[test]
fn without_root_the_daemon_says_what_it_needs() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let lab = Lab::new(Topology::standard(1))?;
    // Other users may not read root's folders, so the program goes where all may.
    let copy = lab.directory().join("maglevd");
    // By a process of its own: were it open for writing here, a process that another test starts meanwhile would hold it
    // open, and a program that is open for writing cannot be run.
    ensure!(Command::new("cp").arg(binary("maglevd")?).arg(&copy).status()?.success(), "cannot copy maglevd");
    let config = lab.directory().join("maglev.yaml");
    let services = lab.directory().join("services.yaml");
    fs::write(&services, Services::default().to_string())?;
    fs::write(&config, Settings::new(1).to_yaml(&services, &lab.directory().join("maglev.sock")))?;
    let mut maglevd = Command::new(&copy);
    maglevd.args(["run", "--config"]).arg(&config).uid(65_534).gid(65_534);
    let output = lab.netns("lb1").run(|| maglevd.output().context("maglevd"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    ensure!(said.contains("root"), "{said}");
    Ok(())
}

fn four(lab: &Lab) -> Services {
    let mut services = every_family(lab);
    services.pools.retain(|pool| pool.name == "four");
    services.vips.retain(|vip| vip.pool == "four" && vip.protocol == "tcp");
    services
}

/// Starts a daemon that must end by itself with exit code 1, naming these.
fn refused(lab: &Lab, settings: &Settings, named: &[&str]) -> Result<()> {
    let error = match Balancer::start(lab, 1, settings, &four(lab)) {
        Ok(balancer) => anyhow::bail!("started: {}", balancer.log()),
        Err(error) => format!("{error:#}"),
    };
    ensure!(error.contains("exit status: 1"), "{error}");
    for name in named {
        ensure!(error.contains(name), "{name} is not in {error}");
    }
    Ok(())
}
