//! Why a request was not carried out. It must not know which exit code or HTTP status that becomes.

use serde::{Deserialize, Serialize};

use maglev_model::Refusal;

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{error}")]
pub struct Error {
    /// One line for the operator.
    pub error: String,
    /// Whose fault it is.
    pub kind: ErrorKind,
    /// One line for each fault, where there can be several: those of a file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// Whose fault it is that a request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorKind {
    /// The input can never be right.
    Invalid,
    /// Not possible as things stand: unknown, taken, in use, full.
    Conflict,
    /// The daemon failed to do it.
    Failed,
    /// Not on this socket: it serves reads alone.
    Forbidden,
}

impl Error {
    /// The input can never be right.
    pub fn invalid(error: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, error.into())
    }

    /// Not possible as things stand.
    pub fn conflict(error: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, error.into())
    }

    /// The daemon failed to do it.
    pub fn failed(error: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, error.into())
    }

    /// Not on this socket.
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
