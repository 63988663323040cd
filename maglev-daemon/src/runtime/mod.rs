//! Runs the daemon: starts the tasks and threads in the order of their dependencies, and ends them.
//!
//! ```text
//!  maglev ──▶ API connections ─┐ Request                                ┌─▶ disk (thread): services.yaml
//!  scraper ─▶ /metrics ────────┤ Snapshot     ┌───────────────────────┐ ├─▶ node state (task): a drain of the node
//!                              ├─────────────▶│ owner: the one holder │─┤ Effect
//!  SIGHUP, SIGTERM ────────────┤              │ of the Node           │ │
//!  resolver (netlink) ─────────┤ Event        └───────────────────────┘ ├─▶ dataplane (thread): plans, counters
//!  checks: a task per target ──┤ Checked            ▲        │          ├─▶ scheduler: targets to check
//!  interface watch (netlink) ──┤ Refreshed          │        │          ├─▶ resolver: addresses to follow
//!  BGP sessions ───────────────┘ Sessions           │        │          └─▶ speaker (thread), by Wanted (watch): a
//!                                                   │        │              task per BGP neighbor
//!      Persisted, Published, Saved: disk, dataplane ┘        └─ Shown: to the reader that asked for it, which
//!                                                               computes the status on the thread of pages
//!      Prepared: a data plane with other settings, loaded by a blocking thread for a reload; it goes to the owner, and with the
//!      next plan to the dataplane
//!      Journal (watch): events, from the owner to followers of the API
//!      flow table: reads counters of the dataplane periodically
//! ```
//!
//! The owner never waits for disk or data plane: both report back as events, and events that arrive meanwhile become
//! the next plan. Views for readers are computed on request only.

mod adoption;
mod captures;
mod clock;
mod dataplane;
mod event_log;
mod files;
mod flood;
mod flow_table;
mod heartbeat;
mod inputs;
mod limits;
mod lost_packets;
mod node_state;
mod owner;
mod plans;
pub mod preflight;
mod probation;
mod refreshed;
pub mod signals;
mod snapshot;
mod sockets;
mod start;
mod status;
mod succession;
pub mod systemd;
mod trial;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use maglev_bgp::speaker::{Before, Speaker};
use maglev_config::{NodeConfig, Problems};
use maglev_dataplane::{DataplaneError, Pins};
use maglev_model::{Name, Services};
use maglev_net::identity::Identity;
use maglev_net::{NetError, host};
use maglev_store::{FileStore, ServiceStore as _};

use crate::http::Bgp;
use crate::http::server::BindError;
use dataplane::End;
use owner::Owner;
use probation::Probation;
use sockets::Sockets;
use start::{Given, Signals, Started};
use trial::{Instead, Trial};

/// How long the packet path continues after the withdrawal at a stop: routers need a moment to choose other paths.
const TURNED: Duration = Duration::from_millis(250);

/// How long the kernel may take to verify the programs, on the slowest machine; the service manager waits so long.
const VERIFIED: Duration = Duration::from_secs(120);

/// How long a phase of the stop may take; the service manager waits so long for the next one.
const ENDED: Duration = Duration::from_secs(20);

