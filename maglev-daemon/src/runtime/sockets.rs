//! The sockets of the API and of scrapers: opened before anything is attached, so that a second daemon ends where it began. It
//! must not know what is answered.

use std::path::Path;

use anyhow::Context as _;
use maglev_config::NodeConfig;
use maglev_net::socket;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use super::Failure;
use crate::http::Handle;
use crate::http::server::{self, Socket};
use crate::metrics;

/// Sockets that nothing is answered at yet.
pub(super) struct Sockets {
    socket: Socket,
    listener: UnixListener,
    scraped: Option<TcpListener>,
}

/// The servers. They end with this value's [`Self::end`].
pub(super) struct Servers {
    socket: Socket,
    tasks: Vec<JoinHandle<()>>,
}

impl Sockets {
    /// Opens those that the node's file names.
    ///
    /// # Errors
    /// Another daemon has one of them.
    pub(super) fn open(node: &NodeConfig) -> Result<Self, Failure> {
        let socket = Socket::bind(&node.socket)?;
        let listener = socket.listener().context("cannot listen on the API's socket")?;
        let listen = |at| socket::listen_early(at).with_context(|| format!("cannot listen on api.metrics {at}"));
        let scraped = node.metrics.map(listen).transpose()?;
        Ok(Self { socket, listener, scraped })
    }

    /// Begins to answer.
    pub(super) fn serve(self, handle: Handle) -> Servers {
        let Self { socket, listener, scraped } = self;
        let api = tokio::spawn(server::serve(listener, handle.clone()));
        let scrapes = scraped.map(|listener| tokio::spawn(metrics::serve(listener, handle)));
        Servers { socket, tasks: [Some(api), scrapes].into_iter().flatten().collect() }
    }
}

impl Servers {
    /// Where the API is.
    pub(super) fn path(&self) -> &Path {
        self.socket.path()
    }

    /// Ends them: clients are refused from here on.
    pub(super) fn end(self) {
        let Self { socket, tasks } = self;
        drop(socket);
        tasks.iter().for_each(JoinHandle::abort);
    }
}
