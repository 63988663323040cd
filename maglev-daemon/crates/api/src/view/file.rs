//! The services as a whole: exported as a file, compared with one, replaced by one. It must not know how a file is read.

use serde::{Deserialize, Serialize};

use super::{Changes, DiffLine, Error};

/// `GET /v1/services`: all services as a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicesFile {
    /// Their revision.
    pub revision: u64,
    /// Their digest, in full.
    pub digest: String,
    /// The file's text, in the form in which the daemon writes it. Its first line names the revision.
    pub services: String,
}

/// `POST /v1/plan/services`, whose body is a file's text: a preview of replacing all services by that file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedServices {
    /// The file, as the client names it.
    pub file: String,
    /// The revision that the file's first line names.
    pub base: Option<u64>,
    /// The revision that it was compared with: the newest one.
    pub revision: u64,
    /// How many of each kind differ.
    pub changes: Changes,
    /// One line for each object that differs, without its sign.
    pub lines: Vec<DiffLine>,
    /// The error with which the daemon would refuse it; `?force=true` previews it with force.
    pub refused: Option<Error>,
}

/// `PUT /v1/services`, whose body is a file's text: all services are replaced by those of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The new revision; `None` if nothing differed.
    pub revision: Option<u64>,
    /// The number of changes.
    pub changes: Changes,
}
