//! The history of the services: revisions, their differences, and rollback. It must not know how it is stored.

use serde::{Deserialize, Serialize};

use super::Changes;

/// A revision of the services: one change, and its author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number; every change has the next one.
    pub revision: u64,
    /// When it was saved, in milliseconds since 1970-01-01T00:00:00Z.
    pub unix_milliseconds: u64,
    /// The user of the process on the socket, by the kernel; `None` for the daemon itself.
    pub uid: Option<u32>,
    /// The process of the client.
    pub pid: Option<i32>,
    /// The change in words: `add backend web4 (10.0.1.14) weight 100 to pool web`.
    pub command: String,
    /// The author's reason (`-m`).
    pub why: Option<String>,
    /// The pools it affects, in the order of their names.
    pub pools: Vec<String>,
    /// The backends it affects, as `pool/name`; empty for a revision with more than 100.
    pub backends: Vec<String>,
    /// How many of each kind it added, changed and removed.
    pub changes: Changes,
    /// The full digest of the services after it; in a list, `None` for a revision that was saved together with the next.
    pub digest: Option<String>,
}

/// `GET /v1/history`: the kept revisions, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The revisions that match the query.
    pub revisions: Vec<Revision>,
    /// The oldest kept one: the oldest target of a rollback.
    pub oldest: u64,
    /// The newest: the one in use.
    pub newest: u64,
}

/// `GET /v1/history/{revision}`: the services as they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionContent {
    /// The revision.
    #[serde(flatten)]
    pub revision: Revision,
    /// All services, in the form of `services.yaml`.
    pub services: String,
}

/// `GET /v1/history/diff?from=N&to=M`: the difference between two revisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionDiff {
    /// The first revision.
    pub from: u64,
    /// The second.
    pub to: u64,
    /// How many of each kind differ.
    pub changes: Changes,
    /// One line for each object that differs, without its sign.
    pub lines: Vec<DiffLine>,
}

/// One object in one of two revisions. One that was changed has two lines: removed as it was, added as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffLine {
    /// Whether this is its form in the second revision; else in the first.
    pub added: bool,
    /// The object in the form of `services.yaml`: `backend web/web4: { name: web4, address: 10.0.1.14, weight: 100 }`.
    pub object: String,
}

/// The body of `POST /v1/rollback`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRollback {
    /// The revision whose services are restored, as a new revision.
    pub revision: u64,
    /// Even if that takes out of service more than is allowed at once.
    #[serde(default)]
    pub force: bool,
}

/// The answer to a rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The revision whose services are restored.
    pub to: u64,
    /// The new revision; `None` if nothing differed.
    pub revision: Option<u64>,
    /// The number of changes.
    pub changes: Changes,
}

/// `GET /v1/plan/rollback/{revision}`: a preview of a rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRollback {
    /// The number of changes.
    pub changes: Changes,
    /// The reason why it would be refused without force, if so.
    pub refused: Option<String>,
}
