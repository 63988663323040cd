//! What a backend serves: a real HTTP/1.1 server and a UDP echo on one port, a service for held connections on another,
//! all of which say which backend answered.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{SocketAddrV6, UdpSocket},
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::header::CONTENT_LENGTH,
    response::{IntoResponse, Response},
    routing::{get, put},
};
use http_body_util::BodyExt;
use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt, sockopt},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpSocket};

use crate::bytes;

mod talk;
mod tls;

pub use tls::Identity;

/// The server's answer to an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The backend that took it.
    pub name: String,
    /// SHA-256 of the body, in hexadecimal.
    pub sha256: String,
    /// Length of the body in bytes.
    pub length: u64,
    /// The longest time for which the next bytes were awaited, in microseconds.
    pub pause_microseconds: u64,
}

/// Where a server listens.
#[derive(Debug)]
pub struct Sockets {
    /// TCP and UDP.
    pub address: SocketAddrV6,
    /// The talk service.
    pub talks: SocketAddrV6,
    /// HTTPS, and by what certificate, if it is served.
    pub tls: Option<(SocketAddrV6, Identity)>,
}

/// Serves under `name` until the process ends; `ready` is called once all sockets are bound.
///
/// ```text
///  serve ──┬── TCP: GET /          the name
///          │        GET /bytes/N   the first N bytes of the sequence
///          │        PUT /upload    the body's hash and length
///          ├── UDP: a datagram     name:datagram
///          ├── TCP, at `talks`     the name, then every byte under the name's pad
///          └── TLS, at `tls`       as by HTTP
/// ```
///
/// # Errors
/// If a socket cannot be bound or the server fails.
pub async fn serve(name: &str, at: Sockets, ready: impl FnOnce()) -> Result<()> {
    let name: Arc<str> = name.into();
    let listen = |address| listen(address).with_context(|| format!("cannot listen on TCP {address}"));
    let Sockets { address, talks, tls } = at;
    let (listener, talks) = (listen(address)?, listen(talks)?);
    let tls = tls.map(|(address, identity)| Ok::<_, anyhow::Error>((listen(address)?, identity))).transpose()?;
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot listen on UDP {address}"))?;
    ready();
    let datagrams = tokio::task::spawn_blocking({
        let name = name.clone();
        move || echo(&name, &socket)
    });
    tokio::select! {
        ended = axum::serve(listener, routes(name.clone())) => ended.context("HTTP server"),
        ended = talk::serve(name.clone(), talks) => ended.context("talk service"),
        ended = tls::serve(routes(name.clone()), tls) => ended.context("HTTPS server"),
        ended = datagrams => ended.context("UDP echo")?,
    }
}

/// Listens with room for as many connections as a test opens at once: the usual 128 would drop SYNs.
fn listen(address: SocketAddrV6) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address.into())?;
    socket.listen(4_096)
}

fn routes(name: Arc<str>) -> Router {
    Router::new()
        .route("/", get(|State(name): State<Arc<str>>| async move { name.to_string() }))
        .route("/bytes/{length}", get(download))
        .route("/upload", put(upload))
        .with_state(name)
}

async fn download(Path(length): Path<u64>) -> Response {
    ([(CONTENT_LENGTH, length)], Body::from_stream(bytes::stream(length))).into_response()
}

async fn upload(State(name): State<Arc<str>>, mut body: Body) -> Result<Json<Receipt>, String> {
    let (mut hash, mut length, mut pause, mut last) = (Sha256::new(), 0, Duration::ZERO, Instant::now());
    while let Some(frame) = body.frame().await {
        pause = pause.max(last.elapsed());
        if let Ok(data) = frame.map_err(|error| format!("the body broke off: {error}"))?.into_data() {
            length += data.len() as u64;
            hash.update(&data);
        }
        last = Instant::now();
    }
    let pause_microseconds = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
    Ok(Json(Receipt { name: name.to_string(), sha256: bytes::hex(&hash.finalize()), length, pause_microseconds }))
}

/// Answers each datagram from the very address it was sent to: the client sent it to a VIP, not to the backend.
///
/// # Errors
/// If the socket fails for good; a datagram that cannot be answered is dropped, as UDP does.
fn echo(name: &str, socket: &UdpSocket) -> Result<()> {
    setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true).context("IPV6_RECVPKTINFO")?;
    // Room for what comes while this thread has to wait for a CPU: nothing is to be lost here.
    setsockopt(socket, sockopt::RcvBufForce, &(8 << 20)).context("SO_RCVBUFFORCE")?;
    let mut datagram = vec![0; 64 * 1024];
    let mut control = cmsg_space!(libc::in6_pktinfo);
    loop {
        let mut parts = [IoSliceMut::new(&mut datagram)];
        let received =
            match recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other.context("UDP receive")?,
            };
        let arrived = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(info),
            _ => None,
        });
        let (length, client) = (received.bytes, received.address);
        let Some(mut source) = arrived else { continue };
        // The VIP is on `lo`; the answer is sent on the route's interface.
        source.ipi6_ifindex = 0;
        let answer = [IoSlice::new(name.as_bytes()), IoSlice::new(b":"), IoSlice::new(&datagram[..length])];
        let from = [ControlMessage::Ipv6PacketInfo(&source)];
        if let Err(error) = sendmsg(socket.as_raw_fd(), &answer, &from, MsgFlags::empty(), client.as_ref()) {
            eprintln!("cannot answer a datagram: {error}");
        }
    }
}
