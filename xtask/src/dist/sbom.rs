//! The bill of materials: a CycloneDX document of the crates, with licences and checksums. It is written here, and not by cargo-cyclonedx: that takes
//! four minutes to build, writes into the folders of the sources, and has no checksums.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Release;
use super::crates::{Crate, Crates, Id};
use crate::program;

/// Writes the document among the artefacts.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write(release: &Release, crates: &Crates) -> Result<PathBuf> {
    let file = release.out.join(format!("maglev-{}.cdx.json", release.version));
    let time = program::output(release.command("date").args(["-u", "+%FT%TZ"]).arg(format!("-d@{}", release.epoch)))?;
    let rustc = program::output(release.command(program::rustc()).arg("--version"))?;
    let standard_library = rustc.split(' ').nth(1).unwrap_or_default();
    let document = document(&release.version, time.trim(), standard_library, crates);
    let text = serde_json::to_string_pretty(&document).context("cannot write the bill of materials")?;
    fs::write(&file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

fn document(version: &str, time: &str, standard_library: &str, crates: &Crates) -> Value {
    let mut components: Vec<Value> = crates.all.values().map(|one| component(one, crates)).collect();
    // The parts of a static program that are no crates.
    components.push(json!({
        "type": "library", "bom-ref": "rust-std", "name": "rust-std", "version": standard_library, "scope": "required",
        "licenses": [{ "expression": "MIT OR Apache-2.0" }],
        "description": "The standard library, with the C library musl of the same toolchain (MIT)",
    }));
    let edges = |one: &Crate| {
        let on: Vec<String> = one.dependencies.iter().map(reference).collect();
        json!({ "ref": reference(&one.id), "dependsOn": on })
    };
    let roots: Vec<String> =
        crates.all.keys().filter(|id| crates.of_program.contains_key(&*id.0)).map(reference).collect();
    let mut dependencies = vec![json!({ "ref": "maglev", "dependsOn": roots })];
    dependencies.extend(crates.all.values().map(edges));
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time,
            "component": {
                "type": "application", "bom-ref": "maglev", "name": "maglev", "version": version,
                "licenses": [{ "expression": "MIT OR Apache-2.0" }],
            },
        },
        "components": components,
        "dependencies": dependencies,
    })
}

fn component(one: &Crate, crates: &Crates) -> Value {
    let Crate { id, licence, checksum, folder: _, dependencies: _ } = one;
    let scope = if crates.linked.contains(id) { "required" } else { "excluded" };
    let mut component = json!({
        "type": "library", "bom-ref": reference(id), "name": id.0, "version": id.1, "scope": scope,
        "licenses": [{ "expression": licence }],
    });
    if let Some(checksum) = checksum {
        component["purl"] = reference(id).into();
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

fn reference((name, version): &Id) -> String {
    format!("pkg:cargo/{name}@{version}")
}
