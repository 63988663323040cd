//! The archive for systems without packages: programs, units, pages, completions, examples. It must not know which files there are.

use std::path::PathBuf;

use anyhow::Result;

use super::Release;
use super::tree::{self, Entry};
use crate::program;

/// Where the archive is written.
pub(super) fn file(release: &Release) -> PathBuf {
    release.out.join(format!("{}.tar.gz", name(release)))
}

/// The folder in the archive.
fn name(release: &Release) -> String {
    format!("maglev-{}-x86_64-linux", release.version)
}

/// Writes the archive.
///
/// # Errors
/// If a file is missing, or `tar` fails.
pub(super) fn build(release: &Release, entries: &[Entry]) -> Result<()> {
    tree::place(entries, &release.work(&name(release)))?;
    let mut tar = release.command("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]);
    tar.arg(format!("--mtime=@{}", release.epoch)).arg("--use-compress-program=gzip -9n");
    program::run(tar.arg("-cf").arg(file(release)).arg("-C").arg(release.work("")).arg(name(release)))
}
