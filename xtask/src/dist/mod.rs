//! `cargo xtask dist`: a release in `target/dist`, the same bytes wherever it is built. One file for each part; this one puts them in order.
//!
//! ```text
//!  programs (musl, static) ─▶ audit (list of crates in each) ─┐
//!  crates (cargo's graph) ──▶ sbom, licences ─────────────────┼─▶ tree ─▶ deb, archive ─▶ sums (SHA-256, signature)
//!  manual (man pages, completions, by the programs) ──────────┘
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::setup::{self, Package};
use crate::{linker, program};

mod archive;
mod audit;
mod check;
mod chroot;
mod crates;
mod deb;
mod licences;
mod manual;
mod programs;
mod sbom;
mod sums;
mod tree;
mod twice;

/// The folder of the release, under the workspace; and of what is for tests alone.
const FOLDER: &str = "target/dist";
const FOR_TESTS: &str = "target/machine/dist";

/// What the build of a release needs beyond the build of the programs.
const PACKAGES: [Package; 3] = [
    Package { name: "musl-tools", program: "musl-gcc", reason: "compiles the one dependency with C for musl" },
    Package { name: "binutils", program: "objcopy", reason: "puts the list of crates into the programs" },
    Package { name: "dpkg", program: "dpkg-deb", reason: "writes packages" },
];

/// What a release is built with, beyond the sources.
#[derive(Default, clap::Args)]
pub(crate) struct Arguments {
    /// Build everything a second time in another folder, and compare byte for byte
    #[arg(long)]
    twice: bool,

    /// Sign the sums with this private SSH key
    #[arg(long, value_name = "KEYFILE")]
    sign: Option<PathBuf>,

    /// Check the packages: lintian, the exposure of the units, and installation, upgrade and purge in a folder with Debian. Needs root
    #[arg(long)]
    check: bool,

    /// The packages' version; default: the workspace's, with 1 as Debian's revision
    #[arg(long, value_name = "VERSION", value_parser = deb::parse_version)]
    package_version: Option<String>,
}

/// A release: its sources, its folder and its names.
struct Release {
    /// The workspace, or a copy of it.
    root: PathBuf,
    /// The artefacts; `work` below it holds everything else.
    out: PathBuf,
    /// Such as `0.1.0`.
    version: String,
    /// Such as `0.1.0-1`.
    package_version: String,
    /// The time of every file, in seconds since 1970: that of the last commit.
    epoch: u64,
}

/// Builds the release.
///
/// # Errors
/// If a program is missing, a step fails, or the second build differs.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { twice, sign, check, package_version } = arguments;
    setup::run()?;
    setup::packages(&PACKAGES, "dist");
    programs::provide_target()?;
    let workspace = program::workspace();
    let release = Release::new(&workspace, &workspace.join(FOLDER), package_version.as_deref())?;
    release.build()?;
    if *twice {
        twice::compare(&release)?;
    }
    if *check {
        check::run(&release)?;
    }
    sums::write(&release, sign.as_deref())
}

/// Builds the release as it is by default; returns the packages by name.
///
/// # Errors
/// As [`run`].
pub(crate) fn packages() -> Result<[(&'static str, PathBuf); 2]> {
    run(&Arguments::default())?;
    let workspace = program::workspace();
    let release = Release::new(&workspace, &workspace.join(FOLDER), None)?;
    Ok(release.packages())
}

/// Packages of the programs that are in `target/release`, for this machine's C library: for tests.
///
/// # Errors
/// If a step fails.
pub(crate) fn packages_of_built() -> Result<[(&'static str, PathBuf); 2]> {
    setup::packages(&PACKAGES, "packages");
    let workspace = program::workspace();
    let release = Release::new(&workspace, &workspace.join(FOR_TESTS), None)?;
    release.build_from(&programs::built(&workspace.join("target/release")))?;
    Ok(release.packages())
}

impl Release {
    fn new(root: &Path, out: &Path, package_version: Option<&str>) -> Result<Self> {
        let version = crates::workspace_version(root)?;
        let package_version = package_version.map_or_else(|| format!("{version}-1"), str::to_owned);
        Ok(Self { root: root.to_owned(), out: out.to_owned(), version, package_version, epoch: epoch(root)? })
    }

    /// Where everything lies that is no artefact.
    fn work(&self, part: &str) -> PathBuf {
        self.out.join("work").join(part)
    }

    /// A program that runs in the sources, with the surroundings that its output may depend on.
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = linker::without_cargo_environment(program::command(program), &program::rustc());
        command.current_dir(&self.root).env("SOURCE_DATE_EPOCH", self.epoch.to_string());
        command.env("LC_ALL", "C").env("TZ", "UTC");
        command
    }

    /// The packages by name.
    fn packages(&self) -> [(&'static str, PathBuf); 2] {
        deb::NAMES.map(|name| (name, deb::file(self, name)))
    }

    /// Builds all artefacts, in place of those of an earlier release.
    fn build(&self) -> Result<()> {
        self.build_from(&programs::build(self)?)
    }

    fn build_from(&self, programs: &[programs::Program]) -> Result<()> {
        fs::create_dir_all(&self.out).with_context(|| format!("cannot make {}", self.out.display()))?;
        for artefact in sums::artefacts(self)? {
            fs::remove_file(&artefact).with_context(|| format!("cannot remove {}", artefact.display()))?;
        }
        let crates = crates::list(self)?;
        let programs = audit::embed(self, programs, &crates)?;
        let bill = sbom::write(self, &crates)?;
        let licences = licences::write(self, &crates)?;
        let manual = manual::write(self, &programs)?;
        let parts = tree::Parts { programs: &programs, bill: &bill, licences: &licences, manual: &manual };
        for name in deb::NAMES {
            deb::build(self, name, &tree::package(self, name, &parts)?)?;
        }
        archive::build(self, &tree::archive(self, &parts)?)
    }
}

/// The time of the sources: `SOURCE_DATE_EPOCH`, or the last commit.
fn epoch(root: &Path) -> Result<u64> {
    let (text, source) = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(given) => (given, "SOURCE_DATE_EPOCH"),
        Err(_) => {
            let mut git = program::command("git");
            git.current_dir(root).args(["log", "-1", "--format=%ct"]);
            (program::output(&mut git).context("no time of the last commit; set SOURCE_DATE_EPOCH")?, "git log")
        }
    };
    text.trim().parse().with_context(|| format!("{source}: {text:?} is not a number of seconds"))
}
