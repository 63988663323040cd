//! The node's files while the daemon runs: reloaded on request; the services are saved on the disk's thread.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::Context as _;

use maglev_config::{NodeConfig, Problems};
use maglev_core::reconcile::Event;
use maglev_model::Services;
use maglev_model::bgp::Bgp;
use maglev_store::{Commit, Edited, ServiceStore, Stamp, Stored};
use tokio::sync::watch;

/// The node file as it was at the start, and its path.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    running: NodeConfig,
}

/// The content of the files.
#[derive(Debug)]
pub(super) struct Reread {
    pub(super) services: Services,
    /// The services file.
    pub(super) edited: Edited,
    /// The node file's settings that apply without a restart.
    pub(super) live: Live,
    /// Its settings of the data plane, if they differ and apply without a restart.
    pub(super) forwarding: Option<Forwarding>,
    /// Other fields of the node file that differ from the running configuration.
    pub(super) restart_needed: Vec<String>,
}

/// The settings of the node file that apply without a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) bgp: Option<Bgp>,
    pub(super) metrics: Option<SocketAddr>,
}

/// Settings of the data plane that apply without a restart, since what is pinned can be continued.
#[derive(Clone, Debug)]
pub(super) struct Forwarding {
    /// The running configuration, with these settings in it.
    pub(super) node: Box<NodeConfig>,
    /// The keys that differ.
    pub(super) keys: Vec<&'static str>,
}

impl Files {
    pub(super) fn new(path: &Path, running: NodeConfig) -> Self {
        Self { path: path.to_owned(), running }
    }

    pub(super) const fn running(&self) -> &NodeConfig {
        &self.running
    }

    /// The settings that apply and could change without a restart.
    pub(super) fn live(&self) -> Live {
        Live { bgp: self.running.bgp.clone(), metrics: self.running.metrics }
    }

    /// These settings apply from now on.
    pub(super) fn apply(&mut self, Live { bgp, metrics }: Live) {
        (self.running.bgp, self.running.metrics) = (bgp, metrics);
    }

    /// These settings of the data plane apply from now on.
    pub(super) fn forward_by(&mut self, node: &NodeConfig) {
        self.running = with_forwarding(&self.running, node);
    }

    /// Reads both files again. `known` are the services in use: unchanged parts of the file need not be parsed.
    ///
    /// # Errors
    /// Every mistake in both, one line each.
    pub(super) fn reread(&self, known: &Services) -> Result<Reread, Vec<String>> {
        let services = maglev_store::reload_services(&self.running.services, &self.running.rules(), known);
        match (maglev_store::load_node(&self.path), services) {
            (Ok(node), Ok((services, edited))) => {
                let (live, restart_needed) = changed(&self.running, &node);
                let (forwarding, modes) = forwarding(&self.running, &node);
                let (forwarding, waiting) = match (&self.running.pin, forwarding) {
                    (None, Some(Forwarding { keys, .. })) => (None, keys),
                    (_, forwarding) => (forwarding, Vec::new()),
                };
                let waiting = waiting.into_iter().chain(modes).map(str::to_owned);
                let restart_needed = waiting.chain(restart_needed).collect();
                Ok(Reread { services, edited, live, forwarding, restart_needed })
            }
            (node, services) => {
                Err([node.err(), services.err()].into_iter().flatten().flat_map(|p| lines(&p)).collect())
            }
        }
    }
}

/// One line per problem.
pub(super) fn lines(problems: &Problems) -> Vec<String> {
    problems.lines().collect()
}

/// The settings of the data plane in `file`, if they differ; and the key of interfaces' modes if those do, which stay as they are: a
/// link of a program cannot change its mode.
fn forwarding(running: &NodeConfig, file: &NodeConfig) -> (Option<Forwarding>, Option<&'static str>) {
    let mut node = with_forwarding(running, file);
    for interface in &mut node.interfaces {
        let before = running.interfaces.iter().find(|before| before.name == interface.name);
        interface.mode = before.map_or(interface.mode, |before| before.mode);
    }
    let modes = (node.interfaces != file.interfaces).then_some("interfaces[].mode (start with --cut)");
    let fields = [
        ("interfaces", running.interfaces != node.interfaces),
        ("encap", running.outer != node.outer),
        ("limits", running.limits != node.limits),
        ("flow_table", running.flow_sets != node.flow_sets),
        ("packets", running.packets != node.packets),
        ("trace", running.trace != node.trace),
        ("dataplane.watchdog", running.watchdog != node.watchdog),
    ];
    let keys: Vec<_> = fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
    ((!keys.is_empty()).then(|| Forwarding { node: Box::new(node), keys }), modes)
}

