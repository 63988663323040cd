//! TCP connections to a neighbor: dialled or accepted with the options of its settings, read and written without waiting
//! for one another. It must not know their messages.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use maglev_model::bgp::Neighbor;
use maglev_net::socket;

/// Octets that are read at once.
const CHUNK: usize = 16 * 1024;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 64;

/// How long the last message may take to be read, and how much the other side may still send meanwhile.
const LAST_WORD: Duration = Duration::from_secs(1);
const LAST_HEARD: u64 = 1 << 20;

/// A connection, and the octets still to be written to it.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    out: Vec<u8>,
    chunk: Box<[u8]>,
}

/// An event of a link.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// So many octets were read: see [`Link::read`].
    Read(usize),
    /// Everything is written.
    Flushed,
    /// It is closed, and why.
    Closed(String),
}

/// Dials a neighbor.
///
/// # Errors
/// Why there is no connection, in words.
pub(super) async fn dial(neighbor: &Neighbor) -> Result<TcpStream, String> {
    let to = SocketAddr::new(neighbor.address, neighbor.port);
    let connected = async {
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        prepare(&socket, neighbor)?;
        if let Some(password) = &neighbor.password {
            socket::sign(&socket, neighbor.address, password.secret())?;
        }
        if let Some(source) = neighbor.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        socket.connect(to).await
    };
    connected.await.map_err(|error| format!("cannot connect to {to}: {error}"))
}

/// Sets the options of a connection to a neighbor, dialled or accepted.
///
/// # Errors
/// The kernel refused an option.
pub(super) fn prepare(socket: impl AsFd, neighbor: &Neighbor) -> io::Result<()> {
    let v6 = neighbor.address.is_ipv6();
    socket::mark(&socket, v6, ttl(neighbor))?;
    if neighbor.gtsm {
        socket::least_ttl(&socket, v6, 255 - neighbor.multihop.unwrap_or(0))?;
    }
    Ok(())
}

/// The TTL of our packets: by default 1, the link and no further.
fn ttl(neighbor: &Neighbor) -> u8 {
    match (neighbor.gtsm, neighbor.multihop) {
        (true, _) => 255,
        (false, Some(hops)) => hops.saturating_add(1),
        (false, None) => 1,
    }
}

/// Listens for passive neighbors at an address of ours.
///
/// # Errors
/// The address and port are in use.
pub(super) fn listen(at: SocketAddr, neighbors: &[Neighbor]) -> io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if at.is_ipv6() {
        socket::only_v6(&socket)?;
    }
    socket.set_reuseaddr(true)?;
    // Before the neighbor is known, so that a neighbor that requires 255 accepts the first answer too.
    socket::mark(&socket, at.is_ipv6(), 255)?;
    for neighbor in neighbors {
        if let Some(password) = &neighbor.password {
            socket::sign(&socket, neighbor.address, password.secret())?;
        }
    }
    // An address that does not exist yet, or no longer, is listened at all the same.
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

impl Link {
    pub(super) fn new(stream: TcpStream) -> Self {
        // Without it a message waits for the answer to the one before; a failure is ignored.
        let _ = stream.set_nodelay(true);
        Self { stream, out: Vec::new(), chunk: vec![0; CHUNK].into() }
    }

    /// Our address.
    pub(super) fn local(&self) -> io::Result<IpAddr> {
        self.stream.local_addr().map(|address| address.ip())
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// The octets that were read last.
    pub(super) fn read(&self, count: usize) -> &[u8] {
        &self.chunk[..count]
    }

    /// Reads and writes until there is an event. Nothing is lost if the wait is given up.
    pub(super) async fn next_event(&mut self) -> LinkEvent {
        loop {
            let interest =
                if self.out.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            let event = match self.stream.ready(interest).await {
                Ok(ready) => {
                    let written = if ready.is_writable() { self.write() } else { None };
                    if written.is_none() && ready.is_readable() { self.fill() } else { written }
                }
                Err(error) => Some(LinkEvent::Closed(error.to_string())),
            };
            if let Some(event) = event {
                return event;
            }
        }
    }

    /// Reads the octets that wait in the socket, whatever the event loop knows of it.
    pub(super) fn read_now(&mut self) -> Option<usize> {
        let read = recv(self.stream.as_raw_fd(), &mut self.chunk, MsgFlags::MSG_DONTWAIT);
        // The end of the connection, and its failure, are handled by the normal read.
        read.ok().filter(|count| *count > 0)
    }

    fn write(&mut self) -> Option<LinkEvent> {
        if self.out.is_empty() {
            return None;
        }
        match self.stream.try_write(&self.out) {
            Ok(count) => {
                self.out.drain(..count);
                self.out.is_empty().then_some(LinkEvent::Flushed)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(LinkEvent::Closed(error.to_string())),
        }
    }

    fn fill(&mut self) -> Option<LinkEvent> {
        match self.stream.try_read(&mut self.chunk) {
            Ok(0) => Some(LinkEvent::Closed("the neighbor closed the connection".into())),
            Ok(count) => Some(LinkEvent::Read(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(LinkEvent::Closed(format!("connection lost: {error}"))),
        }
    }

    /// Whether something is still to be written.
    pub(super) const fn is_unsent(&self) -> bool {
        !self.out.is_empty()
    }

    /// Writes the rest, and stays until the other side has read it: if octets of its own were unread when we close, the
    /// kernel would discard our last message with them.
    pub(super) async fn finish(self) {
        let Self { mut stream, out, chunk: _ } = self;
        let last = async {
            stream.write_all(&out).await?;
            stream.shutdown().await?;
            tokio::io::copy(&mut stream.take(LAST_HEARD), &mut tokio::io::sink()).await
        };
        // Whether it was received cannot be known.
        let _ = tokio::time::timeout(LAST_WORD, last).await;
    }
}
