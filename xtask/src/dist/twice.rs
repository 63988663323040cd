//! The second build, from a copy of the sources in another folder, and its comparison with the first. It must not know what is built.

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{Release, sums};
use crate::program;

/// Builds everything again, and compares each artefact.
///
/// # Errors
/// Naming the artefacts that differ. The second build then stays, to be examined.
pub(super) fn compare(first: &Release) -> Result<()> {
    // Another path of another length.
    let folder = env::temp_dir().join(format!("maglev-dist-again-{}", std::process::id()));
    let root = folder.join("sources");
    copy_sources(&first.root, &root)?;
    let second = Release {
        root,
        out: folder.join("out"),
        version: first.version.clone(),
        package_version: first.package_version.clone(),
        epoch: first.epoch,
    };
    second.build()?;
    let mut different = Vec::new();
    for artefact in sums::artefacts(first)? {
        let name = artefact.file_name().unwrap_or_default().to_owned();
        if name.to_string_lossy().starts_with("SHA256SUMS") {
            continue;
        }
        let other = second.out.join(&name);
        let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        match read(&artefact)? == read(&other)? {
            true => println!("dist: twice the same: {}", name.display()),
            false => different.push(name.display().to_string()),
        }
    }
    if !different.is_empty() {
        bail!("these differ from their second build in {}: {}", second.out.display(), different.join(", "));
    }
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// Copies the files that git knows, as they are in the work tree.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    let mut git = program::command("git");
    let output =
        program::output(git.current_dir(from).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    for name in output.split('\0').filter(|name| !name.is_empty() && from.join(name).is_file()) {
        let file = to.join(name);
        let above = file.parent().unwrap_or(to);
        fs::create_dir_all(above).with_context(|| format!("cannot make {}", above.display()))?;
        fs::copy(from.join(name), &file).with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(())
}
