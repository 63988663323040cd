//! The start of the daemon: each task and thread, in the order of their dependencies. It must not know how they work.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use maglev_api::view;
use maglev_config::NodeConfig;
use maglev_core::node_drain::Record;
use maglev_core::reconcile::{Event, Needed};
use maglev_dataplane::{InterfaceSettings, Pins, Settings};
use maglev_model::{Host, Rules, bgp};
use maglev_net::next_hop::Resolver;
use maglev_net::{host, links};
use maglev_probe::probe::Trust;
use maglev_probe::scheduler::Scheduler;
use maglev_probe::shortages::Shortages;
use maglev_store::{FileStore, Stored};
use tokio::signal::unix::Signal;
use tokio::sync::{Notify, mpsc, watch};

use super::adoption::{self, Begun, Keeper};
use super::clock::Clock;
use super::dataplane::{Orders, Reports, Worker};
use super::files::{Disk, Files};
use super::heartbeat::Heartbeat;
use super::inputs::Inputs;
use super::owner::{Beginning, Owner, Tools};
use super::refreshed::Refreshed;
use super::systemd::Manager;
use super::{Failure, flow_table, node_state, signals, snapshot, status};
use crate::http::{Bgp, Handle, Journal, Pages, Request, Snapshots};

/// Requests that wait for the owner before their senders wait.
const REQUESTS: usize = 256;

/// Next hops that wait for the owner before the resolver waits.
const NEXT_HOPS: usize = 1_024;

/// Ends of checks that wait for the owner before their tasks wait.
const CHECKS: usize = 1_024;

/// The handled signals.
pub(super) struct Signals {
    pub(super) stop: signals::Stop,
    pub(super) hangup: Signal,
}

/// The owner, and the tasks that report to it.
pub(super) struct Started {
    pub(super) owner: Owner,
    pub(super) inputs: Inputs,
    pub(super) reads: Reads,
    /// Receives changes of BGP sessions.
    pub(super) news: watch::Sender<()>,
    /// Whether a previous daemon's data plane forwarded until now.
    pub(super) kept: bool,
    /// A drain that was ordered before the start.
    pub(super) drained: Option<Record>,
    /// How the node was before.
    pub(super) before: Before,
}

/// What a start is given.
#[derive(Default)]
pub(super) struct Given {
    /// The pin folder.
    pub(super) pins: Option<Arc<Pins>>,
    /// Whether an interface may be without a program for a moment.
    pub(super) cut: bool,
    /// Why this binary runs in the place of another one.
    pub(super) rolled_back: Option<String>,
}

/// How the node was before the start, against which a new release is judged.
pub(super) struct Before {
    pub(super) orders: Orders,
    /// The pools that had owners.
    pub(super) owners: BTreeSet<String>,
    /// Whether packets are still counted as they were.
    pub(super) counts: bool,
}

/// The sources of answers to clients, without BGP.
pub(super) struct Reads {
    requests: mpsc::Sender<Request>,
    snapshots: Snapshots,
    flow_table: watch::Receiver<view::FlowTable>,
    shortages: Shortages,
    state_file: watch::Receiver<Option<String>>,
    started: Instant,
    journal: Journal,
    stored: watch::Receiver<Stored>,
    rules: watch::Receiver<Rules>,
    config: PathBuf,
}

impl Reads {
    /// Starts to answer clients.
    ///
    /// # Errors
    /// The system starts no thread.
    pub(super) fn handle(self, bgp: Bgp) -> anyhow::Result<Handle> {
        let Self { requests, snapshots, flow_table, shortages, state_file, started, journal, stored, rules, config } =
            self;
        let pages = Pages::start().context("cannot start a thread")?;
        Ok(Handle {
            requests,
            snapshots,
            flow_table,
            shortages,
            state_file,
            started,
            bgp,
            journal,
            stored,
            rules,
            pages,
            config: Some(config),
        })
    }
}

/// The host's interfaces and addresses. Subscribes before reading, so that no change is missed.
struct Followed {
    links: links::Watch,
    existing: Vec<links::Link>,
    addresses: host::Watch,
    host: Host,
}

impl Followed {
    async fn begin() -> Result<Self, Failure> {
        let links = links::Watch::start()?;
        let existing = links.list().await?;
        let addresses = host::Watch::start()?;
        let host = addresses.read().await?;
        Ok(Self { links, existing, addresses, host })
    }
}

