//! Runs the daemon: starts the tasks and threads, in an order in which none finds another missing, and ends them.
//!
//! ```text
//!  maglev ──▶ API connections ─┐                                        ┌─▶ disk (thread): services.yaml
//!  scraper ─▶ /metrics ────────┤ Request      ┌───────────────────────┐ │
//!                              ├─────────────▶│ owner: the one holder │─┤ Effect
//!  SIGHUP, SIGTERM ────────────┤              │ of the Reconciler     │ │
//!  resolver (netlink) ─────────┤ Event        └──────────┬────────────┘ ├─▶ dataplane (thread): plans, counters
//!  checks: a task per target ──┤ Checked                 │              ├─▶ scheduler: targets to check
//!  interface watch (netlink) ──┘ Refreshed      ▲        │ Status        └─▶ resolver: addresses to follow
//!                                               │        ▼ (watch)
//!                                               │        └─ Wanted (watch) ─▶ speaker (thread): a task per BGP
//!                                               │                             neighbor; tells that a session changed
//!      Persisted, Published: disk, dataplane ───┘     reads of the API and /metrics
//!                                                        ▲ FlowTable (watch)
//!      Journal (watch): events, from the owner and the node's drain to followers of the API
//!      flow table: asks the dataplane for counters now and then
//! ```
//!
//! The drain of the node has a file and a task of its own, which tells the owner when it is written, when neighbours were
//! told, and what counters say.
//!
//! The owner never waits for disk or data plane: both report back as events, and what arrives meanwhile becomes the
//! next plan.

mod announcer;
mod clock;
mod drainer;
mod files;
mod flood;
mod flow_table;
mod inputs;
mod limits;
mod log;
mod node_state;
mod owner;
mod plane;
mod plans;
mod release;
pub mod signals;
mod state;
mod status;
pub mod systemd;
mod teller;
mod turn;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use maglev_api::view;
use maglev_bgp::speaker::{Before, Speaker};
use maglev_config::{NodeConfig, Problems};
use maglev_core::reconcile::{Event, Needed};
use maglev_dataplane::{DataplaneError, InterfaceSettings};
use maglev_model::{Host, Name, Services};
use maglev_net::identity::Identity;
use maglev_net::next_hop::Resolver;
use maglev_net::{NetError, host, links, socket};
use maglev_probe::probe::Trust;
use maglev_probe::scheduler::Scheduler;
use tokio::sync::{mpsc, watch};

use crate::http::server::{self, BindError, Socket};
use crate::http::{Bgp, Handle, Journal, Pages, Shown};
use crate::metrics;
use clock::Clock;
use drainer::Drainer;
use files::{Disk, Files};
use inputs::Inputs;
use owner::{Owner, Tools};
use plane::{End, Plane, Refreshed};
use state::{Begun, Keeper};

/// Requests that wait for the owner before their senders wait.
const REQUESTS: usize = 256;

/// Next hops that wait for the owner before the resolver waits.
const NEXT_HOPS: usize = 1_024;

/// How long the packet path goes on once routers were told that the node stops: they need a moment to turn elsewhere.
const TURNED: Duration = Duration::from_millis(250);

/// Ends of checks that wait for the owner before their tasks wait.
const CHECKS: usize = 1_024;

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
    let (node, services) = maglev_store::load(path)?;
    if !node.services.exists() {
        tracing::warn!(file = %node.services.display(), "there is no services file yet: starting without services");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("cannot start the event loop")?.block_on(serve(path, node, services))
}

