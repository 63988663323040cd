//! A node as an emulated machine: QEMU in the namespace of a load balancer, whose links it takes over by taps. The parts come from `cargo
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

use anyhow::{Context, Result};

use crate::lab::{Lab, NEAR, Netns, Process, UPLINK};

mod commands;
mod packages;

use commands::{Commands, Monitor};
pub use commands::{Done, Ready};
pub use packages::{Packages, VERSIONS};

/// The folder with kernel, disk and package.
const PARTS: &str = "MAGLEV_MACHINES";
/// The links of a load balancer, and the taps beside them.
const LINKS: [(&str, &str); 2] = [(UPLINK, "tap0"), (NEAR, "tap1")];
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
    /// Boots load balancer 1 of the lab with a fresh disk and these packages, and waits until it takes commands.
    ///
    /// # Errors
    /// If a part is missing, or the machine does not come up.
    pub fn boot(lab: &Lab, packages: &Packages, hardware: Hardware) -> Result<Self> {
        let netns = lab.netns("lb1");
        join_links(&netns, hardware)?;
        let parts = parts()?;
        let directory = lab.directory();
        let [port, monitor] = ["commands.sock", "monitor.sock"].map(|name| directory.join(name));
        let console = parts.join("console");
        let mut qemu = qemu(&parts, hardware);
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
        anyhow::ensure!(code == 0, "`{script}` ended with {code}:\n{output}");
        Ok(output)
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
fn join_links(netns: &Netns, hardware: Hardware) -> Result<()> {
    let queues = if hardware.queues > 1 { " multi_queue" } else { "" };
    let lines = LINKS.iter().flat_map(|(link, tap)| {
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
fn qemu(parts: &Path, Hardware { kernel, card, queues }: Hardware) -> Command {
    let mut command = Command::new("nice");
    // Behind the lab's clients and servers, which are of this machine.
    command.args(["-n", "5", "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-machine", "q35"]);
    // Without it, Linux 6.1 waits for random numbers.
    command.args(["-cpu", "qemu64,+rdrand"]);
    command.args(["-smp", &queues.max(2).to_string(), "-m", "1024", "-nodefaults", "-display", "none"]);
    command.arg("-kernel").arg(parts.join(format!("vmlinuz-{kernel}"))).args(["-append", COMMAND_LINE]);
    for (n, (_, tap)) in LINKS.iter().enumerate() {
        let (mut netdev, mut device) = (
            format!("tap,id=net{n},ifname={tap},script=no,downscript=no"),
            format!("{card},netdev=net{n},mac=52:54:00:00:00:0{n}"),
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
