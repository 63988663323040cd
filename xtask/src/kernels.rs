//! `cargo xtask test kernels`: the object that ships, in Debian's kernels, each booted in an emulated machine. Knows
//! which kernels and which tests; the modules below have the source of kernels (`debian`), the files of the machine (`initramfs`),
//! the emulator (`machine`), and what else runs in it: a count of instructions (`instructions`).
//!
//! ```text
//!  debian (package ──▶ vmlinuz, veth) ──┐
//!  cargo test --no-run ──▶ test binary ─┴─▶ initramfs ──▶ machine (QEMU) ──▶ report ──▶ one line per kernel
//! ```

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    binaries, program,
    setup::{self, Package},
    totals::{Totals, result_line},
};

mod debian;
mod initramfs;
pub(crate) mod instructions;
mod machine;

pub(crate) use debian::Kernel;

/// Run the tests of the data plane in Debian's stock 6.1 and 6.12 kernels, emulated in software.
///
/// Fetches the kernels' packages into target/kernels once (60 MB) and boots each with QEMU. Needs no KVM, and root only
/// to install QEMU and busybox where they are missing. Not part of `cargo xtask test`: it fetches much, and takes about
/// ten minutes a kernel beyond the build.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run only tests whose name contains this.
    #[arg(value_parser = word)]
    filter: Option<String>,

    /// Fetch Debian's newest kernels even if some are here from an earlier run.
    #[arg(long)]
    update: bool,
}

/// The folder of kernels, images and consoles, under the workspace.
const FOLDER: &str = "target/kernels";

/// The packages for the emulation.
const PACKAGES: [Package; 2] = [
    Package { name: "qemu-system-x86", program: "qemu-system-x86_64", reason: "emulates a machine for each kernel" },
    Package { name: "busybox-static", program: "busybox", reason: "starts the tests in the emulated machine" },
];

/// The crates whose tests depend on the kernel; tests of others have the same result on the host.
const CRATES: [&str; 2] = ["maglev-dataplane", "maglev-net"];

/// The time limit of a kernel, several times the usual duration: an emulated machine that hangs is stopped.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// A part of a test's name, which a shell takes as it is.
fn word(text: &str) -> Result<String, String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_:".contains(&byte);
    match text.bytes().all(is_part) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is no part of a test's name; allowed: letters, digits, `_` and `:`")),
    }
}

/// All kernels, unpacked.
///
/// # Errors
/// If one cannot be fetched.
pub(crate) fn unpacked() -> Result<Vec<Kernel>> {
    Ok(fetched(false)?.1)
}

/// The newest kernel, unpacked.
///
/// # Errors
/// If it cannot be fetched.
pub(crate) fn newest() -> Result<Kernel> {
    debian::newest(&folder()?)
}

/// Boots every kernel and runs the tests in it.
///
/// # Errors
/// If a kernel, a program or the test binary is not available; or, after all kernels ran, naming those that failed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    let (folder, kernels) = fetched(arguments.update)?;
    println!("kernels: building the tests");
    let tests = test_binaries()?;

    let mut failed = Vec::new();
    for kernel in &kernels {
        println!("kernels: booting {} in software, about ten minutes", kernel.release);
        let start = Instant::now();
        match in_kernel(&folder, kernel, &tests, arguments.filter.as_deref().unwrap_or_default()) {
            Ok(Totals { passed, failed, .. }) => {
                println!(
                    "kernel {}: {passed} passed, {failed} failed ({} s)",
                    kernel.release,
                    start.elapsed().as_secs()
                );
            }
            Err(error) => {
                println!("kernel {}: {error:#}", kernel.release);
                failed.push(kernel.release.as_str());
            }
        }
    }
    if !failed.is_empty() {
        bail!("the tests did not pass in {}; see {FOLDER}", failed.join(", "));
    }
    Ok(())
}

/// The folder of the kernels, and them: fetched if they are not there, or anyway if `update`.
fn fetched(update: bool) -> Result<(PathBuf, Vec<Kernel>)> {
    let folder = folder()?;
    setup::packages(&PACKAGES, "the kernels");
    let kernels = debian::kernels(&folder, update)?;
    Ok((folder, kernels))
}

