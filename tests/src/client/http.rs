//! HTTP on one connection, by a maintained library.

use std::{io, net::SocketAddr, time::Instant};

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Method, Request, Response,
    body::{Body, Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};

use super::{Outcome, outcome::PATIENCE, sources::Sources};

/// An open connection with HTTP on it.
pub(super) struct Connection {
    target: SocketAddr,
    sender: SendRequest<Empty<Bytes>>,
}

impl Connection {
    /// Connects from the next source.
    pub(super) async fn open(sources: &Sources, target: SocketAddr) -> Result<Self> {
        Self::on(connect(sources, target).await.context("connect")?, target).await
    }

    async fn on(stream: TcpStream, target: SocketAddr) -> Result<Self> {
        Ok(Self { target, sender: handshake(stream).await? })
    }

    /// Asks for `path`; the body is still to come.
    pub(super) async fn get(&mut self, path: &str) -> Result<Incoming> {
        let request = request(Method::GET, self.target, path).body(Empty::new())?;
        Ok(accepted(self.sender.send_request(request).await?)?.into_body())
    }

    /// Asks `/`: which backend answers?
    pub(super) async fn name(&mut self, last: bool) -> Result<String> {
        let mut request = request(Method::GET, self.target, "/");
        if last {
            request = request.header(header::CONNECTION, "close");
        }
        let response = accepted(self.sender.send_request(request.body(Empty::new())?).await?)?;
        Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?)
    }
}

/// Connects, lets `ask` use the connection, and notes what happened.
pub(super) async fn attempt<A>(sources: &Sources, target: SocketAddr, ask: A) -> Outcome
where
    A: AsyncFnOnce(&mut Connection) -> Result<String>,
{
    Outcome::run(target, async |local: &mut Option<SocketAddr>| {
        let stream = connect(sources, target).await.context("connect")?;
        *local = Some(stream.local_addr()?);
        let mut connection = Connection::on(stream, target).await?;
        ask(&mut connection).await
    })
    .await
}

/// The same, and where a connection is refused another one is tried, as often as it takes: nothing was asked yet. A server
/// that dies resets those that it had not accepted.
pub(super) async fn insist(sources: &Sources, target: SocketAddr) -> Outcome {
    let (began, mut refused) = (Instant::now(), 0);
    loop {
        let outcome = attempt(sources, target, async |connection: &mut Connection| connection.name(true).await).await;
        let refused_by =
            |error: &String| ["Connection refused", "Connection reset"].iter().any(|by| error.contains(by));
        let again = outcome.local.is_none() && outcome.answer.as_ref().is_err_and(refused_by);
        if !again || began.elapsed() > PATIENCE {
            return Outcome { began, refused, ..outcome };
        }
        refused += 1;
    }
}

/// How many sources in a row may be those of connections that are held since all of them passed before.
const HELD_IN_A_ROW: usize = 1_000;

/// Connects from the next source that no open connection to the target has.
pub(super) async fn connect(sources: &Sources, target: SocketAddr) -> Result<TcpStream> {
    let mut tried = 0;
    loop {
        let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // The port may still rest from a connection of a minute ago.
        socket.set_reuseaddr(true)?;
        let source = sources.next(target);
        tried += 1;
        let connected = match socket.bind(source) {
            Ok(()) => socket.connect(target).await,
            Err(error) => Err(error),
        };
        match connected {
            // Nothing was sent: the kernel knows a connection of these two ends.
            Err(error) if is_in_use(&error) && tried < HELD_IN_A_ROW => {}
            connected => return connected.with_context(|| format!("from {source}")),
        }
    }
}

fn is_in_use(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

/// Sets HTTP up on a stream and drives it in the background.
pub(super) async fn handshake<B>(stream: TcpStream) -> Result<SendRequest<B>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // An early end of the connection is reported to the sender as well.
    tokio::spawn(connection);
    Ok(sender)
}

/// A request for the target's `path`.
pub(super) fn request(method: Method, target: SocketAddr, path: &str) -> hyper::http::request::Builder {
    Request::builder().method(method).uri(path).header(header::HOST, target.to_string())
}

/// The response, if it is a success.
pub(super) fn accepted(response: Response<Incoming>) -> Result<Response<Incoming>> {
    ensure!(response.status().is_success(), "{}", response.status());
    Ok(response)
}
