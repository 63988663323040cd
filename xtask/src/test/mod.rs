//! `cargo xtask test`: every test of the workspace, and one total line.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{
    binaries::{Binary, built},
    build, fuzz, kernels, machines, matrix, program, setup,
    totals::Totals,
};

mod runner;

use runner::{Failure, Runner, Timed};

/// The model test and the fuzzer's run with the others.
const APART: &str = "maglev-e2e/model,maglev-fuzz/loaded";

/// The package's test, in an emulated machine.
const MACHINE: &str = "maglev-e2e/machine";

/// End-to-end tests that `--quick` leaves out: each of these files takes more than 5 s.
const LONG: [&str; 30] = [
    "affinity",
    "answers",
    "bgp",
    "changes",
    "doctor",
    "documents",
    "drain",
    "events",
    "explain",
    "faults",
    "fragments",
    "health",
    "health_announce",
    "health_cost",
    "history",
    "hitless",
    "killed",
    "live_settings",
    "model",
    "monitoring",
    "mtu",
    "narrow",
    "node_drain",
    "nothing_lost",
    "outlive",
    "package",
    "probe_path",
    "requests",
    "service_manager",
    "top",
];

/// Other tests that it leaves out, by parts of their names: each takes more than 10 s.
const SLOW: [&str; 5] = [
    "every_planted_fault_is_found",
    "model::history::tests::nodes_that_",
    "of_two_gateways_one_dies_silently",
    "pools_of_which_nothing_changed_may_be_left_out",
    "the_kernel_and_the_host_make_the_same_of_any_frame",
];

/// How many of the slowest tests are listed.
const SLOWEST: usize = 10;

/// How many lines of what a failed test printed are repeated.
const LINES: usize = 20;

/// A choice of tests, or another kernel to run on.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Run only tests whose name contains this.
    filter: Option<String>,

    /// Leave out the end-to-end tests that take long and the search guided by coverage, and drive the binaries of the development
    /// profile.
    #[arg(long)]
    quick: bool,

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
    /// Send packets beside plain ones, and cross narrow links: a line for each case, with its measurement.
    ///
    /// Needs root. The tests are among those of `cargo xtask test`, which shows their names alone.
    Packets,
    /// Kill, upgrade, roll back and damage the daemon while connections are held: a line for each case, with its counts.
    ///
    /// Needs root. The tests are among those of `cargo xtask test`, in a shorter form.
    Hitless,
    /// Install, upgrade, roll back, reboot and purge the package in an emulated machine with Debian and systemd, while connections are held:
    /// a line for each case, with its counts.
    ///
    /// Needs root. Builds a release and a disk in target/machines. One machine is among the tests of `cargo xtask test`, with some of the
    /// cases.
    Machines,
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
        Some(Apart::Packets) => return matrix::PACKETS.run(),
        Some(Apart::Hitless) => return matrix::HITLESS.run(),
        Some(Apart::Machines) => {
            machines::provide()?;
            return matrix::MACHINES.run();
        }
        Some(Apart::Faults) => return matrix::FAULTS.run(),
        None => {}
    }
    let began = Instant::now();
    setup::run()?;
    if !arguments.quick {
        build::for_tests()?;
    }
    let left_out = if arguments.quick || !program::is_root() { None } else { machines::provide_one()?.err() };
    let binaries = binaries(arguments.quick, left_out.is_some())?;
    let ready = began.elapsed();

    println!("test: running {} test binaries", binaries.len());
    let skip: &[&str] = if arguments.quick { &SLOW } else { &[] };
    if arguments.quick {
        println!("test: left out: {}, {}, coverage", LONG.join(", "), SLOW.join(", "));
    }
    let mut runner = Runner::new(arguments.filter.as_deref(), skip, !arguments.quick);
    for binary in &binaries {
        runner.run(binary)?;
    }
    let Runner { totals, tests, crashed, failures, .. } = runner;
    println!("\nthe slowest tests:\n{}", slowest(tests));
    failures.iter().for_each(|failure| println!("\n{}", last_lines(failure)));
    let Totals { passed, failed, skipped } = totals;
    let took = [ready, began.elapsed() - ready].map(minutes);
    if let Some(reason) = left_out {
        println!("left out: the package in an emulated machine: {reason}");
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped; built in {}, run in {}", took[0], took[1]);
    verdict(totals, &crashed, program::is_root())
}

