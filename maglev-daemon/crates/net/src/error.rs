//! Why the host's network could not be read.

use std::io;

/// Why the host's network could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// A request failed.
    #[error("netlink: cannot {what}: {source}")]
    Request {
        /// The request.
        what: &'static str,
        /// Why it failed.
        source: rtnetlink::Error,
    },
    /// No answer came.
    #[error("netlink: cannot {what}: no answer")]
    Silent {
        /// The request.
        what: &'static str,
    },
    /// A socket was closed.
    #[error("the netlink socket for notices was closed")]
    Closed,
}
