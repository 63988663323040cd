//! Waiting until every packet that was being handled has ended. It must not know what was unpublished.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

use super::error::DataplaneError;

/// `MEMBARRIER_CMD_GLOBAL`, of membarrier(2).
const GLOBAL: libc::c_int = 1;

/// A way to wait for an RCU grace period. XDP programs run inside RCU read sections, so whichever was running when the
/// wait began has ended when it returns: about 8 ms.
#[derive(Debug)]
pub(super) enum Barrier {
    /// The system call made for it.
    Membarrier,
    /// Where that is refused, because `nohz_full` CPUs run undisturbed: an update of a map of maps, which returns only
    /// after a grace period, so that no program still uses the map that was replaced.
    MapOfMaps {
        /// The outer map.
        outer: OwnedFd,
        /// What is put into it each time.
        inner: OwnedFd,
    },
}

impl Barrier {
    /// The first way that this kernel offers.
    pub(super) fn choose() -> Result<Self, DataplaneError> {
        match Self::Membarrier.wait() {
            Ok(()) => Ok(Self::Membarrier),
            Err(_) => Self::map_of_maps(),
        }
    }

    /// The second way.
    pub(super) fn map_of_maps() -> Result<Self, DataplaneError> {
        let inner = bpf::create(bpf::ARRAY, None).map_err(refused)?;
        let outer = bpf::create(bpf::ARRAY_OF_MAPS, Some(inner.as_raw_fd())).map_err(refused)?;
        let barrier = Self::MapOfMaps { outer, inner };
        barrier.wait()?;
        Ok(barrier)
    }

    /// Waits.
    pub(super) fn wait(&self) -> Result<(), DataplaneError> {
        match self {
            // SAFETY: the call takes three integers and touches no memory of this process.
            Self::Membarrier => Errno::result(unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) }).map(drop),
            Self::MapOfMaps { outer, inner } => bpf::update(outer.as_raw_fd(), inner.as_raw_fd()),
        }
        .map_err(refused)
    }
}

fn refused(errno: Errno) -> DataplaneError {
    match errno {
        Errno::EPERM => DataplaneError::NotPermitted("create BPF maps"),
        Errno::ENOSYS => DataplaneError::kernel("it has no bpf system call"),
        errno => DataplaneError::Barrier(errno),
    }
}

mod bpf {
    //! The two commands of bpf(2) that aya has no public function for: maps of maps come only from an object there.

    use super::{Errno, FromRawFd, OwnedFd, RawFd, libc};

    pub(super) const ARRAY: u32 = 2;
    pub(super) const ARRAY_OF_MAPS: u32 = 12;

    const MAP_CREATE: libc::c_int = 0;
    const MAP_UPDATE_ELEM: libc::c_int = 2;

    /// The start of `union bpf_attr` for `BPF_MAP_CREATE`.
    #[repr(C)]
    struct Create {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
        inner_map_fd: u32,
    }

    /// The start of `union bpf_attr` for `BPF_MAP_UPDATE_ELEM`.
    #[repr(C)]
    struct Update {
        map_fd: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }

    /// Creates an array of one entry: a number, or a map like `inner`.
    pub(super) fn create(map_type: u32, inner: Option<RawFd>) -> Result<OwnedFd, Errno> {
        let inner_map_fd = inner.unwrap_or(0) as u32;
        let attributes = Create { map_type, key_size: 4, value_size: 4, max_entries: 1, map_flags: 0, inner_map_fd };
        // SAFETY: the kernel reads exactly the given bytes of `attributes`, which has no padding.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, MAP_CREATE, &raw const attributes, size_of::<Create>()) };
        let fd = Errno::result(fd)? as RawFd;
        // SAFETY: the kernel made the descriptor for this call; nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Puts a map into the outer map's only entry.
    pub(super) fn update(outer: RawFd, inner: RawFd) -> Result<(), Errno> {
        let (index, map) = (0_u32, inner as u32);
        let (key, value) = ((&raw const index) as u64, (&raw const map) as u64);
        let attributes = Update { map_fd: outer as u32, padding: 0, key, value, flags: 0 };
        // SAFETY: the kernel reads exactly the given bytes of `attributes`, which has no padding, and four bytes each
        // of `index` and `map`, which live until the end of this function.
        let done = unsafe { libc::syscall(libc::SYS_bpf, MAP_UPDATE_ELEM, &raw const attributes, size_of::<Update>()) };
        Errno::result(done).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::Barrier;

    #[test]
    fn both_ways_to_wait_work_as_root() {
        Barrier::Membarrier.wait().unwrap();
        let second = Barrier::map_of_maps().unwrap();
        second.wait().unwrap();
        second.wait().unwrap();
    }
}
