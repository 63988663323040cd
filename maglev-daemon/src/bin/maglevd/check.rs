//! `maglevd check`: every mistake in a node's files.

use maglev_daemon::runtime::{self, Failure};
use std::path::Path;

use crate::say;

/// Reads the node file and the services file it names; prints one line if both are valid. Warns of VIPs that this
/// machine cannot serve.
pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let (node, services) = maglev_store::load(path)?;
    let backends = services.backend_count();
    let (vips, pools) = (services.vips.len(), services.pools.len());
    // Files may be checked without access to netlink.
    for (vip, conflict) in runtime::conflicts(&node, &services).unwrap_or_default() {
        tracing::warn!(%vip, "this machine cannot serve this VIP: {conflict}");
    }
    let (path, services) = (path.display(), node.services.display());
    say(&format!("ok: {path} and {services}: {vips} VIPs, {pools} pools, {backends} backends"))
}
