//! Errors over HTTP. It must not know the requests.

use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use maglev_api::view::{Error, ErrorKind};
use maglev_model::Refusal;

/// The API's error as the answer to a request.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Error);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let status = match error.kind {
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        };
        (status, axum::Json(error)).into_response()
    }
}

/// The answer to a request for a path that the API does not have.
pub(super) async fn unknown_path(uri: Uri) -> Refused {
    Refused(Error::invalid(format!("no such path: {}", uri.path())))
}
