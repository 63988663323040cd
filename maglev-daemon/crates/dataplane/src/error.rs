//! Why an operation of the data plane failed: one line each, with the remedy.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use aya::programs::ProgramError;
use aya::{EbpfError, maps::MapError};
use maglev_common::vip::BuildError;
use nix::errno::Errno;

use super::mode::Mode;

/// Why the data plane did not start, or a step was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// Neither root nor the capabilities.
    #[error("not permitted to {0}: run as root, or with the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    NotPermitted(&'static str),
    /// The running kernel cannot do what is needed.
    #[error("kernel {release}: {reason}; Linux 6.1 or later with CONFIG_BPF_SYSCALL has it")]
    Kernel {
        /// The running kernel's release.
        release: String,
        /// The missing feature.
        reason: String,
    },
    /// The kernel's verifier refused a program.
    #[error("the kernel refused program '{program}': {tail}")]
    Verifier {
        /// The program.
        program: String,
        /// The last lines of the verifier's log.
        tail: String,
    },
    /// The program could not be loaded for some other reason.
    #[error("cannot load the eBPF object: {0}")]
    Load(String),
    /// A setting is out of its range.
    #[error("{0}")]
    Setting(String),
    /// A map is not what this release expects.
    #[error("map {map}: {what} is {found}, expected {expected}")]
    Map {
        /// The map.
        map: &'static str,
        /// The property that differs.
        what: &'static str,
        /// The kernel's value.
        found: u64,
        /// The expected value.
        expected: u64,
    },
    /// A map's memory could not be mapped, or a map could not be written.
    #[error("map {map}: {call} failed: {source}")]
    MapCall {
        /// The map.
        map: &'static str,
        /// The operation.
        call: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel refuses to wait for packets in flight.
    #[error("the kernel cannot wait for packets in flight, without which tables cannot be replaced safely: {0}")]
    Barrier(Errno),
    /// Another daemon holds the pin folder.
    #[error(
        "another maglevd{} holds the pin folder {}: stop it first, or set another dataplane.pin",
        holder.map(|pid| format!(" (process {pid})")).unwrap_or_default(), folder.display()
    )]
    PinsInUse {
        /// The folder.
        folder: PathBuf,
        /// Its process id, if the kernel reports it.
        holder: Option<u32>,
    },
    /// Another process decapsulates on an interface.
    #[error(
        "another maglevd decap{} runs on {interface}: stop it first. If it is of another network namespace, use another \
         folder than {} (--pin, or dataplane.pin in decap.yaml)",
        holder.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        folder.parent().unwrap_or(folder).display()
    )]
    DecapInUse {
        /// The interface.
        interface: String,
        /// Its folder.
        folder: PathBuf,
        /// The process id, if the kernel reports it.
        holder: Option<u32>,
    },
    /// Nothing can be pinned there.
    #[error(
        "{} is not in a BPF file system: pin below /sys/fs/bpf, or nothing (`dataplane: {{ pin: off }}`; on a backend \
         also `--pin off`)",
        .0.display()
    )]
    NotBpf(PathBuf),
    /// There is no BPF file system, and this process may not mount one.
    #[error(
        "the BPF file system is not mounted: `mount -t bpf bpf /sys/fs/bpf` as root, or pin nothing (`dataplane: {{ pin: \
         off }}`; on a backend also `--pin off`)"
    )]
    BpfNotMounted,
    /// Something in the pin folder could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Pins {
        /// The operation.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// An interface that is not there.
    #[error("interface {name} does not exist; there are {existing}")]
    InterfaceAbsent {
        /// The configured name.
        name: String,
        /// The names of those that exist.
        existing: String,
    },
    /// Another program is attached.
    #[error(
        "{interface} already runs {}; it is not replaced: stop what loaded it, or detach it with `ip link set dev \
         {interface} {keyword} off`",
        named(program.as_deref(), *id)
    )]
    ForeignProgram {
        /// The interface.
        interface: String,
        /// The foreign program's name, if it has one that may be read.
        program: Option<String>,
        /// Its id.
        id: u32,
        /// The name of its mode in the output of `ip link`.
        keyword: &'static str,
    },
    /// The driver would refuse native mode.
    #[error("{interface}: native XDP is not possible: {reason}; or set `mode: generic` (slower)")]
    DriverLimit {
        /// The interface.
        interface: String,
        /// The limits that it is beyond, each with its remedy.
        reason: String,
    },
    /// The driver refused native mode.
    #[error(
        "{interface}: the driver refused native XDP ({source}); {}, or set `mode: generic` (slower)",
        probable(causes.as_deref())
    )]
    NativeRefused {
        /// The interface.
        interface: String,
        /// The kernel's reason.
        source: io::Error,
        /// What probably caused it, if the driver is known.
        causes: Option<String>,
    },
    /// The program could not be attached for some other reason.
    #[error("{interface}: cannot attach in {mode} mode: {reason}")]
    Attach {
        /// The interface.
        interface: String,
        /// The mode asked for.
        mode: Mode,
        /// The kernel's reason.
        reason: String,
    },
    /// The change would leave an interface without a program for a moment.
    #[error(
        "{interface}: a change to {to} mode detaches the program that forwards there for a moment: drain the node first \
         (`maglev node drain --wait`), or start once with `--cut`"
    )]
    ModeChange {
        /// The interface.
        interface: String,
        /// The mode asked for.
        to: Mode,
    },
    /// The program at an interface's egress could not be attached.
    #[error("{interface}: cannot attach the program that encapsulates health checks to its egress: {reason}")]
    Egress {
        /// The interface.
        interface: String,
        /// The kernel's reason.
        reason: String,
    },
    /// A step names something beyond a map's end.
    #[error("{what} {index} is beyond the limit of {limit}")]
    OutOfRange {
        /// The kind of object.
        what: &'static str,
        /// Its number.
        index: usize,
        /// How many there can be.
        limit: usize,
    },
    /// A VIP directory could not be built.
    #[error("cannot build the directory of {family} VIPs: {reason:?}")]
    Directory {
        /// The family.
        family: &'static str,
        /// Why not.
        reason: BuildError,
    },
    /// A flow with addresses of two families.
    #[error("{0}")]
    Flow(String),
}

