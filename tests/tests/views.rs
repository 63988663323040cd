//! The views for people and machines: tables and JSON of the CLI, metrics, versions.

use std::{net::SocketAddr, process::Command};

use anyhow::{Context, Result, ensure};
use maglev_e2e::{
    client::Client,
    lab::{Backend, NEAR, Site, UPLINK, addresses::WWW4, binary, skip},
};

#[test]
fn every_view_names_what_is_there() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(1)?;
    let balancer = &site.balancers[0];
    for (command, names) in [
        ("status", &["four", "six", UPLINK, NEAR][..]),
        ("vip list", &["www-tcp", "alt6-udp", "203.0.113.10", "2001:db8:113::11"]),
        ("vip show www-tcp", &["www-tcp", "203.0.113.10", "80", "tcp", "four"]),
        ("pool list", &["four", "six", "exception", "new"]),
        ("pool show four", &["web1", "web2", "web3", "100"]),
        ("backend list", &["four", "six", "web1", "10.3.1.2", "fd00:3:1::2"]),
        ("backend list six", &["web3", "fd00:4::d"]),
        ("backend show four web2", &["web2", "10.3.2.2", "100"]),
        ("counters", &["transmitted", "redirected", "no_backend", "www-tcp", "web1"]),
        ("flow explain 198.51.100.2:40000 203.0.113.10:80 tcp", &["www-tcp", "four", "web"]),
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let text = balancer.maglev_ok(&words)?;
        let json = balancer.maglev_json(&words)?.to_string();
        for name in names {
            ensure!(text.contains(name), "{name} is not in the text of maglev {command}:\n{text}");
            ensure!(json.contains(name), "{name} is not in the JSON of maglev {command}:\n{json}");
        }
    }
    Ok(())
}

#[test]
fn metrics_count_what_the_cli_counts() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let site = Site::standard(1)?;
    site.lab.client().requests(&[SocketAddr::new(WWW4, Backend::PORT)], 100, 8)?.all_answered()?;
    let packets = site.await_balance()?;
    let balancer = &site.balancers[0];
    let metrics = Client::new(balancer.netns().clone(), Vec::new()).text(([127, 0, 0, 1], 9642).into(), "/metrics")?;
    let counted = metrics
        .lines()
        .find(|line| line.contains("packets") && line.contains("\"www-tcp\""))
        .with_context(|| format!("no packets of VIP www-tcp in\n{metrics}"))?;
    assert_eq!(counted.rsplit(' ').next(), Some(packets.vips.to_string().as_str()), "{counted}");
    for reason in ["transmitted", "no_backend", "fragment_unknown"] {
        ensure!(metrics.contains(reason), "{reason} is not in\n{metrics}");
    }
    Ok(())
}

#[test]
fn programs_say_their_version_and_complete_their_commands() -> Result<()> {
    let run = |program: &str, arguments: &[&str]| -> Result<String> {
        let output = Command::new(binary(program)?).args(arguments).output()?;
        ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let version = run("maglevd", &["--version"])?;
    let digest = version.split(|c: char| !c.is_ascii_hexdigit()).any(|word| word.len() == 64);
    ensure!(digest, "no SHA-256 of the object in {version:?}");
    let key = run("maglevd", &["keygen"])?;
    ensure!(key.trim().len() == 32 && key.trim().bytes().all(|digit| digit.is_ascii_hexdigit()), "{key:?}");
    ensure!(run("maglevd", &["keygen"])? != key, "two keys are alike");
    for shell in ["bash", "zsh", "fish"] {
        ensure!(run("maglev", &["completions", shell])?.contains("backend"), "{shell}");
    }
    Ok(())
}
