//! The pin folder: programs, links and maps that outlive the daemon lie there, in the BPF file system, under a lock that one daemon
//! holds. It must not know the forwarding state.
//!
//! ```text
//!  /sys/fs/bpf/maglev              locked by the daemon
//!    links/7                       the program's hold on the interface with index 7
//!    egress/7                      the hold of a backend's program on the egress of the same
//!    v1-6b3f0a9c41de-37/           a set: layout 1, of the object with this digest, its first map the kernel's 37th
//!      program, egress, FORWARDING, FLOWS, FLOWS_BEFORE, FRAGMENTS, COUNTS, DEVICES
//!      captured                   the program that captures, while it runs
//!      STATE                      the bytes that its daemon saved last
//!    trial                        the bytes that starts of this and other releases have in common
//! ```
//!
//! Two sets share the maps that one continues of the other: each pins them.
//!
//! The BPF file system takes no dots in names, so interfaces are named by their index.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::iter;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use aya::programs::ProgramInfo;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{major, minor};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::bpf::{self, LinkKind};
use super::error::{DataplaneError, PINNING};

/// The name of a set's program.
pub(super) const PROGRAM_PART: &str = "program";
/// The name of a set's program that captures, while it runs in the other one's place.
pub(super) const CAPTURED_PART: &str = "captured";
/// The name of a set's saved bytes.
const STATE_PART: &str = "STATE";
/// The name of the bytes that belong to no set.
const TRIAL: &str = "trial";

/// Where the BPF file system is mounted by convention, by the first process that needs it.
const BPF_FS: &str = "/sys/fs/bpf";

/// The folder of the links of a kind.
const fn links_folder(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Xdp => "links",
        LinkKind::Egress => "egress",
    }
}

/// A pin folder that this process alone uses.
#[derive(Debug)]
pub struct Pins {
    folder: PathBuf,
    /// The kernel releases it when the process dies. Without it the folder is only read.
    lock: Option<Flock<File>>,
}

/// A pinned link that holds a program on an interface.
#[derive(Debug)]
pub(super) struct PinnedLink {
    pub(super) link: OwnedFd,
    pub(super) path: PathBuf,
    /// The id of the program it holds.
    pub(super) program: u32,
}

