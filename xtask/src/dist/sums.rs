//! The artefacts, their sizes and sums, and the signature of the sums. It must not know how an artefact is made.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Release, archive, deb};
use crate::program;

/// The file of the sums. Its signature has `.sig` behind that.
const SUMS: &str = "SHA256SUMS";

/// What a signature is for: one for another purpose does not verify.
pub(super) const NAMESPACE: &str = "maglev-release";

/// The artefacts, whether or not of this version, in the order of their names.
///
/// # Errors
/// If the folder cannot be read.
pub(super) fn artefacts(release: &Release) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(&release.out).with_context(|| format!("cannot read {}", release.out.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

/// Writes the sums of all artefacts, signs them, and prints the list.
///
/// # Errors
/// If an artefact is missing, or the key does not sign.
pub(super) fn write(release: &Release, key: Option<&Path>) -> Result<()> {
    for expected in deb::NAMES.map(|name| deb::file(release, name)).into_iter().chain([archive::file(release)]) {
        expected.metadata().with_context(|| format!("{} is missing", expected.display()))?;
    }
    let sums = release.out.join(SUMS);
    let names =
        |files: &[PathBuf]| files.iter().filter_map(|file| file.file_name().map(ToOwned::to_owned)).collect::<Vec<_>>();
    let artefacts = artefacts(release)?;
    let text = program::output(release.command("sha256sum").current_dir(&release.out).args(names(&artefacts)))?;
    fs::write(&sums, &text).with_context(|| format!("cannot write {}", sums.display()))?;
    if let Some(key) = key {
        sign(release, key, &sums)?;
    }
    for (line, file) in text.lines().zip(&artefacts) {
        let bytes = file.metadata().with_context(|| format!("cannot inspect {}", file.display()))?.len();
        println!("dist: {bytes:>9} bytes  {line}");
    }
    println!(
        "dist: {} has these sums{}",
        sums.display(),
        if key.is_some() { ", and SHA256SUMS.sig its signature" } else { "" }
    );
    Ok(())
}

/// A detached signature beside the sums, by OpenSSH: Debian has it everywhere, and the key may be in an agent or a token.
fn sign(release: &Release, key: &Path, sums: &Path) -> Result<()> {
    let key = fs::canonicalize(key).with_context(|| format!("--sign {}: cannot be read", key.display()))?;
    let mut ssh = release.command("ssh-keygen");
    program::run(ssh.args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"]).arg(key).arg(sums))
}
