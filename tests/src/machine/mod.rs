//! A node or a backend as an emulated machine: QEMU in its namespace, whose links it takes over by taps. The parts come from `cargo
//! xtask test machines`. It must not know the commands that run in it.
//!
//! ```text
//!  router ── eth0 ─ bridge ─ tap ── eth0 ┐
//!                   (namespace lb1)      ├ Debian, with a program that runs commands from a virtual port
//!  switch ── near ─ bridge ─ tap ── eth1 ┘
//! ```

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::lab::{Lab, NEAR, Netns, Process, UPLINK};

mod commands;
mod node;
mod packages;

use commands::{Commands, Monitor};
pub use commands::{Done, Ready};
pub use node::{Node, connections, none};
pub use packages::{DECAP_VERSIONS, Packages, VERSIONS};

/// The folder with kernel, disk and package.
const PARTS: &str = "MAGLEV_MACHINES";
/// The MTU of the lab's links that carry encapsulated packets.
const MTU: u16 = 1600;
/// The kernel's command line: interfaces have their plain names, and emulation is slow enough without mitigations.
const COMMAND_LINE: &str =
    "root=/dev/nvme0n1 rw console=ttyS0 net.ifnames=0 mitigations=off panic=-1 systemd.show_status=0";

/// Another kernel or network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// The kernel's series, such as `6.12`.
    pub kernel: &'static str,
    /// QEMU's name of the network card.
    pub card: &'static str,
    /// Its queues, and the CPUs.
    pub queues: u8,
}

impl Hardware {
    /// What Debian's newest kernel has as a guest.
    pub const USUAL: Self = Self { kernel: "6.12", card: "virtio-net-pci", queues: 1 };
}

/// Whose place in the lab a machine takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The namespace.
    netns: &'static str,
    /// Its links, which become `eth0` and so on.
    links: &'static [&'static str],
    /// The fifth byte of its MAC addresses, by which the machine's networkd finds its addresses.
    mac: u8,
}

impl Place {
    /// Load balancer 1.
    pub const BALANCER: Self = Self { netns: "lb1", links: &[UPLINK, NEAR], mac: 0 };
    /// Backend 3, on the load balancers' shared segment.
    pub const BACKEND: Self = Self { netns: "web3", links: &["eth0"], mac: 1 };

    /// The links, and the taps beside them.
    fn taps(self) -> impl Iterator<Item = (usize, &'static str, String)> {
        self.links.iter().enumerate().map(|(n, link)| (n, *link, format!("tap{n}")))
    }
}

/// A process of a unit and what it pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its number.
    process: String,
    /// Each pinned link's inode and path.
    links: String,
}

/// A running machine. Dropping it ends it.
#[derive(Debug)]
pub struct Machine {
    commands: Commands,
    monitor: Monitor,
    console: PathBuf,
    // Ended before the namespace goes.
    _process: Process,
}

impl Machine {
    /// Boots a machine in a place of the lab with a fresh disk and these packages, and waits until it takes commands.
    ///
    /// # Errors
    /// If a part is missing, or the machine does not come up.
    pub fn boot(lab: &Lab, place: Place, packages: &Packages, hardware: Hardware) -> Result<Self> {
        let netns = lab.netns(place.netns);
        join_links(&netns, place, hardware)?;
        let parts = parts()?;
        let directory = lab.directory();
        let [port, monitor] = ["commands.sock", "monitor.sock"].map(|name| directory.join(name));
        let console = parts.join("console");
        let mut qemu = qemu(&parts, place, hardware);
        qemu.arg("-serial").arg(format!("file:{}", console.display()));
        attach_disks(&mut qemu, &parts.join("debian.img"), packages.disk());
        attach_sockets(&mut qemu, &port, &monitor);
        let mut process = Process::start("qemu", &netns, &directory, &mut qemu)?;
        process.await_event("its sockets", |_| Ok(port.exists() && monitor.exists()))?;
        let mut machine = Self {
            commands: Commands::connect(&port)?,
            monitor: Monitor::connect(&monitor)?,
            console,
            _process: process,
        };
        machine.await_ready()?;
        Ok(machine)
    }

    /// Waits until it has booted and takes commands.
    ///
    /// # Errors
    /// If minutes pass; the message carries the end of its console.
    pub fn await_ready(&mut self) -> Result<Ready> {
        let ready = self.commands.await_ready();
        ready.with_context(|| format!("the machine does not take commands; its console ends in\n{}", self.console()))
    }

    /// Runs a script to its end.
    ///
    /// # Errors
    /// If the machine does not answer for minutes. An exit code other than 0 is not an error here.
    pub fn run(&mut self, script: &str) -> Result<Done> {
        let done = self.commands.run(script);
        done.with_context(|| format!("`{script}` does not end; the console ends in\n{}", self.console()))
    }

