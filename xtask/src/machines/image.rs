//! The disk of a machine: a minimal Debian with systemd, the kernels' modules, static addresses, and a program that runs the commands that
//! arrive on a virtual port. It must not know the package under test.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::kernels::Kernel;
use crate::program;

/// Debian's release, the oldest that the packages are for.
const SUITE: &str = "bookworm";

/// What a server has beyond the required packages.
const INCLUDE: &str = "systemd,systemd-sysv,udev,dbus,kmod,iproute2";

/// The size of the disk; the file is sparse.
const SIZE: &str = "2G";

/// What is written into the root file system: path, mode, content.
const FILES: [(&str, u32, &str); 8] = [
    ("etc/hostname", 0o644, "lb1\n"),
    ("etc/fstab", 0o644, "/dev/nvme0n1 / ext4 rw 0 1\n/dev/vda /packages ext4 ro 0 0\n"),
    ("etc/modprobe.d/machine.conf", 0o644, "blacklist ahci\nblacklist kvm_amd\nblacklist powernow_k8\n"),
    ("etc/systemd/network/uplink.network", 0o644, include_str!("uplink.network")),
    ("etc/systemd/network/near.network", 0o644, include_str!("near.network")),
    ("etc/systemd/network/backend.network", 0o644, include_str!("backend.network")),
    ("etc/systemd/system/commands.service", 0o644, include_str!("commands.service")),
    ("usr/local/sbin/commands", 0o755, include_str!("commands.sh")),
];

/// What has no purpose in the machine, and takes an emulated one seconds.
const MASKED: [&str; 7] = [
    "serial-getty@ttyS0.service",
    "getty@tty1.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
];

/// Makes `debian.img` in `folder`, unless it is there for these kernels and files.
///
/// # Errors
/// If a step fails; then there is no new image.
pub(super) fn provide(folder: &Path, kernels: &[Kernel]) -> Result<()> {
    let (image, note) = (folder.join("debian.img"), folder.join("debian.made"));
    let releases: Vec<&str> = kernels.iter().map(|kernel| kernel.release.as_str()).collect();
    let made = format!("{SUITE} {INCLUDE} {SIZE} {releases:?} {FILES:?} {MASKED:?}");
    if image.is_file() && fs::read_to_string(&note).is_ok_and(|text| text == made) {
        return Ok(());
    }
    println!("machines: making a disk with Debian {SUITE}, about two minutes");
    let root = folder.join("root");
    remove(&root)?;
    let mut debootstrap = program::command("debootstrap");
    debootstrap.args(["--variant=minbase", &format!("--include={INCLUDE}"), SUITE]).arg(&root).arg(mirror()?);
    program::run(debootstrap.stdout(std::process::Stdio::null()))?;
    fill(&root, kernels)?;
    remove(&image)?;
    let mut disk = program::command("mke2fs");
    disk.args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(&image).arg(SIZE);
    program::run(&mut disk)?;
    remove(&root)?;
    fs::write(&note, made).with_context(|| format!("cannot write {}", note.display()))
}

/// Adds the kernels' modules, the files and the units to a fresh Debian.
fn fill(root: &Path, kernels: &[Kernel]) -> Result<()> {
    let modules = root.join("usr/lib/modules");
    fs::create_dir_all(&modules).with_context(|| format!("cannot make {}", modules.display()))?;
    for kernel in kernels {
        program::run(program::command("cp").arg("--archive").args([&kernel.modules_folder(), &modules]))?;
        program::run(inside(root).args(["depmod", &kernel.release]))?;
    }
    for (path, mode, content) in FILES {
        let file = root.join(path);
        fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
    }
    fs::create_dir_all(root.join("packages"))?;
    // The lists of packages are long, and the machine has no way to fetch more.
    program::run(inside(root).args(["sh", "-c", "rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb"]))?;
    program::run(inside(root).args(["systemctl", "mask"]).args(MASKED))?;
    program::run(inside(root).args(["systemctl", "enable", "systemd-networkd", "commands"]))
}

/// A program of the new Debian.
fn inside(root: &Path) -> Command {
    let mut command = program::command("chroot");
    command.arg(root).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// The mirror that this machine's apt uses for the suite.
fn mirror() -> Result<String> {
    let format = "$(CODENAME) $(COMPONENT) $(REPO_URI)";
    let mut apt = program::command("apt-get");
    let targets = program::output(apt.args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    let mirror = targets.lines().find_map(|line| line.strip_prefix(&format!("{SUITE} main ")));
    mirror.map(str::to_owned).with_context(|| format!("apt's sources have no main component of {SUITE}"))
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
