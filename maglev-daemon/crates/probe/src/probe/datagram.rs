//! One datagram, and the answer to it. It must not know their content.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

use super::{CheckPath, Fault, path, words};

/// The longest answer that is read.
const LONGEST: usize = 4 << 10;

/// Sends, and waits for the first datagram from the target that is an answer. The kernel drops datagrams from other sources.
pub(super) async fn ask(
    destination: SocketAddr,
    path: &CheckPath,
    payload: &[u8],
    is_answer: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, Fault> {
    // An error before a packet is sent is not the backend's.
    let own = |error| Fault::Shortage(words::from_io("socket", &error));
    let failed = |error| Fault::from_io("answer", &error, Fault::Dead);
    let any = if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await.map_err(own)?;
    path::set(&socket, path).map_err(own)?;
    socket.connect(destination).await.map_err(failed)?;
    socket.send(payload).await.map_err(failed)?;
    let mut answer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut answer).await.map_err(failed)?;
        if is_answer(&answer[..length]) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}
