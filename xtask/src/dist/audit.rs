//! The list of crates inside each program, in the section that scanners read: `.dep-v0`, compressed JSON, in the format of cargo-auditable.
//! cargo-auditable itself is not used: cargo hashes the path of its wrapper into the names of symbols, so that a program would depend on
//! the folder it is built in.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};

use super::Release;
use super::crates::{Crates, Id};
use super::programs::Program;
use crate::program;

/// Copies the programs, and puts its list into each.
///
/// # Errors
/// If objcopy fails.
pub(super) fn embed(release: &Release, programs: &[Program], crates: &Crates) -> Result<Vec<Program>> {
    let folder = release.work("programs");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let embed_one = |from: &Program| {
        let to = Program { file: folder.join(from.name), ..from.clone() };
        let list = folder.join(format!("{}.dep-v0", from.name));
        let packed = packed(&list_of(crates, from.package)).context("cannot compress the list of crates")?;
        fs::write(&list, packed).with_context(|| format!("cannot write {}", list.display()))?;
        let mut objcopy = release.command("objcopy");
        objcopy.arg(format!("--add-section=.dep-v0={}", list.display()));
        objcopy.arg("--set-section-flags=.dep-v0=noload,readonly").args([&from.file, &to.file]);
        program::run(&mut objcopy)?;
        Ok(to)
    };
    programs.iter().map(embed_one).collect()
}

/// The crates that a package is made from, each with the numbers of its dependencies.
fn list_of(crates: &Crates, package: &str) -> Value {
    let Some((made_from, linked)) = crates.of_program.get(package) else { return Value::Null };
    let numbers: BTreeMap<&Id, usize> = made_from.iter().zip(0..).collect();
    let packages = made_from.iter().map(|id| {
        let one = crates.all.get(id);
        let dependencies = one.into_iter().flat_map(|one| &one.dependencies).filter_map(|id| numbers.get(id));
        let source = if one.is_some_and(|one| one.checksum.is_some()) { "crates.io" } else { "local" };
        let mut entry = json!({
            "name": id.0, "version": id.1, "source": source, "dependencies": dependencies.collect::<Vec<_>>(),
        });
        if !linked.contains(id) {
            entry["kind"] = "build".into();
        }
        if id.0 == package {
            entry["root"] = true.into();
        }
        entry
    });
    json!({ "packages": packages.collect::<Vec<_>>() })
}

fn packed(list: &Value) -> Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(list.to_string().as_bytes())?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::super::crates::Crate;
    use super::*;

    #[test]
    fn dependencies_are_named_by_their_numbers() {
        let id = |name: &str| (name.to_owned(), "1.0.0".to_owned());
        let of = |name: &str, dependencies: &[&str], checksum: Option<&str>| Crate {
            id: id(name),
            licence: "MIT".into(),
            folder: PathBuf::new(),
            checksum: checksum.map(str::to_owned),
            dependencies: dependencies.iter().map(|name| id(name)).collect(),
        };
        let list = [of("cc", &[], Some("c")), of("own", &["cc", "ring"], None), of("ring", &["cc"], Some("r"))];
        let made_from: BTreeSet<Id> = list.iter().map(|one| one.id.clone()).collect();
        let linked: BTreeSet<Id> = ["own", "ring"].map(id).into();
        let crates = Crates {
            all: list.into_iter().map(|one| (one.id.clone(), one)).collect(),
            linked: linked.clone(),
            of_program: [("own", (made_from, linked))].into(),
        };
        let expected = json!({ "packages": [
            { "name": "cc", "version": "1.0.0", "source": "crates.io", "dependencies": [], "kind": "build" },
            { "name": "own", "version": "1.0.0", "source": "local", "dependencies": [0, 2], "root": true },
            { "name": "ring", "version": "1.0.0", "source": "crates.io", "dependencies": [0] },
        ] });
        assert_eq!(list_of(&crates, "own"), expected);
    }
}
