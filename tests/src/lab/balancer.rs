//! One load balancer: its configuration files, its daemon, and the command line that drives it.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Lab, Netns, Process, Services, Settings, binary, services::pin_folder};

/// A load balancer with its daemon running. Dropping it kills the daemon, and ends what outlives that.
#[derive(Debug)]
pub struct Balancer {
    name: String,
    netns: Netns,
    directory: PathBuf,
    interfaces: usize,
    daemon: Process,
    /// What is started instead of the workspace's `maglevd run`.
    start: Start,
    keep: bool,
}

/// Another release's start.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The binary; the workspace's if there is none.
    pub binary: Option<PathBuf>,
    /// Further arguments of `maglevd run`.
    pub arguments: Vec<String>,
}

impl Start {
    /// A release that is watched for so long; if it fails, the release at `kept` runs in its place.
    pub fn watched(binary: Option<PathBuf>, probation: &str, kept: &str) -> Self {
        let arguments = ["--probation", probation, "--previous", kept].map(str::to_owned).to_vec();
        Self { binary, arguments }
    }
}

/// The unit of CPU time, in milliseconds: the kernel reports hundredths of a second to all programs.
const TICK: u64 = 10;

/// The file in the lab's directory that holds the certificate that daemons started from then on trust.
pub const AUTHORITY: &str = "authority.pem";

/// The socket in the lab's directory to which daemons started from then on report like to systemd, if it is there.
pub const NOTIFY: &str = "notify.sock";

/// The time between two signs of life that this service manager allows.
pub const WATCHDOG: Duration = Duration::from_secs(1);

