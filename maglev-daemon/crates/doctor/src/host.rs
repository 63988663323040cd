//! The machine: kernel, BPF file system, clock, memory. It must not know interfaces.

use super::facts::{Host, Memory, Pin};
use super::report::{Report, page};

/// Files that a node with a few hundred backends and clients opens.
const OPEN_FILES: u64 = 4_096;
/// The size that maps of the default settings take, with room to spare: for hosts whose maps' size is not known.
const MIB: u64 = 1 << 20;

/// Adds the findings about the machine.
pub(crate) fn check(host: &Host, report: &mut Report) {
    let Host { missing_feature, jit, pin, clock, cpus: _, memory } = host;
    match missing_feature {
        Ok(None) => report.ok("kernel", "it has the features that the programs need", page::INSTALL),
        Ok(Some(feature)) => {
            let remedy = "boot a kernel of release 6.1 or later with CONFIG_BPF_SYSCALL and CONFIG_XDP_SOCKETS";
            report.error("kernel", format!("it has no {feature}"), remedy, page::INSTALL);
        }
        Err(reason) => report.unchecked("kernel", "its features", reason),
    }
    match jit {
        Ok(Some(0)) => {
            let remedy = "`sysctl -w net.core.bpf_jit_enable=1`";
            report.warn("kernel", "eBPF programs are interpreted: each packet costs more", remedy, page::INSTALL);
        }
        Ok(Some(_)) => report.ok("kernel", "eBPF programs are compiled", page::INSTALL),
        Ok(None) => {
            report.ok("kernel", "bpf_jit_enable is not shown in this network namespace", page::INSTALL);
        }
        Err(reason) => report.unchecked("kernel", "bpf_jit_enable", reason),
    }
    if let Some(pin) = pin {
        check_pin(pin, report);
    }
    match clock {
        Ok(true) => report.ok("clock", "it is synchronised", page::DOCTOR),
        Ok(false) => {
            let found = "it is not synchronised: times in logs, history and events cannot be compared between nodes";
            report.warn(
                "clock",
                found,
                "start a time service: `systemctl enable --now systemd-timesyncd`",
                page::DOCTOR,
            );
        }
        Err(reason) => report.unchecked("clock", "whether it is synchronised", reason),
    }
    check_limits(memory, report);
}

fn check_pin(Pin { folder, is_bpf }: &Pin, report: &mut Report) {
    match is_bpf {
        Ok(true) => report.ok("BPF file system", format!("{folder} is in one"), page::DIES),
        Ok(false) => {
            let found =
                format!("{folder} is in no BPF file system: the programs cannot be pinned, and the start fails");
            let remedy = "`mount -t bpf bpf /sys/fs/bpf`, or name a folder in one with dataplane.pin";
            report.error("BPF file system", found, remedy, page::DIES);
        }
        Err(reason) => report.unchecked("BPF file system", folder, reason),
    }
}

fn check_limits(Memory { open_files, .. }: &Memory, report: &mut Report) {
    match open_files {
        Ok(most) if *most < OPEN_FILES => {
            let found = format!("at most {most} files can be open: checks and clients may be refused");
            report.warn(
                "open files",
                found,
                format!("LimitNOFILE={OPEN_FILES} in the unit, or `ulimit -n`"),
                page::INSTALL,
            );
        }
        Ok(most) => report.ok("open files", format!("at most {most}"), page::INSTALL),
        Err(reason) => report.unchecked("open files", "their limit", reason),
    }
}

/// Adds the findings about memory: `needed` bytes are still to be allocated, of `all` that the maps take.
pub(crate) fn check_room(memory: &Memory, needed: u64, all: u64, report: &mut Report) {
    let Memory { available, group_left, open_files: _ } = memory;
    let remedy = "lower limits.pools or flow_table.flows in maglev.yaml, or give the machine or the unit more memory";
    let mib = |bytes: u64| bytes.div_ceil(MIB);
    let mut well = true;
    let group = match group_left {
        Ok(left) => *left,
        Err(reason) => {
            report.unchecked("memory", "the limit of the control group", reason);
            None
        }
    };
    let machine = available.as_ref().map_or_else(
        |reason| {
            report.unchecked("memory", "the memory that is available", reason);
            None
        },
        |bytes| Some(*bytes),
    );
    for (left, of) in [(machine, "the machine"), (group, "the control group (MemoryMax)")] {
        if let Some(left) = left.filter(|left| *left < needed) {
            let found = format!("the maps take {} MiB, and {of} has {} MiB left", mib(all), mib(left));
            report.error("memory", found, remedy, page::NODE);
            well = false;
        }
    }
    if well {
        report.ok("memory", format!("the maps take {} MiB, and there is room", mib(all)), page::NODE);
    }
}
