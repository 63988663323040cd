//! The error of a request. It must not know exit codes and HTTP statuses.

use serde::{Deserialize, Serialize};

use maglev_model::Refusal;

/// The error of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{error}")]
pub struct Error {
    /// One line for the operator.
    pub error: String,
    /// Its kind.
    pub kind: ErrorKind,
    /// One line for each mistake of a file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// The kind of an error: the input's, the state's, the daemon's or the socket's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorKind {
    /// The input is invalid in every state.
    Invalid,
    /// Refused in the present state: unknown, taken, in use, full.
    Conflict,
    /// The daemon failed to do it.
    Failed,
    /// Forbidden on this socket, which serves reads alone.
    Forbidden,
}

impl Error {
    /// The input is invalid in every state.
    pub fn invalid(error: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, error.into())
    }

    /// Refused in the present state.
    pub fn conflict(error: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, error.into())
    }

    /// The daemon failed to do it.
    pub fn failed(error: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, error.into())
    }

    /// Forbidden on this socket.
    pub fn forbidden(error: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, error.into())
    }

    const fn new(kind: ErrorKind, error: String) -> Self {
        Self { error, kind, details: Vec::new() }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(reason) => Self::invalid(reason),
            Refusal::Conflict(reason) => Self::conflict(reason),
            Refusal::Failed(reason) => Self::failed(reason),
        }
    }
}