/// Signals and the socket first, so that nothing is attached that has to be detached again; the data plane's contents
/// before the API, so that the first answer is true.
async fn serve(path: &Path, node: NodeConfig, services: Services) -> Result<(), Failure> {
    let stop = signals::Stop::listen()?;
    let hangup = signals::reload()?;
    let socket = Socket::bind(&node.socket)?;
    let listener = socket.listener().context("cannot listen on the API's socket")?;
    let scraped = match node.metrics {
        Some(at) => Some(socket::listen_early(at).with_context(|| format!("cannot listen on api.metrics {at}"))?),
        None => None,
    };

    let bgp = node.bgp.as_ref();
    let _identity =
        bgp.map(|bgp| Identity::hold(bgp.router_id, bgp.local_as)).transpose().map_err(anyhow::Error::new)?;

    // Followed before they are read, so that no change falls in between.
    let watch = links::Watch::start()?;
    let existing = watch.list().await?;
    let addresses = host::Watch::start()?;
    let needed = needed(&node, addresses.read().await?);
    let clock = Clock::start()?;
    let Begun { dataplane, planner, in_use, kept, keeper, since } =
        state::begin(&node, &settings(&node), &existing, &clock)?;
    let facts = status::Facts::new(&node, &dataplane, &clock, since);
    let interfaces = Refreshed::new(dataplane.interfaces(), dataplane.begun(), existing);
    let (done, finished) = mpsc::unbounded_channel();
    let (found, next_hops) = mpsc::channel(NEXT_HOPS);
    let (published, status) = watch::channel(Arc::new(Shown::from(view::Status::default())));
    let (sender, requests) = mpsc::channel(REQUESTS);
    let disk = Disk::start(node.services.clone(), done.clone())?;
    let entries = dataplane.flow_entries();
    let state_file = keeper.as_ref().map_or_else(|| watch::channel(None).1, Keeper::unsaved);
    let plane = Plane::start(dataplane, keeper, done)?;
    let flow_table = flow_table::watch(plane.orders().clone(), entries);
    let resolver = Resolver::start(found)?;
    let (ended, checks) = mpsc::channel(CHECKS);
    let scheduler = Scheduler::new(ended, Trust::of_system(), Arc::new(move || clock.now()));
    let shortages = scheduler.shortages();
    let changed = watch_interfaces(watch, plane.orders().clone());
    let host = watch_host(addresses);

    let bgp = node.bgp.clone();
    let on_stop = match node.on_stop {
        maglev_config::OnStop::Detach => End::Detach,
        maglev_config::OnStop::Keep => End::Leave,
    };
    let journal = Journal::start();
    journal.tell(view::What::Started { version: maglev_api::RELEASE.to_owned() });
    let (drainer, drain) = Drainer::start(&node, journal.clone());
    let drained = node_state::read(&node_state::path(&node.services), maglev_api::now());
    let files = Files::new(path, node);
    let tools = Tools { plane, disk, resolver, drainer, scheduler, journal: journal.clone() };
    let mut owner = Owner::new(files, facts, interfaces, needed, tools, published, clock, planner);
    owner.recall(in_use);
    let (news, sessions) = watch::channel(());
    let mut inputs =
        Inputs { stop, hangup, requests, next_hops, checks, interfaces: changed, host, finished, drain, sessions };
    if let Some(record) = drained {
        owner.resume_drain(record, kept);
    }
    if let Err(error) = owner.start(services, &mut inputs).await {
        // What another daemon left forwards as it did; what is of this one alone is detached.
        owner.stop(End::Leave);
        return Err(error.into());
    }

    // Tables are published: what is announced from now on is served, and what was announced before is announced again.
    let before = Before { restarted: kept, forwarding_kept: kept };
    let wanted = owner.announcer().wanted();
    let speaker = match bgp.map(|bgp| Speaker::start(&bgp, before, &wanted, &news, maglev_api::now)).transpose() {
        Ok(speaker) => speaker,
        Err(error) => {
            // What forwarded before, by whichever program, goes on.
            owner.stop(if kept { End::Leave } else { End::Detach });
            return Err(error.into());
        }
    };
    if let Some(speaker) = &speaker {
        owner.announce_to(speaker.handle());
    }
    let bgp = Bgp {
        speaker: speaker.as_ref().map(Speaker::handle).unwrap_or_default(),
        prefixes: Some(owner.announcer().prefixes()),
    };
    let pages = Pages::start().context("cannot start a thread")?;
    let started = clock.started().0;
    let handle = Handle { requests: sender, status, flow_table, shortages, state_file, started, bgp, journal, pages };
    let api = tokio::spawn(server::serve(listener, handle.clone()));
    let scrapes = scraped.map(|listener| tokio::spawn(metrics::serve(listener, handle)));
    // What is missing yet comes later: a node that waits for an interface must not hold up the machine's boot.
    systemd::notify(&format!("READY=1\nSTATUS={}", owner.in_short()));
    tracing::info!(socket = %socket.path().display(), "ready");

    owner.run(inputs).await;

    systemd::notify("STOPPING=1");
    owner.tell_stop();
    tracing::info!("stopping");
    drop(socket);
    api.abort();
    if let Some(scrapes) = scrapes {
        scrapes.abort();
    }
    // Routers turn to other nodes before this one stops to forward.
    if let Some(mut speaker) = speaker {
        let (text, must_tell) = owner.last_words();
        if must_tell {
            speaker.withdraw_on_stop();
        }
        let served = speaker.is_heard();
        speaker.stop(&text).await;
        if served && on_stop == End::Detach {
            tokio::time::sleep(TURNED).await;
        }
    }
    owner.stop(on_stop);
    Ok(())
}

