//! Installation, upgrade and purge of a package in a folder with a minimal Debian, without systemd running. It must not know how the package
//! is made.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Release, deb};
use crate::program;

/// Debian's release, the oldest that the packages are for.
const SUITE: &str = "bookworm";

/// Where others than the package write while it is installed and removed.
const OF_OTHERS: [&str; 11] = [
    "./etc/.pwd.lock",
    "./etc/group",
    "./etc/gshadow",
    "./etc/passwd",
    "./etc/shadow",
    "./packages",
    "./tmp/",
    "./usr/share/man/",
    "./var/cache/",
    "./var/lib/",
    "./var/log/",
];

/// Below a folder of others, the package's own: never allowed.
const OWN: &str = "maglev";

/// Installs, upgrades, removes and purges a package, and names the files that it leaves.
///
/// # Errors
/// If a step fails or a file is left.
pub(super) fn run(release: &Release, name: &str) -> Result<()> {
    let base = base(release)?;
    let root = release.work("chroot");
    remove(&root)?;
    program::run(release.command("cp").arg("--archive").args([&base, &root]))?;
    let package = deb::file(release, name);
    let newer = newer(release, name, &package)?;
    let packages = root.join("packages");
    fs::create_dir(&packages).with_context(|| format!("cannot make {}", packages.display()))?;
    fs::copy(&package, packages.join("first.deb")).with_context(|| format!("cannot copy {}", package.display()))?;
    fs::copy(&newer, packages.join("second.deb")).with_context(|| format!("cannot copy {}", newer.display()))?;
    let inside = Inside { release, root: &root };

    let before = inside.files()?;
    inside.apt(&["install", "/packages/first.deb"])?;
    installed(&inside, name)?;
    inside.apt(&["install", "/packages/second.deb"])?;
    let state = format!("var/lib/{name}/previous/maglevd");
    if fs::read(root.join(&state)).ok() != fs::read(root.join("usr/bin/maglevd")).ok() {
        bail!("after an upgrade, /{state} is not the previous program");
    }
    inside.apt(&["remove", name])?;
    if !inside.root.join("etc/maglev").is_dir() || !inside.root.join(&state).is_file() {
        bail!("a removal took the configuration or the state, which are for purge");
    }
    inside.apt(&["purge", name])?;
    let after = inside.files()?;
    let left: Vec<&String> = after.difference(&before).filter(|file| is_left(file)).collect();
    if !left.is_empty() {
        bail!("a purge leaves {left:?}");
    }
    let user = inside.output(&["getent", "passwd", "maglev"])?;
    println!("check: purged {name}: no file is left, and the user: {}", user.trim());
    remove(&root)
}

/// The state after the first installation.
fn installed(inside: &Inside<'_>, name: &str) -> Result<()> {
    let expect = |command: &[&str], expected: &str| {
        let found = inside.output(command)?;
        match found.trim() == expected {
            true => Ok(()),
            false => bail!("`{}` prints {:?}; expected: {expected:?}", command.join(" "), found.trim()),
        }
    };
    expect(&["stat", "--format", "%a %U %G", "/etc/maglev"], "2750 root maglev")?;
    expect(&["stat", "--format", "%a %U %G", &format!("/var/lib/{name}")], "750 maglev maglev")?;
    expect(&["find", "/etc/systemd", "-name", "*maglev*"], "")?;
    let version = inside.output(&["maglevd", "--version"])?;
    println!("check: installed {name}: {}", version.trim());
    Ok(())
}

/// Whether a file that was not there before is one that the package should have removed.
fn is_left(file: &str) -> bool {
    let apt = ["./var/log/", "./var/cache/"].iter().any(|start| file.starts_with(start));
    let of_others = OF_OTHERS.iter().any(|start| file.starts_with(start));
    !of_others || (file.contains(OWN) && !apt && !file.starts_with("./packages"))
}

/// A folder with Debian and systemd's files, made once.
fn base(release: &Release) -> Result<PathBuf> {
    let base = release.work("debian");
    if base.join("usr/bin/systemd-sysusers").exists() {
        return Ok(base);
    }
    remove(&base)?;
    println!("check: making a folder with Debian {SUITE}, about a minute");
    let mut debootstrap = release.command("debootstrap");
    debootstrap.args(["--variant=minbase", "--include=systemd", SUITE]).arg(&base).arg(mirror(release)?);
    program::run(debootstrap.stdout(std::process::Stdio::null()))?;
    Ok(base)
}

/// The mirror that this machine's apt uses for the suite.
fn mirror(release: &Release) -> Result<String> {
    let mut apt = release.command("apt-get");
    let format = "$(CODENAME) $(COMPONENT) $(REPO_URI)";
    let targets = program::output(apt.args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    let mirror = targets.lines().find_map(|line| line.strip_prefix(&format!("{SUITE} main ")));
    mirror.map(str::to_owned).with_context(|| format!("apt's sources have no main component of {SUITE}"))
}

/// The same package with a later version.
fn newer(release: &Release, name: &str, package: &Path) -> Result<PathBuf> {
    let folder = release.work("newer");
    remove(&folder)?;
    program::run(release.command("dpkg-deb").arg("--raw-extract").args([package, &folder]))?;
    let control = folder.join("DEBIAN/control");
    let text = fs::read_to_string(&control).with_context(|| format!("cannot read {}", control.display()))?;
    let version = format!("Version: {}", release.package_version);
    fs::write(&control, text.replace(&version, &format!("{version}+next")))?;
    let file = release.work(&format!("{name}-newer.deb"));
    let mut pack = release.command("dpkg-deb");
    program::run(pack.args(["--root-owner-group", "-Znone", "--build"]).args([&folder, &file]))?;
    Ok(file)
}

fn remove(folder: &Path) -> Result<()> {
    match folder.exists() {
        true => fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display())),
        false => Ok(()),
    }
}

/// The folder, from inside.
struct Inside<'a> {
    release: &'a Release,
    root: &'a Path,
}

impl Inside<'_> {
    fn command(&self, words: &[&str]) -> Command {
        // With a /proc of its own, which systemd-tmpfiles needs, and which ends with the command.
        let mut command = self.release.command("unshare");
        command.args(["--mount", "--pid", "--fork"]).arg(format!("--mount-proc={}/proc", self.root.display()));
        command.arg("chroot").arg(self.root).args(words);
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn apt(&self, words: &[&str]) -> Result<()> {
        program::run(&mut self.command(&[&["apt-get", "--quiet=2", "--yes"], words].concat()))
    }

    fn output(&self, words: &[&str]) -> Result<String> {
        program::output(&mut self.command(words))
    }

    /// Every file and folder.
    fn files(&self) -> Result<BTreeSet<String>> {
        let mut find = self.release.command("find");
        let found = program::output(find.current_dir(self.root).args([".", "-xdev"]))?;
        Ok(found.lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_package_are_left_wherever_they_lie() {
        for file in [
            "./etc/maglev",
            "./usr/bin/x",
            "./var/lib/maglev/services.yaml",
            "./var/lib/systemd/maglev",
            "./run/maglev",
        ] {
            assert!(is_left(file), "{file}");
        }
        for file in ["./etc/passwd-", "./var/lib/dpkg/status-old", "./var/log/apt/term.log", "./packages/first.deb"] {
            assert!(!is_left(file), "{file}");
        }
    }
}
