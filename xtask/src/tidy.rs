//! The invariants of the architecture that a machine can hold: who may name what, and where. Reads source text; what a
//! program means is the compiler's and clippy's business.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

mod edges;
mod rules;
mod sizes;
mod source;

use source::Source;

use crate::program;

/// Where Rust source stands; `target` and whatever else lies about is not ours.
const FOLDERS: [&str; 5] = ["maglev-common", "maglev-daemon", "maglev-ebpf", "tests", "xtask"];

/// A broken rule: a file, a line counted from 1, and what is wrong with the remedy.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    message: String,
}

/// Checks every source file against every rule.
///
/// # Errors
/// With the number of findings, each of which is printed.
pub(crate) fn run() -> Result<()> {
    let sources = sources(&program_root())?;
    let mut findings = rules::all(&sources);
    findings.extend(edges::check_modules(&sources));
    findings.extend(edges::check_crates(&dependencies()?));
    for Finding { path, line, message } in &findings {
        println!("{path}:{line}: {message}");
    }
    if !findings.is_empty() {
        bail!("{} invariants are broken", findings.len());
    }
    println!("lint: {} source files keep the invariants", sources.len());
    Ok(())
}

fn program_root() -> PathBuf {
    program::workspace()
}

/// The normal dependencies among the workspace's crates, by cargo.
fn dependencies() -> Result<BTreeSet<(String, String)>> {
    let mut command = program::command(program::cargo());
    let output = program::output(command.args(["metadata", "--no-deps", "--locked", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&output).context("cannot read what cargo metadata says")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = packages.iter().map(|package| text(&package["name"])).collect();
    let edges = packages.iter().flat_map(|package| {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
        normal.map(move |dependency| (text(&package["name"]), text(&dependency["name"])))
    });
    Ok(edges.filter(|(_, to)| names.contains(to)).collect())
}

/// Every Rust file of the workspace, in the order of its path.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut sources = Vec::with_capacity(files.len());
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let path = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
        sources.push(Source::new(path, text));
    }
    Ok(sources)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_file_is_found_and_generated_code_is_not() {
        let sources = sources(&program_root()).unwrap();
        assert!(sources.iter().any(|source| source.path == "xtask/src/tidy.rs"));
        assert!(sources.iter().all(|source| !source.path.contains("target/")));
    }
}
