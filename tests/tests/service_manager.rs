//! The daemon's reports to the service manager, received on a datagram socket as systemd does: ready, status, reloads, and signs of
//! life of the task that decides.

use std::{
    ffi::CString,
    fs,
    io::{ErrorKind, Write as _},
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use maglev_e2e::lab::{Balancer, Lab, NOTIFY, Settings, Topology, UPLINK, WATCHDOG, site::every_family, skip};

/// How long anything may take that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A service manager, and the daemon that reports to it.
struct Node {
    socket: UnixDatagram,
    balancer: Balancer,
    lab: Lab,
}

impl Node {
    fn start() -> Result<Self> {
        let mut lab = Lab::new(Topology::standard(1))?;
        let socket = UnixDatagram::bind(lab.directory().join(NOTIFY))?;
        let _backends = lab.start_backends()?;
        let balancer = Balancer::start(&lab, 1, &Settings::new(1), &every_family(&lab))?;
        Ok(Self { socket, balancer, lab })
    }

    /// The next report within this time, if one comes.
    fn next(&self, within: Duration) -> Result<Option<String>> {
        let mut bytes = [0; 4_096];
        self.socket.set_read_timeout(Some(within))?;
        match self.socket.recv(&mut bytes) {
            Ok(count) => Ok(Some(String::from_utf8(bytes[..count].to_vec())?)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error).context("the socket"),
        }
    }

    /// Waits for a report with this text; the reports before it.
    fn until(&self, text: &str) -> Result<Vec<String>> {
        let (begun, mut before) = (Instant::now(), Vec::new());
        while begun.elapsed() < PATIENCE {
            let Some(report) = self.next(PATIENCE)? else { break };
            if report.contains(text) {
                before.push(report);
                return Ok(before);
            }
            before.push(report);
        }
        bail!("no report of {text}: {before:?}")
    }
}

#[test]
fn the_state_is_reported_from_the_start_to_the_stop() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let mut node = Node::start()?;
    let begun = node.until("READY=1")?;
    ensure!(begun[0].starts_with("EXTEND_TIMEOUT_USEC=") && begun[0].contains("verifying"), "{begun:?}");
    let all = "STATUS=forwarding to 6 of 6 backends";
    if !begun.iter().any(|report| report.contains(all)) {
        node.until(all)?;
    }
    node.balancer.maglev_ok(&["backend", "disable", "four", "web1"])?;
    node.until("STATUS=forwarding to 5 of 6 backends")?;

    let reload = |node: &Node| -> Result<()> {
        let reloading = node.until("RELOADING=1")?.pop().context("no report")?;
        let time = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).context("no time")?;
        ensure!(time.parse::<u64>()? > 0, "{reloading}");
        node.until("READY=1\nSTATUS=forwarding to 5 of 6 backends").map(drop)
    };
    node.balancer.hang_up()?;
    reload(&node)?;
    // A refused one ends as well.
    let file = node.balancer.services();
    let good = fs::read_to_string(&file)?;
    fs::write(&file, "pools: 7")?;
    ensure!(node.balancer.maglev(&["reload"])?.code == 2);
    reload(&node)?;
    fs::write(&file, good)?;

    node.balancer.maglev_ok(&["node", "drain"])?;
    node.until("STATUS=drain")?;
    node.balancer.maglev_ok(&["node", "undrain"])?;
    node.until("STATUS=forwarding to 5 of 6 backends")?;
    node.balancer.netns().ip(&[format!("link set {UPLINK} down")])?;
    // Half of the backends are behind it.
    node.until("STATUS=forwarding to 2 of 6 backends")?;

    node.balancer.stop()?;
    let end = node.until("STOPPING=1")?.len();
    let phase = node.next(PATIENCE)?.context("nothing after it")?;
    ensure!(end > 0 && phase.starts_with("EXTEND_TIMEOUT_USEC="), "{phase}");
    drop(node.lab);
    Ok(())
}

#[test]
fn a_blocked_owner_gives_no_sign_of_life() -> Result<()> {
    if skip() {
        return Ok(());
    }
    let node = Node::start()?;
    node.until("READY=1")?;
    // While nothing happens: at least two in the allowed time.
    node.until("WATCHDOG=1")?;
    let begun = Instant::now();
    for _ in 0..4 {
        node.until("WATCHDOG=1")?;
    }
    ensure!(begun.elapsed() < WATCHDOG * 3, "4 signs in {:?}, each due in half of {WATCHDOG:?}", begun.elapsed());

    // A password file that is a pipe, of which nothing comes, blocks the task that reads the configuration.
    let pipe = node.lab.directory().join("pipe");
    let path = CString::new(pipe.as_os_str().as_encoded_bytes())?;
    nix::unistd::mkfifo(path.as_c_str(), nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    let neighbor = format!("{{ address: 10.99.0.1, remote_as: 65000, password_file: {} }}", pipe.display());
    let more = format!("bgp: {{ local_as: 65010, router_id: 10.99.0.2, neighbors: [{neighbor}] }}\n");
    let good = fs::read_to_string(node.balancer.config())?;
    fs::write(node.balancer.config(), good + &more)?;
    node.balancer.hang_up()?;
    node.until("RELOADING=1")?;
    ensure!(node.next(WATCHDOG * 2)?.is_none(), "the owner is blocked, and something was sent");

    // The read ends: so does the silence.
    fs::OpenOptions::new().write(true).open(&pipe)?.write_all(b"secret\n")?;
    node.until("READY=1")?;
    node.until("WATCHDOG=1").map(drop)
}
