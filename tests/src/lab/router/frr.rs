//! FRR: zebra, which sets routes, and bgpd, which learns them.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{ROUTER_AS, write};
use crate::lab::{Netns, Process, addresses::BALANCERS_AS};

/// Where Debian puts the daemons.
const DAEMONS: &str = "/usr/lib/frr";

pub(super) fn start(netns: &Netns, directory: &Path, neighbors: &[IpAddr]) -> Result<Vec<Process>> {
    let own = folder(directory);
    fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
    write(&own.join("zebra.conf"), "")?;
    write(&own.join("bgpd.conf"), &config(neighbors))?;
    // The daemons give up root before they make their sockets.
    let owned = Command::new("chown").args(["-R", "frr:frr"]).arg(&own).output().context("chown")?;
    ensure!(owned.status.success(), "{}", String::from_utf8_lossy(&owned.stderr));

    // Else it takes an IPv6 route away before it sets the next one, and packets in between find none.
    let replacing = "--v6-rr-semantics";
    let mut zebra = super::daemon("zebra", netns, directory, command("zebra", &own).arg(replacing))?;
    // bgpd gives up for a while if zebra does not listen yet.
    zebra.await_event("its socket", |_| Ok(own.join("zserv").exists()))?;
    let mut bgpd = super::daemon("bgpd", netns, directory, &mut command("bgpd", &own))?;
    bgpd.await_event("its control socket", |_| Ok(own.join("bgpd.vty").exists()))?;
    Ok(vec![bgpd, zebra])
}

pub(super) fn ask(directory: &Path, words: &str) -> Result<String> {
    let mut command = Command::new("vtysh");
    let output = command.arg("--vty_socket").arg(folder(directory)).args(["-d", "bgpd", "-c", words]).output();
    Ok(String::from_utf8_lossy(&output.context("vtysh")?.stdout).into_owned())
}

fn folder(directory: &Path) -> PathBuf {
    directory.join("frr")
}

fn command(name: &str, own: &Path) -> Command {
    let mut command = Command::new(Path::new(DAEMONS).join(name));
    command.args(["-u", "frr", "-g", "frr", "-P", "0", "--log", "stdout"]);
    for (option, file) in [("-f", format!("{name}.conf")), ("-i", format!("{name}.pid")), ("-z", "zserv".into())] {
        command.arg(option).arg(own.join(file));
    }
    command.arg("--vty_socket").arg(own);
    command
}

fn config(neighbors: &[IpAddr]) -> String {
    let mut text = format!(
        "router bgp {ROUTER_AS}\n bgp router-id 10.2.0.1\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n \
         bgp bestpath as-path multipath-relax\n"
    );
    for address in neighbors {
        text += &format!(" neighbor {address} remote-as {BALANCERS_AS}\n");
        text += &format!(" neighbor {address} passive\n neighbor {address} ttl-security hops 1\n");
    }
    for family in ["ipv4", "ipv6"] {
        text += &format!(" address-family {family} unicast\n  maximum-paths 16\n");
        for address in neighbors.iter().filter(|address| super::family_name(**address) == family) {
            text += &format!("  neighbor {address} activate\n");
        }
        text += " exit-address-family\n";
    }
    text
}
