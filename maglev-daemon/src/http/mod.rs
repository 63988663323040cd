//! The HTTP/JSON API over a Unix socket: requests and answers. It must not know how an answer is computed; requests go to the
//! runtime through [`Handle`].

mod bgp;
mod body;
mod by;
mod capture;
mod changes;
mod doctor;
mod events;
#[cfg(feature = "testing")]
pub mod fuzzing;
mod history;
mod journal;
mod listener;
mod pages;
mod patience;
mod places;
mod reads;
mod refused;
mod routes;
pub mod server;
mod services;
mod shown;
#[cfg(test)]
mod tests;

pub use bgp::Bgp;
pub(crate) use body::Bodies;
pub use by::By;
pub use capture::{CaptureMessage, CaptureMessages};
pub use journal::{Follower, Journal, Received};
pub use pages::Pages;
pub(crate) use pages::{Page, Rendered, Subject, Wanted};
pub(crate) use refused::Refused;
pub(crate) use routes::unknown_method;
pub use services::SentFile;
pub use shown::{Made, Shown, SnapshotRequests, Snapshots};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maglev_api::{Answer, view};
use tokio::sync::{mpsc, oneshot, watch};

use maglev_core::node_drain::Order;
use maglev_model::{Change, Name, Protocol, Rules, Services};
use maglev_probe::shortages::{Shortage, Shortages};
use maglev_store::Stored;

/// A request to the runtime; `reply` receives the answer.
#[derive(Debug)]
pub enum Request {
    /// Carry out a change; answered once it is persisted and published.
    Change {
        /// The change.
        change: Change,
        /// Whether it may take out of service more than is allowed at once.
        force: bool,
        /// The author, and the reason.
        by: By,
        /// Receives the outcome.
        reply: oneshot::Sender<Answer<()>>,
    },
    /// Preview a change to a backend.
    Plan {
        /// The change; it is not made.
        change: Change,
        /// Whether it may take out of service more than is allowed at once.
        force: bool,
        /// Receives the answer.
        reply: oneshot::Sender<Answer<view::Plan>>,
    },
    /// Check a backend once, in addition to regular checks.
    Check {
        /// Its pool.
        pool: Name,
        /// Its name.
        backend: Name,
        /// Receives the channel of the report, which may take as long as the pool's timeout.
        reply: oneshot::Sender<Answer<oneshot::Receiver<view::CheckReport>>>,
    },
    /// Reload the configuration.
    Reload {
        /// Whether it may take out of service more than is allowed at once.
        force: bool,
        /// The author, and the reason.
        by: By,
        /// Receives the outcome.
        reply: oneshot::Sender<Answer<view::Reloaded>>,
    },
    /// Restore the services of an older revision.
    Rollback {
        /// The revision.
        revision: u64,
        /// Its services.
        services: Services,
        /// Whether it may take out of service more than is allowed at once.
        force: bool,
        /// The author, and the reason.
        by: By,
        /// Receives the outcome.
        reply: oneshot::Sender<Answer<view::RolledBack>>,
    },
    /// Preview a rollback.
    PlanRollback {
        /// The services of the revision.
        services: Services,
        /// Receives the answer.
        reply: oneshot::Sender<Answer<view::PlannedRollback>>,
    },
    /// Replace all services by those of a file.
    Apply {
        /// The file.
        file: SentFile,
        /// Whether it may take out of service more than is allowed at once.
        force: bool,
        /// The author, and the reason.
        by: By,
        /// Receives the outcome.
        reply: oneshot::Sender<Answer<view::Applied>>,
    },
    /// Preview replacing all services: the error with which it would be refused, if so.
    ReviewFile {
        /// The file.
        file: Arc<SentFile>,
        /// Whether it may take out of service more than is allowed at once.
        force: bool,
        /// Receives the answer.
        reply: oneshot::Sender<Answer<Option<view::Error>>>,
    },
    /// Preview a reload.
    PlanReload {
        /// Receives the answer.
        reply: oneshot::Sender<Answer<view::PlannedReload>>,
    },
    /// Read the counters.
    Counters {
        /// Receives the counters.
        reply: oneshot::Sender<Answer<Made<view::Counters>>>,
    },
    /// Take the node out of service; answered once that is saved.
    DrainNode {
        /// The order.
        order: Order,
        /// The author.
        caller: Caller,
        /// Receives the outcome.
        reply: oneshot::Sender<Answer<()>>,
    },
    /// Put the node back into service.
    UndrainNode {
        /// The author.
        caller: Caller,
        /// Receives the outcome.
        reply: oneshot::Sender<Answer<()>>,
    },
    /// Stop the daemon.
    StopNode {
        /// Whether the program is detached, and whether that is right for a node that is not drained.
        order: view::NewStop,
        /// The author.
        caller: Caller,
        /// Receives the outcome, before anything ends.
        reply: oneshot::Sender<Answer<()>>,
    },
    /// Capture packets.
    Capture {
        /// Which ones.
        wanted: view::NewCapture,
        /// The author.
        caller: Caller,
        /// Receives the messages; the capture ends once they are dropped.
        reply: oneshot::Sender<Answer<CaptureMessages>>,
    },
    /// Explain a flow.
    Explain {
        /// The flow.
        flow: Flow,
        /// Receives the explanation.
        reply: oneshot::Sender<Answer<view::Explanation>>,
    },
}

