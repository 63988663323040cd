//! Waiting until every packet that was being handled has ended. It must not know which data was unpublished.

use std::os::fd::AsFd;

use aya::maps::{ArrayOfMaps, Map, MapData, MapError};
use nix::errno::Errno;
use nix::libc;

use super::bpf;
use super::error::{DataplaneError, os_error};

/// `MEMBARRIER_CMD_GLOBAL`, of membarrier(2).
const GLOBAL: libc::c_int = 1;

/// A method of waiting for an RCU grace period. XDP programs run inside RCU read sections, so each program that ran when the
/// wait began has ended when it returns: about 8 ms.
#[derive(Debug)]
pub(super) enum Barrier {
    /// The system call made for it.
    Membarrier,
    /// Where that is refused, because `nohz_full` CPUs run undisturbed: an update of a map of maps, which returns only
    /// after a grace period, so that no program still uses the map that was replaced. The outer map, and the one that is
    /// put into it each time.
    MapOfMaps(Box<(ArrayOfMaps<MapData>, MapData)>),
}

impl Barrier {
    /// The first method that this kernel offers.
    pub(super) fn choose() -> Result<Self, DataplaneError> {
        match Self::Membarrier.wait() {
            Ok(()) => Ok(Self::Membarrier),
            Err(_) => Self::map_of_maps(),
        }
    }

    /// The second method.
    pub(super) fn map_of_maps() -> Result<Self, DataplaneError> {
        let inner = bpf::create_array(None).map_err(refused)?;
        let outer = bpf::create_array(Some(inner.as_fd())).map_err(refused)?;
        let maps = MapData::from_fd(outer)
            .and_then(|outer| Ok((Map::ArrayOfMaps(outer).try_into()?, MapData::from_fd(inner)?)));
        let mut barrier = Self::MapOfMaps(Box::new(maps.map_err(|error| refused(errno(&error)))?));
        barrier.wait()?;
        Ok(barrier)
    }

    /// Waits.
    pub(super) fn wait(&mut self) -> Result<(), DataplaneError> {
        match self {
            // SAFETY: the call takes three integers and touches no memory of this process.
            Self::Membarrier => Errno::result(unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) }).map(drop),
            Self::MapOfMaps(maps) => maps.0.set(0, &maps.1, 0).map_err(|error| errno(&error)),
        }
        .map_err(refused)
    }
}

fn errno(error: &MapError) -> Errno {
    os_error(error).unwrap_or(Errno::EIO)
}

fn refused(errno: Errno) -> DataplaneError {
    match errno {
        Errno::EPERM => DataplaneError::NotPermitted("create BPF maps"),
        Errno::ENOSYS => DataplaneError::kernel("it has no bpf system call"),
        errno => DataplaneError::Barrier(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::Barrier;

    #[test]
    fn both_methods_of_waiting_work_as_root() {
        Barrier::Membarrier.wait().unwrap();
        let mut second = Barrier::map_of_maps().unwrap();
        second.wait().unwrap();
        second.wait().unwrap();
    }
}