/// Builds the tests, and returns those to run.
fn binaries(quick: bool, without_machine: bool) -> Result<Vec<Binary>> {
    println!("test: building the tests");
    let features = [APART, MACHINE].join(",");
    let selection = ["--workspace", "--features", if without_machine { APART } else { &features }];
    if quick {
        program::run(program::command(program::cargo()).args(["build", "--locked", "--bins"]).args(selection))?;
    }
    let mut binaries = built(&selection)?;
    if quick {
        binaries.retain(|binary| !(binary.is_end_to_end() && LONG.contains(&binary.name.as_str())));
    } else {
        binaries.extend(fuzz::coverage::binaries()?);
    }
    Ok(binaries)
}

/// A line for each of the slowest.
fn slowest(mut tests: Vec<Timed>) -> String {
    tests.sort_by_key(|test| std::cmp::Reverse(test.took));
    let lines = tests.iter().take(SLOWEST).map(|Timed { name, took }| format!("{:8.1} s  {name}", took.as_secs_f64()));
    lines.collect::<Vec<_>>().join("\n")
}

/// The end of what a failed test printed, below its name: all that failed is at the end of a long output.
fn last_lines(Failure { name, output, .. }: &Failure) -> String {
    let last = &output[output.len().saturating_sub(LINES)..];
    format!("failed: {name}\n    {}", last.join("\n    "))
}

/// `2m 5s`
fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}m {}s", seconds / 60, seconds % 60)
}

/// The totals decide, and `crashed`, the binaries that reported no total.
fn verdict(totals: Totals, crashed: &[String], root: bool) -> Result<()> {
    if totals.failed > 0 {
        bail!("{} tests failed", totals.failed);
    }
    if !crashed.is_empty() {
        bail!("no result from {}: the test binary ended early; see above", crashed.join(", "));
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
    fn the_slowest_come_first_and_ten_of_them() {
        let test = |n: u64| Timed { name: format!("test_{n}"), took: Duration::from_millis(n * 100) };
        let listed = slowest((1..=12).map(test).collect());
        let lines: Vec<_> = listed.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[9]), (10, "     1.2 s  test_12", "     0.3 s  test_3"));
        assert_eq!(minutes(Duration::from_secs(125)), "2m 5s");
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
        for word in ["kernels", "bgp", "health", "packets", "machines", "faults"] {
            assert!(parse(&[word]).is_some_and(|arguments| arguments.apart.is_some()), "{word}");
        }
        assert!(parse(&[]).is_some_and(|arguments| arguments.apart.is_none() && arguments.filter.is_none()));
        for word in ["kernel", "help", "packet", "bgp::", "health::", "faults::"] {
            assert_eq!(filter(&[word]).as_deref(), Some(word));
        }
        assert_eq!(filter(&["--", "kernels"]).as_deref(), Some("kernels"));
    }

    #[test]
    fn a_failure_a_crash_and_roots_skip_each_fail_the_run() {
        let clean = Totals { passed: 5, ..Totals::default() };
        let skip = Totals { skipped: 1, ..clean };
        assert!(verdict(clean, &[], true).is_ok());
        assert!(verdict(skip, &[], false).is_ok());
        assert!(verdict(skip, &[], true).is_err());
        assert!(verdict(clean, &["udp".to_owned()], false).is_err());
        assert!(verdict(Totals { failed: 1, ..clean }, &[], false).is_err());
    }
}
