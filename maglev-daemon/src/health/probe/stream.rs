//! TCP connections of checks. It must not know what is said over them.

use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream};

use super::{Way, way, words};

/// Connects. The connection is reset when it is dropped: at thousands of checks a second, ports that rest for a minute would
/// run out.
pub(super) async fn connect(destination: SocketAddr, way: &Way) -> Result<TcpStream, String> {
    let failed = |error| words::of_error("connect", &error);
    let socket = if destination.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    way::set(&socket, way).map_err(failed)?;
    socket.set_zero_linger().map_err(failed)?;
    let stream = socket.connect(destination).await.map_err(failed)?;
    // What is sent is sent whole, and nothing more comes.
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}
