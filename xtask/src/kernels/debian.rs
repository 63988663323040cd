//! Debian's kernels: found, fetched and unpacked, never installed. Uses apt with the machine's sources, which must be those
//! of Debian 12 and its security updates, but with its own lists and cache. It must not know the tests.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::program;

/// A kernel, unpacked.
pub(crate) struct Kernel {
    /// The output of `uname -r`.
    pub(crate) release: String,
    /// The image.
    pub(crate) image: PathBuf,
    /// The modules to load before anything runs, in the order of [`MODULES`].
    pub(super) modules: Vec<PathBuf>,
}

/// A line of kernels, and the package that always depends on its newest.
struct Series {
    name: &'static str,
    newest: &'static str,
}

/// The modules, by their paths in a kernel's folder.
const MODULES: [&str; 21] = [
    "drivers/net/veth.ko",
    "net/sched/sch_ingress.ko",
    "net/sched/cls_bpf.ko",
    "net/llc/llc.ko",
    "net/802/stp.ko",
    "net/bridge/bridge.ko",
    "net/ipv4/ip_tunnel.ko",
    "net/ipv4/tunnel4.ko",
    "net/ipv4/ipip.ko",
    "net/ipv6/sit.ko",
    "net/ipv6/tunnel6.ko",
    "net/ipv6/ip6_tunnel.ko",
    "net/ipv4/udp_tunnel.ko",
    "net/ipv6/ip6_udp_tunnel.ko",
    "net/ipv4/fou.ko",
    "net/ipv6/fou6.ko",
    "net/802/garp.ko",
    "net/802/mrp.ko",
    "net/8021q/8021q.ko",
    "net/tls/tls.ko",
    "drivers/net/bonding/bonding.ko",
];

/// Long-term kernels: the one Debian 12 came with, and the one it offers since. The cloud flavour is the same source with
/// fewer drivers.
const SERIES: [Series; 2] = [
    Series { name: "6.1", newest: "linux-image-cloud-amd64" },
    Series { name: "6.12", newest: "linux-image-6.12-cloud-amd64" },
];

/// Every kernel, unpacked under `folder`; fetched if it is not there yet, or anyway if `update`.
///
/// # Errors
/// If a package cannot be found, fetched or unpacked, or lacks a needed file.
pub(super) fn kernels(folder: &Path, update: bool) -> Result<Vec<Kernel>> {
    provide(folder, &SERIES, update)
}

/// The kernel of the last series alone.
///
/// # Errors
/// As [`kernels`].
pub(super) fn newest(folder: &Path) -> Result<Kernel> {
    let [.., newest] = SERIES;
    provide(folder, &[newest], false)?.pop().context("no kernel")
}

fn provide(folder: &Path, all: &[Series], update: bool) -> Result<Vec<Kernel>> {
    let missing: Vec<&Series> = all.iter().filter(|series| update || !folder.join(series.name).is_dir()).collect();
    if !missing.is_empty() {
        let apt = Apt::new(folder)?;
        for series in missing {
            fetch(&apt, folder, series).with_context(|| format!("cannot get Debian's kernel {}", series.name))?;
        }
    }
    all.iter().map(|series| Kernel::in_folder(&folder.join(series.name))).collect()
}

/// Replaces the folder of a series by its newest kernel; after an error the old one stays.
fn fetch(apt: &Apt, folder: &Path, series: &Series) -> Result<()> {
    let newest = program::output(apt.command("apt-cache").args(["depends", series.newest]))?;
    let package = dependency(&newest).with_context(|| format!("{} depends on no kernel", series.newest))?;
    println!("kernels: fetching {package}");
    let (download, unpacked) = (folder.join("download"), folder.join("unpacked"));
    for rest in [&download, &unpacked] {
        remove(rest)?;
        fs::create_dir(rest)?;
    }
    program::run(apt.command("apt-get").args(["--quiet=2", "download", package]).current_dir(&download))?;
    let archive = only_entry(&download)?;
    program::run(program::command("dpkg-deb").arg("--extract").args([&archive, &unpacked]))?;
    remove(&download)?;
    let done = folder.join(series.name);
    remove(&done)?;
    fs::rename(&unpacked, &done).with_context(|| format!("cannot rename {}", unpacked.display()))
}

/// The kernel that a package depends on, in the output of `apt-cache depends`.
fn dependency(listing: &str) -> Option<&str> {
    listing
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-")))
}

impl Kernel {
    /// Its series, such as `6.12`.
    pub(crate) fn series(&self) -> String {
        let folder = self.image.ancestors().nth(2).and_then(Path::file_name).unwrap_or_default();
        folder.to_string_lossy().into_owned()
    }

    /// All modules of the kernel: the folder below `lib/modules`.
    pub(crate) fn modules_folder(&self) -> PathBuf {
        let roots = self.image.ancestors().skip(2).flat_map(|root| [root.join("lib"), root.join("usr/lib")]);
        let folders = roots.map(|lib| lib.join("modules").join(&self.release));
        folders.into_iter().find(|folder| folder.is_dir()).unwrap_or_default()
    }

    fn in_folder(folder: &Path) -> Result<Self> {
        let found = || {
            let boot = fs::read_dir(folder.join("boot")).ok()?;
            let image = boot.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-"))?;
            let release = image.file_name().to_string_lossy().trim_start_matches("vmlinuz-").to_owned();
            let roots = ["lib", "usr/lib"].map(|lib| folder.join(lib).join("modules").join(&release).join("kernel"));
            let module = |name: &str| {
                let files = roots.iter().flat_map(|root| ["", ".xz"].map(|end| root.join(format!("{name}{end}"))));
                files.into_iter().find(|file| file.is_file())
            };
            let modules = MODULES.into_iter().map(module).collect::<Option<Vec<_>>>()?;
            Some(Self { release, image: image.path(), modules })
        };
        let modules = MODULES.join(", ");
        found().with_context(|| format!("{} holds no kernel with {modules}; remove it and try again", folder.display()))
    }
}

/// apt, with its state in a separate folder.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Reads the package lists.
    fn new(folder: &Path) -> Result<Self> {
        for needed in ["apt-get", "apt-cache", "dpkg-deb"] {
            if program::find(needed).is_none() {
                bail!("`{needed}` is missing: Debian's kernels are fetched with apt");
            }
        }
        let apt = Self { folder: folder.join("apt") };
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.folder.join(part))
                .with_context(|| format!("cannot make {}", apt.folder.display()))?;
        }
        println!("kernels: reading Debian's package lists");
        program::run(apt.command("apt-get").args(["--quiet=2", "update"]))?;
        Ok(apt)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = program::command(name);
        let in_folder = |key: &str, part: &str| {
            let mut option = OsString::from(format!("{key}="));
            option.push(self.folder.join(part));
            option
        };
        for option in [
            in_folder("Dir::State::Lists", "lists"),
            in_folder("Dir::Cache", "cache"),
            "Acquire::Languages=none".into(),
            // The user that apt switches to may lack access to this folder.
            "APT::Sandbox::User=root".into(),
        ] {
            command.arg("--option").arg(option);
        }
        command
    }
}

/// Removes a folder, if it is there.
fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

fn only_entry(folder: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(folder)?;
    let entry = entries.next().with_context(|| format!("no file in {}", folder.display()))??;
    Ok(entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_dependency_of_the_package() {
        let listing = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n  Suggests: linux-doc\n";
        assert_eq!(dependency(listing), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(dependency("linux-image-cloud-amd64\n"), None);
    }
}
