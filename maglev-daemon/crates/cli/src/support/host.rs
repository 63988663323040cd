//! The host's state: files of the kernel, and what its usual tools print. It must not know the archive.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use maglev_api::view::Status;

/// Bytes of a file or of a tool's output that are kept.
const MOST: usize = 8 << 20;

/// Seconds that a tool may take.
const PATIENCE: &str = "10";

/// Files: the name in the archive, and the path.
const FILES: [(&str, &str); 8] = [
    ("os-release", "/etc/os-release"),
    ("kernel", "/proc/version"),
    ("cpuinfo", "/proc/cpuinfo"),
    ("meminfo", "/proc/meminfo"),
    ("interrupts", "/proc/interrupts"),
    ("softirqs", "/proc/softirqs"),
    ("softnet_stat", "/proc/net/softnet_stat"),
    ("bpf_jit_enable", "/proc/sys/net/core/bpf_jit_enable"),
];

/// Tools: the name in the archive, the tool, and its arguments.
const TOOLS: [(&str, &str, &[&str]); 11] = [
    ("links", "ip", &["-details", "-statistics", "link"]),
    ("addresses", "ip", &["address"]),
    ("routes4", "ip", &["-4", "route", "show", "table", "all"]),
    ("routes6", "ip", &["-6", "route", "show", "table", "all"]),
    ("rules", "ip", &["rule"]),
    ("neighbors", "ip", &["neighbor"]),
    ("sockets", "ss", &["--tcp", "--listening", "--numeric", "--processes"]),
    (
        "sysctl",
        "sysctl",
        &["--all", "--pattern", "^(net\\.(core|ipv4\\.conf|ipv6\\.conf)|kernel\\.(unprivileged_bpf|sched))"],
    ),
    ("programs", "bpftool", &["net"]),
    ("service", "systemctl", &["status", "--no-pager", "--full", "maglevd.service", "maglev-decap.service"]),
    (
        "log",
        "journalctl",
        &["--no-pager", "--lines", "5000", "--output", "short-iso-precise", "--unit", "maglevd.service"],
    ),
];

/// What `ethtool` shows of an interface: the name in the archive, and its option.
const OF_INTERFACE: [(&str, &str); 5] = [
    ("driver", "--driver"),
    ("offloads", "--show-features"),
    ("queues", "--show-channels"),
    ("rings", "--show-ring"),
    ("statistics", "--statistics"),
];

/// The host's name, in the letters of a file's name.
pub(super) fn name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(63).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

/// The interfaces that the node uses.
pub(super) fn interfaces(status: &Status) -> Vec<String> {
    status.interfaces.iter().map(|interface| interface.name.clone()).collect()
}

/// All facts: the name of each, and the text or why there is none.
pub(super) fn facts(interfaces: &[String]) -> impl Iterator<Item = (String, Result<String, String>)> {
    let files = FILES.into_iter().map(|(name, path)| (name.to_owned(), read(Path::new(path))));
    let tools = TOOLS.into_iter().map(|(name, tool, arguments)| (name.to_owned(), output(tool, arguments)));
    let of_interfaces = interfaces.iter().flat_map(|interface| {
        OF_INTERFACE
            .into_iter()
            .map(move |(name, option)| (format!("{interface}/{name}"), output("ethtool", &[option, interface])))
    });
    files.chain(tools).chain(of_interfaces)
}

/// The text of a file, up to a limit.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let failed = |error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|file| file.take(MOST as u64).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a tool prints, errors too. It is ended if it takes too long.
fn output(tool: &str, arguments: &[&str]) -> Result<String, String> {
    // The tool may hang on a driver: `timeout` of coreutils ends it.
    let output = Command::new("timeout").arg(PATIENCE).arg(tool).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot start {tool}: {error}"))?;
    match output.status.code() {
        Some(124) => return Err(format!("{tool} took longer than {PATIENCE} s")),
        Some(126 | 127) => return Err(format!("cannot start {tool}: is it installed?")),
        _ => {}
    }
    let mut bytes = output.stdout;
    bytes.truncate(MOST);
    bytes.extend(output.stderr);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
