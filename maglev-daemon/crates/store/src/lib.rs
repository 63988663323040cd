//! The files of a node and of a backend: read, and replaced so that a crash leaves either the old or the new one. It must not know its
//! callers, nor the running state.

use std::path::Path;

use maglev_config::{DecapConfig, NodeConfig, Problem, Problems};
use maglev_config::{decode_decap, decode_node, decode_services, decode_services_since};
use maglev_model::{Rules, Services};

mod atomic_file;
mod file;
mod handover;
mod history;
mod sealed;
mod service_store;
mod services;
#[cfg(test)]
mod tests;

pub use atomic_file::{Kept, remove, replace};
pub use file::Stamp;
pub use handover::{Part, seal, seal_list, unseal};
pub use history::{Author, KEPT, MOST_BACKENDS, Reader, Revision};
pub use sealed::Content;
pub use service_store::{NotKept, ServiceStore, Stored};
pub use services::{Commit, Edited, FileStore, history_path, revision_of, with_revision};

/// Reads both files of a node.
///
/// # Errors
/// All errors of either.
pub fn load(path: &Path) -> Result<(NodeConfig, Services), Problems> {
    let mut problems = Problems::default();
    let draft = match file::read(path) {
        Ok(text) => decode_node(path, &text, file::read_secret),
        Err(problem) => return Err(problem.into()),
    };
    problems.extend(draft.problems);
    let services = match &draft.services {
        Some(path) => load_services(path, &draft.rules).unwrap_or_else(|found| {
            problems.extend(found);
            Services::default()
        }),
        None => Services::default(),
    };
    match draft.config {
        Some(config) if problems.is_empty() => Ok((config, services)),
        _ => Err(problems),
    }
}

/// Reads `maglev.yaml` alone.
///
/// # Errors
/// All its errors.
pub fn load_node(path: &Path) -> Result<NodeConfig, Problems> {
    let draft = decode_node(path, &file::read(path)?, file::read_secret);
    match draft.config {
        Some(config) if draft.problems.is_empty() => Ok(config),
        _ => Err(draft.problems),
    }
}

/// Reads `decap.yaml`, a backend's file.
///
/// # Errors
/// All its errors.
pub fn load_decap(path: &Path) -> Result<DecapConfig, Problems> {
    decode_decap(path, &file::read(path)?)
}

/// Reads `services.yaml`. A file that does not exist holds no services: that is a node's first start.
///
/// # Errors
/// All its errors on a node with these rules.
pub fn load_services(path: &Path, rules: &Rules) -> Result<Services, Problems> {
    match file::read_if_present(path)? {
        Some(text) => decode_services(path, &text, rules),
        None => Ok(Services::default()),
    }
}

/// Reads `services.yaml` while services run; unchanged pools need not be read again. A missing file is not an order to
/// remove them all.
///
/// # Errors
/// As [`load_services`], and that there is no file.
pub fn reload_services(path: &Path, rules: &Rules, known: &Services) -> Result<(Services, Edited), Problems> {
    let stamp = Stamp::read(path);
    match file::read_if_present(path)? {
        Some(text) => Ok((decode_services_since(path, &text, rules, known)?, Edited { stamp, text })),
        None => {
            let message = "there is no such file; one without services says `pools: []` and `vips: []`";
            Err(Problem::new(path, message).into())
        }
    }
}
