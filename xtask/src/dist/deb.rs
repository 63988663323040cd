//! Debian packages, written by `dpkg-deb`: it sorts files, gives them to root, and takes times from `SOURCE_DATE_EPOCH`. It must not know
//! which files there are.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Release;
use super::tree::{self, Entry};
use crate::program;

/// The packages, by their folders in `deploy/deb`.
pub(super) const NAMES: [&str; 2] = ["maglev", "maglev-decap"];

/// Debian's name of the target.
pub(super) const ARCHITECTURE: &str = "amd64";

/// As in the field `Maintainer`.
pub(super) const MAINTAINER: &str = "The Maglev authors <maintainers@maglev.invalid>";

/// The programs that dpkg runs before and after it changes files.
const SCRIPTS: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];

/// A version as Debian's policy has it, without an epoch.
pub(super) fn parse_version(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".+~-".contains(&byte);
    if text.bytes().next().is_some_and(|byte| byte.is_ascii_digit()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a version; allowed: a digit, then letters, digits, and . + ~ -"))
}

/// Where a package is written.
pub(super) fn file(release: &Release, name: &str) -> PathBuf {
    release.out.join(format!("{name}_{}_{ARCHITECTURE}.deb", release.package_version))
}

/// Writes a package.
///
/// # Errors
/// If a file is missing, or `dpkg-deb` fails.
pub(super) fn build(release: &Release, name: &str, entries: &[Entry]) -> Result<()> {
    let folder = release.work(name);
    tree::place(entries, &folder)?;
    let control = folder.join("DEBIAN");
    fs::create_dir(&control).with_context(|| format!("cannot make {}", control.display()))?;
    fs::set_permissions(&control, fs::Permissions::from_mode(0o755))?;
    let own = release.root.join("deploy/deb").join(name);
    let mut files: Vec<&str> = entries.iter().map(|entry| &*entry.to).collect();
    files.sort_unstable();
    write(&control.join("control"), &fields(release, &own, &folder, &files)?, 0o644)?;
    let in_etc = files.iter().filter(|file| file.starts_with("etc/"));
    write(&control.join("conffiles"), &in_etc.map(|file| format!("/{file}\n")).collect::<String>(), 0o644)?;
    let sums = program::output(release.command("md5sum").current_dir(&folder).args(&files))?;
    write(&control.join("md5sums"), &sums, 0o644)?;
    for script in SCRIPTS {
        write(&control.join(script), &read(&own.join(script))?, 0o755)?;
    }
    let mut pack = release.command("dpkg-deb");
    // One thread: blocks of several threads depend on their number.
    pack.args(["--root-owner-group", "--threads-max=1", "-Zxz", "-z9", "--build"])
        .arg(&folder)
        .arg(file(release, name));
    program::run(&mut pack)
}

/// The fields of a package: those of its file `control`, and those that are known only now.
fn fields(release: &Release, own: &Path, folder: &Path, files: &[&str]) -> Result<String> {
    let mut blocks = 0;
    for file in files {
        let file = folder.join(file);
        let bytes = file.metadata().with_context(|| format!("cannot inspect {}", file.display()))?.len();
        blocks += bytes.div_ceil(1_024);
    }
    let replaced = read(&own.join("control"))?
        .replace("{version}", &release.package_version)
        .replace("{architecture}", ARCHITECTURE)
        .replace("{maintainer}", MAINTAINER)
        .replace("{size}", &blocks.to_string());
    Ok(replaced)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn write(file: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    fs::set_permissions(file, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_one_of_debian() {
        for version in ["0.1.0-1", "1.0~rc1-1", "0.1.0+git3-1"] {
            assert_eq!(parse_version(version).as_deref(), Ok(version));
        }
        for version in ["", "v1", "1:0", "1 0", "../x"] {
            assert!(parse_version(version).unwrap_err().contains("allowed"), "{version}");
        }
    }

    #[test]
    fn no_script_ignores_a_failure() {
        for (name, script) in NAMES.iter().flat_map(|name| SCRIPTS.map(|script| (name, script))) {
            let text = read(&program::workspace().join("deploy/deb").join(name).join(script)).unwrap();
            assert!(text.starts_with("#!/bin/sh\n") && text.contains("\nset -e\n"), "{name}/{script}");
            assert!(!text.contains("|| true") && !text.contains("|| :"), "{name}/{script}");
        }
    }
}