    /// The output of a script that must succeed.
    ///
    /// # Errors
    /// If it does not.
    pub fn ok(&mut self, script: &str) -> Result<String> {
        let Done { code, output } = self.run(script)?;
        ensure!(code == 0, "`{script}` ended with {code}:\n{output}");
        Ok(output)
    }

    /// Runs apt-get.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn apt(&mut self, words: &str) -> Result<Done> {
        self.run(&format!("DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 --yes {words}"))
    }

    /// The same, and it must succeed.
    ///
    /// # Errors
    /// If it does not.
    pub fn apt_ok(&mut self, words: &str) -> Result<String> {
        let Done { code, output } = self.apt(words)?;
        ensure!(code == 0, "apt-get {words} ended with {code}:\n{output}");
        Ok(output)
    }

    /// Writes a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, file: &str, text: &str) -> Result<()> {
        let text = STANDARD.encode(text);
        self.ok(&format!("echo {text} | base64 --decode > {file}")).map(drop)
    }

    /// An answer of the CLI.
    ///
    /// # Errors
    /// If it fails, or does not print JSON.
    pub fn json(&mut self, words: &str) -> Result<Value> {
        let text = self.ok(&format!("maglev --output json {words}"))?;
        serde_json::from_str(&text).with_context(|| format!("maglev {words} printed {text:?}"))
    }

    /// The process of a unit, and the inodes of the links that it pinned in this folder: a link that was detached and made anew has
    /// another one.
    ///
    /// # Errors
    /// If nothing is pinned there.
    pub fn running(&mut self, unit: &str, pins: &str) -> Result<Running> {
        let process = self.ok(&format!("systemctl show --property MainPID --value {unit}"))?.trim().to_owned();
        let links = self.ok(&format!("find {pins} -path '*/links/*' -type f -printf '%i %p\\n' | sort"))?;
        ensure!(!links.is_empty(), "no link is pinned in {pins}");
        Ok(Running { process, links })
    }

    /// Waits until another process of the unit than this one is ready, and answers `command`; over the same links.
    ///
    /// # Errors
    /// If none comes up, a link is another one, or it does not run from what is installed.
    pub fn await_replaced(&mut self, unit: &str, pins: &str, before: &Running, command: &str) -> Result<()> {
        let ready = format!(
            "timeout 60 sh -c 'until test \"$(systemctl is-active {unit})\" = active && \
             test \"$(systemctl show --property MainPID --value {unit})\" != {} && {command} > /dev/null 2>&1; \
             do sleep 0.1; done'",
            before.process
        );
        let log = format!("journalctl --no-pager --unit {unit} -n 30");
        ensure!(self.run(&ready)?.code == 0, "no other process came up\n{}", self.ok(&log)?);
        let after = self.running(unit, pins)?;
        ensure!(after.links == before.links, "links before: {}after: {}", before.links, after.links);
        let exe = self.ok(&format!("readlink /proc/{}/exe", after.process))?;
        ensure!(exe.trim() == "/usr/bin/maglevd", "{unit} runs from {exe}\n{}", self.ok(&log)?);
        Ok(())
    }

    /// Whether a removed package left something that runs.
    ///
    /// # Errors
    /// Naming it.
    pub fn nothing_runs(&mut self) -> Result<()> {
        let left = "ip link | grep xdp; mount | grep maglev; grep --files-with-matches maglev /proc/[0-9]*/comm";
        let left = self.run(left)?.output;
        ensure!(left.is_empty(), "a removal leaves {left}");
        Ok(())
    }

    /// Whether a purged package left nothing but its user.
    ///
    /// # Errors
    /// Naming what is left.
    pub fn nothing_is_left(&mut self) -> Result<()> {
        let left = self.ok(
            "find / -xdev -iname '*maglev*' ! -path '/packages/*' ! -path '/proc/*'; find /run -iname '*maglev*'",
        )?;
        ensure!(left.is_empty(), "a purge leaves {left}");
        let failed = self.ok("systemctl --failed --no-legend --plain")?;
        ensure!(failed.is_empty(), "failed units: {failed}");
        self.ok("getent passwd maglev").map(drop)
    }

    /// How a unit is confined, by systemd's own rating and by the kernel's account of its process; a line.
    ///
    /// # Errors
    /// If its exposure is beyond 2.0, or its process runs as root or without a filter of system calls.
    pub fn confined(&mut self, unit: &str) -> Result<String> {
        let rated = self.ok(&format!("systemd-analyze security --no-pager --threshold=20 {unit}.service"))?;
        let rated = rated.split("exposure level for").nth(1).and_then(|rest| rest.split_whitespace().nth(1));
        let rated = rated.context("no rating")?;
        let process = self.ok(&format!("systemctl show --property MainPID --value {unit}"))?;
        let status = self.ok(&format!("cat /proc/{}/status", process.trim()))?;
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.map(str::trim).with_context(|| format!("no {name}"))
        };
        let user = field("Uid")?.split_whitespace().next().context("no user")?;
        let (filter, new) = (field("Seccomp")?, field("NoNewPrivs")?);
        ensure!(user != "0" && filter == "2" && new == "1", "user {user}, filter {filter}, no new privileges {new}");
        Ok(format!("exposure {rated}, user {user}, capabilities {}", field("CapEff")?.trim_start_matches('0')))
    }

    /// Asks it to restart, and waits until it takes commands again.
    ///
    /// # Errors
    /// If it does not.
    pub fn reboot(&mut self) -> Result<Ready> {
        self.commands.send("systemctl reboot")?;
        self.await_ready()
    }

    /// Takes its power away and gives it back at once, and waits for nothing.
    ///
    /// # Errors
    /// If QEMU does not answer.
    pub fn cut_power(&mut self) -> Result<()> {
        self.monitor.command("system_reset")
    }

    /// The last lines of the console.
    fn console(&self) -> String {
        let text = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

/// The folder of the parts.
///
/// # Errors
/// If it is not named.
pub fn parts() -> Result<PathBuf> {
    let parts =
        env::var_os(PARTS).with_context(|| format!("{PARTS} names no folder: run `cargo xtask test machines`"))?;
    Ok(parts.into())
}

/// Takes the addresses off the namespace's links and bridges each to a tap.
fn join_links(netns: &Netns, place: Place, hardware: Hardware) -> Result<()> {
    let queues = if hardware.queues > 1 { " multi_queue" } else { "" };
    let lines = place.taps().flat_map(|(_, link, tap)| {
        [
            format!("address flush dev {link}"),
            format!("link add bridge-{link} mtu {MTU} type bridge stp_state 0 mcast_snooping 0"),
            format!("tuntap add dev {tap} mode tap{queues}"),
            format!("link set {tap} mtu {MTU} master bridge-{link} up"),
            format!("link set {link} master bridge-{link}"),
            format!("link set bridge-{link} up"),
        ]
    });
    netns.ip(&lines.collect::<Vec<_>>())
}

/// The machine without disks and sockets.
fn qemu(parts: &Path, place: Place, Hardware { kernel, card, queues }: Hardware) -> Command {
    let mut command = Command::new("nice");
    // Behind the lab's clients and servers, which are of this machine.
    command.args(["-n", "5", "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-machine", "q35"]);
    // Without it, Linux 6.1 waits for random numbers.
    command.args(["-cpu", "qemu64,+rdrand"]);
    command.args(["-smp", &queues.max(2).to_string(), "-m", "1024", "-nodefaults", "-display", "none"]);
    command.arg("-kernel").arg(parts.join(format!("vmlinuz-{kernel}"))).args(["-append", COMMAND_LINE]);
    for (n, _, tap) in place.taps() {
        let (mut netdev, mut device) = (
            format!("tap,id=net{n},ifname={tap},script=no,downscript=no"),
            format!("{card},netdev=net{n},mac=52:54:00:00:0{}:0{n}", place.mac),
        );
        if queues > 1 {
            netdev += &format!(",queues={queues}");
            // An interrupt for each queue of each direction, and two more.
            device += &format!(",mq=on,vectors={}", 2 * queues + 2);
        }
        command.args(["-netdev", &netdev, "-device", &device]);
    }
    command
}

/// What is written to the system's disk goes to a file that is gone with the machine. The kernel has the driver of its controller built in;
/// two such disks would have their names by chance.
fn attach_disks(command: &mut Command, system: &Path, packages: &Path) {
    command.env("TMPDIR", system.with_file_name(""));
    let disks = [
        ("system", system, "snapshot=on", "nvme,serial=system"),
        ("packages", packages, "readonly=on", "virtio-blk-pci"),
    ];
    for (id, file, how, device) in disks {
        command.arg("-drive").arg(format!("file={},format=raw,if=none,id={id},{how}", file.display()));
        command.arg("-device").arg(format!("{device},drive={id}"));
    }
}

fn attach_sockets(command: &mut Command, port: &Path, monitor: &Path) {
    command.arg("-chardev").arg(format!("socket,id=commands,path={},server=on,wait=off", port.display()));
    command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=commands,name=commands"]);
    command.arg("-monitor").arg(format!("unix:{},server=on,wait=off", monitor.display()));
}
