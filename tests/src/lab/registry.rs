//! Which labs exist on this machine, the owner of each, and how one is removed, by its owner or after its owner's death.
//!
//! A lab has an id, `<pid>-<number>`. Its namespaces are called `mgl-<id>-<node>`, its files lie in
//! `/run/maglev-lab/<id>/`, what its daemons pin in `/sys/fs/bpf/maglev-lab/<id>/`, and its owner holds a lock on `lock` in
//! the former: the kernel drops that lock when the owner dies, however it dies, which distinguishes a crashed run from a
//! living one.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process,
    sync::OnceLock,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal};

use super::services::BPF;
use crate::netns::{Netns, ip_batch};

const ROOT: &str = "/run/maglev-lab";
/// While this file is in a lab's directory the lab outlives its owner.
const KEPT: &str = "kept";

/// The claim on a lab's id. Dropping it removes everything that carries the id.
#[derive(Debug)]
pub struct Claim {
    id: String,
    keep: bool,
    _lock: Flock<File>,
}

impl Claim {
    /// Removes what crashed runs left behind, then claims a new id. From here on Ctrl-C removes the lab as well.
    ///
    /// # Errors
    /// If the directory cannot be written, or an old lab not removed.
    pub fn new() -> Result<Self> {
        remove_on_interrupt();
        let _everyone = lock_all()?;
        for id in abandoned()? {
            remove(&id).with_context(|| format!("cannot remove the abandoned lab {id}"))?;
        }
        let id = (1..).map(|n| format!("{}-{n}", process::id())).find(|id| !directory(id).exists());
        let id = id.context("no lab id left")?;
        fs::create_dir(directory(&id)).with_context(|| format!("cannot make {}", directory(&id).display()))?;
        let lock = try_lock(&directory(&id))?.context("a new lab is locked by someone else")?;
        Ok(Self { id, keep: false, _lock: lock })
    }

    /// The directory of the lab's files.
    pub fn directory(&self) -> PathBuf {
        directory(&self.id)
    }

    /// The namespace of the node called `node`.
    pub fn netns(&self, node: &str) -> Netns {
        Netns::named(format!("{}{node}", prefix(&self.id)))
    }

    /// Lets the lab outlive its owner.
    ///
    /// # Errors
    /// If the mark cannot be written.
    pub fn keep(&mut self) -> Result<()> {
        fs::write(self.directory().join(KEPT), "").context("cannot mark the lab as kept")?;
        self.keep = true;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = remove(&self.id) {
            eprintln!("the lab {} is not wholly removed: {error:#}", self.id);
        }
    }
}

/// Removes the labs that were kept on purpose; returns how many.
///
/// # Errors
/// If one cannot be removed.
pub fn remove_kept() -> Result<usize> {
    let _everyone = lock_all()?;
    let kept: Vec<String> = all()?.into_iter().filter(|id| is_kept(id)).collect();
    for id in &kept {
        remove(id)?;
    }
    Ok(kept.len())
}

/// Ends the lab's processes, then removes its namespaces and files. Links go with their namespaces.
fn remove(id: &str) -> Result<()> {
    let namespaces = namespaces(id)?;
    for namespace in &namespaces {
        end_processes(namespace)?;
    }
    let lines: Vec<String> = namespaces.iter().map(|namespace| format!("netns del {}", namespace.name())).collect();
    ip_batch(&lines)?;
    // Objects that outlived their daemons.
    let _ = fs::remove_dir_all(Path::new(BPF).join("maglev-lab").join(id));
    match fs::remove_dir_all(directory(id)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("cannot remove its files"),
        _ => Ok(()),
    }
}

/// Kills what lives in the namespace and waits until it is gone, for an XDP program goes with its owner.
fn end_processes(namespace: &Netns) -> Result<()> {
    let own = Pid::this();
    let pids = namespace.processes()?.into_iter().map(Pid::from_raw).filter(|pid| *pid != own).collect::<Vec<_>>();
    for pid in pids {
        let mut tries = 0..500;
        while is_running(pid) && tries.next().is_some() {
            match kill(pid, Signal::SIGKILL) {
                Err(error) if error != Errno::ESRCH => return Err(error).with_context(|| format!("cannot kill {pid}")),
                _ => thread::sleep(Duration::from_millis(2)),
            }
        }
    }
    Ok(())
}

