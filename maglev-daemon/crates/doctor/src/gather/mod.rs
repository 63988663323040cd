//! Facts that files of the host show: modes, settings of the kernel, memory, interrupts, the clock. It must not know netlink, nor what
//! is right.

mod machine;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::facts::{Fact, File, Mode, Pin, Role};

/// The files of a host.
#[derive(Clone, Debug)]
pub struct Gather {
    /// Where its root is: tests have another one.
    root: PathBuf,
}

impl Default for Gather {
    fn default() -> Self {
        Self { root: PathBuf::from("/") }
    }
}

impl Gather {
    /// The host below another root.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn read(&self, path: &str) -> Fact<String> {
        fs::read_to_string(self.at(path)).map_err(|error| format!("cannot read {path}: {error}"))
    }

    fn number<T: std::str::FromStr>(&self, path: &str) -> Fact<T> {
        let text = self.read(path)?;
        text.trim().parse().map_err(|_| format!("{path} holds no number: {:?}", text.trim()))
    }

    /// The larger value of an IPv4 setting of `all` and of an interface, as the kernel uses it, of the calling thread's network
    /// namespace.
    pub fn of_interface(&self, interface: &str, key: &str) -> Fact<u32> {
        let of = |name: &str| self.number::<u32>(&format!("/proc/sys/net/ipv4/conf/{name}/{key}"));
        Ok(of("all")?.max(of(interface)?))
    }

    /// Whether eBPF programs are compiled: not 0. `None` in a network namespace other than the first.
    pub fn jit(&self) -> Fact<Option<u32>> {
        const FILE: &str = "/proc/sys/net/core/bpf_jit_enable";
        let is_shown = self.at(FILE).exists() || !self.at("/proc/sys/net/core").exists();
        is_shown.then(|| self.number(FILE)).transpose()
    }
}

/// A file's mode and owner.
pub fn file(path: &Path, role: Role) -> File {
    let found = match fs::metadata(path) {
        Ok(found) => Ok(Some(Mode { bits: found.mode() & 0o7777, owner: found.uid() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    };
    File { path: path.display().to_string(), role, found }
}

/// The folder for pins, and whether it is, or would be made, in a BPF file system.
pub fn pin(folder: &Path) -> Pin {
    let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let kind = statfs(existing).map(|found| found.filesystem_type() == BPF_FS_MAGIC);
    let is_bpf = kind.map_err(|errno| format!("cannot ask for the file system of {}: {errno}", existing.display()));
    Pin { folder: folder.display().to_string(), is_bpf }
}
