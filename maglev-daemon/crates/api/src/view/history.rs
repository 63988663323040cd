//! The history of the services: its revisions, how two of them differ, and the order to go back to one. It must not know how it
//! is kept.

use serde::{Deserialize, Serialize};

use super::Changes;

/// A revision of the services: one change, and its author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number; every change has the next one.
    pub revision: u64,
    /// When it was saved, in milliseconds since 1970-01-01T00:00:00Z.
    pub unix_milliseconds: u64,
    /// The user, as the kernel names the process on the socket; `None` for the daemon itself.
    pub uid: Option<u32>,
    /// The process that asked for it.
    pub pid: Option<i32>,
    /// The change in words: `add backend web4 (10.0.1.14) weight 100 to pool web`.
    pub command: String,
    /// What the author gave as a reason (`-m`).
    pub why: Option<String>,
    /// The pools that it is about, in the order of their names.
    pub pools: Vec<String>,
    /// The backends that it is about, as `pool/name`; none are listed of a revision with more than 100.
    pub backends: Vec<String>,
    /// How many of each kind it added, changed and removed.
    pub changes: Changes,
    /// The digest of the services after it, in full; in a list, `None` for one that was saved together with the next.
    pub digest: Option<String>,
}

/// `GET /v1/history`: the revisions that are kept, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Those that were asked for.
    pub revisions: Vec<Revision>,
    /// The oldest that is kept: the oldest to which a rollback is possible.
    pub oldest: u64,
    /// The newest: what is in use.
    pub newest: u64,
}

/// `GET /v1/history/{revision}`: the services as they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionContent {
    /// Which revision.
    #[serde(flatten)]
    pub revision: Revision,
    /// All services, as `services.yaml` had them.
    pub services: String,
}

/// `GET /v1/history/diff?from=N&to=M`: what leads from one revision to another.
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
    /// Whether it is in the second revision so, or in the first.
    pub added: bool,
    /// The object as `services.yaml` has it: `backend web/web4: { name: web4, address: 10.0.1.14, weight: 100 }`.
    pub object: String,
}

/// The body of `POST /v1/rollback`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRollback {
    /// The revision whose services are taken over, as a revision of its own.
    pub revision: u64,
    /// Even if that takes out of service more than is allowed at once.
    #[serde(default)]
    pub force: bool,
}

/// The answer to a rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The revision whose services are in use again.
    pub to: u64,
    /// The revision that this made; `None` if nothing differed.
    pub revision: Option<u64>,
    /// What it changed.
    pub changes: Changes,
}

/// `GET /v1/plan/rollback/{revision}`: what a rollback would do now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRollback {
    /// What it would change.
    pub changes: Changes,
    /// Why it would be refused without force, if it would be.
    pub refused: Option<String>,
}
