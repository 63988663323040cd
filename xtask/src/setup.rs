//! `cargo xtask setup`: the needs of the build and the lab beyond cargo. Installs only missing ones, and reports each.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};

use crate::{cargo_deny, linker, program};

/// A Debian package, the needed program of it, and the reason.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) program: &'static str,
    pub(crate) reason: &'static str,
}

/// The lab's programs beside our own binaries.
const PACKAGES: [Package; 7] = [
    Package { name: "iproute2", program: "ip", reason: "builds the lab's namespaces, links and routes" },
    Package { name: "ethtool", program: "ethtool", reason: "turns checksum offload off on the lab's links" },
    Package { name: "bird2", program: "bird", reason: "a router to announce VIPs to" },
    Package { name: "frr", program: "vtysh", reason: "another router" },
    Package { name: "gobgpd", program: "gobgpd", reason: "a third one, for the protocol alone" },
    Package { name: "prometheus", program: "promtool", reason: "scrapes a node, and tests the alert rules" },
    Package { name: "tshark", program: "tshark", reason: "reads the files of captures" },
];

/// The script that decides whether a package may start its daemons; exit code 101 forbids it (Debian's policy-rc.d).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Provides rust-src, bpf-linker and the packages.
///
/// # Errors
/// If rust-src or bpf-linker cannot be provided. A package that cannot be installed is reported, and only the lab
/// needs it.
pub(crate) fn run() -> Result<()> {
    rust_src()?;
    bpf_linker()?;
    packages(&PACKAGES, "the lab");
    Ok(())
}

/// The source of `core`, for building the eBPF object.
fn rust_src() -> Result<()> {
    let core = sysroot()?.join("lib/rustlib/src/rust/library/core/Cargo.toml");
    if core.is_file() {
        println!("setup: rust-src is present");
        return Ok(());
    }
    println!("setup: rust-src is missing; rustup adds it");
    program::run(program::command("rustup").args(["component", "add", "rust-src"]))
}

/// The linker that turns bitcode into an eBPF object.
fn bpf_linker() -> Result<()> {
    let workspace = program::workspace();
    if linker::installed(&workspace).is_some() {
        println!("setup: bpf-linker {} is present", linker::VERSION);
        return Ok(());
    }
    println!("setup: building bpf-linker {} against the toolchain's LLVM, about a minute", linker::VERSION);
    let start = Instant::now();
    let file = linker::install(&workspace, &program::rustc(), &program::cargo()).map_err(|error| anyhow!(error))?;
    println!("setup: built {} in {} s", file.display(), start.elapsed().as_secs());
    Ok(())
}

/// The program that checks licences and sources. Lint alone needs it, so [`run`] leaves it out.
///
/// # Errors
/// If it cannot be built.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let workspace = program::workspace();
    if let Some(file) = cargo_deny::installed(&workspace) {
        println!("setup: cargo-deny {} is present", cargo_deny::VERSION);
        return Ok(file);
    }
    println!("setup: building cargo-deny {}, about two minutes", cargo_deny::VERSION);
    let start = Instant::now();
    let file = cargo_deny::install(&workspace)?;
    println!("setup: built {} in {} s", file.display(), start.elapsed().as_secs());
    Ok(file)
}

/// Installs packages whose program is missing if permitted, and names them if not. `user` is the part that needs them.
pub(crate) fn packages(packages: &[Package], user: &str) {
    let (present, missing): (Vec<_>, Vec<_>) =
        packages.iter().partition(|package| program::find(package.program).is_some());
    if missing.is_empty() {
        let programs: Vec<&str> = present.iter().map(|package| package.program).collect();
        println!("setup: {} are present", programs.join(", "));
        return;
    }
    for &Package { name, program, reason } in &missing {
        println!("setup: `{program}` is missing (package {name}): {reason}");
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let names = names.join(" ");
    if !program::is_root() {
        println!("setup: continuing without; to run {user}, as root: apt-get install {names}");
    } else if program::find("apt-get").is_none() {
        println!("setup: continuing without; to run {user}, install this system's equivalents of: {names}");
    } else if let Err(error) = install(&names) {
        println!("setup: continuing without, and {user} will not run: {error:#}");
    }
}

fn install(names: &str) -> Result<()> {
    println!("setup: installing {names}");
    let apt = || {
        let mut command = program::command("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["--quiet", "--yes"]);
        command
    };
    program::run(apt().arg("update"))?;
    let policy = forbid_daemons()?;
    let installed = program::run(apt().args(["install", "--no-install-recommends"]).args(names.split(' ')));
    if policy {
        fs::remove_file(POLICY).with_context(|| format!("cannot remove {POLICY}"))?;
    }
    installed
}

/// Prevents routing daemons from starting in this machine's own network when they are installed. Returns whether the policy is
/// to be removed later: a policy of the machine's own stays.
fn forbid_daemons() -> Result<bool> {
    if Path::new(POLICY).exists() {
        return Ok(false);
    }
    fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
    fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
    Ok(true)
}

fn sysroot() -> Result<PathBuf> {
    linker::sysroot(&program::rustc()).map_err(|error| anyhow!(error))
}
