//! Waiting until every packet that was being handled has ended. It must not know what was unpublished.

use nix::errno::Errno;
use nix::libc;

use super::error::DataplaneError;

/// `MEMBARRIER_CMD_GLOBAL`: membarrier(2).
const GLOBAL: libc::c_int = 1;

/// Waits for an RCU grace period. XDP programs run inside RCU read sections, so whichever was running when this began
/// has ended when it returns: about 8 ms.
pub(super) fn wait() -> Result<(), DataplaneError> {
    // SAFETY: the call takes three integers and touches no memory of this process.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    Errno::result(done).map(drop).map_err(DataplaneError::Barrier)
}

/// Asks at start whether the kernel can wait: it refuses where `nohz_full` CPUs run undisturbed.
pub(super) fn probe() -> Result<(), DataplaneError> {
    wait()
}
