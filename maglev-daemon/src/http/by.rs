//! The author of a request: the process at the other end of the socket, and the reason in its header. It must not know the
//! request.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use maglev_api::{WHY_HEADER, view};

use super::Caller;
use super::refused::Refused;

/// The author of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct By {
    /// The process, by the kernel.
    pub caller: Caller,
    /// The reason, if one was given.
    pub why: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for By {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        let caller = parts.extensions.get::<Caller>().copied().unwrap_or_default();
        let why = parts.headers.get(WHY_HEADER).map(|why| {
            let text = String::from_utf8_lossy(why.as_bytes());
            maglev_model::parse_reason(&text).map_err(|bad| view::Error::invalid(format!("{WHY_HEADER}: {bad}")))
        });
        let why = why.transpose().map_err(|error| Refused(error).into_response())?;
        Ok(Self { caller, why })
    }
}
