//! One process of the lab: its output goes to files, it ends with the lab, and it is only ever addressed by its id.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::netns::Netns;

/// The polling interval of waits for a file or a process.
const LOOK: Duration = Duration::from_millis(5);
/// How many looks before something that should take milliseconds is given up: half a minute.
const LOOKS: usize = 6_000;

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    keep: bool,
}

impl Process {
    /// Starts `command` in `netns`; its output goes to `NAME.stdout` and `NAME.stderr` in `directory`.
    ///
    /// # Errors
    /// If the files cannot be made or the program not started.
    pub fn start(name: &str, netns: &Netns, directory: &Path, command: &mut Command) -> Result<Self> {
        Self::start_by(name, directory, command, |command| netns.spawn(command))
    }

    /// The same, and the process never leaves this CPU.
    ///
    /// # Errors
    /// As above, or if there is no such CPU.
    pub fn start_on(cpu: usize, name: &str, netns: &Netns, directory: &Path, command: &mut Command) -> Result<Self> {
        Self::start_by(name, directory, command, |command| netns.spawn_on(cpu, command))
    }

    fn start_by(
        name: &str,
        directory: &Path,
        command: &mut Command,
        spawn: impl FnOnce(&mut Command) -> Result<Child>,
    ) -> Result<Self> {
        let (stdout, stderr) = (directory.join(format!("{name}.stdout")), directory.join(format!("{name}.stderr")));
        let create = |path: &Path| File::create(path).with_context(|| format!("cannot write {}", path.display()));
        // A process group of its own: the terminal's Ctrl-C is for the owner of the lab, which then ends this process.
        command.stdin(Stdio::null()).stdout(create(&stdout)?).stderr(create(&stderr)?).process_group(0);
        Ok(Self { name: name.to_owned(), child: spawn(command)?, stdout, stderr, keep: false })
    }

    /// Waits until the process has printed `line` on standard output.
    ///
    /// # Errors
    /// If it ends first, or says nothing for half a minute.
    pub fn await_line(&mut self, line: &str) -> Result<()> {
        self.await_event(&format!("the line `{line}`"), |process| {
            Ok(process.stdout()?.lines().any(|printed| printed.trim() == line))
        })
    }

    /// Looks every few milliseconds until `happened`.
    ///
    /// # Errors
    /// If the process ends first, `happened` fails, or half a minute passes. The message carries what it logged.
    pub fn await_event(&mut self, what: &str, mut happened: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        for _ in 0..LOOKS {
            if happened(self)? {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before {what}\n{}", self.name, self.log());
            }
            thread::sleep(LOOK);
        }
        bail!("{} did not come to {what}\n{}", self.name, self.log())
    }

    /// Its standard output so far.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn stdout(&self) -> Result<String> {
        fs::read_to_string(&self.stdout).with_context(|| format!("cannot read {}", self.stdout.display()))
    }

    /// Its standard error so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Asks it to end and waits for that.
    ///
    /// # Errors
    /// If it does not end within half a minute.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end within half a minute.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        for _ in 0..LOOKS {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(LOOK);
        }
        bail!("{} does not end\n{}", self.name, self.log())
    }

    /// Lets it outlive this handle.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.keep {
            // Both fail only if it has already ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
