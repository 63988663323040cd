//! All that the owner hears, in the order of its importance. It must not know what becomes of it.

use std::sync::Arc;
use std::time::Instant;

use maglev_core::node_drain;
use maglev_core::reconcile::Event;
use maglev_net::next_hop::Found;
use maglev_probe::scheduler::Checked;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot, watch};

use super::dataplane::Refreshed;
use super::signals::Stop;
use crate::http::{Request, Shown, SnapshotRequests};

/// All that the owner hears.
pub(super) struct Inputs {
    pub(super) stop: Stop,
    pub(super) hangup: Signal,
    pub(super) requests: mpsc::Receiver<Request>,
    /// Readers. Unlike requests, they wait for nothing.
    pub(super) snapshots: SnapshotRequests,
    pub(super) next_hops: mpsc::Receiver<Found>,
    pub(super) checks: mpsc::Receiver<Checked>,
    pub(super) interfaces: mpsc::Receiver<Refreshed>,
    pub(super) host: mpsc::Receiver<Event>,
    /// Persisted and published.
    pub(super) finished: mpsc::UnboundedReceiver<Event>,
    /// What the drain of the node waits for.
    pub(super) drain: mpsc::UnboundedReceiver<node_drain::Event>,
    /// That a BGP session's status changed.
    pub(super) sessions: watch::Receiver<()>,
}

/// Something the owner heard.
pub(super) enum Input {
    Stop,
    Hangup,
    Request(Request),
    /// A reader awaits a snapshot.
    Snapshot(oneshot::Sender<Arc<Shown>>),
    Event(Event),
    Interfaces(Refreshed),
    Drain(node_drain::Event),
    /// A BGP session's status changed.
    Sessions,
    /// Something is due.
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
    /// Waits for the next input, or for the time that something is due at. `requests_too`: or for a request.
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

    /// An input that has already arrived, if there is one.
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
