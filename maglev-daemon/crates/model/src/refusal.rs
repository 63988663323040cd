//! Why a request is not carried out, and the sentences for unknown objects. It must not know the
//! requester.

use std::fmt::Write as _;

use super::{BadValue, Name};

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The input is invalid on any node (exit code 2).
    #[error("{0}")]
    Invalid(String),
    /// Not possible now: unknown, taken, in use, full (exit code 1).
    #[error("{0}")]
    Conflict(String),
    /// The daemon failed to do it (exit code 1).
    #[error("{0}")]
    Failed(String),
}

impl From<BadValue> for Refusal {
    fn from(bad: BadValue) -> Self {
        Self::Invalid(bad.to_string())
    }
}

impl Refusal {
    /// No `what` (a VIP, a pool) has this name; the known names.
    pub fn unknown<'a>(what: &str, name: &Name, known: impl ExactSizeIterator<Item = &'a str>) -> Self {
        not_found(what, name.as_str(), known)
    }

    /// No backend of the pool has this name; the known names.
    pub fn unknown_backend<'a>(pool: &Name, name: &Name, known: impl ExactSizeIterator<Item = &'a str>) -> Self {
        not_found("backend", &format!("{name} in pool {pool}"), known)
    }
}

fn not_found<'a>(what: &str, which: &str, known: impl ExactSizeIterator<Item = &'a str>) -> Refusal {
    if known.len() == 0 {
        return Refusal::Conflict(format!("unknown {what} {which}; known: none"));
    }
    let command = format!("maglev {} list", what.to_ascii_lowercase());
    Refusal::Conflict(format!("unknown {what} {which}; known: {}", listed(known, &command)))
}

/// A few names, and the command that shows all if there are more.
pub(super) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>, command: &str) -> String {
    const FEW: usize = 8;
    let count = names.len();
    let mut text = names.take(FEW).collect::<Vec<_>>().join(", ");
    if count > FEW {
        // Writing to a string cannot fail.
        let _ = write!(text, " and {} more (`{command}` shows all)", count - FEW);
    }
    text
}
