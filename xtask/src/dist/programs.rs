//! The programs: static, for musl, without a path of this machine in them. It must not know packages.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};

use super::Release;
use crate::{linker, program};

/// The target of every artefact.
pub(super) const TARGET: &str = "x86_64-unknown-linux-musl";

/// The compiler of C for it, for `ring`, the only dependency with C.
const C_COMPILER: (&str, &str) = ("CC_x86_64_unknown_linux_musl", "musl-gcc");

/// A program, and the package of the workspace that has it.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) package: &'static str,
    pub(super) file: PathBuf,
}

/// The programs by their packages.
const PROGRAMS: [(&str, &str); 2] = [("maglevd", "maglev-daemon"), ("maglev", "maglev-cli")];

/// The standard library for the target, which rustup adds where it is missing.
///
/// # Errors
/// If rustup cannot add it.
pub(super) fn provide_target() -> Result<()> {
    let sysroot = linker::sysroot(&program::rustc()).map_err(|error| anyhow!(error))?;
    if sysroot.join("lib/rustlib").join(TARGET).is_dir() {
        println!("setup: the target {TARGET} is present");
        return Ok(());
    }
    println!("setup: the target {TARGET} is missing; rustup adds it");
    program::run(program::command("rustup").args(["target", "add", TARGET]))
}

/// Builds the programs.
///
/// # Errors
/// If they do not build.
pub(super) fn build(release: &Release) -> Result<Vec<Program>> {
    println!("dist: building the programs for {TARGET} in {}", release.root.display());
    let flags = linker::remaps(&release.root, &program::rustc()).map_err(|error| anyhow!(error))?;
    let target = release.work("build");
    let mut cargo = release.command(program::cargo());
    cargo.args(["build", "--release", "--locked", "--bins", "--target", TARGET, "--target-dir"]).arg(&target);
    for (_, package) in PROGRAMS {
        cargo.args(["--package", package]);
    }
    // A copy of the workspace has no linker of its own.
    let tools = program::workspace().join(linker::TOOLS).join("bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let path =
        env::join_paths([tools].into_iter().chain(env::split_paths(&path))).context("PATH cannot be extended")?;
    cargo.env("PATH", path).env("CARGO_INCREMENTAL", "0");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")).env(C_COMPILER.0, C_COMPILER.1);
    program::run(&mut cargo)?;
    Ok(built(&target.join(TARGET).join("release")))
}

/// The programs that were built in this folder.
pub(super) fn built(folder: &Path) -> Vec<Program> {
    PROGRAMS.map(|(name, package)| Program { name, package, file: folder.join(name) }).to_vec()
}
