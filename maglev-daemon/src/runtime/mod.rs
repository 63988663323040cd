//! Runs the daemon: starts the tasks and threads, in an order in which none finds another missing, and ends them.
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
//!      Persisted, Published, Saved: disk, dataplane ┘        └─ Shown: to the reader that asked for it, who makes
//!                                                               the status of it on the thread of pages
//!      Journal (watch): events, from the owner to followers of the API
//!      flow table: asks the dataplane for counters now and then
//! ```
//!
//! The owner never waits for disk or data plane: both report back as events, and what arrives meanwhile becomes the
//! next plan. Nothing is made for readers before one asks.

mod adoption;
mod clock;
mod dataplane;
mod event_log;
mod files;
mod flood;
mod flow_table;
mod inputs;
mod limits;
mod node_state;
mod owner;
mod plans;
pub mod signals;
mod snapshot;
mod sockets;
mod start;
mod status;
pub mod systemd;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use maglev_bgp::speaker::{Before, Speaker};
use maglev_config::{NodeConfig, Problems};
use maglev_dataplane::DataplaneError;
use maglev_model::{Name, Services};
use maglev_net::identity::Identity;
use maglev_net::{NetError, host};
use maglev_store::{FileStore, ServiceStore as _};

use crate::http::Bgp;
use crate::http::server::BindError;
use dataplane::End;
use sockets::Sockets;
use start::{Signals, Started};

/// How long the packet path goes on once routers were told that the node stops: they need a moment to turn elsewhere.
const TURNED: Duration = Duration::from_millis(250);

/// Why the daemon did not start, or ended.
#[derive(Debug)]
pub enum Failure {
    /// The files are wrong (exit code 2).
    Config(Problems),
    /// Anything else (exit code 1).
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

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting; nothing stays attached.
pub fn run(path: &Path) -> Result<(), Failure> {
    limits::raise_open_files();
    let (node, store) = open(path)?;
    if !node.services.exists() {
        tracing::warn!(file = %node.services.display(), "there is no services file yet: starting without services");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("cannot start the event loop")?.block_on(serve(path, node, store))
}

/// Reads the node's file and opens the store of its services.
fn open(path: &Path) -> Result<(NodeConfig, FileStore), Problems> {
    let node = match maglev_store::load_node(path) {
        Ok(node) => node,
        // What is wrong with the services is said in the same breath.
        Err(problems) => return Err(maglev_store::load(path).err().unwrap_or(problems)),
    };
    let (store, notes) = FileStore::open(&node.services, &node.rules())?;
    notes.iter().for_each(|note| tracing::warn!("{note}"));
    Ok((node, store))
}

/// Signals and the sockets first, so that nothing is attached that has to be detached again; the data plane's contents before the
/// API, so that the first answer is true.
async fn serve(path: &Path, node: NodeConfig, store: FileStore) -> Result<(), Failure> {
    let services = Services::clone(&store.load().services);
    let signals = Signals { stop: signals::Stop::listen()?, hangup: signals::reload()? };
    let sockets = Sockets::open(&node)?;
    let identity = node.bgp.as_ref().map(|bgp| Identity::hold(bgp.router_id, bgp.local_as)).transpose();
    let _identity = identity.map_err(anyhow::Error::new)?;
    let (bgp, on_stop) = (node.bgp.clone(), node.on_stop);
    let Started { mut owner, mut inputs, reads, news, kept, drained } =
        start::start(path, node, store, signals).await?;
    if let Some(record) = drained {
        owner.resume_drain(record, kept);
    }
    if let Err(error) = owner.start(services, &mut inputs).await {
        // What another daemon left forwards as it did; what is of this one alone is detached.
        owner.stop(End::Leave, kept);
        return Err(error.into());
    }
    // Tables are published: what is announced from now on is served, and what was announced before is announced again.
    let before = Before { restarted: kept, forwarding_kept: kept };
    let wanted = owner.wanted();
    let speaker = match bgp.map(|bgp| Speaker::start(&bgp, before, &wanted, &news, maglev_api::now)).transpose() {
        Ok(speaker) => speaker,
        Err(error) => {
            // What forwarded before, by whichever program, goes on.
            owner.stop(if kept { End::Leave } else { End::Detach }, kept);
            return Err(error.into());
        }
    };
    if let Some(speaker) = &speaker {
        owner.announce_to(speaker.handle());
    }
    let speaks = speaker.as_ref().map(Speaker::handle).unwrap_or_default();
    let servers = sockets.serve(reads.handle(Bgp { speaker: speaks, prefixes: Some(owner.prefixes()) })?);
    // What is missing yet comes later: a node that waits for an interface must not hold up the machine's boot.
    systemd::notify(&format!("READY=1\nSTATUS={}", owner.in_short()));
    tracing::info!(socket = %servers.path().display(), "ready");

    owner.run(inputs).await;

    systemd::notify("STOPPING=1");
    owner.tell_stop();
    tracing::info!("stopping");
    servers.end();
    let end = match on_stop {
        maglev_config::OnStop::Detach => End::Detach,
        maglev_config::OnStop::Keep => End::Leave,
    };
    let kept = end_sessions(speaker, owner.last_words(), end).await;
    owner.stop(end, kept);
    Ok(())
}

/// Ends the sessions with these words. Routers turn to other nodes before this one stops to forward. Returns whether neighbors keep
/// the prefixes that they hold.
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

/// The VIPs whose address this machine or the backends need, and what for: a daemon would not serve them here.
///
/// # Errors
/// Netlink cannot be asked.
pub fn conflicts(node: &NodeConfig, services: &Services) -> anyhow::Result<BTreeMap<Name, String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let host = host::Watch::start()?.read().await?;
        Ok(start::needed(node, host).conflicts(services))
    })
}
