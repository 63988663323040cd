//! The program's trace of decisions, passed to the daemon's log. It must not know the content of a line.

use std::io;

use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::error::DataplaneError;
use super::object::Loaded;

/// The task that reads the trace; it ends with this.
#[derive(Debug)]
pub(super) struct Reader(JoinHandle<()>);

impl Reader {
    /// Starts reading. The records go to the `log` facade, which `tracing-subscriber` feeds into the daemon's log.
    pub(super) fn start(ebpf: &mut Loaded) -> Result<Self, DataplaneError> {
        let failed = |reason: String| DataplaneError::Load(format!("cannot read the trace: {reason}"));
        let runtime = Handle::try_current().map_err(|error| failed(error.to_string()))?;
        let Loaded::New(ebpf) = ebpf else { return Err(failed("an adopted program cannot be traced".to_owned())) };
        let logger = EbpfLogger::init(ebpf).map_err(|error| failed(error.to_string()))?;
        // SAFETY: the logger owns the ring buffer's file descriptor, never changes it, and closes it when it is
        // dropped, after `AsyncFd` deregistered it.
        let registered = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
        let mut logger = registered.map_err(|error| failed(error.to_string()))?;
        Ok(Self(runtime.spawn(async move {
            let ended: Result<(), io::Error> = async {
                loop {
                    let mut ready = logger.readable_mut().await?;
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
            }
            .await;
            if let Err(error) = ended {
                tracing::warn!(%error, "the trace of decisions ended");
            }
        })))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}
