//! The file of the counters that an option names. It must not know what is counted.

use std::path::Path;

use maglev_store::Kept;

/// The file of the counters, if any. A full disk does not end decapsulation: it is logged once, and the write is retried.
#[derive(Debug)]
pub(super) struct CountersFile<'a> {
    path: Option<&'a Path>,
    failed: bool,
}

impl<'a> CountersFile<'a> {
    pub(super) const fn new(path: Option<&'a Path>) -> Self {
        Self { path, failed: false }
    }

    pub(super) const fn is_wanted(&self) -> bool {
        self.path.is_some()
    }

    pub(super) fn replace(&mut self, text: &str) {
        let Some(path) = self.path else { return };
        match maglev_store::replace(path, format!("{text}\n").as_bytes(), Kept::UntilReboot { mode: 0o644 }) {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                tracing::warn!("{error}; decapsulation goes on");
                self.failed = true;
            }
            Err(_) => {}
        }
    }
}
