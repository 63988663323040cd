//! Matrices of cases, one line for each: `cargo xtask test bgp`, `health`, `store`, `packets`, `hitless`, `machines` and `faults`.
//! Knows which tests print rows, and the form of a row; it does not know the cases.
//!
//! ```text
//!  BIRD   v4 session established, MD5 and GTSM                         ok         12 ms
//! ```

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{build, machines, program, setup};

/// Cases that are shown together.
pub(crate) struct Matrix {
    /// The first word of its rows in a test's output.
    name: &'static str,
    /// The tests that print rows: cargo's arguments for each lot. Those of maglev-e2e drive the release binaries in the lab.
    lots: &'static [&'static [&'static str]],
    /// The required subjects: each must have a case.
    subjects: &'static [&'static str],
}

/// BGP: the subject of a row is the other daemon.
pub(crate) const BGP: Matrix = Matrix {
    name: "bgp",
    lots: &[
        &["--package", "maglev-bgp", "--lib", "interop"],
        &["--package", "maglev-e2e", "--test", "bgp", "--test", "nothing_lost"],
    ],
    subjects: &["BIRD", "FRR", "GoBGP", "rogue"],
};

/// Health: the subject of a row is the kind of check, or its place.
pub(crate) const HEALTH: Matrix = Matrix {
    name: "health",
    lots: &[
        &["--package", "maglev-core", "--package", "maglev-config", "--lib", "health::"],
        &["--package", "maglev-probe", "--lib"],
        &[
            "--package",
            "maglev-e2e",
            "--test",
            "health",
            "--test",
            "health_announce",
            "--test",
            "health_cost",
            "--test",
            "probe_path",
        ],
    ],
    subjects: &["http", "https", "udp", "config", "model", "lab", "BIRD", "cost", "encap", "direct"],
};

/// The store of the services: the subject of a row is the action on it.
pub(crate) const STORE: Matrix = Matrix {
    name: "store",
    lots: &[
        &["--package", "maglev-store", "--lib"],
        &["--package", "maglev-e2e", "--test", "history", "--test", "services"],
    ],
    subjects: &["kept", "edit", "crash", "damage", "full", "release", "lab", "kill", "file"],
};

/// Packets beside plain ones: by kind, or by the link that they cross.
pub(crate) const PACKETS: Matrix = Matrix {
    name: "packets",
    lots: &[&[
        "--package",
        "maglev-e2e",
        "--test",
        "packets",
        "--test",
        "narrow",
        "--test",
        "fragments",
        "--test",
        "mtu",
        "--test",
        "answers",
        "--test",
        "gue",
        "--test",
        "headers",
        "--test",
        "bad_packets",
        "--test",
        "source_affinity",
    ]],
    subjects: &[
        "ping",
        "narrow",
        "upload",
        "fragments",
        "mss",
        "mtu",
        "refusal",
        "echo",
        "gue",
        "header",
        "bad",
        "source",
    ],
};

/// Daemons that are killed, upgraded and rolled back under traffic: the subject of a row is what happens to the daemon.
pub(crate) const HITLESS: Matrix = Matrix {
    name: "hitless",
    lots: &[
        &["--package", "maglev-daemon", "--lib", "runtime::adoption"],
        &["--package", "maglev-e2e", "--test", "hitless"],
    ],
    subjects: &["kill", "upgrade", "layout", "rollback", "unready", "changes", "stopped", "damage", "probation"],
};

/// A node in an emulated machine with Debian and systemd: the subject of a row is what happens to the package or the machine.
pub(crate) const MACHINES: Matrix = Matrix {
    name: "machines",
    lots: &[
        &["--package", "maglev-e2e", "--features", "machines", "--lib", "machine::"],
        &["--package", "maglev-e2e", "--features", "machines", "--test", "package", "--test", "machines"],
    ],
    subjects: &[
        "install", "upgrade", "rollback", "restart", "reboot", "power", "purge", "6.1", "queues", "vmxnet3", "backend",
    ],
};

