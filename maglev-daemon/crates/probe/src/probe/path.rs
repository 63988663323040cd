//! Sends a check's packets on their path: set on its socket before it sends anything. It must not know the
//! backend.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};

use maglev_core::health::CheckPath;
use maglev_net::socket::bind_to_interface;

/// Sends the packets of a socket on this path.
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
