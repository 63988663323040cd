//! The kernel's resources that a daemon holds, as /proc and the BPF file system show them. It must not know how much is allowed.

use std::{
    collections::BTreeSet,
    fs, io,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::lab::Balancer;

/// The pause between two readings that must agree, and how long they may differ: a timer of the daemon may hold a socket for a moment.
const PAUSE: Duration = Duration::from_millis(200);
const CALM_WITHIN: Duration = Duration::from_secs(5);

/// The resources of one daemon at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Resident memory in bytes, mapped BPF maps included.
    pub(super) resident: u64,
    /// Resident memory in bytes that is the process's own: heap and stacks.
    pub(super) own: u64,
    /// What is counted.
    pub(super) counts: Counts,
}

/// Objects that a daemon holds, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// File descriptors.
    pub(super) descriptors: usize,
    /// Threads.
    pub(super) threads: usize,
    /// Objects below the pin folder.
    pub(super) pins: usize,
    /// BPF maps of which it has a descriptor, by their ids.
    pub(super) maps: usize,
    /// Mappings of BPF maps.
    pub(super) mappings: usize,
    /// BPF programs of which it has a descriptor, by their ids.
    pub(super) programs: usize,
    /// BPF links of which it has a descriptor, by their ids.
    pub(super) links: usize,
}

impl Counts {
    /// Each kind by its name.
    pub(super) fn named(self) -> [(&'static str, usize); 7] {
        let Self { descriptors, threads, pins, maps, mappings, programs, links } = self;
        [
            ("descriptors", descriptors),
            ("threads", threads),
            ("pinned objects", pins),
            ("BPF maps", maps),
            ("mappings of BPF maps", mappings),
            ("BPF programs", programs),
            ("BPF links", links),
        ]
    }
}

impl Usage {
    /// What the daemon holds once two readings in a row agree in their counts; the last one if none do.
    ///
    /// # Errors
    /// If the daemon is gone.
    pub(super) fn calm(balancer: &Balancer) -> Result<Self> {
        let (began, mut last) = (Instant::now(), Self::now(balancer)?);
        loop {
            thread::sleep(PAUSE);
            let now = Self::now(balancer)?;
            if now.counts == last.counts || began.elapsed() > CALM_WITHIN {
                return Ok(now);
            }
            last = now;
        }
    }

    fn now(balancer: &Balancer) -> Result<Self> {
        let process = PathBuf::from("/proc").join(balancer.process_id().to_string());
        let read = |name: &str| {
            let path = process.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let status = read("status")?;
        let mappings = read("maps")?.lines().filter(|line| line.ends_with("anon_inode:bpf-map")).count();
        let descriptors = descriptors(&process.join("fdinfo"))?;
        let ids = |key: &str| descriptors.iter().filter_map(|info| field(info, key)).collect::<BTreeSet<_>>().len();
        let counts = Counts {
            descriptors: descriptors.len(),
            threads: field(&status, "Threads").context("no number of threads")? as usize,
            pins: balancer.pinned_objects()?,
            maps: ids("map_id"),
            mappings,
            programs: ids("prog_id"),
            links: ids("link_id"),
        };
        let bytes = |key: &str| field(&status, key).map(|kibibytes| kibibytes * 1_024).context(key.to_owned());
        Ok(Self { resident: bytes("VmRSS")?, own: bytes("RssAnon")?, counts })
    }
}

/// What the kernel says of each descriptor. One that is closed meanwhile is none.
fn descriptors(folder: &PathBuf) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut descriptors = Vec::new();
    for entry in entries {
        match fs::read_to_string(entry?.path()) {
            Ok(info) => descriptors.push(info),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("in {}", folder.display())),
        }
    }
    Ok(descriptors)
}

/// The number after `key:` at a line's start.
fn field(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "VmRSSx:\t1 kB\nVmRSS:\t  5120 kB\nThreads:\t4\n";
        assert_eq!((field(status, "VmRSS"), field(status, "Threads")), (Some(5_120), Some(4)));
        assert_eq!((field(status, "Thread"), field(status, "map_id")), (None, None));
    }
}