fn settings(node: &NodeConfig) -> maglev_dataplane::Settings {
    let interface = |interface: &maglev_config::Interface| InterfaceSettings {
        name: interface.name.clone(),
        mode: match interface.mode {
            maglev_config::Mode::Native => maglev_dataplane::Mode::Native,
            maglev_config::Mode::Generic => maglev_dataplane::Mode::Generic,
        },
        also: interface.also.clone(),
    };
    maglev_dataplane::Settings {
        limits: node.limits,
        flow_sets: node.flow_sets,
        hash_key: node.hash_key,
        // Both are for benchmarks.
        trace: node.trace,
        interfaces: node.interfaces.iter().map(interface).collect(),
    }
}

/// The VIPs whose address this machine or the backends need, and what for: a daemon would not serve them here.
///
/// # Errors
/// Netlink cannot be asked.
pub fn conflicts(node: &NodeConfig, services: &Services) -> anyhow::Result<BTreeMap<Name, String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let host = host::Watch::start()?.read().await?;
        Ok(needed(node, host).conflicts(services))
    })
}

/// The addresses that no VIP may have.
fn needed(node: &NodeConfig, host: Host) -> Needed {
    let neighbors = node.bgp.iter().flat_map(|bgp| &bgp.neighbors);
    let sessions = neighbors.flat_map(|neighbor| {
        let own = neighbor.source.map(|own| (own, format!("this node's end of the session with {}", neighbor.name)));
        [Some((neighbor.address, format!("BGP neighbor {}", neighbor.name))), own]
    });
    let metrics = node.metrics.map(|at| (at.ip(), "the address of api.metrics".to_owned()));
    Needed { configured: sessions.flatten().chain(metrics).collect(), outer: node.outer, host }
}

/// Follows the host's addresses and gateways in a task of its own.
fn watch_host(mut watch: host::Watch) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move { while sender.send(Event::Host(watch.changed().await)).await.is_ok() {} });
    receiver
}

/// Follows the interfaces in a task of its own: the data plane takes over what changed, the owner hears of it.
fn watch_interfaces(mut watch: links::Watch, plane: plane::Orders) -> mpsc::Receiver<Refreshed> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok(refreshed) = plane.refresh(watch.changed().await).await {
            if !refreshed.refresh.problems.is_empty() {
                watch.again();
            }
            if sender.send(refreshed).await.is_err() {
                return;
            }
        }
    });
    receiver
}