/// The process at the other end of a connection, by the kernel; empty for a peer that is not local.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Its user.
    pub uid: Option<u32>,
    /// Its process id, which may be reused once it has ended.
    pub pid: Option<i32>,
}

impl Caller {
    /// Whether it is root, or the daemon's own user, on the Unix socket.
    pub fn is_privileged(self) -> bool {
        self.uid.is_some_and(|uid| uid == 0 || uid == nix::unistd::geteuid().as_raw())
    }
}

/// A flow by its five parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The destination: a VIP's address and port.
    pub service: SocketAddr,
    /// The transport protocol.
    pub protocol: Protocol,
}

/// Access to the runtime, held by each connection.
#[derive(Clone, Debug)]
pub struct Handle {
    /// The queue of requests; the runtime answers them in order.
    pub requests: mpsc::Sender<Request>,
    /// The source of snapshots for reads.
    pub snapshots: Snapshots,
    /// Whether the flow tables have room, as last read.
    pub flow_table: watch::Receiver<view::FlowTable>,
    /// Checks that are not made since the node lacks resources.
    pub shortages: Shortages,
    /// The reason why the state for the next daemon is not written, if so.
    pub state_file: watch::Receiver<Option<String>>,
    /// When the daemon started.
    pub started: Instant,
    /// The speaker.
    pub bgp: Bgp,
    /// The recent events.
    pub journal: Journal,
    /// The saved services, and their history.
    pub stored: watch::Receiver<Stored>,
    /// The rules for services.
    pub rules: watch::Receiver<Rules>,
    /// The rendering thread.
    pub pages: Pages,
    /// `maglev.yaml`, which an examination reads.
    pub config: Option<PathBuf>,
}

/// An answer with all backends takes milliseconds with thousands of them: it is computed by [`Handle::compute`] or
/// [`Handle::page`].
impl Handle {
    /// Computes an answer from a snapshot on the rendering thread.
    ///
    /// # Errors
    /// It cannot be computed.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        compute: impl FnOnce(&Reading) -> T + Send + 'static,
    ) -> Answer<T> {
        let reading = Reading { shown: self.snapshots.latest().await?, handle: self.clone() };
        self.pages.compute(move || compute(&reading)).await
    }

    /// A page, rendered on the rendering thread and shared by all requests for it.
    ///
    /// # Errors
    /// The error of `render`.
    pub(crate) async fn page(
        &self,
        subject: Subject,
        caller: Caller,
        render: impl FnOnce(&Reading) -> Answer<Rendered> + Send + 'static,
    ) -> Answer<Page> {
        let render = async { self.compute(render).await? };
        self.pages.page(subject, self.wanted(caller), render).await
    }

    /// The requirements on a page for a client that asks now.
    pub(crate) fn wanted(&self, caller: Caller) -> Wanted {
        Wanted { generation: self.snapshots.generation(), privileged: caller.is_privileged() }
    }

    /// Sends a request and awaits its answer.
    ///
    /// # Errors
    /// The runtime's error, or that it is stopping.
    pub async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Answer<T>>) -> Request) -> Answer<T> {
        let stopping = || view::Error::failed("maglevd is stopping");
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

/// A snapshot of the node, with the state that is not part of it.
#[derive(Debug)]
pub(crate) struct Reading {
    shown: Arc<Shown>,
    handle: Handle,
}

impl Reading {
    /// The services of the snapshot.
    pub(crate) fn services(&self) -> Arc<view::Status> {
        self.shown.status()
    }

    /// How long the daemon has been up.
    pub(crate) fn uptime(&self) -> Duration {
        self.handle.started.elapsed()
    }

    /// BGP as it is now.
    pub(crate) const fn bgp(&self) -> &Bgp {
        &self.handle.bgp
    }

    /// The node's status.
    pub(crate) fn status(&self) -> view::Status {
        let Handle { flow_table, bgp, state_file, shortages, .. } = &self.handle;
        let check_shortage = shortages.latest().map(|Shortage { checks, reason, ago }| view::CheckShortage {
            checks,
            reason,
            seconds_ago: ago.as_secs(),
        });
        view::Status {
            flow_table: *flow_table.borrow(),
            vips: self.vips(),
            bgp: bgp.summary(),
            check_shortage,
            state_not_saved: state_file.borrow().clone(),
            revision: self.handle.stored.borrow().history.newest().map(|newest| newest.revision),
            ..self.services().at(self.uptime())
        }
    }

    /// The VIPs, and whether they are announced.
    pub(crate) fn vips(&self) -> Vec<view::Vip> {
        self.handle.bgp.with_announcements(self.services().vips.clone())
    }
}