impl Pins {
    /// Takes the folder for this process, and makes it if it is not there.
    ///
    /// # Errors
    /// Another daemon holds it; or it cannot be in the BPF file system.
    pub fn hold(folder: &Path) -> Result<Self, DataplaneError> {
        mount_if_needed(folder)?;
        loop {
            match lock(folder) {
                // Another daemon has just ended, and removed it.
                Err(DataplaneError::Pins { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                locked => return Ok(Self { folder: folder.to_owned(), lock: Some(locked?) }),
            }
        }
    }

    /// A folder that a daemon may hold, to be read.
    pub fn read(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), lock: None }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether nothing is pinned in it.
    pub fn is_empty(&self) -> bool {
        self.sets().next().is_none()
    }

    /// The sets in it. Other entries are not ours.
    pub(super) fn sets(&self) -> impl Iterator<Item = String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_set(name))
    }

    /// Where a part of a set lies.
    pub(super) fn part(&self, set: &str, part: &str) -> PathBuf {
        self.folder.join(set).join(part)
    }

    /// Pins the parts of a set, each under its name.
    pub(super) fn pin_set(&self, set: &str, parts: &[(&str, BorrowedFd<'_>)]) -> Result<(), DataplaneError> {
        let folder = self.folder.join(set);
        fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
        let pinned = parts.iter().try_for_each(|(name, fd)| pin(&folder.join(name), *fd));
        if pinned.is_err() {
            self.remove_set(set);
        }
        pinned
    }

    /// Pins the program that captures, in the place of one that another daemon left.
    pub(super) fn pin_captured(&self, set: &str, program: BorrowedFd<'_>) -> Result<(), DataplaneError> {
        self.unpin_captured(set);
        pin(&self.part(set, CAPTURED_PART), program)
    }

    /// Unpins it, if it is pinned.
    pub(super) fn unpin_captured(&self, set: &str) {
        let _ = fs::remove_file(self.part(set, CAPTURED_PART));
    }

    /// Unpins a set: the kernel frees everything that has no other holder.
    pub(super) fn remove_set(&self, set: &str) {
        let folder = self.folder.join(set);
        if let Err(error) = fs::remove_dir_all(&folder)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %folder.display(), %error, "cannot unpin");
        }
    }

    /// Unpins all sets but these.
    pub(super) fn remove_sets_but(&self, kept: &[&str]) {
        self.sets().filter(|set| !kept.contains(&&**set)).for_each(|set| self.remove_set(&set));
    }

    /// The set whose program a pinned link holds on an interface; without such a link, the only set there is.
    pub fn current(&self) -> Option<String> {
        let held: Vec<u32> = self.links(LinkKind::Xdp).ok()?.values().map(|link| link.program).collect();
        let is_held = |set: &str, part| {
            let program = ProgramInfo::from_pin(self.part(set, part)).map(|info| info.id());
            program.is_ok_and(|id| held.contains(&id))
        };
        let mut sets: Vec<String> = self.sets().collect();
        match sets.iter().position(|set| is_held(set, PROGRAM_PART) || is_held(set, CAPTURED_PART)) {
            Some(at) => Some(sets.swap_remove(at)),
            None => sets.pop().filter(|_| sets.is_empty()),
        }
    }

    /// Saves bytes with a set, in the place of those before: at no moment there are none, or a part.
    ///
    /// # Errors
    /// The kernel has no memory for them, or the file system refuses them.
    pub fn save_state(&self, set: &str, bytes: &[u8]) -> Result<(), DataplaneError> {
        save(&self.part(set, STATE_PART), bytes)
    }

    /// The bytes that were saved with a set last; `None` if there are none.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn state(&self, set: &str) -> Result<Option<Vec<u8>>, DataplaneError> {
        saved(&self.part(set, STATE_PART))
    }

    /// Removes the bytes that were saved with a set.
    pub fn forget_state(&self, set: &str) {
        let _ = fs::remove_file(self.part(set, STATE_PART));
    }

    /// Saves bytes that belong to no set, as [`Self::save_state`] does.
    ///
    /// # Errors
    /// As for it.
    pub fn save_trial(&self, bytes: &[u8]) -> Result<(), DataplaneError> {
        save(&self.folder.join(TRIAL), bytes)
    }

    /// The bytes that belong to no set; `None` if there are none.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn trial(&self) -> Result<Option<Vec<u8>>, DataplaneError> {
        saved(&self.folder.join(TRIAL))
    }

    /// Ends every link and unpins everything, also what another release left; returns whether there was anything.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn uninstall(self) -> Result<bool, DataplaneError> {
        let (xdp, egress) = (self.links(LinkKind::Xdp)?, self.links(LinkKind::Egress)?);
        let there = !(xdp.is_empty() && egress.is_empty() && self.is_empty());
        xdp.into_values().chain(egress.into_values()).for_each(PinnedLink::end);
        self.remove_all();
        Ok(there)
    }

    /// Unpins everything but links.
    pub(super) fn remove_all(&self) {
        self.remove_sets_but(&[]);
        let _ = fs::remove_file(self.folder.join(TRIAL));
    }

    /// Pins a link that holds a program on an interface; returns where.
    pub(super) fn pin_link(&self, kind: LinkKind, index: u32, link: BorrowedFd<'_>) -> Result<PathBuf, DataplaneError> {
        let folder = self.folder.join(links_folder(kind));
        fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
        let path = folder.join(index.to_string());
        // An interface that had the same index, and is gone.
        let _ = fs::remove_file(&path);
        pin(&path, link)?;
        Ok(path)
    }

    /// The pinned links of a kind by the index of their interface. Those whose interface is gone are removed.
    pub(super) fn links(&self, kind: LinkKind) -> Result<BTreeMap<u32, PinnedLink>, DataplaneError> {
        let folder = self.folder.join(links_folder(kind));
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            entries => entries.map_err(failed("read", &folder))?,
        };
        let mut links = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(failed("read", &folder))?.path();
            let link = open(&path)?;
            let info = bpf::link_info(link.as_fd(), kind).map_err(|errno| failed("inspect", &path)(errno.into()))?;
            match info.interface {
                0 if self.lock.is_none() => {}
                0 => fs::remove_file(&path).map_err(failed("remove", &path))?,
                index => {
                    links.insert(index, PinnedLink { link, path, program: info.program });
                }
            }
        }
        Ok(links)
    }
}

