//! The crates that a release consists of: cargo's graph, narrowed to what is in the programs and what builds them. It must not know a
//! format in which they are listed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Release, programs};
use crate::program;

/// Name and version.
pub(super) type Id = (String, String);

/// A crate.
#[derive(Clone, Debug)]
pub(super) struct Crate {
    pub(super) id: Id,
    /// Its licence, as an SPDX expression.
    pub(super) licence: String,
    /// The folder of its sources.
    pub(super) folder: PathBuf,
    /// The SHA-256 of its archive, by `Cargo.lock`; none for crates of the workspace.
    pub(super) checksum: Option<String>,
    pub(super) dependencies: BTreeSet<Id>,
}

/// All crates, and those of each part.
#[derive(Debug)]
pub(super) struct Crates {
    pub(super) all: BTreeMap<Id, Crate>,
    /// Linked into a program or an eBPF object.
    pub(super) linked: BTreeSet<Id>,
    /// By the program's package: everything that it is made from, and the part of it that is linked.
    pub(super) of_program: BTreeMap<&'static str, (BTreeSet<Id>, BTreeSet<Id>)>,
}

/// The package of the eBPF objects, which `maglevd` embeds, and their target.
const OBJECTS: (&str, &str) = ("maglev-ebpf", "bpfel-unknown-none");

/// With macros and build scripts, and without.
const MADE_FROM: &str = "normal,build";
const LINKED: &str = "normal,no-proc-macro";

/// The version of the workspace's crates.
///
/// # Errors
/// If `Cargo.toml` has none.
pub(super) fn workspace_version(root: &Path) -> Result<String> {
    let manifest = root.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    let (_, section) = text.split_once("[workspace.package]").context("Cargo.toml has no [workspace.package]")?;
    let value = section.lines().find_map(|line| line.strip_prefix("version = "));
    Ok(value.context("[workspace.package] has no version")?.trim_matches('"').to_owned())
}

/// The crates of the release.
///
/// # Errors
/// If cargo's output cannot be read.
pub(super) fn list(release: &Release) -> Result<Crates> {
    let mut of_program = BTreeMap::new();
    let objects = tree(release, OBJECTS.0, OBJECTS.1, MADE_FROM)?;
    let mut linked = tree(release, OBJECTS.0, OBJECTS.1, LINKED)?;
    let mut used = objects;
    for package in ["maglev-daemon", "maglev-cli"] {
        let made_from = tree(release, package, programs::TARGET, MADE_FROM)?;
        let in_it = tree(release, package, programs::TARGET, LINKED)?;
        used.extend(made_from.iter().cloned());
        linked.extend(in_it.iter().cloned());
        of_program.insert(package, (made_from, in_it));
    }
    let mut all = graph(release)?;
    all.retain(|id, _| used.contains(id));
    all.values_mut().for_each(|one| one.dependencies.retain(|id| used.contains(id)));
    if let Some(unknown) = used.iter().find(|id| !all.contains_key(id)) {
        bail!("cargo metadata does not know {} {}", unknown.0, unknown.1);
    }
    Ok(Crates { all, linked, of_program })
}

/// The crates below a package by `cargo tree`, which decides features as the build does.
fn tree(release: &Release, package: &str, target: &str, edges: &str) -> Result<BTreeSet<Id>> {
    let mut cargo = release.command(program::cargo());
    cargo.args(["tree", "--locked", "--package", package, "--target", target, "--edges", edges]);
    let output = program::output(cargo.args(["--prefix", "none", "--format", "{p}"]))?;
    output.lines().filter(|line| !line.is_empty()).map(parse_line).collect()
}

/// `name v1.2.3`, and what follows.
fn parse_line(line: &str) -> Result<Id> {
    let mut words = line.split(' ');
    let id = words.next().zip(words.next().and_then(|version| version.strip_prefix('v')));
    id.map(|(name, version)| (name.to_owned(), version.to_owned()))
        .with_context(|| format!("cargo tree printed {line:?}, which is no crate"))
}

/// Every crate that `Cargo.lock` names, by `cargo metadata`.
fn graph(release: &Release) -> Result<BTreeMap<Id, Crate>> {
    let mut cargo = release.command(program::cargo());
    cargo.args(["metadata", "--locked", "--format-version", "1"]);
    // Of the crates of other systems, not even sources are fetched.
    let output = program::output(cargo.args(["--filter-platform", programs::TARGET, "--filter-platform", OBJECTS.1]))?;
    let metadata: Value = serde_json::from_str(&output).context("cannot parse the output of cargo metadata")?;
    let lock = release.root.join("Cargo.lock");
    let lock = fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let checksums = checksums(&lock);
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let ids: BTreeMap<&str, Id> = packages.iter().map(|package| (text(&package["id"]), id(package))).collect();
    let nodes = metadata["resolve"]["nodes"].as_array().context("cargo metadata has no graph")?;
    let edges: BTreeMap<&str, BTreeSet<Id>> =
        nodes.iter().map(|node| (text(&node["id"]), dependencies(node, &ids))).collect();
    let crates = packages.iter().map(|package| {
        let id = id(package);
        let folder = Path::new(text(&package["manifest_path"])).parent().unwrap_or(Path::new("/")).to_owned();
        // The older form of two licences.
        let licence = text(&package["license"]).replace('/', " OR ");
        let dependencies = edges.get(text(&package["id"])).cloned().unwrap_or_default();
        let checksum = checksums.get(&id).cloned();
        (id.clone(), Crate { id, licence, folder, checksum, dependencies })
    });
    Ok(crates.collect())
}

/// The dependencies of a node, those of tests apart.
fn dependencies(node: &Value, ids: &BTreeMap<&str, Id>) -> BTreeSet<Id> {
    let all = node["deps"].as_array().into_iter().flatten();
    let is_test = |kind: &Value| kind["kind"] == "dev";
    let used =
        all.filter(|dependency| !dependency["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().all(is_test)));
    used.filter_map(|dependency| ids.get(text(&dependency["pkg"])).cloned()).collect()
}

fn id(package: &Value) -> Id {
    (text(&package["name"]).to_owned(), text(&package["version"]).to_owned())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The checksums of `Cargo.lock`.
fn checksums(lock: &str) -> BTreeMap<Id, String> {
    let packages = lock.split("[[package]]").skip(1);
    let value = |package: &str, key: &str| {
        let start = format!("{key} = \"");
        let line = package.lines().find_map(|line| line.strip_prefix(&*start)?.strip_suffix('"'));
        line.map(str::to_owned)
    };
    let checksum = |package| Some(((value(package, "name")?, value(package, "version")?), value(package, "checksum")?));
    packages.filter_map(checksum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_cargo_tree_is_a_name_and_a_version() {
        let expected = ("serde_derive".to_owned(), "1.0.228".to_owned());
        for line in ["serde_derive v1.0.228 (proc-macro)", "serde_derive v1.0.228", "serde_derive v1.0.228 (/w/x) (*)"]
        {
            assert_eq!(parse_line(line).unwrap(), expected, "{line}");
        }
        assert!(parse_line("[build-dependencies]").is_err());
    }

    #[test]
    fn checksums_are_those_of_crates_of_a_registry() {
        let lock = "[[package]]\nname = \"own\"\nversion = \"0.1.0\"\ndependencies = [\n \"ring\",\n]\n\n\
                    [[package]]\nname = \"ring\"\nversion = \"0.17.14\"\nsource = \"registry\"\nchecksum = \"ab\"\n";
        let found = checksums(lock);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [(("ring".into(), "0.17.14".into()), "ab".into())]);
    }
}
