//! Changes of the services: what is admitted, saved, and read again.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use maglev_e2e::lab::{Balancer, Site, binary, skip};
use maglev_e2e::matrix::{Matrix, is_full};

const NONE: &str = "pools: []\nvips: []\n";

/// The command is refused with exit code 1, names this, and the services are as they were.
fn refused(balancer: &Balancer, command: &str, names: &[&str]) -> Result<()> {
    let before = balancer.maglev_json(&["status"])?["services_digest"].clone();
    let answer = balancer.maglev(&command.split(' ').collect::<Vec<_>>())?;
    ensure!(answer.code == 1, "{command}: {answer:?}");
    for name in names {
        ensure!(answer.stderr.contains(name), "{command}: {name} is not in {}", answer.stderr);
    }
    let after = balancer.maglev_json(&["status"])?["services_digest"].clone();
    ensure!(before == after, "{command} changed the services");
    Ok(())
}

#[test]
fn changes_that_take_too_much_out_of_service_are_refused_everywhere() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut site = Site::standard(1)?;
    let balancer = &mut site.balancers[0];
    let good = fs::read_to_string(balancer.services())?;
    Matrix::Fault.row("C5", "a file without services: plan reload, reload, SIGHUP, reload --force", || {
        fs::write(balancer.services(), NONE)?;
        let planned = balancer.maglev_ok(&["plan", "reload"])?;
        ensure!(planned.contains("would be refused: ") && planned.contains("VIPs 8 removed"), "{planned}");
        refused(balancer, "reload", &["nothing changed: takes out 8 of 8 VIPs", "--force"])?;
        balancer.hang_up()?;
        balancer.await_status("a refused reload", |status| status["last_reload"]["successful"] == false)?;
        ensure!(
            balancer.log().contains("reload refused: nothing changed: takes out 8 of 8 VIPs"),
            "{}",
            balancer.log()
        );
        refused(balancer, "backend weight four web1 7", &["maglev reload"])?;
        let done = balancer.maglev_json(&["reload", "--force"])?;
        ensure!(done["changes"]["vips"]["removed"] == 8, "{done}");
        Ok(done["changes"]["vips"].to_string())
    })?;
    fs::write(balancer.services(), &good)?;
    let text = balancer.maglev_ok(&["reload"])?;
    ensure!(text.starts_with("reloaded: VIPs 8 added; pools 2 added; backends 6 added"), "{text}");
    Matrix::Fault.row("C9", "the last available backend: drain, disable, weight 0, remove, and plan of each", || {
        for backend in ["web1", "web2"] {
            balancer.maglev_ok(&["backend", "weight", "four", backend, "0"])?;
        }
        for command in ["drain four web3", "disable four web3", "weight four web3 0", "remove four web3"] {
            let reported = ["pool four", "1 of 1 available backends", "--force"];
            refused(balancer, &format!("backend {command}"), &reported)?;
            refused(balancer, &format!("plan backend {command}"), &reported)?;
        }
        balancer.maglev_ok(&["plan", "backend", "drain", "four", "web3", "--force"])?;
        balancer.maglev_ok(&["backend", "drain", "four", "web3", "--force"])?;
        Ok(String::new())
    })
}

/// Pools of checked backends, each with a port of its own.
fn services(pools: u32, backends: u32) -> String {
    let mut text = "pools:\n".to_owned();
    for pool in 0..pools {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  - name: p{pool}\n    check: {{ kind: tcp, via: direct }}\n    backends:");
        for n in 0..backends {
            let [_, a, b, c] = (pool * backends + n + 1).to_be_bytes();
            let _ = writeln!(text, "      - {{ name: b{n}, address: 10.{a}.{b}.{c}, check: {{ port: 8080 }} }}");
        }
    }
    text + "vips: []\n"
}

#[test]
fn a_file_of_many_checked_backends_is_read() -> Result<()> {
    let (pools, backends) = if is_full() { (31, 1_057) } else { (27, 1_000) };
    Matrix::Fault.row("C1", &format!("maglevd check reads {pools} pools of {backends} backends with ports"), || {
        let folder = std::env::temp_dir().join(format!("maglev-many-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let node = "interfaces: [{ name: eth0 }]\nencap: { kind: ipip, source: 10.64.0.1 }\n\
                    hash_key: '000102030405060708090a0b0c0d0e0f'\nservices: services.yaml\n";
        fs::write(folder.join("maglev.yaml"), node)?;
        fs::write(folder.join("services.yaml"), services(pools, backends))?;
        let checked =
            Command::new(binary("maglevd")?).args(["check", "--config"]).arg(folder.join("maglev.yaml")).output();
        fs::remove_dir_all(&folder)?;
        let checked = checked.context("maglevd check")?;
        let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
        ensure!(checked.status.success(), "{said}");
        Ok(said.trim().to_owned())
    })
}
