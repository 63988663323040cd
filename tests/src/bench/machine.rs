//! The machine a run was made on: what its figures depend on.

use std::fs;

use serde::{Deserialize, Serialize};

/// The properties of the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Machine {
    /// The kernel's release.
    pub(super) kernel: String,
    /// The CPU's model.
    pub(super) cpu: String,
    /// CPUs online.
    pub(super) cpus: usize,
    /// Whether a hypervisor shows itself.
    pub(super) virtual_machine: bool,
    /// The caches of the first CPU, such as `L1d 48K`.
    pub(super) caches: Vec<String>,
    /// How Spectre v2 is mitigated: retpolines slow every indirect call.
    pub(super) spectre_v2: String,
    /// How Retbleed is mitigated: return thunks slow every return.
    pub(super) retbleed: String,
    /// Hardening of the JIT compiler: 0 is none.
    pub(super) jit_harden: String,
    /// The load average of the last minute as the run began.
    pub(super) load: String,
}

impl Machine {
    /// This one. What cannot be read is `unknown`.
    pub(super) fn this() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let fields = |name: &str| {
            let values = cpuinfo.lines().filter_map(|line| line.split_once(':'));
            values.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned()).collect::<Vec<_>>()
        };
        let vulnerability = |name: &str| read(&format!("/sys/devices/system/cpu/vulnerabilities/{name}"));
        Self {
            kernel: read("/proc/sys/kernel/osrelease"),
            cpu: fields("model name").into_iter().next().unwrap_or_else(|| "unknown".to_owned()),
            cpus: fields("processor").len(),
            virtual_machine: fields("flags").iter().any(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            caches: caches(),
            spectre_v2: vulnerability("spectre_v2"),
            retbleed: vulnerability("retbleed"),
            jit_harden: read("/proc/sys/net/core/bpf_jit_harden"),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    /// A few lines for people.
    pub(super) fn text(&self) -> String {
        let Self { kernel, cpu, cpus, virtual_machine, caches, spectre_v2, retbleed, jit_harden, load } = self;
        let place = if *virtual_machine { ", in a virtual machine" } else { "" };
        format!(
            "kernel      {kernel}\n\
             CPU         {cpu}, {cpus} online{place}; {}\n\
             mitigations spectre_v2: {spectre_v2}; retbleed: {retbleed}; JIT hardening: {jit_harden}\n\
             load        {load} as the run began\n",
            caches.join(", ")
        )
    }
}

fn caches() -> Vec<String> {
    let index = |n: usize| {
        let file = |name: &str| fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{n}/{name}")).ok();
        let (level, kind, size) = (file("level")?, file("type")?, file("size")?);
        let suffix = match kind.trim() {
            "Data" => "d",
            "Instruction" => "i",
            _ => "",
        };
        Some(format!("L{}{suffix} {}", level.trim(), size.trim()))
    };
    (0..8).map_while(index).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}
