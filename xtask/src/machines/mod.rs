//! `cargo xtask test machines`: provides the parts of an emulated machine with Debian and systemd. It must not know the tests that boot
//! it.
//!
//! ```text
//!  dist ──▶ maglev.deb, maglev-decap.deb ──┐
//!  kernels (──▶ vmlinuz-*, modules) ──── ─┬─┴─▶ target/machines ──▶ the matrix, in the lab
//!  image (debootstrap ──▶ debian.img) ───┘
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::kernels::Kernel;
use crate::setup::{self, Package};
use crate::{dist, kernels, program};

mod image;

/// The folders of the parts, under the workspace: of all machines, and of the suite's.
pub(crate) const FOLDER: &str = "target/machines";
pub(crate) const ONE: &str = "target/machine";

/// The packages for the emulation.
const PACKAGES: [Package; 3] = [
    Package { name: "qemu-system-x86", program: "qemu-system-x86_64", reason: "emulates the node" },
    Package { name: "debootstrap", program: "debootstrap", reason: "makes the node's root file system" },
    Package { name: "e2fsprogs", program: "mke2fs", reason: "makes the node's disks" },
];

/// Provides kernels, disk and packages.
///
/// # Errors
/// If a part cannot be provided.
pub(crate) fn provide() -> Result<()> {
    if !program::is_root() {
        bail!("the machines need root: the rest of the lab is in network namespaces; try with sudo");
    }
    setup::packages(&PACKAGES, "the machines");
    let packages = dist::packages()?;
    place_system(FOLDER, &kernels::unpacked()?)?;
    place_packages(FOLDER, &packages)
}

/// Provides the newest kernel, a disk with it, and packages of the programs that are in `target/release`. Returns the reason if this
/// machine has no emulator, or kernel and disk cannot be had: both come from Debian's mirror.
///
/// # Errors
/// If the packages cannot be made.
pub(crate) fn provide_one() -> Result<Result<(), String>> {
    setup::packages(&PACKAGES, "the machine");
    if let Some(missing) = PACKAGES.iter().find(|package| program::find(package.program).is_none()) {
        return Ok(Err(format!("`{}` is missing (package {})", missing.program, missing.name)));
    }
    if let Err(error) = kernels::newest().and_then(|kernel| place_system(ONE, &[kernel])) {
        return Ok(Err(format!("{error:#}")));
    }
    place_packages(ONE, &dist::packages_of_built()?).map(Ok)
}

/// Puts kernels and a disk with their modules into a folder.
fn place_system(folder: &str, kernels: &[Kernel]) -> Result<()> {
    let folder = program::workspace().join(folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for kernel in kernels {
        copy(&kernel.image, &folder.join(format!("vmlinuz-{}", kernel.series())))?;
    }
    image::provide(&folder, kernels)
}

fn place_packages(folder: &str, packages: &[(&str, PathBuf)]) -> Result<()> {
    let folder = program::workspace().join(folder);
    packages.iter().try_for_each(|(name, package)| copy(package, &folder.join(format!("{name}.deb"))))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
}