/// The operation in the BPF file system that an unprivileged process may not do.
pub(super) const PINNING: &str = "pin maps in the BPF file system";

/// Lines of the verifier's log that are shown: the last ones name the instruction and the reason.
const VERIFIER_LINES: usize = 6;

impl DataplaneError {
    /// Whether nothing can be pinned: there is no BPF file system, or no permission to write to it.
    pub fn forbids_pinning(&self) -> bool {
        matches!(self, Self::NotBpf(_) | Self::BpfNotMounted | Self::NotPermitted(PINNING))
    }

    /// The error of loading the object.
    pub(super) fn loading(program: &str, error: &EbpfError) -> Self {
        match error {
            EbpfError::ProgramError(error) => Self::program(program, error),
            other => match os_error(other) {
                Some(Errno::EPERM) => Self::NotPermitted("create BPF maps"),
                Some(Errno::ENOSYS) => Self::kernel("it has no bpf system call"),
                _ => Self::Load(chain(other)),
            },
        }
    }

    /// The error of loading a program into the kernel.
    pub(super) fn program(program: &str, error: &ProgramError) -> Self {
        match error {
            ProgramError::LoadError { verifier_log, .. } if !verifier_log.to_string().trim().is_empty() => {
                let log = verifier_log.to_string();
                let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
                let tail = lines[lines.len().saturating_sub(VERIFIER_LINES)..].join(" | ");
                Self::Verifier { program: program.to_owned(), tail }
            }
            other if os_error(other) == Some(Errno::EPERM) => Self::NotPermitted("load eBPF programs"),
            other => Self::Load(chain(other)),
        }
    }

    /// The error of a map operation.
    pub(super) fn map(map: &'static str, call: &'static str, error: &(dyn Error + 'static)) -> Self {
        let source = os_error(error).map_or_else(|| io::Error::other(chain(error)), io::Error::from);
        Self::MapCall { map, call, source }
    }

    /// A map that the object does not have: it and this crate are of different releases.
    pub(super) fn no_map(map: &'static str) -> Self {
        Self::map(map, "look-up", &MapError::ElementNotFound)
    }

    /// The running kernel lacks something.
    pub(super) fn kernel(reason: &str) -> Self {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_else(|_| "unknown".to_owned());
        Self::Kernel { release: release.trim().to_owned(), reason: reason.to_owned() }
    }
}

/// Where to look for the cause of a refusal.
fn probable(causes: Option<&str>) -> String {
    causes.map_or_else(|| "check its MTU, queues and offloads".to_owned(), |causes| format!("probably {causes}"))
}

/// A foreign program: by its name, or the command that shows it.
fn named(program: Option<&str>, id: u32) -> String {
    match program {
        Some(name) => format!("XDP program '{name}' (id {id})"),
        None => format!("XDP program {id} (`bpftool prog show id {id}`, as root, shows its name)"),
    }
}

/// The system call's error somewhere below.
pub(super) fn os_error(error: &(dyn Error + 'static)) -> Option<Errno> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(Errno::from_raw(code));
        }
        cause = error.source();
    }
    None
}

/// An error and its causes in one line, each once.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text.replace('\n', " | ")
}
