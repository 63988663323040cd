//! The seam between a node and what keeps its services: a file beside it, or what a fleet shares. It must not know either.

use std::fmt;
use std::sync::Arc;

use maglev_model::Services;
use tokio::sync::watch;

use crate::{Commit, Reader, Stamp};

/// Keeps the services, revision by revision. One thread owns it: a commit may take as long as a disk or a network does.
pub trait ServiceStore: Send {
    /// The services that are kept, and the number of their revision: 1 before anything was changed.
    fn load(&self) -> (Arc<Services>, u64);

    /// Keeps changes to the revision that they expect: once this returns, they survive a power cut. `unix_milliseconds` is the
    /// present time. Returns the revision that they led to.
    ///
    /// # Errors
    /// Another change came first, or why they cannot be kept; nothing changed.
    fn commit(&mut self, commit: Commit, unix_milliseconds: u64) -> Result<u64, NotKept>;

    /// The history as it grows, whoever adds to it.
    fn watch(&self) -> watch::Receiver<Reader>;

    /// Drops old revisions, if there are too many. It may take as long as reading all services does.
    fn tidy(&mut self) {}

    /// This version of the file that operators edit says what is kept: it may be replaced.
    fn read_again(&mut self, stamp: Option<Stamp>) {
        let _ = stamp;
    }
}

/// Why a commit was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// It was made of another revision than this last one.
    Conflict {
        /// The last revision.
        revision: u64,
    },
    /// One line, which names the file and the step, or says that `services.yaml` was edited since it was read.
    Failed(String),
}

impl fmt::Display for NotKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { revision } => write!(f, "revision {revision} came first; try again"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}
