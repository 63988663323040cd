//! By what way a check's packets leave the node: set on its socket before it sends anything. It must not know who is asked.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};

/// By what way packets leave. By default as the host's routes say, and unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// The mark that tells the program at the interface's egress which member the packets are for.
    pub mark: Option<u32>,
    /// The interface that they leave by, whatever the routes become: elsewhere, nothing would encapsulate them.
    pub device: Option<String>,
}

impl Way {
    /// Sends what leaves a socket this way.
    pub(super) fn set(&self, socket: &impl AsFd) -> io::Result<()> {
        let Self { mark, device } = self;
        if let Some(device) = device {
            setsockopt(socket, sockopt::BindToDevice, &device.into())?;
        }
        if let Some(mark) = mark {
            setsockopt(socket, sockopt::Mark, mark)?;
        }
        Ok(())
    }
}
