//! What an operator or an enemy does to a running daemon: files edited, deleted or unwritable, a second daemon, bytes
//! that are no request. Nothing is lost, nothing changes, and the daemon goes on.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use maglev_e2e::lab::{Balancer, Lab, Settings, Topology, binary, site::every_family, skip};
use serde_json::Value;

#[test]
fn files_edited_deleted_or_unwritable_lose_nothing() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let (_lab, balancer) = balancer()?;
    let good = fs::read_to_string(balancer.services())?;
    let before = state(&balancer)?;
    let weight = ["backend", "weight", "four", "web1", "7"];

    // An edit that was not read would be overwritten by a change.
    let edited = good.clone() + "# an edit\n";
    fs::write(balancer.services(), &edited)?;
    refused(&balancer, &weight, 1, "maglev reload")?;
    assert_eq!(fs::read_to_string(balancer.services())?, edited);

    // A file that was cut off or deleted is no order to remove everything.
    fs::write(balancer.services(), "")?;
    refused(&balancer, &["reload"], 2, "empty")?;
    fs::write(balancer.services(), "pools:\nvips: []\n")?;
    refused(&balancer, &["reload"], 2, "write `pools: []` for none")?;
    fs::remove_file(balancer.services())?;
    refused(&balancer, &["reload"], 2, "there is no such file")?;
    assert_eq!(state(&balancer)?, before);

    // The successor cannot be written beside the file: as on a full disk.
    fs::write(balancer.services(), &good)?;
    balancer.maglev_ok(&["reload"])?;
    let aside = balancer.services().with_file_name(".services.yaml.new");
    fs::create_dir(&aside)?;
    refused(&balancer, &weight, 1, "nothing changed")?;
    assert_eq!(fs::read_to_string(balancer.services())?, good);
    assert_eq!(state(&balancer)?, before);

    fs::remove_dir(&aside)?;
    balancer.maglev_ok(&weight)?;
    ensure!(balancer.log().contains("set weight of backend web1 of pool four to 7"), "{}", balancer.log());
    Ok(())
}

#[test]
fn a_second_daemon_leaves_the_first_alone() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let (_lab, balancer) = balancer()?;
    let mut second = Command::new(binary("maglevd")?);
    second.arg("run").arg("--config").arg(balancer.config());
    let output = balancer.netns().run(|| second.output().context("maglevd"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    ensure!(said.contains("another maglevd") && said.contains(&*balancer.socket().to_string_lossy()), "{said}");
    ensure!(balancer.maglev_json(&["status"])?["interfaces"][0]["attached"] == true, "the first goes on");
    Ok(())
}

#[test]
fn bytes_that_are_no_request_are_refused_and_the_daemon_goes_on() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let (_lab, balancer) = balancer()?;
    let before = state(&balancer)?;
    let requests = [
        b"\0\xff\x16\x03\x01 garbage\r\n\r\n".to_vec(),
        [b"GET /".as_slice(), &[b'a'; 200_000], b" HTTP/1.1\r\n\r\n"].concat(),
        b"POST /v1/pools HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n".to_vec(),
        [b"POST /v1/pools HTTP/1.1\r\nhost: x\r\ncontent-length: 17000\r\n\r\n".as_slice(), &[b'['; 17_000]].concat(),
        b"GET /v1/vips/%ff%0a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(),
    ];
    for request in requests {
        let mut stream = UnixStream::connect(balancer.socket())?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        // The daemon may have received enough before all of it is sent, and reports so or closes the connection.
        let _ = stream.write_all(&request);
        let mut answer = [0; 12];
        let shown = String::from_utf8_lossy(&request[..request.len().min(40)]).into_owned();
        if stream.read_exact(&mut answer).is_ok() {
            ensure!(answer.starts_with(b"HTTP/1.1 4"), "{shown}: {}", String::from_utf8_lossy(&answer));
        }
    }
    assert_eq!(state(&balancer)?, before);
    Ok(())
}

fn balancer() -> Result<(Lab, Balancer)> {
    let lab = Lab::new(Topology::standard(1))?;
    let balancer = Balancer::start(&lab, 1, &Settings::new(1), &every_family(&lab))?;
    Ok((lab, balancer))
}

/// The state that must not change.
fn state(balancer: &Balancer) -> Result<Value> {
    let mut status = balancer.maglev_json(&["status"])?;
    Ok(serde_json::json!([status["services_digest"].take(), status["vips"].take()]))
}

fn refused(balancer: &Balancer, arguments: &[&str], code: i32, named: &str) -> Result<()> {
    let answer = balancer.maglev(arguments)?;
    let lines = answer.stderr.lines().count();
    ensure!(answer.code == code && lines == 1 && answer.stderr.contains(named), "{arguments:?}: {answer:?}");
    Ok(())
}
