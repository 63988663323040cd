//! GoBGP: the protocol alone.

use std::{net::IpAddr, path::Path, process::Command};

use anyhow::Result;

use super::{ROUTER_AS, write};
use crate::lab::{Netns, Process, addresses::BALANCERS_AS};

pub(super) fn start(netns: &Netns, directory: &Path, neighbors: &[IpAddr]) -> Result<Vec<Process>> {
    let file = directory.join("gobgpd.toml");
    write(&file, &config(neighbors))?;
    let mut command = Command::new("gobgpd");
    command.arg("-f").arg(&file).args(["-t", "toml", "--pprof-disable", "--api-hosts", "127.0.0.1:50051"]);
    let mut gobgp = super::daemon("gobgpd", netns, directory, &mut command)?;
    let asked = netns.clone();
    gobgp.await_event("its API", |_| Ok(ask(&asked, &["global"]).is_ok()))?;
    Ok(vec![gobgp])
}

pub(super) fn ask(netns: &Netns, words: &[&str]) -> Result<String> {
    let answer = netns.output(Command::new("gobgp").args(words))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn config(neighbors: &[IpAddr]) -> String {
    let mut text = format!(
        "[global.config]\nas = {ROUTER_AS}\nrouter-id = \"10.2.0.1\"\n\
         [global.use-multiple-paths.config]\nenabled = true\n"
    );
    for address in neighbors {
        text += &format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {BALANCERS_AS}\n\
             [neighbors.transport.config]\npassive-mode = true\n\
             [neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{}-unicast\"\n",
            super::family_name(*address)
        );
    }
    text
}
