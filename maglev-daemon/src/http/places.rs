//! The limit of connections: a number at once, some reserved for privileged local clients, and a connection whose client
//! neither sends nor reads is closed when another one needs its place. It must not know the requests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::Caller;

/// Connections served at once.
const PLACES: usize = 64;

/// Further ones, for root and the daemon's own user on the Unix socket.
const KEPT_BACK: usize = 16;

/// Reserved places that one process may hold: an operator's next command is another process.
const KEPT_BACK_PER_PROCESS: usize = 2;

/// Connections that wait for a place; more are closed.
const WAITING: usize = 256;

/// How long a connection waits for a place.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a client may leave its connection idle before it is closed for another, and the interval of that check.
const STALLED: Duration = Duration::from_millis(250);

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    began: Instant,
    general: Arc<Semaphore>,
    kept_back: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    served: BTreeMap<u64, Arc<Activity>>,
}

/// A place that a connection holds until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    activity: Arc<Activity>,
    _permit: OwnedSemaphorePermit,
}

/// The state of a connection, by which it may be closed.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    /// Requests that are being answered.
    busy: AtomicUsize,
    /// The client does not read.
    blocked: AtomicBool,
    /// It follows events: most of the time there is nothing to send.
    follows: AtomicBool,
    /// The time when the client last sent or read, in milliseconds.
    last: AtomicU64,
    /// The process that holds a reserved place.
    privileged: Option<Option<i32>>,
    close: Notify,
}

impl Places {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            general: Arc::new(Semaphore::new(PLACES)),
            kept_back: Arc::new(Semaphore::new(KEPT_BACK)),
            waiting: Arc::new(Semaphore::new(WAITING)),
            connections: Mutex::default(),
        })
    }

    /// A place that is free.
    pub(super) fn take_free(self: &Arc<Self>, caller: Caller) -> Option<Place> {
        if let Ok(permit) = Arc::clone(&self.general).try_acquire_owned() {
            return Some(self.place(permit, None));
        }
        let may = caller.is_privileged() && self.kept_back_by(caller.pid) < KEPT_BACK_PER_PROCESS;
        let permit = may.then(|| Arc::clone(&self.kept_back).try_acquire_owned().ok()).flatten()?;
        Some(self.place(permit, Some(caller.pid)))
    }

    /// A permit to wait for a place, unless too many wait.
    pub(super) fn queue(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.waiting).try_acquire_owned().ok()
    }

    /// Waits for a place; if necessary a stalled connection is closed.
    pub(super) async fn take(self: &Arc<Self>, _queued: OwnedSemaphorePermit) -> Option<Place> {
        let wait = async {
            loop {
                self.close_stalled();
                let free = tokio::time::timeout(STALLED, Arc::clone(&self.general).acquire_owned());
                if let Ok(permit) = free.await {
                    return permit.ok();
                }
            }
        };
        let permit = tokio::time::timeout(PATIENCE, wait).await.ok()??;
        Some(self.place(permit, None))
    }

    fn place(self: &Arc<Self>, permit: OwnedSemaphorePermit, privileged: Option<Option<i32>>) -> Place {
        let activity = Arc::new(Activity {
            began: self.began,
            busy: AtomicUsize::new(0),
            blocked: AtomicBool::new(false),
            follows: AtomicBool::new(false),
            last: AtomicU64::new(milliseconds(self.began)),
            privileged,
            close: Notify::new(),
        });
        let mut connections = self.connections();
        let number = connections.next;
        connections.next += 1;
        connections.served.insert(number, Arc::clone(&activity));
        Place { places: Arc::clone(self), number, activity, _permit: permit }
    }

    fn kept_back_by(&self, process: Option<i32>) -> usize {
        self.connections().served.values().filter(|found| found.privileged == Some(process)).count()
    }

    /// Closes the unprivileged connection that has waited for its client for the longest time.
    fn close_stalled(&self) {
        let now = milliseconds(self.began);
        let mut connections = self.connections();
        let stalled = connections.served.iter().filter(|(_, found)| found.privileged.is_none());
        let longest = stalled.filter_map(|(number, found)| Some((found.stalled_since(now)?, *number))).min();
        // Removed from the list at once, so that the next connection that needs a place closes another.
        if let Some(closed) = longest.and_then(|(_, number)| connections.served.remove(&number)) {
            closed.close.notify_one();
        }
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Waits until the connection has to be closed.
    pub(super) async fn closed(&self) {
        self.activity.close.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.connections().served.remove(&self.number);
    }
}

impl Activity {
    /// The client sent or read something.
    pub(super) fn progress(&self) {
        self.last.store(milliseconds(self.began), Ordering::Relaxed);
    }

    /// Whether the client does not read.
    pub(super) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// The connection is a stream of events from now on.
    pub(super) fn set_follows(&self) {
        self.follows.store(true, Ordering::Relaxed);
    }

    pub(super) fn follows(&self) -> bool {
        self.follows.load(Ordering::Relaxed)
    }

    /// A request is being answered until the value is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// The time since which it has waited for its client, if that is long enough to be closed.
    fn stalled_since(&self, now: u64) -> Option<u64> {
        let waits = self.blocked.load(Ordering::Relaxed) || self.busy.load(Ordering::Relaxed) == 0;
        let last = self.last.load(Ordering::Relaxed);
        (waits && !self.follows() && now.saturating_sub(last) >= STALLED.as_millis() as u64).then_some(last)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.progress();
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

fn milliseconds(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}