/// Faults that were found by running the product: the subject of a row is the fault's number. One number has one or more
/// cases: the fault as it was found, and others of its kind. D12 and T6 are sentences in `docs` alone.
pub(crate) const FAULTS: Matrix = Matrix {
    name: "fault",
    lots: &[&["--workspace", "--lib", "faults::"], &["--package", "maglev-e2e", "--test", "faults"]],
    subjects: &[
        "D1", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "D9", "D10", "D11", "D13", "D14", "D15", "T1", "T2", "T3",
        "T4", "T5", "C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11", "C12", "C13", "C14", "C15",
        "C16", "C17", "R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8", "R9", "R10",
    ],
};

/// One case.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    subject: String,
    case: String,
    verdict: String,
    milliseconds: String,
    said: String,
}

impl Matrix {
    /// Runs the tests one after the other and prints their rows as they come.
    ///
    /// # Errors
    /// If a case fails, a test without cases fails, or a subject has no case.
    pub(crate) fn run(&self) -> Result<()> {
        ensure!(program::is_root(), "the matrix needs root: it makes network namespaces; try with sudo");
        setup::run()?;
        build::for_tests()?;
        let (mut rows, mut broken) = (Vec::new(), false);
        for lot in self.lots {
            broken |= !self.play(lot, &mut rows)?;
        }
        let failed = rows.iter().filter(|row| row.verdict != "ok").count();
        println!("\n{} cases, {failed} failed", rows.len());
        if failed > 0 || broken {
            bail!("a case failed; the output of its test is above");
        }
        for subject in self.subjects {
            ensure!(rows.iter().any(|row| row.subject == *subject), "no case of {subject} was run");
        }
        Ok(())
    }

    /// Runs one lot; returns whether all of its tests passed.
    fn play(&self, lot: &[&str], rows: &mut Vec<Row>) -> Result<bool> {
        let mut command = program::command(program::cargo());
        command.args(["test", "--quiet", "--locked", "--no-fail-fast"]).args(lot);
        // One at a time, so that cases do not wait for a CPU.
        command.args(["--", "--nocapture", "--test-threads=1"]).stdout(Stdio::piped());
        command.env("MAGLEV_BIN_DIR", program::workspace().join("target/release"));
        // The parts of emulated machines.
        command.env("MAGLEV_MACHINES", program::workspace().join(machines::FOLDER));
        // Cases whose full size takes minutes have a short form in the suite.
        command.env("MAGLEV_FULL", "1");
        let mut child = command.spawn().context("cannot run cargo test")?;
        let output = child.stdout.take().context("cargo test has no output")?;
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("cannot read the output of cargo test")?;
            if let Some(row) = self.row(&String::from_utf8_lossy(&line)) {
                println!("{}", shown(&row));
                rows.push(row);
            }
        }
        Ok(child.wait().context("cannot wait for cargo test")?.success())
    }

    /// The row on a line, after the test harness's own text: the matrix, then subject, case, verdict,
    /// milliseconds, remark.
    fn row(&self, line: &str) -> Option<Row> {
        let (before, row) = line.split_once('\t')?;
        before.ends_with(self.name).then_some(())?;
        let mut fields = row.split('\t').map(str::to_owned);
        let mut next = || fields.next();
        Some(Row { subject: next()?, case: next()?, verdict: next()?, milliseconds: next()?, said: next()? })
    }
}

fn shown(row: &Row) -> String {
    let Row { subject, case, verdict, milliseconds, said } = row;
    let line = format!("{subject:<6} {case:<60} {verdict:<6} {milliseconds:>6} ms  {said}");
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_after_the_harness_output() {
        let line = "test a::b ... bgp\tFRR\tdrain\tok\t4012\t0 of 18000 lost";
        let row = BGP.row(line).unwrap();
        let expected =
            "FRR    drain                                                        ok       4012 ms  0 of 18000 lost";
        assert_eq!(shown(&row), expected);
        assert_eq!(shown(&Row { said: String::new(), ..row }), expected.split("  0 of").next().unwrap());
        for line in ["test a::b ... ok", "bgp\tFRR\tdrain", ""] {
            assert_eq!(BGP.row(line), None, "{line}");
        }
        assert_eq!(HEALTH.row(line), None, "it is another matrix's");
    }
}
