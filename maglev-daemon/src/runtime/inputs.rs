//! The inputs of the owner, in the order of their priority. It must not know how they are handled.

use std::sync::Arc;
use std::time::Instant;

use maglev_core::node_drain;
use maglev_core::reconcile::Event;
use maglev_net::next_hop::Found;
use maglev_probe::scheduler::Checked;
use tokio::signal::unix::Signal;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::owner::PreparedPlane;
use super::refreshed::Refreshed;
use super::signals::Stop;
use crate::http::{Request, Shown, SnapshotRequests};

/// The channels of the owner's inputs.
pub(super) struct Inputs {
    pub(super) stop: Stop,
    pub(super) hangup: Signal,
    pub(super) requests: mpsc::Receiver<Request>,
    /// Requests for a snapshot, which need not wait.
    pub(super) snapshots: SnapshotRequests,
    pub(super) next_hops: mpsc::Receiver<Found>,
    pub(super) checks: mpsc::Receiver<Checked>,
    pub(super) interfaces: mpsc::UnboundedReceiver<Refreshed>,
    /// Data planes for reloads.
    pub(super) prepared: mpsc::UnboundedReceiver<PreparedPlane>,
    /// The flow table before has no use any more.
    pub(super) spent: Arc<Notify>,
    pub(super) host: mpsc::Receiver<Event>,
    /// The reports of disk and data plane.
    pub(super) finished: mpsc::UnboundedReceiver<Event>,
    /// The reports that the node's drain waits for.
    pub(super) drain: mpsc::UnboundedReceiver<node_drain::Event>,
    /// Changes of BGP sessions.
    pub(super) sessions: watch::Receiver<()>,
}

/// An input of the owner.
pub(super) enum Input {
    Stop,
    Hangup,
    Request(Request),
    /// A reader awaits a snapshot.
    Snapshot(oneshot::Sender<Arc<Shown>>),
    Event(Event),
    Interfaces(Refreshed),
    Prepared(Box<PreparedPlane>),
    /// The flow table before has no use any more.
    Spent,
    Drain(node_drain::Event),
    /// A BGP session's status changed.
    Sessions,
    /// A deadline has passed.
    Due,
}

impl From<Found> for Input {
    fn from(Found { address, resolution }: Found) -> Self {
        Self::Event(Event::NextHop { address, resolution })
    }
}

impl From<Checked> for Input {
    fn from(Checked { target, last }: Checked) -> Self {
        Self::Event(Event::Checked { target, last })
    }
}

impl Inputs {
    /// Waits for the next input or for the deadline; with `requests_too`, also for a request.
    pub(super) async fn next(&mut self, requests_too: bool, deadline: Option<Instant>) -> Input {
        let due = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stop.wait() => Input::Stop,
            Some(event) = self.finished.recv() => Input::Event(event),
            Some(()) = self.hangup.recv() => Input::Hangup,
            Some(refreshed) = self.interfaces.recv() => Input::Interfaces(refreshed),
            Some(prepared) = self.prepared.recv() => Input::Prepared(Box::new(prepared)),
            () = self.spent.notified() => Input::Spent,
            Some(event) = self.host.recv() => Input::Event(event),
            Some(event) = self.drain.recv() => Input::Drain(event),
            Ok(()) = self.sessions.changed() => Input::Sessions,
            Some(found) = self.next_hops.recv() => Input::from(found),
            Some(checked) = self.checks.recv() => Input::from(checked),
            () = due => Input::Due,
            Some(reply) = self.snapshots.recv() => Input::Snapshot(reply),
            Some(request) = self.requests.recv(), if requests_too => Input::Request(request),
        }
    }

    /// The next input, if one has already arrived.
    pub(super) fn ready(&mut self, requests_too: bool) -> Option<Input> {
        if let Ok(event) = self.finished.try_recv() {
            return Some(Input::Event(event));
        }
        if let Ok(found) = self.next_hops.try_recv() {
            return Some(found.into());
        }
        if let Ok(checked) = self.checks.try_recv() {
            return Some(checked.into());
        }
        if let Ok(reply) = self.snapshots.try_recv() {
            return Some(Input::Snapshot(reply));
        }
        if requests_too { self.requests.try_recv().ok().map(Input::Request) } else { None }
    }
}