/// Starts the owner, and all tasks that it needs.
// long: one after the other, in the order of their dependencies
pub(super) async fn start(
    path: &Path,
    node: NodeConfig,
    store: FileStore,
    signals: Signals,
    given: Given,
) -> Result<Started, Failure> {
    let Followed { links, existing, addresses, host } = Followed::begin().await?;
    let clock = Clock::start()?;
    let state = node_state::path(&node.services);
    let drained = node_state::read(&state, maglev_api::now());
    let settings = Settings { cut: given.cut || drained.is_some(), ..settings(&node) };
    let begun = adoption::begin(&node, &settings, &existing, &clock, given.pins)?;
    let Begun { dataplane, planner: adopted, in_use, served, kept, keeper, since, heritage } = begun;
    let continued = heritage.differences();
    let facts = status::Facts::new(&node, &dataplane, &clock, (since, continued, given.rolled_back.clone()));
    let interfaces = Refreshed::new(&dataplane, dataplane.begun(), existing);
    let needed = needed(&node, host);
    let (done, finished) = mpsc::unbounded_channel();
    let disk = Disk::start(store, done.clone())?;
    let stored = disk.stored();
    let entries = dataplane.snapshot().flow_entries();
    let state_file = keeper.as_ref().map_or_else(|| watch::channel(None).1, Keeper::unsaved);
    let (refreshed, changed) = mpsc::unbounded_channel();
    let [taken_over, spent] = [(); 2].map(|()| Arc::new(Notify::new()));
    let reports =
        Reports { done, interfaces: refreshed, taken_over: Arc::clone(&taken_over), spent: Arc::clone(&spent) };
    let dataplane = Worker::start(dataplane, keeper, reports)?;
    let flow_table = flow_table::watch(dataplane.orders().clone(), entries);
    watch_interfaces(links, dataplane.orders().clone(), taken_over);
    let (found, next_hops) = mpsc::channel(NEXT_HOPS);
    let resolver = Resolver::start(found)?;
    let (ended, checks) = mpsc::channel(CHECKS);
    let scheduler = Scheduler::new(ended, Trust::from_system(), Arc::new(move || clock.now()));
    let shortages = scheduler.shortages();
    let journal = Journal::start();
    journal.record(view::What::Started { version: maglev_api::RELEASE.to_owned() });
    let events = [heritage.event(), given.rolled_back.map(adoption::rolled_back)];
    events.into_iter().flatten().for_each(|event| journal.record(event));
    let (records, to_write) = mpsc::unbounded_channel();
    let (counted, drain) = mpsc::unbounded_channel();
    let (prepared, successors) = mpsc::unbounded_channel();
    tokio::spawn(node_state::write(state.clone(), to_write, counted.clone()));

    let (manager, heartbeat) = (Manager::from_env(), Heartbeat::new(node.watchdog));
    let (snapshots, wanted_snapshots, generation) = Snapshots::channel();
    let orders = dataplane.orders().clone();
    let tools = Tools {
        dataplane,
        disk,
        resolver,
        scheduler,
        journal: journal.clone(),
        records,
        counted,
        prepared,
        manager,
        heartbeat,
    };
    let owners = in_use.keys().map(ToString::to_string).collect();
    let beginning = Beginning { facts, interfaces, needed, adopted, in_use, served };
    let snapshot = snapshot::Snapshots::new(generation);
    let owner = Owner::new(Files::new(path, node), beginning, tools, snapshot, clock);
    let (requests, received) = mpsc::channel(REQUESTS);
    let (news, sessions) = watch::channel(());
    let inputs = Inputs {
        stop: signals.stop,
        hangup: signals.hangup,
        requests: received,
        snapshots: wanted_snapshots,
        next_hops,
        checks,
        interfaces: changed,
        prepared: successors,
        spent,
        host: watch_host(addresses),
        finished,
        drain,
        sessions,
    };
    let (started, rules) = (clock.started().0, owner.rules());
    let config = path.to_owned();
    let reads =
        Reads { requests, snapshots, flow_table, shortages, state_file, started, journal, stored, rules, config };
    let before = Before { orders, owners, counts: heritage.counts() };
    Ok(Started { owner, inputs, reads, news, kept, drained, before })
}

/// Packets that a node answers in a second, of all CPUs: as many as Linux sends ICMP messages (`icmp_msgs_per_sec`).
const ANSWERS_PER_SECOND: u32 = 1_000;

/// Datagrams in fragments that may begin in a second, of all CPUs: the fragment table holds those of the last four seconds, and a flood
/// of them can push out no more than a few others.
const FRAGMENTED_PER_SECOND: u32 = 20_000;

pub(super) fn settings(node: &NodeConfig) -> Settings {
    let interface = |interface: &maglev_config::Interface| InterfaceSettings {
        name: interface.name.clone(),
        mode: match interface.mode {
            maglev_config::Mode::Native => maglev_dataplane::Mode::Native,
            maglev_config::Mode::Generic => maglev_dataplane::Mode::Generic,
        },
        also: interface.also.clone(),
    };
    Settings {
        limits: node.limits,
        flow_sets: node.flow_sets,
        answers: ANSWERS_PER_SECOND,
        fragmented: FRAGMENTED_PER_SECOND,
        hash_key: node.hash_key,
        trace: node.trace,
        watchdog: node.watchdog,
        cut: false,
        interfaces: node.interfaces.iter().map(interface).collect(),
    }
}

/// The addresses that no VIP may have, with the reason.
pub(super) fn needed(node: &NodeConfig, host: Host) -> Needed {
    Needed { configured: configured(node.bgp.as_ref(), node.metrics), outer: node.outer, host }
}

/// Those of them that are configured.
pub(super) fn configured(bgp: Option<&bgp::Bgp>, metrics: Option<SocketAddr>) -> Vec<(IpAddr, String)> {
    let neighbors = bgp.iter().flat_map(|bgp| &bgp.neighbors);
    let sessions = neighbors.flat_map(|neighbor| {
        let own = neighbor.source.map(|own| (own, format!("this node's end of the session with {}", neighbor.name)));
        [Some((neighbor.address, format!("BGP neighbor {}", neighbor.name))), own]
    });
    let metrics = metrics.map(|at| (at.ip(), "the address of api.metrics".to_owned()));
    sessions.flatten().chain(metrics).collect()
}

/// Follows the host's addresses and gateways in its own task.
fn watch_host(mut watch: host::Watch) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move { while sender.send(Event::Host(watch.changed().await)).await.is_ok() {} });
    receiver
}

/// Follows the interfaces in its own task: the data plane applies changes, and reports the result to the owner.
fn watch_interfaces(mut watch: links::Watch, dataplane: Orders, taken_over: Arc<Notify>) {
    tokio::spawn(async move {
        loop {
            let found = tokio::select! {
                found = watch.changed() => Ok(found),
                () = taken_over.notified() => watch.list().await,
            };
            let is_well = match found {
                Ok(links) => dataplane.refresh(links).await,
                Err(_) => Ok(false),
            };
            match is_well {
                Ok(true) => {}
                Ok(false) => watch.again(),
                Err(_) => return,
            }
        }
    });
}