/// The error of a daemon that did not start, or ended.
#[derive(Debug)]
pub enum Failure {
    /// Invalid files (exit code 2).
    Config(Problems),
    /// Any other error (exit code 1).
    Other(anyhow::Error),
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<DataplaneError> for Failure {
    fn from(error: DataplaneError) -> Self {
        Self::Other(error.into())
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        Self::Other(error.into())
    }
}

impl From<NetError> for Failure {
    fn from(error: NetError) -> Self {
        Self::Other(error.into())
    }
}

/// How a start differs from others.
#[derive(Clone, Debug)]
pub struct Start {
    /// The binary of the release before, which runs in the place of one that fails.
    pub kept: PathBuf,
    /// For how long a release is watched after it is ready, before it is proven.
    pub probation: Duration,
    /// Whether an interface may be without a program for a moment.
    pub cut: bool,
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// The reason why it did not start; no program stays attached.
pub fn run(path: &Path, start: &Start) -> Result<(), Failure> {
    limits::raise_open_files();
    let (node, store) = open(path)?;
    if !node.services.exists() {
        tracing::warn!(file = %node.services.display(), "there is no services file yet: starting without services");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let instead = runtime.context("cannot start the event loop")?.block_on(serve(path, node, store, start))?;
    // Everything that the process held has ended.
    instead.map_or(Ok(()), |instead| Err(instead.run().into()))
}

/// Reads the node's file and opens the store of its services.
fn open(path: &Path) -> Result<(NodeConfig, FileStore), Problems> {
    let node = match maglev_store::load_node(path) {
        Ok(node) => node,
        // Mistakes in the services are reported together with these.
        Err(problems) => return Err(maglev_store::load(path).err().unwrap_or(problems)),
    };
    let (store, notes) = FileStore::open(&node.services, &node.rules())?;
    notes.iter().for_each(|note| tracing::warn!("{note}"));
    Ok((node, store))
}

/// Signals and sockets come first, so that a failure there attaches no program; the data plane comes before the API, so that the
/// first answer is right.
// long: the order of a start and of an end
async fn serve(path: &Path, node: NodeConfig, store: FileStore, start: &Start) -> Result<Option<Instead>, Failure> {
    systemd::phase("loading and verifying the packet program", VERIFIED);
    let services = Services::clone(&store.load().services);
    let signals = Signals { stop: signals::Stop::listen()?, hangup: signals::reload()? };
    let sockets = Sockets::open(&node)?;
    let identity = node.bgp.as_ref().map(|bgp| Identity::hold(bgp.router_id, bgp.local_as)).transpose();
    let _identity = identity.map_err(anyhow::Error::new)?;
    let (bgp, on_stop) = (node.bgp.clone(), node.on_stop);
    let pins = node.pin.as_deref().map(Pins::hold).transpose()?.map(Arc::new);
    let (trial, instead) = pins.as_ref().map(|pins| Trial::begin(pins, &start.kept, &node.services)).unzip();
    if let instead @ Some(_) = instead.flatten() {
        return Ok(instead);
    }
    let given =
        Given { pins, cut: start.cut, rolled_back: trial.as_ref().and_then(Trial::runs_instead).map(str::to_owned) };
    let Started { mut owner, mut inputs, reads, news, kept, drained, before } =
        start::start(path, node, store, signals, given).await?;
    let mut probation = Probation::begin(trial, before, start.probation).await;
    owner.judged_by(probation.under_way());
    if let Some(record) = drained {
        owner.resume_drain(record, kept);
    }
    if let Err(error) = owner.start(services, &mut inputs).await {
        // A previous daemon's data plane continues to forward; a new one is detached.
        owner.stop(End::Leave, kept);
        return Err(error.into());
    }
    // Tables are published: prefixes announced from now on are served, and earlier ones are announced again.
    let before = Before { restarted: kept, forwarding_kept: kept };
    let wanted = owner.wanted();
    let speaker = match bgp.map(|bgp| Speaker::start(&bgp, before, &wanted, &news, maglev_api::now)).transpose() {
        Ok(speaker) => speaker,
        Err(error) => {
            // The data plane that forwarded before continues.
            owner.stop(if kept { End::Leave } else { End::Detach }, kept);
            return Err(error.into());
        }
    };
    let speaks = speaker.as_ref().map(Speaker::handle).unwrap_or_default();
    speaker.into_iter().for_each(|speaker| owner.announce_by(speaker));
    let handle = reads.handle(Bgp { speaker: speaks, prefixes: Some(owner.prefixes()) })?;
    let servers = sockets.serve(handle.clone());
    owner.scraped_by(servers.scraped());
    // Ready although an interface may be missing: a node that waits for one must not delay the machine's boot.
    owner.ready();
    tracing::info!(socket = %servers.path().display(), "ready");

    let instead = tokio::select! {
        biased;
        () = owner.run(inputs) => None,
        instead = probation.pass(&handle) => Some(instead),
    };
    probation.stop();
    drop((probation, handle));

    // A release that takes this one's place is the same service, which does not stop: it would be killed.
    systemd::notify(if instead.is_none() { "STOPPING=1" } else { "WATCHDOG=1" });
    systemd::phase("ending BGP sessions", ENDED);
    owner.log_stop();
    tracing::info!("stopping");
    servers.end();
    let detaches = owner.detaches() || on_stop == maglev_config::OnStop::Detach;
    end(owner, detaches && instead.is_none()).await;
    Ok(instead)
}

/// Ends sessions, disk and data plane.
async fn end(mut owner: Owner, detaches: bool) {
    let end = if detaches { End::Detach } else { End::Leave };
    let kept = end_sessions(owner.take_speaker(), owner.last_words(), end).await;
    systemd::phase("saving, and leaving the packet path", ENDED);
    owner.stop(end, kept);
}

/// Ends the sessions with this reason. Routers choose other nodes before this one stops forwarding. Returns whether neighbors keep
/// this node's prefixes.
async fn end_sessions(speaker: Option<Speaker>, (text, must_withdraw): (String, bool), end: End) -> bool {
    let Some(mut speaker) = speaker else { return false };
    if must_withdraw {
        speaker.withdraw_on_stop();
    }
    let (served, kept) = (speaker.has_announced(), speaker.keeps_on_stop());
    speaker.stop(&text).await;
    if served && end == End::Detach {
        tokio::time::sleep(TURNED).await;
    }
    kept
}

/// The VIPs whose address this machine or the backends need, with the reason: a daemon on this machine would not serve them.
///
/// # Errors
/// Netlink is not available.
pub fn conflicts(node: &NodeConfig, services: &Services) -> anyhow::Result<BTreeMap<Name, String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let host = host::Watch::start()?.read().await?;
        Ok(start::needed(node, host).conflicts(services))
    })
}
