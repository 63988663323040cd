//! Serves the API on its socket: connections, limits in size and time, and versions that must agree. It must not know
//! what a request means.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

pub use super::listener::{BindError, Socket};
use super::{Caller, Handle, RELEASE, RELEASE_HEADER, VERSION, VERSION_HEADER, routes, view};

/// Connections served at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// How long a request's head may take to arrive, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request may take from its head to its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes a request's body may have: no request needs more than a name, an address and a number.
const MAX_BODY: usize = 16 * 1024;

/// Serves the API on its socket. Ends only by being dropped.
pub async fn serve(listener: UnixListener, handle: Handle) {
    let router = routes::routes(handle).layer(DefaultBodyLimit::max(MAX_BODY));
    serve_router(listener, router.layer(middleware::from_fn(agree_on_version)), caller).await;
}

/// Who is at the other end of a connection to the socket.
fn caller(stream: &UnixStream) -> Caller {
    let credentials = stream.peer_cred().ok();
    Caller { uid: credentials.map(|peer| peer.uid()), pid: credentials.and_then(|peer| peer.pid()) }
}

/// Serves any router within the limits of time and connections; requests carry what `caller` tells of their
/// connection. Accepting goes on whatever a connection does.
pub(crate) async fn serve_router<L: Listener>(mut listener: L, router: Router, caller: impl Fn(&L::Io) -> Caller) {
    let router = router.layer(middleware::from_fn(limit_time));
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let (stream, _) = listener.accept().await;
        let router = router.clone().layer(Extension(caller(&stream)));
        tokio::spawn(async move {
            serve_connection(stream, router).await;
            drop(permit);
        });
    }
}

async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection ended");
    }
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let seconds = REQUEST_TIMEOUT.as_secs();
            view::Error::failed(format!("no answer within {seconds} s: the outcome is unknown, see maglev status"))
                .into_response()
        }
    }
}

/// Refuses a client of another version, and tells every client ours.
async fn agree_on_version(request: Request, next: Next) -> Response {
    let mut response = match version_conflict(request.headers()) {
        Some(error) => error.into_response(),
        None => next.run(request).await,
    };
    response.headers_mut().insert(VERSION_HEADER, HeaderValue::from(VERSION));
    response.headers_mut().insert(RELEASE_HEADER, HeaderValue::from_static(RELEASE));
    response
}

/// A client that names no version, such as curl, is trusted to know what it asks.
fn version_conflict(headers: &HeaderMap) -> Option<view::Error> {
    let theirs = headers.get(VERSION_HEADER)?.to_str().unwrap_or("unreadable");
    if theirs == VERSION.to_string() {
        return None;
    }
    let release = headers.get(RELEASE_HEADER).and_then(|release| release.to_str().ok()).unwrap_or("of unknown release");
    Some(view::Error::conflict(format!(
        "maglev {release} speaks API version {theirs}, maglevd {RELEASE} speaks version {VERSION}: use the same release of both"
    )))
}

impl IntoResponse for view::Error {
    fn into_response(self) -> Response {
        let status = match self.kind {
            view::ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            view::ErrorKind::Conflict => StatusCode::CONFLICT,
            view::ErrorKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, axum::Json(self)).into_response()
    }
}
