//! Snapshots for readers: the owner takes one on request, and its readers compute the views from it. It must not know the content
//! of a snapshot.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use maglev_api::{Answer, view};
use tokio::sync::{mpsc, oneshot};

type Make = Box<dyn FnOnce() -> Arc<view::Status> + Send>;

/// The node at one moment.
#[derive(Debug)]
pub struct Shown {
    /// The node's state: cheap to compute, and requested often.
    pub node: view::Node,
    status: LazyLock<Arc<view::Status>, Make>,
}

impl Shown {
    /// `make` runs at most once, on the thread of the reader that asks first.
    pub fn new(node: view::Node, make: impl FnOnce() -> view::Status + Send + 'static) -> Self {
        Self { node, status: LazyLock::new(Box::new(move || Arc::new(make()))) }
    }

    /// The status. With thousands of backends it takes milliseconds to make: not for the workers of the event loop.
    pub fn status(&self) -> Arc<view::Status> {
        Arc::clone(&self.status)
    }
}

impl From<view::Status> for Shown {
    fn from(status: view::Status) -> Self {
        Self::new(status.node.clone(), move || status)
    }
}

/// Requests for a snapshot.
pub type SnapshotRequests = mpsc::Receiver<oneshot::Sender<Arc<Shown>>>;

/// Requests snapshots of the node for readers.
#[derive(Clone, Debug)]
pub struct Snapshots {
    requests: mpsc::Sender<oneshot::Sender<Arc<Shown>>>,
    generation: Arc<AtomicU64>,
}

impl Snapshots {
    /// Also returns the requests, and the generation for the owner to set: it grows with each change that a later snapshot has to
    /// show.
    pub fn channel() -> (Self, SnapshotRequests, Arc<AtomicU64>) {
        /// Requests that wait for the owner before their senders wait.
        const REQUESTS: usize = 256;
        let (requests, received) = mpsc::channel(REQUESTS);
        let generation = Arc::new(AtomicU64::new(0));
        (Self { requests, generation: Arc::clone(&generation) }, received, generation)
    }

    /// The generation that a snapshot taken now shows, at least.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The node as it is now.
    ///
    /// # Errors
    /// The daemon is stopping.
    pub async fn latest(&self) -> Answer<Arc<Shown>> {
        let stopping = || view::Error::failed("maglevd is stopping");
        let (reply, shown) = oneshot::channel();
        self.requests.send(reply).await.map_err(|_| stopping())?;
        shown.await.map_err(|_| stopping())
    }

    /// Snapshots that always show this status.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn fixed(status: view::Status) -> Self {
        let (snapshots, mut requests, _) = Self::channel();
        let shown = Arc::new(Shown::from(status));
        tokio::spawn(async move {
            while let Some(reply) = requests.recv().await {
                let _ = reply.send(Arc::clone(&shown));
            }
        });
        snapshots
    }
}

/// An answer that is computed on the rendering thread.
pub struct Made<T>(Box<dyn FnOnce() -> T + Send>);

impl<T> Made<T> {
    /// An answer from `make`.
    pub fn by(make: impl FnOnce() -> T + Send + 'static) -> Self {
        Self(Box::new(make))
    }

    /// Computes it.
    pub fn make(self) -> T {
        (self.0)()
    }
}

impl<T> std::fmt::Debug for Made<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Made")
    }
}
