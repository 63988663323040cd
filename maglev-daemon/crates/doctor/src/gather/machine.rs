//! The machine: CPUs, memory, limits, interrupts, the clock. It must not know interfaces.

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::resource::{Resource, getrlimit};

use super::Gather;
use crate::facts::{Fact, Memory};

/// Seconds that the time service may take to answer.
const PATIENCE: &str = "2";

impl Gather {
    /// The number of CPUs that are online.
    pub fn cpus(&self) -> Fact<u32> {
        const FILE: &str = "/sys/devices/system/cpu/online";
        let text = self.read(FILE)?;
        let cpus = list(&text).ok_or_else(|| format!("{FILE} is not a list of CPUs: {:?}", text.trim()))?;
        u32::try_from(cpus.len()).map_err(|error| error.to_string())
    }

    /// Memory, and the limits of this process.
    pub fn memory(&self) -> Memory {
        let open_files = getrlimit(Resource::RLIMIT_NOFILE).map(|(_, hard)| hard).map_err(|errno| errno.to_string());
        Memory { available: self.available(), group_left: Ok(self.group_left()), open_files }
    }

    fn available(&self) -> Fact<u64> {
        const FILE: &str = "/proc/meminfo";
        let text = self.read(FILE)?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.map(|kib| kib * 1_024).ok_or_else(|| format!("{FILE} has no MemAvailable"))
    }

    /// What the tightest limit of this process's control groups leaves; `None` without a limit that can be read.
    fn group_left(&self) -> Option<u64> {
        let text = self.read("/proc/self/cgroup").ok()?;
        let own = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let mut folder = format!("/sys/fs/cgroup/{own}");
        let mut left = None::<u64>;
        loop {
            let most = self.number::<u64>(&format!("{folder}/memory.max"));
            let used = self.number::<u64>(&format!("{folder}/memory.current"));
            if let (Ok(most), Ok(used)) = (most, used) {
                let here = most.saturating_sub(used);
                left = Some(left.map_or(here, |least| least.min(here)));
            }
            match folder.rsplit_once('/') {
                Some((above, _)) if above.starts_with("/sys/fs/cgroup") => folder.truncate(above.len()),
                _ => return left,
            }
        }
    }

    /// The CPUs that each interrupt of a card goes to; `bus` is its place on PCI.
    pub fn interrupts(&self, bus: &str) -> Fact<Vec<Vec<u32>>> {
        let folder = format!("/sys/bus/pci/devices/{bus}/msi_irqs");
        let entries = fs::read_dir(self.at(&folder)).map_err(|error| format!("cannot read {folder}: {error}"))?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<Result<Vec<_>, _>>().map_err(|error| format!("cannot read {folder}: {error}"))?;
        // An interrupt that is not in use has no folder.
        let cpus = names.iter().filter_map(|name| {
            let of = |file: &str| self.read(&format!("/proc/irq/{name}/{file}")).ok();
            let effective = of("effective_affinity_list").filter(|text| !text.trim().is_empty());
            list(&effective.or_else(|| of("smp_affinity_list"))?)
        });
        Ok(cpus.collect())
    }

    /// Whether the clock is synchronised, as the time service has it.
    pub fn clock(&self) -> Fact<bool> {
        if self.at("/run/systemd/timesync/synchronized").exists() {
            return Ok(true);
        }
        // It asks a service over D-Bus, which may hang.
        let mut ask = Command::new("timeout");
        ask.args([PATIENCE, "timedatectl", "show", "--property=NTPSynchronized", "--value"]);
        let answer = ask.stdin(Stdio::null()).output().map_err(|error| format!("cannot start timedatectl: {error}"))?;
        answered(&String::from_utf8_lossy(&answer.stdout), &String::from_utf8_lossy(&answer.stderr))
    }
}

/// The answer of `timedatectl`.
pub(super) fn answered(said: &str, complained: &str) -> Fact<bool> {
    match (said.trim(), complained.trim()) {
        ("yes", _) => Ok(true),
        ("no", _) => Ok(false),
        (_, "") => Err("timedatectl gave no answer".to_owned()),
        (_, reason) => Err(reason.lines().next().unwrap_or_default().to_owned()),
    }
}

/// The numbers of a list of ranges such as `0-3,8-11`; `None` if it is none.
pub(super) fn list(text: &str) -> Option<Vec<u32>> {
    /// More CPUs than Linux has.
    const MOST: u32 = 1 << 16;
    let mut numbers = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if last >= MOST {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}
