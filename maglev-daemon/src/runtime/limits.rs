//! The system's limits for the daemon. It must not know their use.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files to the highest that is allowed: each health check under way has one, and so has each client
/// of the API.
pub(super) fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| match soft < hard {
        true => setrlimit(Resource::RLIMIT_NOFILE, hard, hard),
        false => Ok(()),
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "open files: cannot raise the limit");
    }
}
