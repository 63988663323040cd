//! Events over HTTP: recent ones as JSON, and a stream of server-sent events (WHATWG HTML, section 9.2). It must not know the kinds
//! of events.

use std::convert::Infallible;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::{Stream, stream};
use maglev_api::{Answer, MISSED, SIGN_OF_LIFE, view};
use maglev_model::shown;
use serde::Deserialize;
use serde_json::json;

use super::Handle;
use super::journal::Received;
use super::refused::Refused;

/// The header with the last received event of a follower that reconnects.
const LAST_EVENT_ID: &str = "last-event-id";

/// The query of `GET /v1/events` and `GET /v1/events/recent`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// The sequence number after which they begin.
    after: Option<u64>,
}

type Asked = Result<Query<EventsQuery>, QueryRejection>;

pub(super) async fn recent(State(handle): State<Handle>, query: Asked) -> Result<Json<view::Events>, Refused> {
    Ok(Json(handle.journal.recent(after(query)?)))
}

pub(super) async fn follow(
    State(handle): State<Handle>,
    headers: HeaderMap,
    query: Asked,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Refused> {
    let after = after(query)?;
    let follower = handle.journal.follow(last_event(&headers)?.or(after))?;
    let stream = stream::unfold(follower, async |mut follower| {
        let received = follower.next().await?;
        Some((Ok(message(&received)), follower))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(SIGN_OF_LIFE)))
}

fn after(query: Asked) -> Answer<Option<u64>> {
    let Query(EventsQuery { after }) = query.map_err(|rejection| view::Error::invalid(rejection.body_text()))?;
    Ok(after)
}

/// The last received event, if the follower names one. An empty header names none.
fn last_event(headers: &HeaderMap) -> Answer<Option<u64>> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    let number = text.parse().map_err(|_| {
        view::Error::invalid(format!("Last-Event-ID: {} is no event's id; allowed: a whole number", shown(&text)))
    });
    number.map(Some)
}

fn message(received: &Received) -> sse::Event {
    let (message, data) = match received {
        Received::Event(event) => {
            (sse::Event::default().id(event.sequence.to_string()), serde_json::to_string(event.as_ref()))
        }
        Received::Missed(missed) => {
            (sse::Event::default().event(MISSED), serde_json::to_string(&json!({ MISSED: missed })))
        }
    };
    // Serializing cannot fail: all keys are text.
    message.data(data.unwrap_or_default())
}
