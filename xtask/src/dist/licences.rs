//! The licence texts of everything that is linked into the programs, each text once. It must not know which licences are allowed: lint does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::Release;
use super::crates::Crates;

/// How the files with texts begin, in upper case.
const NAMES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// The parts of a static program that are no crates, and their texts.
const OTHERS: &str = "deploy/deb/licences-of-the-toolchain";

/// Writes the texts into one file.
///
/// # Errors
/// If a crate has no text, and its licence has none among those of the other crates.
pub(super) fn write(release: &Release, crates: &Crates) -> Result<PathBuf> {
    let mut by_text = BTreeMap::<String, Vec<String>>::new();
    let mut without = Vec::new();
    for one in crates.linked.iter().filter_map(|id| crates.all.get(id)).filter(|one| one.checksum.is_some()) {
        let name = format!("{} {} ({})", one.id.0, one.id.1, one.licence);
        let texts = texts(&one.folder)?;
        if texts.is_empty() {
            without.push(name.clone());
        }
        for text in texts {
            by_text.entry(text).or_default().push(name.clone());
        }
    }
    let others = release.root.join(OTHERS);
    let others = fs::read_to_string(&others).with_context(|| format!("cannot read {}", others.display()))?;
    let mut page = format!("The programs maglevd and maglev contain the following works.\n\n{others}");
    for (text, names) in by_text {
        page += &format!("\n{}\n{}\n\n{}\n", "=".repeat(78), names.join("\n"), text.trim_end());
    }
    if !without.is_empty() {
        page += &format!(
            "\n{}\nWithout a text of their own, under the licences named:\n{}\n",
            "=".repeat(78),
            without.join("\n")
        );
    }
    let file = release.work("third-party-licences");
    fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// The texts in a crate's folder, in the order of their names.
fn texts(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_text(path)).collect();
    files.sort();
    let read = |file: &PathBuf| match fs::read(file) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).replace("\r\n", "\n")),
        Err(error) => bail!("cannot read {}: {error}", file.display()),
    };
    files.iter().map(read).collect()
}

fn is_text(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    path.is_file() && NAMES.iter().any(|start| name.starts_with(start))
}
