//! Why a check did not pass, and whose fault that is. It must not know what is checked.

use std::fmt;
use std::io;

use nix::libc::{EADDRNOTAVAIL, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM};

use super::words;

/// Why a check did not pass, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The backend answers, and not as it should.
    Unready(String),
    /// Nothing answers: the connection was refused, timed out, or has no route.
    Dead(String),
    /// The check was not made, for want of something of this node's own. It says nothing of the backend.
    Shortage(String),
}

impl Fault {
    /// What the system reports: of the backend as `kind` says, unless it is this node's own shortage.
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

/// Whether this node lacks descriptors, memory, addresses or ports. `EAGAIN` is that only where a socket connects: whatever
/// else would block is awaited.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM | EADDRNOTAVAIL | EAGAIN))
}
