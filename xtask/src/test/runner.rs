//! Runs test binaries, passes on what they print, and keeps results and times. It must not know which tests there are.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    binaries::Binary,
    machines, program,
    totals::{Totals, result_line},
};

/// A test that ended, and how long it took.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Timed {
    /// `binary::module::test`
    pub(super) name: String,
    pub(super) took: Duration,
}

/// What ran so far.
#[derive(Debug)]
pub(super) struct Runner<'a> {
    filter: Option<&'a str>,
    /// Tests whose names contain one of these are left out.
    skip: &'a [&'a str],
    /// Whether the end-to-end tests drive the release binaries: what ships.
    released: bool,
    pub(super) totals: Totals,
    pub(super) tests: Vec<Timed>,
    /// Binaries that ended without a result.
    pub(super) crashed: Vec<String>,
    /// What each test that failed printed.
    pub(super) failures: Vec<Failure>,
}

/// A test that failed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    /// `binary::module::test`
    pub(super) name: String,
    /// What it printed, up to the backtrace.
    pub(super) output: Vec<String>,
    ended: bool,
}

impl Failure {
    /// Adds a line, if it is this test's.
    fn add(&mut self, line: &str) {
        self.ended |= line == "failures:" || line.trim_start().to_lowercase().starts_with("stack backtrace");
        if !self.ended && !line.is_empty() {
            self.output.push(line.to_owned());
        }
    }
}

impl<'a> Runner<'a> {
    pub(super) const fn new(filter: Option<&'a str>, skip: &'a [&'a str], released: bool) -> Self {
        let totals = Totals { passed: 0, failed: 0, skipped: 0 };
        Self { filter, skip, released, totals, tests: Vec::new(), crashed: Vec::new(), failures: Vec::new() }
    }

    /// Runs one binary to its end, whatever its tests say.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn run(&mut self, binary: &Binary) -> Result<()> {
        println!("\n{}", binary.name);
        let mut child = self.command(binary).spawn().with_context(|| format!("cannot run {}", binary.name))?;
        let output = child.stdout.take().context("a test binary has no output")?;
        let before = self.totals;
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("cannot read what a test binary prints")?;
            let mut screen = std::io::stdout().lock();
            screen.write_all(&line)?;
            screen.write_all(b"\n")?;
            screen.flush()?;
            self.note(&binary.name, &String::from_utf8_lossy(&line));
        }
        let succeeded = child.wait().context("cannot wait for a test binary")?.success();
        if !succeeded && self.totals.failed == before.failed {
            self.crashed.push(binary.name.clone());
        }
        Ok(())
    }

    fn command(&self, binary: &Binary) -> Command {
        let mut command = Command::new(&binary.executable);
        command.args(["-Z", "unstable-options", "--report-time"]).args(self.filter);
        command.args(self.skip.iter().flat_map(|name| ["--skip", name]));
        command.current_dir(&binary.folder).stdin(Stdio::null()).stdout(Stdio::piped());
        // The test harness of a stable compiler reports times only so; nothing is compiled here.
        command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_MANIFEST_DIR", &binary.folder);
        // What an error says names what failed; where it was made is seldom of use, and long.
        command.env("RUST_LIB_BACKTRACE", "0");
        if self.released {
            command.env("MAGLEV_BIN_DIR", program::workspace().join("target/release"));
            command.env("MAGLEV_MACHINES", program::workspace().join(machines::ONE));
        }
        if env::var_os("RUST_TEST_THREADS").is_none() {
            command.env("RUST_TEST_THREADS", threads().to_string());
        }
        command
    }

    fn note(&mut self, binary: &str, line: &str) {
        self.totals += result_line(line);
        self.tests.extend(timed(line).map(|test| Timed { name: format!("{binary}::{}", test.name), ..test }));
        if let Some(name) = output_of(line) {
            self.failures.push(Failure { name: format!("{binary}::{name}"), output: Vec::new(), ended: false });
        } else if let Some(failure) = self.failures.last_mut() {
            failure.add(line);
        }
    }
}

/// One test for each core, but at least two, so that a wait does not stop everything; and at most eight, because each
/// end-to-end test brings up a lab of a dozen namespaces.
fn threads() -> usize {
    thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8))
}

/// `test module::name ... ok <1.234s>`
fn timed(line: &str) -> Option<Timed> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let seconds = rest.strip_suffix("s>")?.rsplit_once('<')?.1.parse().ok()?;
    Some(Timed { name: name.to_owned(), took: Duration::try_from_secs_f64(seconds).ok()? })
}

/// `---- module::name stdout ----`
fn output_of(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_test_is_read_from_its_line() {
        let test = |line: &str| timed(line).map(|Timed { name, took }| (name, took.as_millis()));
        assert_eq!(test("test a::b ... ok <1.250s>"), Some(("a::b".to_owned(), 1_250)));
        assert_eq!(test("test a::b ... FAILED <0.010s>"), Some(("a::b".to_owned(), 10)));
        for other in
            ["test a ... ok", "test a has been running for over 60 seconds", "test result: ok. 1 passed", "<1s>"]
        {
            assert_eq!(test(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_failed_test_printed_is_kept_up_to_its_backtrace() {
        let printed = "running 2 tests
test a ... FAILED <0.100s>
test m::b ... FAILED <0.100s>

failures:

---- a stdout ----
one
Error: two

Caused by:
    three

Stack backtrace:
   0: msg
---- m::b stdout ----
thread 'm::b' panicked at tests/b.rs:1:1:
four

failures:
    a
    m::b

test result: FAILED. 0 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s";
        let mut runner = Runner::new(None, &[], false);
        printed.lines().for_each(|line| runner.note("udp", line));
        let kept: Vec<_> = runner.failures.iter().map(|failure| (&*failure.name, failure.output.join("|"))).collect();
        let expected = [
            ("udp::a", "one|Error: two|Caused by:|    three"),
            ("udp::m::b", "thread 'm::b' panicked at tests/b.rs:1:1:|four"),
        ];
        assert_eq!(kept, expected.map(|(name, output)| (name, output.to_owned())));
    }

    #[test]
    fn a_binary_that_fails_without_a_failed_test_has_crashed() {
        let binary =
            |name: &str, program: &str| Binary { name: name.into(), executable: program.into(), folder: "/".into() };
        let mut runner = Runner::new(None, &[], false);
        runner.run(&binary("good", "/bin/true")).unwrap();
        runner.run(&binary("bad", "/bin/false")).unwrap();
        assert_eq!(runner.crashed, ["bad"]);
        assert!(runner.run(&binary("none", "/no/such/program")).is_err());
    }
}
