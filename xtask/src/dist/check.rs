//! The checks of packages and units by Debian's own tools. It must not know how either is made.

use anyhow::{Result, bail};

use super::{Release, chroot, deb};
use crate::program;
use crate::setup::{self, Package};

const PACKAGES: [Package; 3] = [
    Package { name: "lintian", program: "lintian", reason: "checks packages against Debian's policy" },
    Package { name: "systemd", program: "systemd-analyze", reason: "rates the exposure of units" },
    Package {
        name: "debootstrap",
        program: "debootstrap",
        reason: "makes a folder with Debian, to install the packages in",
    },
];

/// The services, and the largest exposure that is allowed, in tenths.
const SERVICES: [&str; 3] = ["maglevd", "maglev-decap", "maglev-leave"];
const EXPOSURE: u32 = 20;

/// Runs every check.
///
/// # Errors
/// Naming the checks that failed, or the first program that is missing.
pub(super) fn run(release: &Release) -> Result<()> {
    if !program::is_root() {
        bail!("--check installs packages in a folder with Debian: run it as root");
    }
    setup::packages(&PACKAGES, "the checks of dist");
    let mut failed = Vec::new();
    let mut check = |name: String, outcome: Result<()>| match outcome {
        Ok(()) => println!("check: {name}: ok"),
        Err(error) => {
            println!("check: {name} failed: {error:#}");
            failed.push(name);
        }
    };
    for name in deb::NAMES {
        let mut lintian = release.command("lintian");
        // As root it warns that it is root.
        lintian.args(["--allow-root", "--fail-on", "error", "--show-overrides", "--tag-display-limit", "0"]);
        check(format!("lintian {name}"), program::run(lintian.arg(deb::file(release, name))));
    }
    for name in SERVICES {
        let mut analyze = release.command("systemd-analyze");
        analyze.args(["security", "--offline=true", "--no-pager", &format!("--threshold={EXPOSURE}")]);
        let rated = program::output(analyze.arg(format!("deploy/systemd/{name}.service")));
        let rated =
            rated.map(|text| text.lines().filter(|line| line.contains("Overall")).for_each(|line| println!("{line}")));
        check(format!("exposure of {name}.service, at most 2.0"), rated);
    }
    for name in deb::NAMES {
        check(format!("install, upgrade, purge {name}"), chroot::run(release, name));
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("failed: {}", failed.join("; ")),
    }
}
