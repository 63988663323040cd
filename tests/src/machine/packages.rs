//! Two releases as packages, on a disk for a machine: the one that `cargo xtask dist` built, and the same with a later version and another
//! eBPF object; of a node and of a backend, and the backends' server. It must not know how they are installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::parts;
use crate::{
    lab::binary,
    release::{self, Difference},
};

/// A node's packages on the disk: this release, and the next one.
pub const VERSIONS: [&str; 2] = ["maglev_1.deb", "maglev_2.deb"];
/// A backend's.
pub const DECAP_VERSIONS: [&str; 2] = ["maglev-decap_1.deb", "maglev-decap_2.deb"];
/// The node's program of the next release alone.
pub(super) const PROGRAM: &str = "maglevd_2";
/// The program that serves on backends.
const SERVER: &str = "maglev-lab";
/// The end of the next release's version.
const NEXT: &str = "+next";
/// The byte of its eBPF object that differs.
const BYTE: u8 = 1;

/// A disk with the packages.
#[derive(Debug)]
pub struct Packages {
    disk: PathBuf,
    /// The releases' versions.
    pub versions: [String; 2],
}

impl Packages {
    /// Makes the next release and the disk.
    ///
    /// # Errors
    /// If a tool fails, or a package was not built.
    pub fn new() -> Result<Self> {
        let parts = parts()?;
        let (folder, disk) = (parts.join("packages"), parts.join("packages.img"));
        renew(&folder)?;
        let mut version = String::new();
        for (name, versions) in [("maglev", VERSIONS), ("maglev-decap", DECAP_VERSIONS)] {
            let package = parts.join(format!("{name}.deb"));
            version = run(Command::new("dpkg-deb").arg("--field").arg(&package).arg("Version"))?.trim().to_owned();
            let [this, next] = versions.map(|name| folder.join(name));
            copy(&package, &this)?;
            make_next(&package, &parts.join("next"), &next)?;
        }
        copy(&parts.join("next/usr/bin/maglevd"), &folder.join(PROGRAM))?;
        copy(&binary(SERVER)?, &folder.join(SERVER))?;
        if disk.exists() {
            fs::remove_file(&disk).with_context(|| format!("cannot remove {}", disk.display()))?;
        }
        run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&folder).arg(&disk).arg("256M"))?;
        let versions = [version.clone(), version + NEXT];
        Ok(Self { disk, versions })
    }

    pub(super) fn disk(&self) -> &Path {
        &self.disk
    }
}

/// Unpacks the package, changes version and object, and packs it again.
fn make_next(package: &Path, unpacked: &Path, next: &Path) -> Result<()> {
    renew(unpacked)?;
    fs::remove_dir(unpacked)?;
    run(Command::new("dpkg-deb").arg("--raw-extract").args([package, unpacked]))?;
    let control = unpacked.join("DEBIAN/control");
    let text = fs::read_to_string(&control).with_context(|| format!("cannot read {}", control.display()))?;
    let changed = text.lines().map(|line| match line.starts_with("Version: ") {
        true => format!("{line}{NEXT}\n"),
        false => format!("{line}\n"),
    });
    fs::write(&control, changed.collect::<String>())?;
    let program = unpacked.join("usr/bin/maglevd");
    release::write_from(&program, &program, Difference::Digest(BYTE))?;
    run(Command::new("dpkg-deb").args(["--root-owner-group", "-Zzstd", "-z1", "--build"]).args([unpacked, next]))?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
}

/// An empty folder.
fn renew(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
