//! The socket that serves reads alone: a change is refused there, with the path of the socket for changes. It must not know the
//! answers.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use maglev_api::view;

use super::refused::Refused;

/// The two sockets.
#[derive(Clone, Debug)]
pub struct Sockets {
    /// The one that serves reads.
    pub reads: PathBuf,
    /// The one that serves changes.
    pub changes: PathBuf,
}

/// Refuses changes.
pub(super) fn only(router: Router, sockets: Sockets) -> Router {
    router.layer(middleware::from_fn_with_state(Arc::new(sockets), refuse_changes))
}

async fn refuse_changes(State(sockets): State<Arc<Sockets>>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    if is_read(method, path) {
        return next.run(request).await;
    }
    let Sockets { reads, changes } = &*sockets;
    let (reads, changes) = (reads.display(), changes.display());
    Refused(view::Error::forbidden(format!(
        "nothing changed: {reads} serves reads and plans alone, and {method} {path} is neither; send it to {changes} \
         (maglev --socket {changes})"
    )))
    .into_response()
}

/// Whether a request has no effect. A single check has one, on the backend.
fn is_read(method: &Method, path: &str) -> bool {
    let plans = ["/v1/plan", "/v1/plan/services"];
    matches!(*method, Method::GET | Method::HEAD) || (*method == Method::POST && plans.contains(&path))
}
