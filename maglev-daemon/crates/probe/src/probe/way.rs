//! Has a check's packets leave the node by their way: set on its socket before it sends anything. It must not know who is
//! asked.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};

use maglev_core::health::Way;
use maglev_net::socket::bind_to_interface;

/// Sends what leaves a socket this way.
pub(super) fn set(socket: &impl AsFd, way: &Way) -> io::Result<()> {
    let Way { mark, interface } = *way;
    if let Some(index) = interface {
        bind_to_interface(socket, index)?;
    }
    if let Some(mark) = mark {
        setsockopt(socket, sockopt::Mark, &mark)?;
    }
    Ok(())
}