/// The running configuration with the data plane's settings of another one.
fn with_forwarding(running: &NodeConfig, other: &NodeConfig) -> NodeConfig {
    let NodeConfig { outer, limits, flow_sets, packets, trace, watchdog, .. } = *other;
    let interfaces = other.interfaces.clone();
    NodeConfig { interfaces, outer, limits, flow_sets, packets, trace, watchdog, ..running.clone() }
}

/// The settings of `file` that apply without a restart, and the other fields in which it differs.
fn changed(running: &NodeConfig, file: &NodeConfig) -> (Live, Vec<String>) {
    let NodeConfig {
        interfaces: _,
        outer: _,
        hash_key,
        services,
        socket,
        read_socket,
        metrics: _,
        bgp,
        drain,
        limits: _,
        flow_sets: _,
        packets: _,
        trace: _,
        pin,
        on_stop,
        watchdog: _,
        common_failure,
        hold_down,
    } = running;
    // A speaker is started and ended with the daemon.
    let (bgp, of_bgp) = match (bgp, &file.bgp) {
        (Some(running), Some(file)) => {
            let (live, waiting) = running.with_live(file);
            (Some(live), waiting)
        }
        (running, file) => (running.clone(), if running == file { Vec::new() } else { vec!["bgp"] }),
    };
    let fields = [
        ("hash_key", *hash_key != file.hash_key),
        ("services", *services != file.services),
        ("api.socket", *socket != file.socket),
        ("api.read_socket", *read_socket != file.read_socket),
        ("drain", *drain != file.drain),
        ("dataplane", (pin, on_stop) != (&file.pin, &file.on_stop)),
        ("health", (common_failure, hold_down) != (&file.common_failure, &file.hold_down)),
    ];
    let fields = fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name);
    (Live { bgp, metrics: file.metrics }, fields.chain(of_bgp).map(str::to_owned).collect())
}

/// The thread that saves the services, in the order of requests.
#[derive(Debug)]
pub(super) struct Disk {
    orders: mpsc::Sender<Order>,
    stored: watch::Receiver<Stored>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
enum Order {
    /// This version of the file was read and equals the saved services: it may be replaced.
    Read(Option<Stamp>),
    Commit(Commit),
}

impl Disk {
    /// Starts the thread of an open store; it reports each commit as [`Event::Persisted`].
    pub(super) fn start(
        mut store: impl ServiceStore + 'static,
        done: tokio::sync::mpsc::UnboundedSender<Event>,
    ) -> anyhow::Result<Self> {
        let (orders, received) = mpsc::channel::<Order>();
        let stored = store.watch();
        let keep = move || {
            for order in received {
                match order {
                    Order::Read(stamp) => store.read_again(stamp),
                    Order::Commit(commit) => {
                        let kept = store.commit(commit, maglev_api::now_in_milliseconds());
                        let kept = kept.map(drop).map_err(|why| why.to_string());
                        // While the daemon is stopping no task awaits it; the services are saved all the same.
                        let _ = done.send(Event::Persisted(kept));
                        store.tidy();
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("disk".into()).spawn(keep).context("cannot start a thread")?;
        Ok(Self { orders, stored, thread })
    }

    /// The saved services, as they change.
    pub(super) fn stored(&self) -> watch::Receiver<Stored> {
        self.stored.clone()
    }

    /// Notes that the file was read again and equals the saved services.
    pub(super) fn read(&self, stamp: Option<Stamp>) {
        self.order(Order::Read(stamp));
    }

    pub(super) fn commit(&self, commit: Commit) {
        self.order(Order::Commit(commit));
    }

    fn order(&self, order: Order) {
        // The thread ends only with the sender.
        let _ = self.orders.send(order);
    }

    /// Waits until all requests are saved.
    pub(super) fn stop(self) {
        let Self { orders, stored: _, thread } = self;
        drop(orders);
        let _ = thread.join();
    }
}
