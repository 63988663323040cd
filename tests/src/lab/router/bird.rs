//! BIRD 2: one process, one file.

use std::{net::IpAddr, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{ROUTER_AS, write};
use crate::lab::{Netns, Process, addresses::BALANCERS_AS};

/// BIRD prefers another path to one that is about to be withdrawn (RFC 8326) only if it is configured to.
const HEAD: &str = "\
log stderr all;
router id 10.2.0.1;
filter announced {
  if (65535, 0) ~ bgp_community then bgp_local_pref = 0;
  accept;
}
protocol device {}
";

pub(super) fn start(netns: &Netns, directory: &Path, neighbors: &[IpAddr]) -> Result<Vec<Process>> {
    let file = directory.join("bird.conf");
    write(&file, &config(neighbors))?;
    let mut command = Command::new("bird");
    command.arg("-f").arg("-c").arg(&file).arg("-s").arg(directory.join("bird.ctl"));
    let mut bird = super::daemon("bird", netns, directory, &mut command)?;
    bird.await_event("its start", |bird| Ok(bird.log().contains("Started")))?;
    Ok(vec![bird])
}

pub(super) fn ask(directory: &Path, words: &str) -> Result<String> {
    let mut command = Command::new("birdc");
    let output = command.arg("-r").arg("-s").arg(directory.join("bird.ctl")).args(words.split(' ')).output();
    Ok(String::from_utf8_lossy(&output.context("birdc")?.stdout).into_owned())
}

fn config(neighbors: &[IpAddr]) -> String {
    let families = ["ipv4", "ipv6"].map(|family| {
        format!(
            "protocol kernel {{ merge paths on; {family} {{ export where source = RTS_BGP; import none; }}; }}\n\
             protocol direct {{ {family}; }}\n"
        )
    });
    let sessions = neighbors.iter().map(|address| {
        let family = super::family_name(*address);
        format!(
            "protocol bgp {{ local as {ROUTER_AS}; neighbor {address} as {BALANCERS_AS}; passive on; ttl security on;\n  \
             graceful restart aware; {family} {{ import filter announced; export none; }}; }}\n"
        )
    });
    HEAD.to_owned() + &families.concat() + &sessions.collect::<String>()
}