/// The folder of the kernels, which this machine can emulate.
fn folder() -> Result<PathBuf> {
    if env::consts::ARCH != "x86_64" {
        bail!("the kernels are x86-64's, and so must the programs in them be; this machine is {}", env::consts::ARCH);
    }
    let folder = program::workspace().join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Runs the tests in one kernel. Their output and the kernel's stays beside the kernel, and is shown if they fail.
fn in_kernel(folder: &Path, kernel: &Kernel, tests: &[PathBuf], filter: &str) -> Result<Totals> {
    let image = folder.join(format!("{}.initramfs", kernel.release));
    let console = folder.join(format!("{}.console", kernel.release));
    let named: Vec<_> = (1..).map(|n| format!("tests-{n}")).zip(tests.iter().cloned()).collect();
    let names = named.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ");
    let script = format!("for tests in {names}; do MAGLEV_DEVICES=all /bin/$tests {filter}; done");
    let bytes = initramfs::image(kernel, &named, &script)?;
    fs::write(&image, bytes).with_context(|| format!("cannot write {}", image.display()))?;
    let clock = machine::Clock::Time;
    let machine = machine::Machine { kernel: &kernel.image, initramfs: &image, console: &console, clock };
    let run = machine::run(&machine, LIMIT)?;
    let verdict = if run.timed_out {
        Err(anyhow!("it was still running after {} s, and was stopped", LIMIT.as_secs()))
    } else {
        report(&kernel.release, &run.said, tests.len())
    };
    verdict.inspect_err(|_| println!("{}", run.said))
}

/// The numbers that the tests reported, if valid: every binary ended, some tests passed, none failed, none was skipped, in the
/// expected kernel.
fn report(release: &str, said: &str, binaries: usize) -> Result<Totals> {
    let Some(running) = said.lines().find_map(|line| line.strip_prefix(initramfs::RELEASE)) else {
        bail!("the tests did not start; see its console for the reason");
    };
    if running != release {
        bail!("another kernel was running: {running}");
    }
    if let Some(module) = said.lines().find_map(|line| line.strip_prefix(initramfs::UNLOADED)) {
        bail!("the module {module} could not be loaded");
    }
    let ended = said.lines().filter(|line| line.starts_with("test result: ")).count();
    if ended != binaries {
        bail!("{ended} of {binaries} test binaries ended");
    }
    let mut totals = Totals::default();
    said.lines().for_each(|line| totals += result_line(line));
    let Totals { passed, failed, skipped } = totals;
    if passed == 0 || failed > 0 || skipped > 0 {
        bail!("{passed} passed, {failed} failed, {skipped} skipped");
    }
    Ok(totals)
}

/// Builds the unit tests, of which the data plane's embed the object that ships.
fn test_binaries() -> Result<Vec<PathBuf>> {
    let selection: Vec<_> = CRATES.iter().flat_map(|name| ["--package", name]).chain(["--lib"]).collect();
    let binaries = binaries::built(&selection)?;
    if binaries.len() != CRATES.len() {
        bail!("cargo named {} test binaries of {}", binaries.len(), CRATES.len());
    }
    Ok(binaries.into_iter().map(|binary| binary.executable).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = "\
release 6.1.0-56-cloud-amd64
running 2 tests
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.10s
";

    #[test]
    fn tests_that_passed_in_the_kernel_meant_are_a_success() {
        let totals = report("6.1.0-56-cloud-amd64", PASSED, 1).unwrap();
        assert_eq!(totals, Totals { passed: 2, ..Totals::default() });
    }

    #[test]
    fn another_kernel_no_tests_failed_ones_and_a_crash_are_failures() {
        let why = |release: &str, said: &str| report(release, said, 1).unwrap_err().to_string();
        let here = "6.1.0-56-cloud-amd64";
        assert_eq!(why("6.12.1-cloud-amd64", PASSED), "another kernel was running: 6.1.0-56-cloud-amd64");
        assert_eq!(why(here, &format!("not loaded: fou.ko\n{PASSED}")), "the module fou.ko could not be loaded");
        assert_eq!(why(here, ""), "the tests did not start; see its console for the reason");
        assert_eq!(why(here, &PASSED.replace("2 passed", "0 passed")), "0 passed, 0 failed, 0 skipped");
        assert_eq!(why(here, &PASSED.replace("0 failed", "3 failed")), "2 passed, 3 failed, 0 skipped");
        assert_eq!(why(here, &PASSED.replace("0 ignored", "1 ignored")), "2 passed, 0 failed, 1 skipped");
        assert_eq!(why(here, &PASSED.replace("test result", "Segmentation fault")), "0 of 1 test binaries ended");
    }
}
