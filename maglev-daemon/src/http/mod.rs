//! The HTTP/JSON API over a Unix socket: what the daemon can be asked, and what it answers. It must not know how an
//! answer comes about; requests go to the runtime through [`Handle`].

mod bgp;
mod body;
mod by;
mod changes;
mod events;
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
pub use journal::{Follower, Heard, Journal};
pub use pages::Pages;
pub(crate) use pages::{Page, Rendered, Subject, Wanted};
pub(crate) use refused::Refused;
pub use services::SentFile;
pub use shown::{Made, Shown, SnapshotRequests, Snapshots};

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maglev_api::{Answer, view};
use tokio::sync::{mpsc, oneshot, watch};

use maglev_core::node_drain::Order;
use maglev_model::{Change, Name, Protocol, Rules, Services};
use maglev_probe::shortages::{Shortage, Shortages};
use maglev_store::Stored;

/// Something the runtime is asked; `reply` takes the answer.
#[derive(Debug)]
pub enum Request {
    /// Carry out a change; answered once it is persisted and published.
    Change {
        /// The change.
        change: Change,
        /// Whether it may take out of service as much as it does.
        force: bool,
        /// The author, and the reason.
        by: By,
        /// Takes the outcome.
        reply: oneshot::Sender<Answer<()>>,
    },
    /// Say what a change to a backend would move.
    Plan {
        /// The change; it is not made.
        change: Change,
        /// Whether it may take out of service as much as it does.
        force: bool,
        /// Takes the answer.
        reply: oneshot::Sender<Answer<view::Plan>>,
    },
    /// Check a backend once, beside what goes on.
    Check {
        /// Its pool.
        pool: Name,
        /// Its name.
        backend: Name,
        /// Takes the channel on which the report comes, which may take as long as the pool's timeout.
        reply: oneshot::Sender<Answer<oneshot::Receiver<view::CheckReport>>>,
    },
    /// Read the files again.
    Reload {
        /// Whether that may take out of service as much as it does.
        force: bool,
        /// The author, and the reason.
        by: By,
        /// Takes the outcome.
        reply: oneshot::Sender<Answer<view::Reloaded>>,
    },
    /// Take over the services of an older revision.
    Rollback {
        /// The revision.
        revision: u64,
        /// Its services.
        services: Services,
        /// Whether that may take out of service as much as it does.
        force: bool,
        /// The author, and the reason.
        by: By,
        /// Takes the outcome.
        reply: oneshot::Sender<Answer<view::RolledBack>>,
    },
    /// Say what a rollback would do.
    PlanRollback {
        /// The services of the revision.
        services: Services,
        /// Takes the answer.
        reply: oneshot::Sender<Answer<view::PlannedRollback>>,
    },
    /// Replace all services by those of a file.
    Apply {
        /// The file.
        file: SentFile,
        /// Whether that may take out of service as much as it does.
        force: bool,
        /// The author, and the reason.
        by: By,
        /// Takes the outcome.
        reply: oneshot::Sender<Answer<view::Applied>>,
    },
    /// Say how that would be refused, if it would.
    ReviewFile {
        /// The file.
        file: Arc<SentFile>,
        /// Whether that may take out of service as much as it does.
        force: bool,
        /// Takes the answer.
        reply: oneshot::Sender<Answer<Option<view::Error>>>,
    },
    /// Say what reading the files again would do.
    PlanReload {
        /// Takes the answer.
        reply: oneshot::Sender<Answer<view::PlannedReload>>,
    },
    /// Read the counters.
    Counters {
        /// Takes the counters.
        reply: oneshot::Sender<Answer<Made<view::Counters>>>,
    },
    /// Take the node out of service; answered once that is saved.
    DrainNode {
        /// What is ordered.
        order: Order,
        /// Who asks for it.
        caller: Caller,
        /// Takes the outcome.
        reply: oneshot::Sender<Answer<()>>,
    },
    /// Take that back.
    UndrainNode {
        /// Who asks for it.
        caller: Caller,
        /// Takes the outcome.
        reply: oneshot::Sender<Answer<()>>,
    },
    /// Say where a flow goes.
    Explain {
        /// The flow.
        flow: Flow,
        /// Takes the explanation.
        reply: oneshot::Sender<Answer<view::Explanation>>,
    },
}

/// The process at the other end of a connection, as the kernel names it; nothing of a peer that is not local.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Its user.
    pub uid: Option<u32>,
    /// Its number, which may be another's once it has ended.
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
    /// Takes requests; the runtime answers them in order.
    pub requests: mpsc::Sender<Request>,
    /// Takes the snapshots that reads are answered from.
    pub snapshots: Snapshots,
    /// Whether the flow tables have room, as last looked at.
    pub flow_table: watch::Receiver<view::FlowTable>,
    /// Checks that are not made, by this node's own shortage.
    pub shortages: Shortages,
    /// Why the state file is not written, if so.
    pub state_file: watch::Receiver<Option<String>>,
    /// When the daemon started.
    pub started: Instant,
    /// The speaker.
    pub bgp: Bgp,
    /// What happened lately.
    pub journal: Journal,
    /// The services that are kept, and their history.
    pub stored: watch::Receiver<Stored>,
    /// What services are checked against.
    pub rules: Rules,
    /// Where answers are rendered.
    pub pages: Pages,
}

/// Whatever shows all backends takes milliseconds with thousands of them: it is computed by [`Handle::compute`] or
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

    /// A page, rendered on the rendering thread and shared with others who ask for the same.
    ///
    /// # Errors
    /// What `render` returns.
    pub(crate) async fn page(
        &self,
        subject: Subject,
        caller: Caller,
        render: impl FnOnce(&Reading) -> Answer<Rendered> + Send + 'static,
    ) -> Answer<Page> {
        let render = async { self.compute(render).await? };
        self.pages.page(subject, self.wanted(caller), render).await
    }

    /// What a page has to be for a client that asks now.
    pub(crate) fn wanted(&self, caller: Caller) -> Wanted {
        Wanted { generation: self.snapshots.generation(), privileged: caller.is_privileged() }
    }

    /// Sends a request and awaits its answer.
    ///
    /// # Errors
    /// What the runtime answers, or that it is stopping.
    pub async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Answer<T>>) -> Request) -> Answer<T> {
        let stopping = || view::Error::failed("maglevd is stopping");
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

/// A snapshot of the node, and what is known beside it.
#[derive(Debug)]
pub(crate) struct Reading {
    shown: Arc<Shown>,
    handle: Handle,
}

impl Reading {
    /// The services as the snapshot has them.
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
        self.handle.bgp.told_of(self.services().vips.clone())
    }
}
