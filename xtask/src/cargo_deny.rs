//! cargo-deny: the pinned release, and its build. It must not know what lint checks with it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{linker, program};

/// The release that `deploy/deny.toml` is written for.
pub(crate) const VERSION: &str = "0.20.2";

/// Settings of the release profile in place of cargo-deny's own, which optimise the whole program as one unit: the build is
/// most of the cost, and a check takes a second.
const PROFILE: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
];

/// The workspace's own cargo-deny, if it is the pinned release.
pub(crate) fn installed(workspace: &Path) -> Option<PathBuf> {
    let own = own(workspace);
    linker::is_version(&own, VERSION).then_some(own)
}

/// Builds cargo-deny into the workspace's own tools.
///
/// # Errors
/// If cargo cannot build it.
pub(crate) fn install(workspace: &Path) -> Result<PathBuf> {
    let tools = workspace.join(linker::TOOLS);
    let mut command = linker::without_cargo_environment(program::command(program::cargo()), &program::rustc());
    command.args(["install", "cargo-deny", "--version", VERSION, "--locked", "--force", "--quiet"]);
    command.arg("--root").arg(&tools).arg("--target-dir").arg(tools.join("build")).envs(PROFILE);
    program::run(&mut command)?;
    Ok(own(workspace))
}

fn own(workspace: &Path) -> PathBuf {
    workspace.join(linker::TOOLS).join("bin/cargo-deny")
}
