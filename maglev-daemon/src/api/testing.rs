//! What tests of the API, the runtime and the command line share: a directory for their sockets and files, and views
//! that they change where it matters.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::view;
use crate::model::TransitionSettings;

/// A new directory under the system's temporary one, removed when dropped.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("maglev-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An active backend of pool `web` that owns every slot and can be reached.
pub(crate) fn backend(name: &str) -> view::Backend {
    view::Backend {
        pool: "web".into(),
        name: name.into(),
        address: [10, 0, 1, 11].into(),
        weight: 100,
        state: view::BackendState::Active,
        since: None,
        slots: 65_537,
        share: 1.0,
        learning_slots: 0,
        pinned_flows: Some(0),
        health: None,
        next_hop: view::NextHop::Resolved { interface: "eth0".into(), mac: "02:00:00:00:00:09".into(), gateway: None },
    }
}

/// Pool `web` in short.
pub(crate) fn summary() -> view::PoolSummary {
    let view::Pool { name, tracking, transition, in_transition, panic, health, table_digest, .. } = pool();
    let (backends, usable) = (1, 1);
    view::PoolSummary { name, tracking, transition, in_transition, panic, health, table_digest, backends, usable }
}

/// Pool `web` without backends.
pub(crate) fn pool() -> view::Pool {
    view::Pool {
        name: "web".into(),
        tracking: view::Tracking::Exception,
        transition: TransitionSettings::default().into(),
        in_transition: view::InTransition { pinned_flows: Some(0), ..view::InTransition::default() },
        panic: false,
        health: None,
        table_digest: "1234".into(),
        vips: Vec::new(),
        usable: 0,
        backends: Vec::new(),
    }
}
