//! The node's files while the daemon runs: read again on request, written on the disk's thread.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use anyhow::Context as _;

use maglev_config::{NodeConfig, Problems};
use maglev_core::reconcile::Event;
use maglev_model::Services;
use maglev_store::Stamp;

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
    /// The services file that says so.
    pub(super) stamp: Option<Stamp>,
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
        let stamp = Stamp::read(&self.running.services);
        let services = maglev_store::reload_services(&self.running.services, &self.running.rules());
        match (maglev_store::load_node(&self.path), services) {
            (Ok(node), Ok(services)) => Ok(Reread { services, stamp, restart_needed: changed(&self.running, &node) }),
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
    let NodeConfig {
        interfaces,
        outer,
        hash_key,
        services,
        socket,
        metrics,
        bgp,
        drain,
        limits,
        flow_sets,
        trace,
        pin,
        on_stop,
        common_failure,
        hold_down,
    } = running;
    let fields = [
        ("interfaces", *interfaces != file.interfaces),
        ("encap", *outer != file.outer),
        ("hash_key", *hash_key != file.hash_key),
        ("services", *services != file.services),
        ("api.socket", *socket != file.socket),
        ("api.metrics", *metrics != file.metrics),
        ("bgp", *bgp != file.bgp),
        ("drain", *drain != file.drain),
        ("limits", *limits != file.limits),
        ("flow_table", *flow_sets != file.flow_sets),
        ("trace", *trace != file.trace),
        ("dataplane", (pin, on_stop) != (&file.pin, &file.on_stop)),
        ("health", (common_failure, hold_down) != (&file.common_failure, &file.hold_down)),
    ];
    fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()).collect()
}

/// The thread that writes the services file, in the order of its orders.
#[derive(Debug)]
pub(super) struct Disk {
    orders: mpsc::Sender<Order>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
enum Order {
    /// This version of the file was read: it may be replaced.
    Read(Option<Stamp>),
    /// Replace the file.
    Write(Arc<Services>),
}

impl Disk {
    /// Starts the thread for the file that was just read; it reports each write as [`Event::Persisted`].
    pub(super) fn start(path: PathBuf, done: tokio::sync::mpsc::UnboundedSender<Event>) -> anyhow::Result<Self> {
        let (orders, received) = mpsc::channel::<Order>();
        let mut known = Stamp::read(&path);
        let write = move || {
            for order in received {
                match order {
                    Order::Read(stamp) => known = stamp,
                    Order::Write(services) => {
                        // Nobody listens any more once the daemon is stopping; the write counts all the same.
                        let _ = done.send(Event::Persisted(replace(&path, &services, &mut known)));
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("disk".into()).spawn(write).context("cannot start a thread")?;
        Ok(Self { orders, thread })
    }

    /// Tells that the file was read again.
    pub(super) fn read(&self, stamp: Option<Stamp>) {
        self.order(Order::Read(stamp));
    }

    pub(super) fn persist(&self, services: Arc<Services>) {
        self.order(Order::Write(services));
    }

    fn order(&self, order: Order) {
        // The thread ends only with the sender.
        let _ = self.orders.send(order);
    }

    /// Waits until all that was ordered is written.
    pub(super) fn stop(self) {
        let Self { orders, thread } = self;
        drop(orders);
        let _ = thread.join();
    }
}

/// Replaces the file, unless somebody else wrote it since it was known: their edit would be lost without a word.
fn replace(path: &Path, services: &Services, known: &mut Option<Stamp>) -> Result<(), String> {
    let found = Stamp::read(path);
    if found.is_some() && found != *known {
        return Err(format!("{} was edited since it was read: `maglev reload` first", path.display()));
    }
    maglev_store::persist(path, services)?;
    *known = Stamp::read(path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_testing::TempDir;

    #[test]
    fn an_edit_that_was_not_read_is_not_overwritten() {
        let directory = TempDir::new();
        let path = directory.path().join("services.yaml");
        let services = Services::default();
        let mut known = Stamp::read(&path);
        replace(&path, &services, &mut known).unwrap();
        replace(&path, &services, &mut known).unwrap();

        std::fs::write(&path, "pools: []\nvips: [] # edited\n").unwrap();
        let refused = replace(&path, &services, &mut known).unwrap_err();
        assert!(refused.contains("services.yaml was edited") && refused.contains("maglev reload"), "{refused}");
        assert!(std::fs::read_to_string(&path).unwrap().contains("edited"));

        known = Stamp::read(&path);
        replace(&path, &services, &mut known).unwrap();
        std::fs::remove_file(&path).unwrap();
        replace(&path, &services, &mut known).unwrap();
    }
}
