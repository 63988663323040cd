//! The sockets of the service, and its paths: each turns a request into a [`Request`] to the service. It must not know how an answer
//! is computed.

use anyhow::Context as _;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use maglev_api::{Answer, view};
use maglev_net::socket;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::settings::Api;
use crate::http::server::{self, Role, Socket};
use crate::http::{Bodies, Caller, Refused, unknown_method};
use crate::metrics;
use crate::runtime::Failure;

/// A request to the service; the channel receives the answer.
#[derive(Debug)]
pub(super) enum Request {
    Status(oneshot::Sender<view::DecapStatus>),
    Counters(oneshot::Sender<view::DecapCounters>),
    Reload(oneshot::Sender<Answer<view::DecapReloaded>>),
}

/// The channel of requests.
pub(super) fn requests() -> (mpsc::Sender<Request>, mpsc::Receiver<Request>) {
    /// Requests that wait for the service before their senders wait.
    const REQUESTS: usize = 64;
    mpsc::channel(REQUESTS)
}

/// Bound sockets that do not answer yet.
pub(super) struct Sockets {
    socket: Socket,
    listener: UnixListener,
    scraped: Option<TcpListener>,
}

/// The servers, until this is dropped: from then on, clients are refused.
pub(super) struct Servers {
    _socket: Socket,
    tasks: Vec<JoinHandle<()>>,
}

impl Sockets {
    /// Opens the sockets of the file.
    ///
    /// # Errors
    /// Another service uses one of them.
    pub(super) fn open(api: &Api) -> Result<Self, Failure> {
        let Api { socket: path, metrics } = api;
        let socket = Socket::bind(path, Role::Changes)?;
        let listener = socket.listener().with_context(|| format!("cannot listen on {}", path.display()))?;
        let listen = |at| socket::listen_early(at).with_context(|| format!("cannot listen on api.metrics {at}"));
        let scraped = metrics.map(listen).transpose()?;
        Ok(Self { socket, listener, scraped })
    }

    /// Begins to answer.
    pub(super) fn serve(self, requests: mpsc::Sender<Request>) -> Servers {
        let Self { socket, listener, scraped } = self;
        tracing::info!(socket = %socket.path().display(), "serving maglev decap");
        let no_files = || Bodies::new(|_| false);
        let mut tasks = vec![tokio::spawn(server::serve_api(listener, routes(requests.clone()), no_files()))];
        tasks.extend(scraped.map(|listener| {
            let router = Router::new().route("/metrics", get(scrape)).with_state(requests);
            tokio::spawn(server::serve_router(listener, router, no_files(), |_| Caller::default()))
        }));
        Servers { _socket: socket, tasks }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn routes(requests: mpsc::Sender<Request>) -> Router {
    Router::new()
        .route("/v1/decap/status", get(status))
        .route("/v1/decap/counters", get(counters))
        .route("/v1/decap/reload", post(reload))
        .route("/metrics", get(scrape))
        .with_state(requests)
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
}

async fn unknown_path(uri: Uri) -> Refused {
    let path = uri.path();
    Refused(view::Error::invalid(format!(
        "no such path: {path}; this is the socket of maglevd decap: see maglev decap"
    )))
}

type Requests = State<mpsc::Sender<Request>>;

async fn status(State(requests): Requests) -> Result<Json<view::DecapStatus>, Refused> {
    ask(&requests, Request::Status).await.map(Json)
}

async fn counters(State(requests): Requests) -> Result<Json<view::DecapCounters>, Refused> {
    ask(&requests, Request::Counters).await.map(Json)
}

async fn reload(State(requests): Requests) -> Result<Json<view::DecapReloaded>, Refused> {
    ask(&requests, Request::Reload).await?.map(Json).map_err(Refused)
}

async fn scrape(State(requests): Requests) -> Result<Response, Refused> {
    let (status, counters) = (ask(&requests, Request::Status).await?, ask(&requests, Request::Counters).await?);
    Ok(metrics::decap::page(&status, &counters))
}

/// Sends a request and awaits its answer.
async fn ask<T>(
    requests: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Refused> {
    let stopping = || view::Error::failed("maglevd decap is stopping");
    let (reply, answer) = oneshot::channel();
    requests.send(request(reply)).await.map_err(|_| stopping())?;
    Ok(answer.await.map_err(|_| stopping())?)
}
