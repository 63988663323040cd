//! TCP connections of checks. It must not know the data on them.

use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream};

use super::{CheckPath, Fault, path, words};

/// Connects. The connection is reset when it is dropped: at thousands of checks a second, ports that rest for a minute would
/// run out.
pub(super) async fn connect(destination: SocketAddr, path: &CheckPath) -> Result<TcpStream, Fault> {
    // An error before a packet is sent is not the backend's.
    let own = |error| Fault::Shortage(words::from_io("socket", &error));
    let socket = if destination.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(own)?;
    path::set(&socket, path).map_err(own)?;
    socket.set_zero_linger().map_err(own)?;
    let connected = socket.connect(destination).await;
    let stream = connected.map_err(|error| Fault::from_io("connect", &error, Fault::Dead))?;
    // The request is sent whole, and nothing more follows. A connection that has ended by now is noticed when it is used.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