/// How a command of the CLI ended.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Exit code: 0 done, 1 refused, 2 invalid input, 3 daemon unreachable.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Balancer {
    /// Writes the configuration of load balancer `n` (from 1), starts its daemon and waits until it answers.
    ///
    /// # Errors
    /// If the daemon does not come up; the message carries its log.
    pub fn start(lab: &Lab, n: u8, settings: &Settings, services: &Services) -> Result<Self> {
        let name = format!("lb{n}");
        let directory = lab.directory().join(&name);
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let config = settings.to_yaml(&directory.join("services.yaml"), &directory.join("maglev.sock"));
        write(&directory.join("maglev.yaml"), &config)?;
        // It holds the hash key.
        fs::set_permissions(directory.join("maglev.yaml"), fs::Permissions::from_mode(0o640))?;
        write(&directory.join("services.yaml"), &services.to_string())?;
        // These are the services of a new node: what another one kept in its history is no revision of theirs.
        match fs::remove_file(directory.join("services.history")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context("cannot remove the history of another node");
            }
            _ => {}
        }
        let netns = lab.netns(&name);
        let start = Start::default();
        let daemon = spawn(&name, &netns, &directory, &start)?;
        let interfaces = settings.interfaces.len();
        let mut balancer = Self { name, netns, directory, interfaces, daemon, start, keep: false };
        balancer.await_readiness()?;
        Ok(balancer)
    }

    /// Its name, such as `lb1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The daemon's API socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("maglev.sock")
    }

    /// `maglev.yaml`.
    pub fn config(&self) -> PathBuf {
        self.directory.join("maglev.yaml")
    }

    /// `services.yaml`, which the daemon writes too.
    pub fn services(&self) -> PathBuf {
        self.directory.join("services.yaml")
    }

    /// The daemon's log.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Runs a command of the CLI against this daemon.
    ///
    /// # Errors
    /// If the CLI cannot be started. An exit code other than 0 is not an error here.
    pub fn maglev(&self, arguments: &[&str]) -> Result<Answer> {
        maglev(&self.socket(), arguments)
    }

    /// The same, and it must succeed.
    ///
    /// # Errors
    /// If the CLI exits with another code than 0.
    pub fn maglev_ok(&self, arguments: &[&str]) -> Result<String> {
        Ok(self.maglev_done(arguments)?.stdout)
    }

    /// The same, with what it said on the way.
    ///
    /// # Errors
    /// If the CLI exits with another code than 0.
    pub fn maglev_done(&self, arguments: &[&str]) -> Result<Answer> {
        let answer = self.maglev(arguments)?;
        let Answer { code, stdout, stderr } = &answer;
        ensure!(*code == 0, "{}: maglev {arguments:?}: exit code {code}: {stderr}{stdout}", self.name);
        Ok(answer)
    }

    /// A reading command's answer with `--output json`.
    ///
    /// # Errors
    /// If the CLI exits with another code than 0, or does not print JSON.
    pub fn maglev_json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.maglev_ok(&[arguments, &["--output", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("maglev {arguments:?} printed {text:?}"))
    }

    /// Waits until every backend's next hop is resolved, and packets are sent by it.
    ///
    /// # Errors
    /// If the daemon ends, or half a minute passes.
    pub fn await_next_hops(&mut self) -> Result<()> {
        self.await_status("resolved next hops", |status| {
            let backends = status["backends"].as_array();
            let resolved = |backend: &Value| backend["next_hop"]["state"] == "resolved";
            status["publishing"] == false && backends.is_some_and(|all| all.iter().all(resolved))
        })
    }

    /// Waits until `maglev status` says what `holds` looks for.
    ///
    /// # Errors
    /// If the daemon ends, or half a minute passes.
    pub fn await_status(&mut self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<()> {
        self.await_answer(what, &["status"], holds)
    }

    /// Waits until a reading command of the CLI answers what `holds` looks for.
    ///
    /// # Errors
    /// If the daemon ends, or half a minute passes.
    pub fn await_answer(&mut self, what: &str, arguments: &[&str], holds: impl Fn(&Value) -> bool) -> Result<()> {
        let socket = self.socket();
        let arguments = [arguments, &["--output", "json"]].concat();
        self.daemon.await_event(what, |_| {
            let answer = maglev(&socket, &arguments)?;
            let parsed = || serde_json::from_str(&answer.stdout).with_context(|| format!("maglev {arguments:?}"));
            Ok(answer.code == 0 && holds(&parsed()?))
        })
    }

    /// Waits until the daemon's log holds a text.
    ///
    /// # Errors
    /// If the daemon ends, or half a minute passes.
    pub fn await_log(&mut self, text: &str) -> Result<()> {
        self.daemon.await_event(text, |daemon| Ok(daemon.log().contains(text)))
    }

    /// The daemon's process id.
    pub fn process_id(&self) -> u32 {
        self.daemon.id()
    }

    /// The time for which the daemon has had a CPU since it was started, for itself and in the kernel.
    ///
    /// # Errors
    /// If the daemon is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        let file = format!("/proc/{}/stat", self.process_id());
        let stat = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        // Behind the program's name, which may hold spaces (proc_pid_stat(5), utime and stime).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = [11, 12].iter().filter_map(|&n| fields.get(n)?.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * TICK))
    }

    /// Sends the daemon SIGHUP: read the files again.
    ///
    /// # Errors
    /// If the daemon is gone.
    pub fn hang_up(&self) -> Result<()> {
        self.daemon.signal(Signal::SIGHUP)
    }

    /// Ends the daemon as an operator would.
    ///
    /// # Errors
    /// If it does not end, or not with exit code 0.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.daemon.stop()?;
        ensure!(status.success(), "{} ended with {status}\n{}", self.name, self.log());
        Ok(())
    }

    /// Kills the daemon, which has no chance to tidy up.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.signal(Signal::SIGKILL)?;
        self.daemon.wait()?;
        Ok(())
    }

    /// Starts the daemon again on the files as they lie there.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.begin()?;
        self.await_readiness()?;
        self.await_next_hops()
    }

    /// Starts the daemon again, and waits for nothing.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn begin(&mut self) -> Result<()> {
        self.daemon = spawn(&self.name, &self.netns, &self.directory, &self.start)?;
        Ok(())
    }

    /// What later starts run.
    pub fn install(&mut self, start: Start) {
        self.start = start;
    }

    /// Waits until the daemon ends by itself.
    ///
    /// # Errors
    /// If it goes on for half a minute.
    pub fn await_end(&mut self) -> Result<ExitStatus> {
        self.daemon.wait()
    }

    /// Sends the daemon a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.daemon.signal(signal)
    }

    /// Lets the daemon outlive this handle.
    pub fn keep(&mut self) {
        self.keep = true;
        self.daemon.keep();
    }

    /// The folder in the BPF file system that it pins in.
    pub fn pin_folder(&self) -> PathBuf {
        pin_folder(&self.socket())
    }

    /// Its pinned objects: none once it was stopped.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn pinned(&self) -> Result<Vec<String>> {
        let folder = self.pin_folder();
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn await_readiness(&mut self) -> Result<()> {
        let (socket, interfaces) = (self.socket(), self.interfaces);
        self.daemon.await_event("its API socket", |_| Ok(fs::exists(&socket)?))?;
        self.await_status("attached interfaces", |status| {
            // One that does not exist yet is waited for by the daemon, not here.
            let begun = |interface: &&Value| interface["attached"] == true || interface["link"] == "absent";
            status["interfaces"].as_array().is_some_and(|all| all.iter().filter(begun).count() == interfaces)
        })
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if !self.keep {
            // Both fail only if there is nothing to end.
            let _ = self.kill();
            let _ = fs::remove_dir_all(pin_folder(&self.socket()));
        }
    }
}

/// Runs a command of the CLI against the daemon at `socket`.
///
/// # Errors
/// As [`Balancer::maglev`].
pub fn maglev(socket: &Path, arguments: &[&str]) -> Result<Answer> {
    let mut command = Command::new(binary("maglev")?);
    let output = command.arg("--socket").arg(socket).args(arguments).output().context("cannot start maglev")?;
    Ok(Answer {
        code: output.status.code().context("maglev was killed")?,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn spawn(name: &str, netns: &Netns, directory: &Path, start: &Start) -> Result<Process> {
    let mut command = Command::new(start.binary.clone().map_or_else(|| binary("maglevd"), Ok)?);
    command.arg("run").arg("--config").arg(directory.join("maglev.yaml")).args(&start.arguments);
    // The authorities of its https checks: those of the lab, if it names any.
    let authority = directory.with_file_name(AUTHORITY);
    if authority.exists() {
        command.env("SSL_CERT_FILE", authority);
    }
    let notify = directory.with_file_name(NOTIFY);
    if notify.exists() {
        command.env("NOTIFY_SOCKET", notify).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    }
    Process::start("maglevd", netns, directory, &mut command).with_context(|| name.to_owned())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
