//! `POST /v1/capture`: captured packets as a stream of server-sent events, which ends with its reader. It must not know what is
//! captured.

use std::convert::Infallible;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::{Stream, stream};
use maglev_api::SIGN_OF_LIFE;
use tokio::sync::mpsc;

use super::refused::Refused;
use super::{Caller, Handle, Request, routes};

/// A message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureMessage {
    /// Its name; packets have none.
    pub name: Option<&'static str>,
    /// A view, as JSON.
    pub data: String,
}

/// The messages of a capture, which ends once this is dropped.
pub type CaptureMessages = mpsc::Receiver<CaptureMessage>;

pub(super) async fn capture(
    State(handle): State<Handle>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Refused> {
    let wanted = routes::parse(body)?;
    let messages = handle.ask(|reply| Request::Capture { wanted, caller, reply }).await?;
    let stream = stream::unfold(messages, async |mut messages| {
        let CaptureMessage { name, data } = messages.recv().await?;
        let event = sse::Event::default();
        let event = name.into_iter().fold(event, sse::Event::event);
        Some((Ok(event.data(data)), messages))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(SIGN_OF_LIFE)))
}
