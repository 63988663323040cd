//! Man pages and completions, which the programs themselves print. It must not know a command of theirs.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::Release;
use super::programs::Program;
use crate::program;

/// The files for reading and completing commands.
#[derive(Debug)]
pub(super) struct Manual {
    /// Man pages, such as `maglev-vip-add.1`.
    pub(super) pages: Vec<PathBuf>,
    /// The shell, and its script.
    pub(super) completions: Vec<(&'static str, String)>,
}

/// Has the programs write them.
///
/// # Errors
/// If a program does not run on this machine.
pub(super) fn write(release: &Release, programs: &[Program]) -> Result<Manual> {
    let folder = release.work("man");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut completions = Vec::new();
    for Program { name, file, .. } in programs {
        program::run(release.command(file).arg("man").arg(&folder))?;
        if *name == "maglev" {
            for shell in ["bash", "zsh", "fish"] {
                completions.push((shell, program::output(release.command(file).args(["completions", shell]))?));
            }
        }
    }
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut pages: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    pages.sort();
    Ok(Manual { pages, completions })
}
