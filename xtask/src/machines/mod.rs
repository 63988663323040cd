//! `cargo xtask test machines`: provides the parts of an emulated machine with Debian and systemd. It must not know the tests that boot
//! it.
//!
//! ```text
//!  dist ──▶ maglev.deb ────────────────────┐
//!  kernels (──▶ vmlinuz-*, modules) ──── ─┬─┴─▶ target/machines ──▶ the matrix, in the lab
//!  image (debootstrap ──▶ debian.img) ───┘
//! ```

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, Package};
use crate::{dist, kernels, program};

mod image;

/// The folder of all parts, under the workspace.
pub(crate) const FOLDER: &str = "target/machines";

/// The packages for the emulation.
const PACKAGES: [Package; 3] = [
    Package { name: "qemu-system-x86", program: "qemu-system-x86_64", reason: "emulates the node" },
    Package { name: "debootstrap", program: "debootstrap", reason: "makes the node's root file system" },
    Package { name: "e2fsprogs", program: "mke2fs", reason: "makes the node's disks" },
];

/// Provides kernels, disk and package.
///
/// # Errors
/// If a part cannot be provided.
pub(crate) fn provide() -> Result<()> {
    if !program::is_root() {
        bail!("the machines need root: the rest of the lab is in network namespaces; try with sudo");
    }
    setup::packages(&PACKAGES, "the machines");
    let folder = program::workspace().join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let kernels = kernels::unpacked()?;
    for kernel in &kernels {
        copy(&kernel.image, &folder.join(format!("vmlinuz-{}", kernel.series())))?;
    }
    image::provide(&folder, &kernels)?;
    copy(&dist::node_package()?, &folder.join("maglev.deb"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}
