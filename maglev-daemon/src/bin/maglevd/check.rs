//! `maglevd check`: what is wrong with a node's files.

use maglev_daemon::runtime::{self, Failure};
use std::path::Path;

use crate::say;

/// Reads the node file and the services file it names; prints one line if both are right. Warns of VIPs that could not be
/// served on this machine.
pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let (node, services) = maglev_store::load(path)?;
    let backends = services.backend_count();
    let (vips, pools) = (services.vips.len(), services.pools.len());
    // Files may be checked where netlink cannot be asked.
    for (vip, conflict) in runtime::conflicts(&node, &services).unwrap_or_default() {
        tracing::warn!(%vip, "on this machine this VIP would not be served: {conflict}");
    }
    let (path, services) = (path.display(), node.services.display());
    say(&format!("ok: {path} and {services}: {vips} VIPs, {pools} pools, {backends} backends"))
}
