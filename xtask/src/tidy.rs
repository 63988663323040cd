//! The invariants that a machine can check in the text of sources and documents: which crate may name what, lengths, plain
//! words. The meaning of a program is left to the compiler and clippy.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

mod edges;
mod phrases;
mod rules;
mod sizes;
mod source;
mod words;

use source::Source;
use words::Document;

use crate::program;

/// The folders with Rust source.
const FOLDERS: [&str; 5] = ["maglev-common", "maglev-daemon", "maglev-ebpf", "tests", "xtask"];

/// The documents for operators and contributors.
const DOCUMENTS: [&str; 2] = ["CHANGELOG.md", "README.md"];
const DOCUMENT_FOLDERS: [&str; 2] = ["deploy", "docs"];

/// A broken rule: a file, a line counted from 1, and the error with its remedy.
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
    let documents = documents(&program_root())?;
    findings.extend(words::all(&sources, &documents));
    for Finding { path, line, message } in &findings {
        println!("{path}:{line}: {message}");
    }
    if !findings.is_empty() {
        bail!("{} invariants are broken", findings.len());
    }
    println!("lint: {} source files and {} documents keep the invariants", sources.len(), documents.len());
    Ok(())
}

fn program_root() -> PathBuf {
    program::workspace()
}

/// The normal dependencies among the workspace's crates, by cargo.
fn dependencies() -> Result<BTreeSet<(String, String)>> {
    let mut command = program::command(program::cargo());
    let output = program::output(command.args(["metadata", "--no-deps", "--locked", "--format-version", "1"]))?;
    let metadata: serde_json::Value =
        serde_json::from_str(&output).context("cannot parse the output of cargo metadata")?;
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
        collect(&root.join(folder), &["rs"], &mut files)?;
    }
    texts(root, files, Source::new)
}

/// Every text for users and administrators: documents, examples and units, in the order of its path.
fn documents(root: &Path) -> Result<Vec<Document>> {
    let mut files = DOCUMENTS.map(|file| root.join(file)).to_vec();
    for folder in DOCUMENT_FOLDERS {
        collect(&root.join(folder), &["md", "service", "toml", "yaml"], &mut files)?;
    }
    texts(root, files, |path, text| Document { path, text })
}

fn texts<T>(root: &Path, mut files: Vec<PathBuf>, read: impl Fn(String, String) -> T) -> Result<Vec<T>> {
    files.sort();
    let mut read_all = Vec::with_capacity(files.len());
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let path = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
        read_all.push(read(path, text));
    }
    Ok(read_all)
}

/// Adds the files below a folder whose names end in one of `extensions`.
fn collect(folder: &Path, extensions: &[&str], files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, extensions, files)?;
        } else if path.extension().is_some_and(|of_file| extensions.iter().any(|extension| of_file == *extension)) {
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

    #[test]
    fn documents_and_examples_are_found() {
        let documents = documents(&program_root()).unwrap();
        for path in ["README.md", "deploy/examples/maglev.yaml", "deploy/systemd/maglevd.service", "docs/cli.md"] {
            assert!(documents.iter().any(|document| document.path == path), "{path}");
        }
    }
}
