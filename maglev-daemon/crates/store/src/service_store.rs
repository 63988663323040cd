//! The interface between a node and the store of its services: a file beside it, or a store shared by a fleet. It must not know either.

use std::fmt;
use std::sync::Arc;

use maglev_model::Services;
use tokio::sync::watch;

use crate::{Commit, Reader, Stamp};

/// The content of a store, the parts of one moment.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// The services.
    pub services: Arc<Services>,
    /// The number of the last revision; 1 before anything was changed.
    pub revision: u64,
    /// The revisions that are kept.
    pub history: Reader,
}

/// Keeps the services, revision by revision. One thread owns it: a commit may take as long as a disk or a network does.
pub trait ServiceStore: Send {
    /// The stored services.
    fn load(&self) -> Stored;

    /// Keeps changes to the revision that they expect: once this returns, they survive a power cut. `unix_milliseconds` is the
    /// present time. Returns the revision that they led to.
    ///
    /// # Errors
    /// Another change came first, or why they cannot be kept; nothing changed.
    fn commit(&mut self, commit: Commit, unix_milliseconds: u64) -> Result<u64, NotKept>;

    /// The stored services, after each commit.
    fn watch(&self) -> watch::Receiver<Stored>;

    /// Drops old revisions, if there are too many. It may take as long as reading all services does.
    fn tidy(&mut self) {}

    /// This version of the file that operators edit holds the stored services: it may be replaced.
    fn read_again(&mut self, stamp: Option<Stamp>) {
        let _ = stamp;
    }
}

/// Why a commit was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// It was based on a revision other than the last one.
    Conflict {
        /// The last revision.
        revision: u64,
    },
    /// One line, which names the file and the step, or reports that `services.yaml` was edited since it was read.
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
