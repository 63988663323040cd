//! `maglevd check`: what is wrong with a node's files.

use std::path::Path;

use maglev_daemon::config;
use maglev_daemon::runtime::Failure;

use crate::say;

/// Reads the node file and the services file it names; prints one line if both are right.
pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let (node, services) = config::load(path)?;
    let backends = services.backend_count();
    let (vips, pools) = (services.vips.len(), services.pools.len());
    let (path, services) = (path.display(), node.services.display());
    say(&format!("ok: {path} and {services}: {vips} VIPs, {pools} pools, {backends} backends"))
}
