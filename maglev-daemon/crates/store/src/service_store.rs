//! The seam between a node and what keeps its services: a file beside it, or what a fleet shares. It must not know either.

use std::fmt;
use std::sync::Arc;

use maglev_model::Services;
use tokio::sync::watch;

use crate::{Commit, Reader, Stamp};

/// What a store holds, the parts of one moment.
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
    /// What is kept.
    fn load(&self) -> Stored;

    /// Keeps changes to the revision that they expect: once this returns, they survive a power cut. `unix_milliseconds` is the
    /// present time. Returns the revision that they led to.
    ///
    /// # Errors
    /// Another change came first, or why they cannot be kept; nothing changed.
    fn commit(&mut self, commit: Commit, unix_milliseconds: u64) -> Result<u64, NotKept>;

    /// What is kept, after each commit.
    fn watch(&self) -> watch::Receiver<Stored>;

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
