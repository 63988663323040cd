//! Large answers are rendered on one thread of their own, not on the workers that serve BGP, health checks and the owner.
//! Clients that request the same page at the same time share one rendering. It must not know the content of an answer.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::oneshot;

use maglev_api::{Answer, view};

/// A page may be as old as so many times its rendering time: a node with few backends shows every packet at once, and one with
/// many spends at most a part of one CPU on readers.
const AGE_PER_COST: u32 = 4;

/// The largest age of a page.
const MAX_AGE: Duration = Duration::from_secs(2);

/// Bytes of pages that clients may keep alive by reading slowly. Beyond that, unprivileged clients are refused.
const MAX_HELD: usize = 64 * 1024 * 1024;

/// The subject of a page: one rendering of each is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Status,
    Vips,
    Pools,
    Pool(String),
    Backends,
    Counters,
    Services,
    Metrics,
}

/// A rendered answer. All its readers share the bytes.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    content: &'static str,
    bytes: Bytes,
}

/// The requirements on a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// The generation of the status from which it is made, or a later one.
    pub(crate) generation: u64,
    /// Root and the daemon's own user are served regardless of the memory that slow readers hold.
    pub(crate) privileged: bool,
}

/// A rendering, and its duration.
#[derive(Debug)]
pub(crate) struct Rendered {
    content: &'static str,
    bytes: Vec<u8>,
    cost: Duration,
}

/// The rendering thread, and the pages that may be served again.
#[derive(Clone, Debug)]
pub struct Pages {
    jobs: mpsc::Sender<Job>,
    kept: Arc<Mutex<BTreeMap<Subject, Arc<Cell>>>>,
    held: Arc<AtomicUsize>,
}

/// The holder of the lock renders; all others wait for the page.
type Cell = tokio::sync::Mutex<Option<Kept>>;

#[derive(Debug)]
struct Kept {
    page: Page,
    generation: u64,
    began: Instant,
    cost: Duration,
}

struct Job(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

impl Pages {
    /// Starts the thread. It ends with the last clone of this value.
    ///
    /// # Errors
    /// The system starts no thread.
    pub fn start() -> io::Result<Self> {
        let (jobs, received) = mpsc::channel::<Job>();
        let work = move || {
            for Job(job) in received {
                // A panic of one computation fails that request alone.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        };
        std::thread::Builder::new().name("pages".into()).spawn(work)?;
        Ok(Self { jobs, kept: Arc::default(), held: Arc::default() })
    }

    /// Computes something on the thread. Nothing is computed for a client that disconnected.
    ///
    /// # Errors
    /// The computation panicked, or the daemon is stopping.
    pub(crate) async fn compute<T: Send + 'static>(&self, compute: impl FnOnce() -> T + Send + 'static) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        let job = move || {
            if !reply.is_closed() {
                let _ = reply.send(compute());
            }
        };
        let failed = || view::Error::failed("cannot render the answer");
        self.jobs.send(Job(Box::new(job))).map_err(|_| failed())?;
        answer.await.map_err(|_| failed())
    }

    /// The page about a subject: the kept one, if it is recent enough, else a new one from `render`.
    ///
    /// # Errors
    /// The error of `render`, or slow readers hold too much memory.
    pub(crate) async fn page(
        &self,
        subject: Subject,
        wanted: Wanted,
        render: impl Future<Output = Answer<Rendered>>,
    ) -> Answer<Page> {
        let arrived = Instant::now();
        let cell = self.cell(&subject);
        let mut kept = cell.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| kept.serves(wanted, arrived)) {
            return Ok(kept.page.clone());
        }
        // Frees the old page before the new one is rendered.
        *kept = None;
        self.check_room(wanted)?;
        let began = Instant::now();
        let Rendered { content, bytes, cost } = render.await?;
        let page = Page { content, bytes: self.hold(bytes) };
        *kept = Some(Kept { page: page.clone(), generation: wanted.generation, began, cost });
        drop(kept);
        self.forget_later(subject, &cell, began);
        Ok(page)
    }

    /// An answer to one client alone, counted like a page until it is read.
    ///
    /// # Errors
    /// The error of `render`, or slow readers hold too much memory.
    pub(crate) async fn once(
        &self,
        wanted: Wanted,
        render: impl FnOnce() -> Answer<Rendered> + Send + 'static,
    ) -> Answer<Page> {
        let pages = self.clone();
        let rendered = move || {
            pages.check_room(wanted)?;
            let Rendered { content, bytes, cost: _ } = render()?;
            Ok(Page { content, bytes: pages.hold(bytes) })
        };
        self.compute(rendered).await?
    }

    /// Bytes of kept pages and of answers that clients have not read yet.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn check_room(&self, wanted: Wanted) -> Answer<()> {
        let held = self.held();
        if held <= MAX_HELD || wanted.privileged {
            return Ok(());
        }
        let mib = held / (1024 * 1024);
        Err(view::Error::failed(format!("slow readers hold {mib} MiB of answers: try again later")))
    }

    fn cell(&self, subject: &Subject) -> Arc<Cell> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(kept.entry(subject.clone()).or_default())
    }

    /// Counts these bytes until the last reader frees them.
    fn hold(&self, bytes: Vec<u8>) -> Bytes {
        self.held.fetch_add(bytes.len(), Ordering::Relaxed);
        Bytes::from_owner(Held { bytes, held: Arc::clone(&self.held) })
    }

    /// Frees a page once it is too old to be served.
    fn forget_later(&self, subject: Subject, cell: &Arc<Cell>, began: Instant) {
        let (all, cell) = (Arc::clone(&self.kept), Arc::clone(cell));
        tokio::spawn(async move {
            tokio::time::sleep(MAX_AGE).await;
            let mut kept = cell.lock().await;
            if kept.as_ref().is_some_and(|kept| kept.began == began) {
                *kept = None;
                drop(kept);
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                // No request is about to use it if only the map and this task hold it.
                if Arc::strong_count(&cell) == 2 {
                    all.remove(&subject);
                }
            }
        });
    }
}

impl Kept {
    /// Whether the page is recent enough for a client that asked at this time.
    fn serves(&self, wanted: Wanted, arrived: Instant) -> bool {
        let age = arrived.saturating_duration_since(self.began);
        self.generation >= wanted.generation && age <= (self.cost * AGE_PER_COST).min(MAX_AGE)
    }
}

impl Rendered {
    /// Renders text of a type.
    pub(crate) fn text(content: &'static str, render: impl FnOnce() -> String) -> Self {
        let began = Instant::now();
        let bytes = render().into_bytes();
        Self { content, bytes, cost: began.elapsed() }
    }

    /// Renders JSON of what `make` returns.
    pub(crate) fn json<T: Serialize>(make: impl FnOnce() -> Answer<T>) -> Answer<Self> {
        let began = Instant::now();
        let bytes = serde_json::to_vec(&make()?);
        let bytes = bytes.map_err(|error| view::Error::failed(format!("cannot render the answer: {error}")))?;
        Ok(Self { content: "application/json", bytes, cost: began.elapsed() })
    }
}

#[cfg(test)]
impl Page {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, self.content)], self.bytes).into_response()
    }
}

/// Bytes that are counted until they are freed.
struct Held {
    bytes: Vec<u8>,
    held: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}
