//! One network namespace: made and removed by `ip netns`, entered by a thread of its own, never by the caller's.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sched::{CloneFlags, CpuSet, sched_setaffinity, setns},
    unistd::Pid,
};

/// A named network namespace. Its maker removes it; see [`crate::lab::registry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// The namespace of this name, whether or not it exists yet.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Its name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it, for `nsenter --net=`.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `work` on a new thread inside the namespace. Sockets it opens and processes it starts stay there.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or what `work` returns.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            let file = File::open(self.path()).with_context(|| format!("no network namespace {}", self.name))?;
            setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", self.name))?;
            work()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Starts a process inside the namespace. Unlike `ip netns exec` this leaves `/sys` alone.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the program not started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.run(|| command.spawn().with_context(|| format!("cannot start {command:?}")))
    }

    /// The same, and the process never leaves this CPU.
    ///
    /// # Errors
    /// As above, or if there is no such CPU.
    pub fn spawn_on(&self, cpu: usize, command: &mut Command) -> Result<Child> {
        self.run(|| {
            // The thread is this process's own, and its children begin where it may run.
            let mut cpus = CpuSet::new();
            cpus.set(cpu).context("CPUs")?;
            sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("cannot run on CPU {cpu}"))?;
            command.spawn().with_context(|| format!("cannot start {command:?}"))
        })
    }

    /// Runs a program inside the namespace to its end.
    ///
    /// # Errors
    /// If it cannot be started or exits with another code than 0; then its standard error is in the message.
    pub fn output(&self, command: &mut Command) -> Result<Vec<u8>> {
        let output = self.run(|| command.output().with_context(|| format!("cannot start {command:?}")))?;
        checked(command, output)
    }

    /// Runs lines of `ip` inside the namespace, all in one process.
    ///
    /// # Errors
    /// If one of them fails; then the message shows it.
    pub fn ip(&self, lines: &[String]) -> Result<()> {
        self.run(|| ip_batch(lines)).with_context(|| format!("in {}", self.name))
    }

    /// The answer of `ip --json ARGUMENTS` inside the namespace.
    ///
    /// # Errors
    /// If `ip` fails or answers with something else than JSON.
    pub fn ip_json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let answer = self.output(Command::new("ip").arg("-json").args(arguments))?;
        if answer.trim_ascii().is_empty() {
            return Ok(serde_json::Value::Array(Vec::new()));
        }
        serde_json::from_slice(&answer).with_context(|| format!("ip -json {arguments:?}"))
    }

    /// Writes sysctls, `("net.ipv4.ip_forward", "1")`, inside the namespace.
    ///
    /// # Errors
    /// If the kernel has no such setting or refuses the value.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in settings {
                let file = PathBuf::from("/proc/sys").join(key.replace('.', "/"));
                fs::write(&file, value).with_context(|| format!("sysctl {key}={value}"))?;
            }
            Ok(())
        })
    }

    /// The processes that live in the namespace.
    ///
    /// # Errors
    /// If `ip` cannot be started. A namespace that does not exist has none.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let output = Command::new("ip").args(["netns", "pids", &self.name]).output().context("ip netns pids")?;
        Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
    }
}

/// Runs lines of `ip` in the caller's namespace, all in one process.
///
/// # Errors
/// If one of them fails; then the message shows it.
pub(super) fn ip_batch(lines: &[String]) -> Result<()> {
    let script = lines.iter().fold(String::new(), |script, line| script + line + "\n");
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `ip`: install the Debian package iproute2")?;
    let Some(mut stdin) = child.stdin.take() else { bail!("ip has no standard input") };
    ignore_broken_pipe(stdin.write_all(script.as_bytes()))?;
    drop(stdin);
    let output = child.wait_with_output().context("ip -batch")?;
    // ip names the failing line by number ("Command failed -:3").
    let numbered = || script.lines().enumerate().map(|(n, line)| format!("{:>3} {line}\n", n + 1)).collect::<String>();
    ensure!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stderr), numbered());
    Ok(())
}

fn checked(command: &Command, output: Output) -> Result<Vec<u8>> {
    let Output { status, stdout, stderr } = output;
    ensure!(status.success(), "{command:?}: {status}: {}", String::from_utf8_lossy(&stderr).trim());
    Ok(stdout)
}

/// A batch that fails on an early line closes its input; what it says on standard error is the better message.
fn ignore_broken_pipe(written: io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("ip -batch"),
        _ => Ok(()),
    }
}
