//! Has a check's packets leave the node by their path: set on its socket before it sends anything. It must not know who is
//! asked.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};

use maglev_core::health::CheckPath;
use maglev_net::socket::bind_to_interface;

/// Sends the packets of a socket by this path.
pub(super) fn set(socket: &impl AsFd, path: &CheckPath) -> io::Result<()> {
    let CheckPath { mark, interface } = *path;
    if let Some(index) = interface {
        bind_to_interface(socket, index)?;
    }
    if let Some(mark) = mark {
        setsockopt(socket, sockopt::Mark, &mark)?;
    }
    Ok(())
}
