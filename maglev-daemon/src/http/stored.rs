//! The services as they are kept, and their history: reads of either are answered from it. It must not know how they are kept.

use std::sync::Arc;

use maglev_model::Services;
use maglev_store::{FileStore, Reader};

/// What the store holds after a commit, the parts of one moment.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// The services.
    pub services: Arc<Services>,
    /// The number of the last revision; 1 before anything was changed.
    pub revision: u64,
    /// The revisions.
    pub history: Reader,
}

impl From<&FileStore> for Stored {
    fn from(store: &FileStore) -> Self {
        Self { services: Arc::clone(store.services()), revision: store.revision(), history: store.reader() }
    }
}