/// Whether the process runs; a zombie, which only waits for its parent, does not.
fn is_running(pid: Pid) -> bool {
    // "123 (name) S …": the name may hold anything, the state follows its last parenthesis.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn directory(id: &str) -> PathBuf {
    Path::new(ROOT).join(id)
}

fn prefix(id: &str) -> String {
    format!("mgl-{id}-")
}

fn is_kept(id: &str) -> bool {
    directory(id).join(KEPT).exists()
}

fn namespaces(id: &str) -> Result<Vec<Netns>> {
    let names = names_in(Path::new("/run/netns"))?;
    Ok(names.into_iter().filter(|name| name.starts_with(&prefix(id))).map(Netns::named).collect())
}

/// The ids of all labs on this machine, by their files or, where a run was cut off, by their namespaces.
fn all() -> Result<BTreeSet<String>> {
    let mut ids = names_in(Path::new(ROOT))?;
    ids.retain(|name| directory(name).is_dir());
    ids.extend(names_in(Path::new("/run/netns"))?.iter().filter_map(|name| id_of(name)));
    Ok(ids.into_iter().collect())
}

/// The lab that a namespace belongs to.
fn id_of(namespace: &str) -> Option<String> {
    let mut parts = namespace.strip_prefix("mgl-")?.splitn(3, '-');
    let (pid, number, _node) = (parts.next()?, parts.next()?, parts.next()?);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(pid) && is_number(number)).then(|| format!("{pid}-{number}"))
}

/// The ids of the labs whose owner is dead and did not mean to leave them.
fn abandoned() -> Result<Vec<String>> {
    let ownerless = |id: &String| !directory(id).exists() || matches!(try_lock(&directory(id)), Ok(Some(_)));
    Ok(all()?.into_iter().filter(|id| !is_kept(id) && ownerless(id)).collect())
}

fn names_in(directory: &Path) -> Result<Vec<String>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", directory.display())),
    }
}

/// The lock of one lab, unless its owner holds it.
fn try_lock(directory: &Path) -> Result<Option<Flock<File>>> {
    let file = File::create(directory.join("lock")).with_context(|| format!("in {}", directory.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", directory.display())),
    }
}

/// Held while ids are claimed or judged, so that a lab between its making and its lock is not treated as abandoned.
fn lock_all() -> Result<Flock<File>> {
    fs::create_dir_all(ROOT).with_context(|| format!("cannot make {ROOT}"))?;
    let file = File::create(Path::new(ROOT).join("lock")).with_context(|| format!("cannot write in {ROOT}"))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).context("cannot lock the labs")
}

/// On SIGINT, SIGTERM or SIGHUP: removes this process's labs and exits as a shell expects.
fn remove_on_interrupt() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        thread::spawn(|| match interrupted() {
            Ok(number) => {
                let own = format!("{}-", process::id());
                let labs = all().unwrap_or_default().into_iter().filter(|id| id.starts_with(&own) && !is_kept(id));
                for error in labs.filter_map(|id| remove(&id).err()) {
                    eprintln!("{error:#}");
                }
                process::exit(128 + number);
            }
            Err(error) => eprintln!("Ctrl-C will not clean up: {error:#}"),
        });
    });
}

/// Waits for a signal that asks the process to end; returns its number.
fn interrupted() -> Result<i32> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut int, mut term, mut hup) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
        Ok(tokio::select! {
            _ = int.recv() => Signal::SIGINT as i32,
            _ = term.recv() => Signal::SIGTERM as i32,
            _ = hup.recv() => Signal::SIGHUP as i32,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_names_its_lab() {
        assert_eq!(id_of("mgl-123-4-lb1").as_deref(), Some("123-4"));
        assert_eq!(id_of(Netns::named(format!("{}router", prefix("7-1"))).name()).as_deref(), Some("7-1"));
        for foreign in ["mgl-123-4", "mgl-x-4-lb1", "mgl--4-lb1", "other", "mgl-"] {
            assert_eq!(id_of(foreign), None, "{foreign}");
        }
    }
}
