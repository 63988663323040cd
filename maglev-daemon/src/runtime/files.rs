//! The node's files while the daemon runs: read again on request, written on the disk's thread.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::Context as _;

use crate::config::{self, NodeConfig, Problems};
use crate::model::Services;
use crate::reconcile::Event;

/// The node file as it was at the start, and where it lies.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    running: NodeConfig,
}

/// What the files say now.
#[derive(Debug)]
pub(super) struct Reread {
    pub(super) services: Services,
    /// Fields of the node file that differ from what runs.
    pub(super) restart_needed: Vec<String>,
}

impl Files {
    pub(super) fn new(path: &Path, running: NodeConfig) -> Self {
        Self { path: path.to_owned(), running }
    }

    pub(super) const fn running(&self) -> &NodeConfig {
        &self.running
    }

    /// Reads both files again.
    ///
    /// # Errors
    /// All that is wrong with either, one line each.
    pub(super) fn reread(&self) -> Result<Reread, Vec<String>> {
        let services = config::load_services(&self.running.services, &self.running.rules());
        match (config::load_node(&self.path), services) {
            (Ok(node), Ok(services)) => Ok(Reread { services, restart_needed: changed(&self.running, &node) }),
            (node, services) => {
                Err([node.err(), services.err()].into_iter().flatten().flat_map(|p| lines(&p)).collect())
            }
        }
    }
}

/// One line per problem.
pub(super) fn lines(problems: &Problems) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// The fields of the node file in which two differ.
fn changed(running: &NodeConfig, file: &NodeConfig) -> Vec<String> {
    let NodeConfig { interfaces, outer, hash_key, services, socket, metrics, limits, flow_sets, tracking, trace } =
        running;
    let fields = [
        ("interfaces", *interfaces != file.interfaces),
        ("encap", *outer != file.outer),
        ("hash_key", *hash_key != file.hash_key),
        ("services", *services != file.services),
        ("api.socket", *socket != file.socket),
        ("api.metrics", *metrics != file.metrics),
        ("limits", *limits != file.limits),
        ("flow_table", *flow_sets != file.flow_sets),
        ("tracking", *tracking != file.tracking),
        ("trace", *trace != file.trace),
    ];
    fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()).collect()
}

/// The thread that writes the services file, in the order of its orders.
#[derive(Debug)]
pub(super) struct Disk {
    orders: mpsc::Sender<Services>,
    thread: JoinHandle<()>,
}

impl Disk {
    /// Starts the thread; it reports each write as [`Event::Persisted`].
    pub(super) fn start(path: PathBuf, done: tokio::sync::mpsc::UnboundedSender<Event>) -> anyhow::Result<Self> {
        let (orders, received) = mpsc::channel::<Services>();
        let write = move || {
            for services in received {
                // Nobody listens any more once the daemon is stopping; the write counts all the same.
                let _ = done.send(Event::Persisted(config::persist(&path, &services)));
            }
        };
        let thread = std::thread::Builder::new().name("disk".into()).spawn(write).context("cannot start a thread")?;
        Ok(Self { orders, thread })
    }

    pub(super) fn persist(&self, services: Services) {
        // The thread ends only with the sender.
        let _ = self.orders.send(services);
    }

    /// Waits until all that was ordered is written.
    pub(super) fn stop(self) {
        let Self { orders, thread } = self;
        drop(orders);
        let _ = thread.join();
    }
}
