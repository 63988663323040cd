//! `cargo xtask test bgp`: the interop matrix, one line for each daemon and case. Knows which tests print rows, and how a
//! row reads; what a case is, only the tests know.
//!
//! ```text
//!  BIRD   v4 session established, MD5 and GTSM        ok    12 ms
//! ```

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{program, setup, test};

/// The tests that print rows: cargo's arguments for each lot. The second lot drives the release binaries in the lab.
const LOTS: [&[&str]; 2] = [
    &["--package", "maglev-daemon", "--lib", "bgp::interop"],
    &["--package", "maglev-e2e", "--test", "bgp", "--test", "nothing_lost"],
];
/// Who must have been spoken with.
const DAEMONS: [&str; 4] = ["BIRD", "FRR", "GoBGP", "rogue"];
/// What a row begins with on a test's output.
const MARK: &str = "bgp\t";

/// One case with one daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    daemon: String,
    case: String,
    verdict: String,
    milliseconds: String,
    said: String,
}

/// Runs the tests one after the other and prints their rows as they come.
///
/// # Errors
/// If a case fails, a test fails that prints none, or a daemon was not spoken with.
pub(crate) fn run() -> Result<()> {
    ensure!(program::is_root(), "the matrix needs root: it makes network namespaces; try with sudo");
    setup::run()?;
    test::build()?;
    let (mut rows, mut broken) = (Vec::new(), false);
    for lot in LOTS {
        broken |= !play(lot, &mut rows)?;
    }
    let failed = rows.iter().filter(|row| row.verdict != "ok").count();
    println!("\n{} cases, {failed} failed", rows.len());
    if failed > 0 || broken {
        bail!("a case failed; the tests' own words are above");
    }
    for daemon in DAEMONS {
        ensure!(rows.iter().any(|row| row.daemon == daemon), "no case with {daemon} was run");
    }
    Ok(())
}

/// Runs one lot; tells whether all of its tests passed.
fn play(lot: &[&str], rows: &mut Vec<Row>) -> Result<bool> {
    let mut command = program::command(program::cargo());
    command.args(["test", "--quiet", "--locked", "--no-fail-fast"]).args(lot);
    // One at a time: a case that waits for a CPU is not the daemon's slowness.
    command.args(["--", "--nocapture", "--test-threads=1"]).stdout(Stdio::piped());
    command.env("MAGLEV_BIN_DIR", program::workspace().join("target/release"));
    let mut child = command.spawn().context("cannot run cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what cargo test says")?;
        if let Some(row) = row(&String::from_utf8_lossy(&line)) {
            println!("{}", shown(&row));
            rows.push(row);
        }
    }
    Ok(child.wait().context("cannot wait for cargo test")?.success())
}

/// The row on a line, after whatever the test harness had begun to say: daemon, case, verdict, milliseconds, remark.
fn row(line: &str) -> Option<Row> {
    let (_, row) = line.split_once(MARK)?;
    let mut fields = row.split('\t').map(str::to_owned);
    let mut next = || fields.next();
    Some(Row { daemon: next()?, case: next()?, verdict: next()?, milliseconds: next()?, said: next()? })
}

fn shown(row: &Row) -> String {
    let Row { daemon, case, verdict, milliseconds, said } = row;
    let line = format!("{daemon:<6} {case:<46} {verdict:<6} {milliseconds:>6} ms  {said}");
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_behind_what_the_harness_says() {
        let line = "test a::b ... bgp\tFRR\tdrain\tok\t4012\t0 of 18000 lost";
        let row = row(line).unwrap();
        let expected = "FRR    drain                                          ok       4012 ms  0 of 18000 lost";
        assert_eq!(shown(&row), expected);
        assert_eq!(shown(&Row { said: String::new(), ..row }), expected.split("  0 of").next().unwrap());
        for line in ["test a::b ... ok", "bgp\tFRR\tdrain", ""] {
            assert_eq!(super::row(line), None, "{line}");
        }
    }
}
