//! Netlink sockets and the tasks that serve them. It must not know what is asked or heard.

use std::io;

use futures_util::{Stream, StreamExt};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::{Handle, MulticastGroup};
use tokio::task::JoinHandle;

/// Why the host's network could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// A request failed.
    #[error("netlink: cannot {what}: {source}")]
    Request {
        /// What was asked.
        what: &'static str,
        /// Why it failed.
        source: rtnetlink::Error,
    },
}

/// A socket for requests. Its task ends with it.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) handle: Handle,
    task: JoinHandle<()>,
}

impl Requests {
    /// Opens the socket in the calling thread's network namespace; needs a tokio runtime.
    pub(super) fn open() -> Result<Self, NetError> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a notification says.
#[derive(Debug)]
pub(super) enum Notice {
    /// Something changed.
    Changed(Box<RouteNetlinkMessage>),
    /// The socket overflowed: notifications are lost, everything has to be read again.
    Lost,
}

/// A socket for notifications, apart from the one for requests: where it overflows, no answer is lost.
pub(super) struct Notices {
    stream: Box<dyn Stream<Item = Notice> + Send + Sync + Unpin>,
    task: JoinHandle<()>,
}

impl Notices {
    /// Opens the socket in the calling thread's network namespace; needs a tokio runtime.
    pub(super) fn open(groups: &[MulticastGroup]) -> Result<Self, NetError> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(groups)?;
        let stream = messages.filter_map(|(message, _)| {
            std::future::ready(match message.payload {
                NetlinkPayload::InnerMessage(message) => Some(Notice::Changed(Box::new(message))),
                NetlinkPayload::Overrun(_) => Some(Notice::Lost),
                _ => None,
            })
        });
        Ok(Self { stream: Box::new(stream), task: tokio::spawn(connection) })
    }

    /// The next notification; `None` once the socket is closed.
    pub(super) async fn next(&mut self) -> Option<Notice> {
        self.stream.next().await
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.task.abort();
    }
}
