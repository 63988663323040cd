//! The sockets of the API and of scrapers: opened before a program is attached, so that a second daemon changes nothing. It
//! must not know the answers.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use maglev_config::NodeConfig;
use maglev_net::socket;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::Failure;
use crate::http::Handle;
use crate::http::server::{self, Role, Socket};
use crate::metrics;

/// Bound sockets that do not answer yet.
pub(super) struct Sockets {
    socket: Socket,
    listener: UnixListener,
    reads: Option<(Socket, UnixListener)>,
    scraped: Option<TcpListener>,
}

/// The servers. They end with this value's [`Self::end`].
pub(super) struct Servers {
    socket: Socket,
    reads: Option<Socket>,
    tasks: Vec<JoinHandle<()>>,
    /// Receives the socket that is served to scrapers from now on.
    scraped: mpsc::UnboundedSender<Option<TcpListener>>,
}

impl Sockets {
    /// Opens the sockets of the node file.
    ///
    /// # Errors
    /// Another daemon uses one of them.
    pub(super) fn open(node: &NodeConfig) -> Result<Self, Failure> {
        let (socket, listener) = bind(&node.socket, Role::Changes)?;
        let reads = node.read_socket.as_ref().map(|path| bind(path, Role::Reads)).transpose()?;
        let scraped = node.metrics.map(listen).transpose()?;
        Ok(Self { socket, listener, reads, scraped })
    }

    /// Begins to answer.
    pub(super) fn serve(self, handle: Handle) -> Servers {
        let Self { socket, listener, reads, scraped } = self;
        let mut tasks = vec![tokio::spawn(server::serve(listener, handle.clone()))];
        let reads = reads.map(|(of_reads, listener)| {
            let sockets = server::Sockets { reads: of_reads.path().to_owned(), changes: socket.path().to_owned() };
            tasks.push(tokio::spawn(server::serve_reads(listener, handle.clone(), sockets)));
            of_reads
        });
        let (scraper, listeners) = mpsc::unbounded_channel();
        // The receiver is there.
        let _ = scraper.send(scraped);
        tasks.push(tokio::spawn(serve_scrapers(listeners, handle)));
        Servers { socket, reads, tasks, scraped: scraper }
    }
}

/// Listens for scrapers.
///
/// # Errors
/// The address is in use.
pub(super) fn listen(at: SocketAddr) -> anyhow::Result<TcpListener> {
    socket::listen_early(at).with_context(|| format!("cannot listen on api.metrics {at}"))
}

/// Serves scrapers on the last socket received. Pages that are being sent on an earlier one are sent to their end.
async fn serve_scrapers(mut listeners: mpsc::UnboundedReceiver<Option<TcpListener>>, handle: Handle) {
    let mut server = JoinSet::new();
    while let Some(listener) = listeners.recv().await {
        server.shutdown().await;
        listener.into_iter().for_each(|listener| drop(server.spawn(metrics::serve(listener, handle.clone()))));
    }
}

fn bind(path: &Path, role: Role) -> Result<(Socket, UnixListener), Failure> {
    let socket = Socket::bind(path, role)?;
    let listener = socket.listener().with_context(|| format!("cannot listen on {}", path.display()))?;
    Ok((socket, listener))
}

impl Servers {
    /// The path of the API's socket.
    pub(super) fn path(&self) -> &Path {
        self.socket.path()
    }

    /// Sends the socket that is served to scrapers from now on; none, to end that.
    pub(super) fn scraped(&self) -> mpsc::UnboundedSender<Option<TcpListener>> {
        self.scraped.clone()
    }

    /// Ends the servers: from this call on, clients are refused.
    pub(super) fn end(self) {
        let Self { socket, reads, tasks, scraped: _ } = self;
        drop((socket, reads));
        tasks.iter().for_each(JoinHandle::abort);
    }
}
