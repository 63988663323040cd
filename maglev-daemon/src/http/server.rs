//! Serves the API on its sockets: connections, limits in size and time, and versions that must agree. It must not know
//! the requests.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use axum::{Extension, Router};
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use maglev_api::{RELEASE, RELEASE_HEADER, VERSION, VERSION_HEADER, view};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::body::Bodies;
pub use super::listener::{BindError, Role, Socket};
use super::patience::Patient;
use super::places::{Activity, Busy, Place, Places};
pub use super::reads::Sockets;
use super::refused::Refused;
use super::{Caller, Handle, reads, routes};

/// How long a request's head may take to arrive, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to read the refusal of its connection.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a request may take from its head to its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves the API on its socket. Ends only by being dropped.
pub async fn serve(listener: UnixListener, handle: Handle) {
    serve_api(listener, routes::routes(handle), Bodies::new(routes::is_file)).await;
}

/// Serves reads and plans on the second socket. Ends only by being dropped.
pub async fn serve_reads(listener: UnixListener, handle: Handle, sockets: Sockets) {
    let journal = handle.journal.with_own_followers();
    let router = reads::only(routes::routes(Handle { journal, ..handle }), sockets);
    serve_api(listener, router, Bodies::new(routes::is_file)).await;
}

/// Serves an API on its socket, to clients of this version. Ends only by being dropped.
pub(crate) async fn serve_api(listener: UnixListener, router: Router, bodies: Bodies) {
    let router = router.layer(middleware::from_fn(agree_on_version));
    serve_router(listener, router, bodies, caller).await;
}

/// The process at the other end of a connection to the socket.
fn caller(stream: &UnixStream) -> Caller {
    let credentials = stream.peer_cred().ok();
    Caller { uid: credentials.map(|peer| peer.uid()), pid: credentials.and_then(|peer| peer.pid()) }
}

/// Serves any router within the limits of time and connections; requests carry what `caller` returns for their
/// connection. No connection blocks accepting.
pub(crate) async fn serve_router<L: Listener>(
    mut listener: L,
    router: Router,
    bodies: Bodies,
    caller: impl Fn(&L::Io) -> Caller,
) where
    L::Io: Unpin,
{
    let router = router.layer(middleware::from_fn_with_state(bodies, limit_time));
    let places = Places::new();
    loop {
        let (stream, _) = listener.accept().await;
        let caller = caller(&stream);
        let router = router.clone().layer(Extension(caller));
        if let Some(place) = places.take_free(caller) {
            tokio::spawn(serve_connection(stream, router, place));
        } else if let Some(queued) = places.queue() {
            let places = Arc::clone(&places);
            tokio::spawn(async move {
                match places.take(queued).await {
                    Some(place) => serve_connection(stream, router, place).await,
                    None => refuse(stream).await,
                }
            });
        }
    }
}

async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, place: Place) {
    let router = router.layer(Extension(Arc::clone(place.activity())));
    let stream = Patient::new(stream, Arc::clone(place.activity()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
        }
        () = place.closed() => tracing::debug!("connection closed: another one needs its place"),
    }
}

/// Answers a connection for which there is no place.
async fn refuse(mut stream: impl AsyncWrite + Unpin) {
    let error = view::Error::failed("maglevd serves as many clients as it can at once: try again later");
    let body = serde_json::to_string(&error).unwrap_or_default();
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\n{VERSION_HEADER}: {VERSION}\r\n{RELEASE_HEADER}: {RELEASE}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    // The client may have disconnected.
    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, stream.write_all(answer.as_bytes())).await;
}

async fn limit_time(State(bodies): State<Bodies>, request: Request, next: Next) -> Response {
    let activity = request.extensions().get::<Arc<Activity>>().cloned();
    let mut busy = None;
    let answer = async {
        let (request, _turn) = bodies.receive(request).await?;
        // Until now the connection waited for its client.
        busy = activity.as_ref().map(Activity::begin);
        Ok::<_, Refused>(next.run(request).await)
    };
    let response = match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(answer) => answer.into_response(),
        Err(_) => {
            let seconds = REQUEST_TIMEOUT.as_secs();
            let line = format!("no answer within {seconds} s: the outcome is unknown, see maglev status");
            Refused(view::Error::failed(line)).into_response()
        }
    };
    if let Some(activity) = activity.filter(|_| is_stream(&response)) {
        activity.set_follows();
    }
    response.map(|body| Body::new(Answering { body, _busy: busy }))
}

/// A streamed answer counts as being answered until its end.
struct Answering {
    body: Body,
    _busy: Option<Busy>,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether it is a stream of events.
fn is_stream(response: &Response) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|content| content.as_bytes().starts_with(b"text/event-stream"))
}

/// Refuses a client of another version, and adds this version to every answer.
async fn agree_on_version(request: Request, next: Next) -> Response {
    let mut response = match version_conflict(request.headers()) {
        Some(error) => Refused(error).into_response(),
        None => next.run(request).await,
    };
    response.headers_mut().insert(VERSION_HEADER, HeaderValue::from(VERSION));
    response.headers_mut().insert(RELEASE_HEADER, HeaderValue::from_static(RELEASE));
    response
}

/// A client without a version, such as curl, is served.
fn version_conflict(headers: &HeaderMap) -> Option<view::Error> {
    let theirs = headers.get(VERSION_HEADER)?.to_str().unwrap_or("unreadable");
    if theirs == VERSION.to_string() {
        return None;
    }
    let release = headers.get(RELEASE_HEADER).and_then(|release| release.to_str().ok()).unwrap_or("of unknown release");
    Some(view::Error::conflict(format!(
        "maglev {release} has API version {theirs}, maglevd {RELEASE} has version {VERSION}: use the same release of both"
    )))
}