impl Drop for Pins {
    /// Removes the folder if it is empty, and those above it that were made for it.
    fn drop(&mut self) {
        if self.lock.is_none() {
            return;
        }
        for kind in [LinkKind::Xdp, LinkKind::Egress] {
            let _ = fs::remove_dir(self.folder.join(links_folder(kind)));
        }
        let above = self.folder.ancestors().skip(1);
        let above = above.take_while(|folder| folder.starts_with(BPF_FS) && *folder != Path::new(BPF_FS));
        for folder in iter::once(&*self.folder).chain(above) {
            // The kernel refuses it where something is pinned.
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
}

/// Takes the lock on a folder, which is made if it is not there. "Not found" if it was removed meanwhile.
fn lock(folder: &Path) -> Result<Flock<File>, DataplaneError> {
    fs::create_dir_all(folder).map_err(failed("create", folder))?;
    let file = File::open(folder).map_err(failed("open", folder))?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(file, errno)| match errno {
        Errno::EWOULDBLOCK => DataplaneError::PinsInUse { folder: folder.to_owned(), holder: holder(&file) },
        errno => failed("lock", folder)(errno.into()),
    })?;
    let number = |metadata: io::Result<fs::Metadata>| metadata.map(|metadata| metadata.ino());
    let locked = number(lock.metadata()).map_err(failed("inspect", folder))?;
    match number(fs::metadata(folder)).map_err(failed("inspect", folder))? {
        there if there == locked => Ok(lock),
        _ => Err(failed("lock", folder)(io::ErrorKind::NotFound.into())),
    }
}

/// Whether a name is one of a set: `v1-6b3f0a9c41de-37` of a load balancer, `decap-v1` of a backend.
fn is_set(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(layout) = name.strip_prefix("decap-v") {
        return is_number(layout);
    }
    let parts = name.strip_prefix('v').map(|rest| rest.split('-').collect::<Vec<_>>());
    matches!(parts.as_deref(), Some([layout, digest, map])
        if is_number(layout) && is_number(map) && digest.len() == 12 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl PinnedLink {
    /// Ends the program's hold on the interface.
    pub(super) fn end(self) {
        let Self { link, path, program: _ } = self;
        let removed = fs::remove_file(&path);
        if let Err(error) = removed.and(bpf::detach(link.as_fd()).map_err(io::Error::from)) {
            tracing::warn!(link = %path.display(), %error, "a program could not be detached from its interface");
        }
    }
}

/// Opens a pinned object.
pub(super) fn open(path: &Path) -> Result<OwnedFd, DataplaneError> {
    bpf::get(&c_path(path)?).map_err(|errno| failed("open", path)(errno.into()))
}

/// Pins these bytes in the place of those that are there.
fn save(path: &Path, bytes: &[u8]) -> Result<(), DataplaneError> {
    let map = bpf::create_value(bytes).map_err(|errno| failed("save", path)(errno.into()))?;
    let mut aside = path.as_os_str().to_owned();
    aside.push("-new");
    let aside = Path::new(&aside);
    // Of a daemon that ended in between.
    let _ = fs::remove_file(aside);
    pin(aside, map.as_fd())?;
    fs::rename(aside, path).map_err(failed("replace", path))
}

fn saved(path: &Path) -> Result<Option<Vec<u8>>, DataplaneError> {
    if !path.exists() {
        return Ok(None);
    }
    let info = MapInfo::from_pin(path).map_err(|error| failed("open", path)(io::Error::other(error.to_string())))?;
    let map = open(path)?;
    let value = bpf::read_value(map.as_fd(), info.value_size());
    value.map(Some).map_err(|errno| failed("read", path)(errno.into()))
}

fn pin(path: &Path, fd: BorrowedFd<'_>) -> Result<(), DataplaneError> {
    bpf::pin(&c_path(path)?, fd).map_err(|errno| failed("pin to", path)(errno.into()))
}

fn c_path(path: &Path) -> Result<CString, DataplaneError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|error| failed("name", path)(error.into()))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataplaneError {
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => DataplaneError::NotPermitted(PINNING),
        _ => DataplaneError::Pins { action, path: path.to_owned(), source },
    }
}

/// Ensures that the folder is in the BPF file system, or will be once it is made.
fn mount_if_needed(folder: &Path) -> Result<(), DataplaneError> {
    if is_bpf(folder)? {
        return Ok(());
    }
    if !folder.starts_with(BPF_FS) {
        return Err(DataplaneError::NotBpf(folder.to_owned()));
    }
    // A second process must not mount another one over the first.
    let below = File::open(BPF_FS).map_err(failed("open", Path::new(BPF_FS)))?;
    let _lock = Flock::lock(below, FlockArg::LockExclusive)
        .map_err(|(_, errno)| failed("lock", Path::new(BPF_FS))(errno.into()))?;
    if is_bpf(folder)? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), BPF_FS, Some("bpf"), flags, Some("mode=0700")).map_err(|errno| match errno {
        Errno::EPERM | Errno::EACCES => DataplaneError::BpfNotMounted,
        errno => failed("mount the BPF file system at", Path::new(BPF_FS))(errno.into()),
    })?;
    tracing::info!(at = BPF_FS, "mounted the BPF file system");
    Ok(())
}

/// Whether a path, or its existing part, is in the BPF file system.
fn is_bpf(path: &Path) -> Result<bool, DataplaneError> {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let found = statfs(existing).map_err(|errno| failed("inspect", existing)(errno.into()))?;
    Ok(found.filesystem_type() == BPF_FS_MAGIC)
}

/// The holder of the lock on an open file, if the kernel reports it: `1: FLOCK ADVISORY WRITE 4711 00:1b:2 0 EOF`.
fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let device = metadata.dev();
    let wanted = format!("{:02x}:{:02x}:{}", major(device), minor(device), metadata.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let mut fields = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = fields.find(|fields| fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&wanted.as_str()))?;
    line.get(4)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sets_are_taken_for_sets() {
        assert!(is_set("v1-6b3f0a9c41de-37") && is_set("v12-000000000000-1") && is_set("decap-v1"));
        for other in [
            "links",
            "egress",
            "decap",
            "decap-v",
            "decap-v1x",
            "cilium",
            "v1",
            "v1-6b3f0a9c41de",
            "v1-6b3f0a9c41de-",
            "vx-6b3f0a9c41de-37",
        ] {
            assert!(!is_set(other), "{other}");
        }
    }
}
