//! Why a check did not pass, and whether the cause is the backend or this node. It must not know the kind of check.

use std::fmt;
use std::io;

use nix::libc::{EADDRNOTAVAIL, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM};

use super::words;

/// Why a check did not pass, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The backend answers, but not as expected.
    Unready(String),
    /// Nothing answers: the connection was refused, timed out, or has no route.
    Dead(String),
    /// The check was not made, for lack of a resource of this node. It shows nothing about the backend.
    Shortage(String),
}

impl Fault {
    /// An error of the system: the backend's as `kind` says, unless this node lacks a resource.
    pub(super) fn from_io(doing: &str, error: &io::Error, kind: fn(String) -> Self) -> Self {
        let text = words::from_io(doing, error);
        if is_shortage(error) { Self::Shortage(text) } else { kind(text) }
    }

    /// The words.
    pub fn reason(&self) -> &str {
        match self {
            Self::Unready(reason) | Self::Dead(reason) | Self::Shortage(reason) => reason,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unready(reason) | Self::Dead(reason) => f.write_str(reason),
            Self::Shortage(reason) => write!(f, "not checked, by this node's own shortage: {reason}"),
        }
    }
}

/// Whether this node lacks descriptors, memory, addresses or ports. `EAGAIN` means that only where a socket connects: any other
/// operation that would block is awaited.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM | EADDRNOTAVAIL | EAGAIN))
}
