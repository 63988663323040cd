//! An emulated machine: boots a kernel, returns the output of its second serial port, and ends in any case. It must not
//! know the tests in it.

use std::{
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::Stdio,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::program;

/// The files of a machine.
pub(super) struct Machine<'a> {
    /// The kernel's image.
    pub(super) kernel: &'a Path,
    /// The initial RAM file system.
    pub(super) initramfs: &'a Path,
    /// The file that the kernel's messages go to.
    pub(super) console: &'a Path,
    /// Its clock.
    pub(super) clock: Clock,
}

/// What an emulated machine's clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// Time, as elsewhere. It has two CPUs, so that per-CPU maps have more than one value.
    Time,
    /// Executed instructions: each is a nanosecond, whatever else runs on the host. It has one CPU.
    Instructions,
}

impl Clock {
    const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Time => &["-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024"],
            Self::Instructions => {
                &["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-smp", "1", "-m", "3072"]
            }
        }
    }
}

/// The outcome of a run.
pub(super) struct Run {
    /// The output of the second serial port.
    pub(super) said: String,
    /// Whether it had to be stopped.
    pub(super) timed_out: bool,
}

/// Beside what its clock needs. The emulation is in software, which every machine can do.
const OPTIONS: [&str; 4] = ["-nodefaults", "-no-reboot", "-display", "none"];

/// The kernel's messages go to the first port; a panic reboots at once, which ends the machine. The emulated clock is never wrong.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 tsc=reliable";

/// Runs a machine until it switches itself off, or until the limit.
///
/// # Errors
/// If QEMU does not start or cannot boot.
pub(super) fn run(machine: &Machine<'_>, limit: Duration) -> Result<Run> {
    let mut console = std::ffi::OsString::from("file:");
    console.push(machine.console);
    let mut command = program::command("qemu-system-x86_64");
    command.args(machine.clock.options()).args(OPTIONS).args(["-append", COMMAND_LINE]);
    command.arg("-kernel").arg(machine.kernel).arg("-initrd").arg(machine.initramfs);
    command.arg("-serial").arg(console).args(["-serial", "stdio"]).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot run `qemu-system-x86_64` (package qemu-system-x86)")?;
    let output = child.stdout.take().context("QEMU has no output")?;
    let (said, timed_out) = listen(&lines(output), limit);
    if timed_out {
        child.kill().context("cannot stop QEMU")?;
    }
    let status = child.wait().context("cannot wait for QEMU")?;
    anyhow::ensure!(timed_out || status.success(), "QEMU failed ({status}); see above");
    Ok(Run { said, timed_out })
}

/// Lines as they come; the channel closes when the writer does.
fn lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (lines, received) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if lines.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    received
}

/// All lines until the channel closes, and whether the limit came first.
fn listen(lines: &Receiver<String>, limit: Duration) -> (String, bool) {
    let deadline = Instant::now() + limit;
    let mut said = String::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => said.extend([&line, "\n"]),
            Err(RecvTimeoutError::Disconnected) => return (said, false),
            Err(RecvTimeoutError::Timeout) => return (said, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_received_to_the_end_or_until_the_limit() {
        let end = lines(&b"one\r\ntwo\r\n"[..]);
        assert_eq!(listen(&end, Duration::from_secs(3_600)), ("one\ntwo\n".to_owned(), false));
        let (kept_open, silent) = mpsc::channel();
        kept_open.send("one".to_owned()).unwrap();
        assert_eq!(listen(&silent, Duration::ZERO), ("one\n".to_owned(), true));
    }
}
