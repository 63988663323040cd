//! What a start of this release would do with what forwards now: read, judged and loaded into the kernel once, without a change. It
//! must not know how a start is made.

use std::fmt;
use std::path::Path;

use anyhow::Context as _;
use maglev_config::{NodeConfig, OnStop};
use maglev_dataplane::{Dataplane, Kept, Pins, Rehearsal};
use maglev_doctor::facts;
use maglev_net::links::{self, Link};
use serde::Serialize;

use super::adoption::{Found, Heritage};
use super::{Failure, node_state, start};

/// The findings.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    /// The release that was asked.
    release: &'static str,
    /// What it does with the pinned data plane: `start`, `adopt`, `continue` or `replace`.
    action: &'static str,
    /// In what the pinned data plane differs.
    differences: Vec<String>,
    /// What stays as it is.
    keeps: Vec<&'static str>,
    /// What is lost.
    forgets: Vec<&'static str>,
    /// Why a start would be refused.
    refuses: Vec<String>,
    /// What a start would do with a disadvantage.
    warns: Vec<String>,
    /// Bytes of kernel memory that the maps take.
    memory_bytes: u64,
    /// The same while two data planes exist, from the start to the end of the probation.
    memory_meanwhile_bytes: u64,
}

/// What follows the flow entries, if the maps begin anew.
const FLOWS: &str = "flow entries: flows pinned to a backend that owns their slot no more move to its owner";
const TRANSITIONS: &str = "transitions of slots";
const COUNTERS: &str = "counters";

/// Examines what a start with this node file would do.
///
/// # Errors
/// Invalid files; or the kernel refuses the programs.
pub fn examine(path: &Path) -> Result<Findings, Failure> {
    let (node, services) = maglev_store::load(path)?;
    drop(services);
    let drained = node_state::read(&node_state::path(&node.services), maglev_api::now()).is_some();
    let settings = maglev_dataplane::Settings { cut: drained, ..start::settings(&node) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let links = runtime.context("cannot start the event loop")?.block_on(links::list())?;
    let pins = node.pin.as_deref().filter(|folder| folder.exists()).map(Pins::read);
    let mut findings = Findings { release: maglev_api::RELEASE, ..Findings::default() };
    let heritage = match &pins {
        Some(pins) => Found::read(&node, &settings, pins)?.heritage,
        None => Heritage::None,
    };
    findings.describe(&heritage);
    // A drained node has no connections to lose.
    if let Some(reason) = interruption(&node, &links).filter(|_| !drained) {
        findings.interrupt(reason);
    }
    match Dataplane::rehearse(&settings, &links, pins.as_ref()) {
        Ok(Rehearsal { memory_bytes, warnings }) => {
            findings.memory_bytes = memory_bytes;
            let twice = matches!(heritage, Heritage::Continued { .. } | Heritage::Replaced(_));
            findings.memory_meanwhile_bytes = if twice { 2 * memory_bytes } else { memory_bytes };
            findings.warns = warnings;
        }
        Err(error) => findings.refuses.push(error.to_string()),
    }
    Ok(findings)
}

/// Loads into the kernel what a start with this node file would load, and frees it again: what `doctor` reports of a start.
///
/// # Errors
/// Netlink cannot be asked, or no event loop be started.
pub fn rehearse(node: &NodeConfig) -> Result<facts::Rehearsal, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the event loop: {error}"))?;
    let links = runtime.block_on(links::list()).map_err(|error| error.to_string())?;
    let pins = node.pin.as_deref().filter(|folder| folder.exists()).map(Pins::read);
    let exists = pins.as_ref().is_some_and(|pins| !pins.is_empty());
    let settings = maglev_dataplane::Settings { cut: true, ..start::settings(node) };
    Ok(match Dataplane::rehearse(&settings, &links, pins.as_ref()) {
        Ok(Rehearsal { memory_bytes, .. }) => facts::Rehearsal { refused: None, memory: memory_bytes, exists },
        Err(error) => facts::Rehearsal { refused: Some(error.to_string()), memory: 0, exists },
    })
}

/// Why the stop of a daemon with this node file leaves nothing that forwards, if programs are attached now.
fn interruption(node: &NodeConfig, links: &[Link]) -> Option<&'static str> {
    let attached = |name: &str| links.iter().any(|link| link.name == name && link.xdp.is_some());
    if !node.interfaces.iter().any(|interface| attached(&interface.name)) {
        return None;
    }
    match node.pin {
        None => Some("dataplane.pin is off: a stop of maglevd detaches the programs"),
        Some(_) if node.on_stop == OnStop::Detach => {
            Some("dataplane.on_stop is detach: a stop of maglevd detaches the programs")
        }
        Some(_) => None,
    }
}

impl Findings {
    /// A restart begins with nothing.
    fn interrupt(&mut self, reason: &str) {
        self.differences.push(reason.to_owned());
        (self.action, self.keeps, self.forgets) = ("replace", Vec::new(), vec![FLOWS, TRANSITIONS, COUNTERS]);
    }

    fn describe(&mut self, heritage: &Heritage) {
        self.differences = heritage.differences();
        (self.action, self.keeps, self.forgets) = match heritage {
            Heritage::None => ("start", Vec::new(), Vec::new()),
            Heritage::Adopted => ("adopt", vec!["programs", TRANSITIONS, "flow entries", COUNTERS], Vec::new()),
            Heritage::Continued { kept: Kept { flows, counters }, .. } => {
                let (mut keeps, mut forgets) = (vec![TRANSITIONS], Vec::new());
                if *flows {
                    keeps.push("flow entries");
                } else {
                    forgets.push(FLOWS);
                }
                if *counters {
                    keeps.push(COUNTERS);
                } else {
                    forgets.push(COUNTERS);
                }
                ("continue", keeps, forgets)
            }
            Heritage::Replaced(reason) => {
                self.differences.push(reason.clone());
                ("replace", Vec::new(), vec![FLOWS, TRANSITIONS, COUNTERS])
            }
        };
    }

    /// Whether a start may go ahead.
    ///
    /// # Errors
    /// It would be refused, or would lose flow entries or transitions.
    pub fn verdict(&self) -> Result<(), String> {
        if let Some(reason) = self.refuses.first() {
            return Err(format!("a start would be refused: {reason}"));
        }
        match self.forgets.iter().find(|what| **what != COUNTERS) {
            Some(what) => Err(format!("a start would lose {what}")),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { release, action, differences, keeps, forgets, refuses, warns, .. } = self;
        let Self { memory_bytes, memory_meanwhile_bytes, .. } = self;
        let action = match *action {
            "adopt" => "adopts the pinned data plane as it is",
            "continue" => "continues the pinned data plane with programs of its own",
            "replace" => "REPLACES the pinned data plane",
            _ => "starts a data plane; none is pinned",
        };
        writeln!(f, "release {release} {action}")?;
        differences.iter().try_for_each(|what| writeln!(f, "differs     {what}"))?;
        keeps.iter().try_for_each(|what| writeln!(f, "keeps       {what}"))?;
        forgets.iter().try_for_each(|what| writeln!(f, "FORGETS     {what}"))?;
        refuses.iter().try_for_each(|what| writeln!(f, "REFUSES     {what}"))?;
        warns.iter().try_for_each(|what| writeln!(f, "warns       {what}"))?;
        let mib = |bytes: &u64| bytes.div_ceil(1 << 20);
        writeln!(f, "memory      {} MiB of maps, {} MiB meanwhile", mib(memory_bytes), mib(memory_meanwhile_bytes))
    }
}
