//! The API's paths for fuzzers of other crates, without a socket: any method, path, reason and body. The runtime behind it counts
//! the changes that it is asked for. It must not know the paths.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Extension;
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::http::{HeaderValue, Method, Uri};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use maglev_api::{WHY_HEADER, view};
use maglev_store::Stored;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use super::{Bgp, Caller, Handle, Journal, Pages, Request, Snapshots, routes};

/// An answer of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The HTTP status.
    pub status: u16,
    /// How many changes the runtime was asked for.
    pub changes: u32,
}

/// The API, and a runtime.
pub struct Api {
    runtime: Runtime,
    router: axum::Router,
    changes: Arc<AtomicU32>,
}

impl Api {
    /// Starts it.
    ///
    /// # Panics
    /// The system has no thread or descriptor left.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
        let context = runtime.enter();
        let changes = Arc::new(AtomicU32::new(0));
        let (sender, requests) = mpsc::channel(8);
        tokio::spawn(accept(requests, Arc::clone(&changes)));
        let handle = Handle {
            requests: sender,
            snapshots: Snapshots::fixed(view::Status::default()),
            flow_table: watch::channel(view::FlowTable::default()).1,
            shortages: maglev_probe::shortages::Shortages::default(),
            state_file: watch::channel(None).1,
            started: std::time::Instant::now(),
            bgp: Bgp::default(),
            journal: Journal::start(),
            stored: watch::channel(Stored::default()).1,
            rules: watch::channel(maglev_model::Rules::default()).1,
            pages: Pages::start().expect("a thread"),
            config: None,
        };
        let router = routes::routes(handle).layer(Extension(Caller { uid: Some(0), pid: Some(1) }));
        drop(context);
        Self { runtime, router, changes }
    }

    /// The answer to a request; `None` if HTTP has no such method, path or header.
    pub fn answer(&self, method: &[u8], path: &[u8], reason: &[u8], body: &[u8]) -> Option<Answered> {
        let mut request = HttpRequest::new(Body::from(body.to_vec()));
        *request.method_mut() = Method::from_bytes(method).ok()?;
        *request.uri_mut() = Uri::try_from(path).ok().filter(|uri| uri.path().starts_with('/'))?;
        if !reason.is_empty() {
            request.headers_mut().insert(WHY_HEADER, HeaderValue::from_bytes(reason).ok()?);
        }
        self.changes.store(0, Ordering::Relaxed);
        let service = TowerToHyperService::new(self.router.clone());
        let response = self.runtime.block_on(service.call(request));
        let status = match response {
            Ok(response) => response.status().as_u16(),
            Err(never) => match never {},
        };
        Some(Answered { status, changes: self.changes.load(Ordering::Relaxed) })
    }
}

/// Accepts changes to one object and of the node's drain, refuses all else; counts the requests that ask for a change.
async fn accept(mut requests: mpsc::Receiver<Request>, changes: Arc<AtomicU32>) {
    fn refused<T>() -> maglev_api::Answer<T> {
        Err(view::Error::conflict("not here"))
    }
    while let Some(request) = requests.recv().await {
        let is_change = !matches!(
            request,
            Request::Plan { .. }
                | Request::Check { .. }
                | Request::PlanRollback { .. }
                | Request::ReviewFile { .. }
                | Request::PlanReload { .. }
                | Request::Counters { .. }
                | Request::Explain { .. }
                | Request::Capture { .. }
        );
        changes.fetch_add(is_change.into(), Ordering::Relaxed);
        match request {
            Request::Change { reply, .. } => drop(reply.send(Ok(()))),
            Request::Plan { reply, .. } => drop(reply.send(refused())),
            Request::Check { reply, .. } => drop(reply.send(refused())),
            Request::Reload { reply, .. } => drop(reply.send(refused())),
            Request::Rollback { reply, .. } => drop(reply.send(refused())),
            Request::PlanRollback { reply, .. } => drop(reply.send(refused())),
            Request::Apply { reply, .. } => drop(reply.send(refused())),
            Request::ReviewFile { reply, .. } => drop(reply.send(refused())),
            Request::PlanReload { reply } => drop(reply.send(refused())),
            Request::Counters { reply } => drop(reply.send(refused())),
            Request::DrainNode { reply, .. } => drop(reply.send(Ok(()))),
            Request::UndrainNode { reply, .. } => drop(reply.send(Ok(()))),
            Request::StopNode { reply, .. } => drop(reply.send(Ok(()))),
            Request::Explain { reply, .. } => drop(reply.send(refused())),
            Request::Capture { reply, .. } => drop(reply.send(refused())),
        }
    }
}
