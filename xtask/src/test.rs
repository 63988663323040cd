//! `cargo xtask test`: every test of the workspace, and one total line.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    process::{ExitStatus, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};

use crate::totals::{Totals, result_line};
use crate::{build, kernels, matrix, program, setup};

/// The model test runs with the others.
const MODEL: &str = "maglev-e2e/model";

/// A filter of tests, or a separate group of tests.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Run only tests whose name contains this.
    filter: Option<String>,

    #[command(subcommand)]
    apart: Option<Apart>,
}

/// Groups of tests that run separately.
#[derive(clap::Subcommand)]
enum Apart {
    Kernels(kernels::Arguments),
    /// Test BGP with BIRD, FRR and GoBGP, and with a daemon that breaks every rule: a line for each daemon and case.
    ///
    /// Needs root. The tests are among those of `cargo xtask test`, which shows their names alone.
    Bgp,
    /// Check the health of real servers, and of misbehaving ones: a line for each case, with its measurement.
    ///
    /// Needs root. The tests are among those of `cargo xtask test`, which shows their names alone.
    Health,
    /// Test the store over edits, crashes and damage: a line for each case, with its measurement.
    ///
    /// Needs root. The tests are among those of `cargo xtask test`, which shows their names alone.
    Store,
    /// Repeat every fault that was found by running the product: a line for each case, with its measurement.
    ///
    /// Needs root. The tests are among those of `cargo xtask test`, some of them in a shorter form.
    Faults,
}

/// Sets up, builds the release binaries for the end-to-end tests, and runs the tests.
///
/// # Errors
/// If a test fails or does not build; and as root if a test is skipped.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.apart {
        Some(Apart::Kernels(arguments)) => return kernels::run(arguments),
        Some(Apart::Bgp) => return matrix::BGP.run(),
        Some(Apart::Health) => return matrix::HEALTH.run(),
        Some(Apart::Store) => return matrix::STORE.run(),
        Some(Apart::Faults) => return matrix::FAULTS.run(),
        None => {}
    }
    setup::run()?;
    build::for_tests()?;

    println!("test: running the tests");
    let (totals, status) = tests(arguments.filter.as_deref())?;
    println!("\n{} passed, {} failed, {} skipped", totals.passed, totals.failed, totals.skipped);
    verdict(totals, status.success(), program::is_root())
}

/// Runs `cargo test`, prints its output as it comes, and sums the result lines.
fn tests(filter: Option<&str>) -> Result<(Totals, ExitStatus)> {
    let mut command = program::command(program::cargo());
    command.args(["test", "--workspace", "--features", MODEL, "--locked", "--no-fail-fast"]);
    command.args(filter).stdout(Stdio::piped());
    // The end-to-end tests run the release binaries.
    command.env("MAGLEV_BIN_DIR", program::workspace().join("target/release"));
    if env::var_os("RUST_TEST_THREADS").is_none() {
        command.env("RUST_TEST_THREADS", threads().to_string());
    }
    let mut child = command.spawn().context("cannot run cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    let mut totals = Totals::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read the output of cargo test")?;
        let mut screen = std::io::stdout().lock();
        screen.write_all(&line)?;
        screen.write_all(b"\n")?;
        screen.flush()?;
        totals += result_line(&String::from_utf8_lossy(&line));
    }
    Ok((totals, child.wait().context("cannot wait for cargo test")?))
}

/// One test for each core, but at least two, so that a wait does not stop everything; and at most eight, because each
/// end-to-end test brings up a lab of a dozen namespaces.
fn threads() -> usize {
    thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8))
}

/// The totals decide, and cargo's own exit: a test binary that crashes reports nothing.
fn verdict(totals: Totals, succeeded: bool, root: bool) -> Result<()> {
    if totals.failed > 0 {
        bail!("{} tests failed", totals.failed);
    }
    if !succeeded {
        bail!("a test binary did not build or crashed; see above");
    }
    if root && totals.skipped > 0 {
        bail!("{} tests were skipped; as root none may be", totals.skipped);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed_and_others_are_not() {
        let output = "\
running 3 tests
test a ... ok
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s
test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s
";
        let mut totals = Totals::default();
        for line in output.lines() {
            totals += result_line(line);
        }
        assert_eq!(totals, Totals { passed: 13, failed: 2, skipped: 1 });
    }

    #[test]
    fn kernels_bgp_health_and_faults_are_choices_and_every_other_word_a_filter() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            test: Arguments,
        }
        let parse = |words: &[&str]| {
            let words = ["test"].iter().chain(words);
            <Line as clap::Parser>::try_parse_from(words).ok().map(|line| line.test)
        };
        let filter = |words: &[&str]| {
            parse(words).filter(|arguments| arguments.apart.is_none()).and_then(|arguments| arguments.filter)
        };
        for word in ["kernels", "bgp", "health", "faults"] {
            assert!(parse(&[word]).is_some_and(|arguments| arguments.apart.is_some()), "{word}");
        }
        assert!(parse(&[]).is_some_and(|arguments| arguments.apart.is_none() && arguments.filter.is_none()));
        for word in ["kernel", "help", "packets::", "bgp::", "health::", "faults::"] {
            assert_eq!(filter(&[word]).as_deref(), Some(word));
        }
        assert_eq!(filter(&["--", "kernels"]).as_deref(), Some("kernels"));
    }

    #[test]
    fn a_failure_a_crash_and_roots_skip_each_fail_the_run() {
        let clean = Totals { passed: 5, ..Totals::default() };
        let skip = Totals { skipped: 1, ..clean };
        assert!(verdict(clean, true, true).is_ok());
        assert!(verdict(skip, true, false).is_ok());
        assert!(verdict(skip, true, true).is_err());
        assert!(verdict(clean, false, false).is_err());
        assert!(verdict(Totals { failed: 1, ..clean }, false, false).is_err());
    }
}
