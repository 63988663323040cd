//! One backend: its server, and the `decap` program that takes the outer header off.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use nix::sys::signal::Signal;

use super::{Lab, Process, addresses::OUTER_SOURCES, binary, services::pin_folder};

/// A running backend. Dropping it kills its processes.
#[derive(Debug)]
pub struct Backend {
    name: String,
    server: Process,
    decap: Option<Process>,
    counters: PathBuf,
}

impl Backend {
    /// The port that every backend, and so every VIP, serves on.
    pub const PORT: u16 = 80;
    /// The port of the service for connections that are held.
    pub const TALK_PORT: u16 = 7_000;

    /// Starts the server alone.
    pub(super) fn start(lab: &Lab, name: String) -> Result<Self> {
        let server = serve(lab, &name)?;
        let counters = lab.directory().join(format!("{name}.counters"));
        Ok(Self { name, server, decap: None, counters })
    }

    /// Attaches `decap` to the backend's link.
    pub(super) fn decapsulate(&mut self, lab: &Lab) -> Result<()> {
        self.start_decap(lab, &[])
    }

    /// Starts `decap`, with further options, and waits until it is attached.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_decap(&mut self, lab: &Lab, options: &[&str]) -> Result<()> {
        self.begin_decap(lab, options)?.await_line("ready")
    }

    /// The same without the wait.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn begin_decap(&mut self, lab: &Lab, options: &[&str]) -> Result<&mut Process> {
        Ok(self.decap.insert(begin(lab, &self.name, &self.counters, options)?))
    }

    /// Starts `decap` as a service with this file, and waits until it is attached.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_service(&mut self, lab: &Lab, file: &Path) -> Result<()> {
        let mut command = Command::new(binary("maglevd")?);
        command.args(["decap", "--config"]).arg(file);
        let name = format!("{}-decap", self.name);
        let service = Process::start(&name, &lab.netns(&self.name), &lab.directory(), &mut command)?;
        self.decap.insert(service).await_line("ready")
    }

    /// Ends the service as an operator would.
    ///
    /// # Errors
    /// If it does not run, or does not end cleanly.
    pub fn stop_service(&mut self) -> Result<()> {
        let mut decap = self.decap.take().context("decap does not run")?;
        let status = decap.stop()?;
        ensure!(status.success(), "{}: decap ended with {status}\n{}", self.name, decap.log());
        Ok(())
    }

    /// Kills `decap`, which has no chance to tidy up.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill_decap(&mut self) -> Result<()> {
        let mut decap = self.decap.take().context("decap does not run")?;
        decap.signal(Signal::SIGKILL)?;
        decap.wait()?;
        Ok(())
    }

    /// Its `decap`.
    ///
    /// # Errors
    /// If it does not run.
    pub fn decap(&mut self) -> Result<&mut Process> {
        self.decap.as_mut().context("decap does not run")
    }

    /// Where its `decap` pins.
    pub fn pins(&self, lab: &Lab) -> PathBuf {
        decap_pins(lab, &self.name)
    }

    /// Ends the server, and with it every connection that lives on it, and starts it again.
    ///
    /// # Errors
    /// If it does not end or does not come up.
    pub fn restart(&mut self, lab: &Lab) -> Result<()> {
        self.server.stop()?;
        self.server = serve(lab, &self.name)?;
        Ok(())
    }

    /// Ends the server.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop_server(&mut self) -> Result<()> {
        self.server.stop()?;
        Ok(())
    }

    /// Starts the server, which was stopped.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_server(&mut self, lab: &Lab) -> Result<()> {
        self.server = serve(lab, &self.name)?;
        Ok(())
    }

    /// Its name, as the server answers.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The counters of `decap` up to a tenth of a second ago, by name.
    ///
    /// # Errors
    /// If it has not written its counters.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>> {
        let text = fs::read_to_string(&self.counters).with_context(|| format!("{}: no counters", self.name))?;
        serde_json::from_str(&text).with_context(|| format!("{}: counters {text:?}", self.name))
    }

    /// Ends `decap` as an operator would; returns its last counters, which it prints.
    ///
    /// # Errors
    /// If it does not run, does not end cleanly, or prints no counters.
    pub fn stop_decap(&mut self) -> Result<BTreeMap<String, u64>> {
        let mut decap = self.decap.take().context("decap does not run")?;
        let status = decap.stop()?;
        ensure!(status.success(), "{}: decap ended with {status}\n{}", self.name, decap.log());
        let printed = decap.stdout()?;
        let last = printed.lines().last().unwrap_or_default();
        serde_json::from_str(last).with_context(|| format!("{}: last line of decap {last:?}", self.name))
    }

    /// Lets its processes outlive this handle.
    pub fn keep(&mut self) {
        self.server.keep();
        if let Some(decap) = &mut self.decap {
            decap.keep();
        }
    }
}

/// Starts `decap` on the link of a backend's namespace; it writes its counters to this file.
pub(crate) fn decapsulate(lab: &Lab, name: &str, counters: &Path) -> Result<Process> {
    let mut decap = begin(lab, name, counters, &[])?;
    decap.await_line("ready")?;
    Ok(decap)
}

fn begin(lab: &Lab, name: &str, counters: &Path, options: &[&str]) -> Result<Process> {
    let mut command = Command::new(binary("maglevd")?);
    command.args(["decap", "--interface", "eth0"]).arg("--counters").arg(counters);
    command.arg("--pin").arg(decap_pins(lab, name));
    command.args(OUTER_SOURCES.iter().flat_map(|prefix| ["--from", prefix])).args(options);
    // A test may be its service manager.
    let manager = lab.directory().join(format!("{name}.notify"));
    if manager.exists() {
        command.env("NOTIFY_SOCKET", manager);
    }
    Process::start(&format!("{name}-decap"), &lab.netns(name), &lab.directory(), &mut command)
}

/// All backends have an `eth0`: each has a pin folder of its own, which goes with its lab.
fn decap_pins(lab: &Lab, name: &str) -> PathBuf {
    pin_folder(&lab.directory().join(name).join("decap"))
}

fn serve(lab: &Lab, name: &str) -> Result<Process> {
    let mut command = Command::new(binary("maglev-lab")?);
    let ports = [Backend::PORT, Backend::TALK_PORT].map(|port| port.to_string());
    command.args(["serve", "--name", name, "--port", &ports[0], "--talk-port", &ports[1]]);
    let mut server = Process::start(name, &lab.netns(name), &lab.directory(), &mut command)?;
    server.await_line("listening")?;
    Ok(server)
}
