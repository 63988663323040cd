//! The two files: `maglev.yaml` (this node) and `services.yaml` (the same on every node), decoded into domain types.
//! All errors are reported at once, each with its line and field path. It must not know who asks or what runs.

use std::path::Path;

use crate::model::{Rules, Services};

mod bgp;
mod bounds;
mod decode;
mod drain;
mod health;
mod interfaces;
mod node;
#[cfg(test)]
mod numbers;
mod problem;
mod services;
mod store;
mod tree;

pub use health::{check_text, parse_check, parse_override};
pub use interfaces::{Interface, Mode};
pub use node::{NodeConfig, OnStop};
pub use problem::{Problem, Problems};
pub use services::{decode as decode_services, encode as encode_services};
pub use store::{Stamp, persist, replace, sync};

/// Reads both files of a node.
///
/// # Errors
/// Everything that is wrong with either.
pub fn load(path: &Path) -> Result<(NodeConfig, Services), Problems> {
    let mut problems = Problems::default();
    let draft = match store::read(path) {
        Ok(text) => node::decode(path, &text),
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
/// Everything that is wrong with it.
pub fn load_node(path: &Path) -> Result<NodeConfig, Problems> {
    let draft = node::decode(path, &store::read(path)?);
    match draft.config {
        Some(config) if draft.problems.is_empty() => Ok(config),
        _ => Err(draft.problems),
    }
}

/// Reads `services.yaml`. A file that does not exist holds no services: that is a node's first start.
///
/// # Errors
/// Everything that is wrong with it on a node with these rules.
pub fn load_services(path: &Path, rules: &Rules) -> Result<Services, Problems> {
    match store::read_if_present(path)? {
        Some(text) => services::decode(path, &text, rules),
        None => Ok(Services::default()),
    }
}

/// Reads `services.yaml` while services run: a file that is gone is no order to remove them all.
///
/// # Errors
/// As [`load_services`], and that there is no file.
pub fn reload_services(path: &Path, rules: &Rules) -> Result<Services, Problems> {
    match store::read_if_present(path)? {
        Some(text) => services::decode(path, &text, rules),
        None => {
            let message = "there is no such file; one without services says `pools: []` and `vips: []`";
            Err(Problem::of_file(path, message).into())
        }
    }
}

#[cfg(test)]
mod tests;
