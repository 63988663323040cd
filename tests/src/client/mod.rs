//! The lab's client: real sockets and a maintained HTTP library, inside the client's namespace, one attempt a request.

use std::{
    net::{SocketAddr, SocketAddrV4},
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{
    Method,
    body::{Bytes, Frame},
    header,
};
use sha2::{Digest, Sha256};
use tokio::{net::UdpSocket, task::JoinSet};

use crate::{addresses::Pair, bytes, netns::Netns, server::Receipt};

pub mod download;
pub mod flood;
pub mod fragments;
pub mod held;
mod http;
mod outcome;
pub mod ping;
mod sources;
pub mod stream;
mod traffic;
pub mod upload;

use download::{Download, Downloaded};
use flood::{Flood, Flooding};
use held::{Held, Plan};
use http::{Connection, accepted, attempt, connect, handshake, request};
pub use outcome::{Outcome, Outcomes};
use sources::Sources;
use stream::Stream;
pub use traffic::Traffic;
use upload::Upload;

/// A client in one namespace. Its clones share its ports.
#[derive(Clone, Debug)]
pub struct Client {
    netns: Netns,
    sources: Arc<Sources>,
}

impl Client {
    /// A client in `netns` whose flows start from these addresses, in turn and from each port once; from wherever the
    /// kernel chooses if there are none.
    pub fn new(netns: Netns, addresses: Vec<Pair>) -> Self {
        Self { netns, sources: Arc::new(Sources::new(addresses)) }
    }

    /// `count` requests for `/`, each on a new connection, `concurrency` at a time, to the targets in turn.
    ///
    /// # Errors
    /// If the client cannot run. Failed requests are outcomes.
    pub fn requests(&self, targets: &[SocketAddr], count: u64, concurrency: usize) -> Result<Outcomes> {
        self.start(targets, count, concurrency).finish()
    }

    /// Begins requests that end after `count`, or when stopped.
    pub fn start(&self, targets: &[SocketAddr], count: u64, concurrency: usize) -> Traffic {
        Traffic::start(self, targets, count, concurrency)
    }

    /// Begins requests that end when stopped; a connection that is refused is tried again from another port, as a
    /// client may that has not asked anything yet.
    pub fn insist(&self, targets: &[SocketAddr], concurrency: usize) -> Traffic {
        Traffic::insist(self, targets, concurrency)
    }

    /// Opens `count` connections, holds all of them open at once, then asks `/` twice on each.
    ///
    /// # Errors
    /// If the client cannot run. Failed connections are outcomes.
    pub fn simultaneous(&self, target: SocketAddr, count: usize) -> Result<Outcomes> {
        self.block_on(async move {
            let open = Arc::new(tokio::sync::Barrier::new(count));
            let mut tasks = JoinSet::new();
            for _ in 0..count {
                let (open, sources) = (open.clone(), self.sources.clone());
                tasks.spawn(async move {
                    attempt(&sources, target, async move |connection: &mut Connection| {
                        // No request is sent before all are connected. One that fails leaves the others waiting, and so
                        // fails them all: they are bounded by `PATIENCE`.
                        open.wait().await;
                        let first = connection.name(false).await?;
                        let second = connection.name(true).await?;
                        ensure!(first == second, "one connection was answered by {first} and by {second}");
                        Ok(first)
                    })
                    .await
                });
            }
            Ok(Outcomes(tasks.join_all().await))
        })
    }

    /// Begins to hold connections.
    pub fn hold(&self, plan: Plan) -> Held {
        Held::start(self, plan)
    }

    /// Begins a stream of datagrams, so many a second, to the targets in turn.
    pub fn stream(&self, targets: &[SocketAddr], rate: u32) -> Stream {
        Stream::start(self, targets, rate)
    }

    /// Begins a flood.
    pub fn flood(&self, target: SocketAddrV4, flood: Flood) -> Flooding {
        Flooding::start(self, target, flood)
    }

    /// Uploads `length` bytes; returns what the backend says it received.
    ///
    /// # Errors
    /// If the request fails.
    pub fn upload(&self, target: SocketAddr, length: u64) -> Result<Receipt> {
        self.block_on(async move {
            let body = StreamBody::new(bytes::stream(length).map_ok(Frame::data));
            let mut sender = handshake(connect(&self.sources, target).await?).await?;
            let request = request(Method::PUT, target, "/upload").header(header::CONTENT_LENGTH, length).body(body)?;
            let answer = accepted(sender.send_request(request).await?)?.into_body().collect().await?.to_bytes();
            serde_json::from_slice(&answer).context("the answer to an upload")
        })
    }

    /// Begins an upload that continues until it is ordered to end.
    pub fn upload_on(&self, target: SocketAddr) -> Upload {
        Upload::start(self, target)
    }

    /// Downloads `length` bytes; returns their SHA-256.
    ///
    /// # Errors
    /// If the request fails or the length is another one.
    pub fn download(&self, target: SocketAddr, length: u64) -> Result<String> {
        self.block_on(async move {
            let mut sender = handshake(connect(&self.sources, target).await?).await?;
            let request = request(Method::GET, target, &format!("/bytes/{length}")).body(Empty::<Bytes>::new())?;
            let mut body = accepted(sender.send_request(request).await?)?.into_body();
            let (mut hash, mut received) = (Sha256::new(), 0);
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame?.into_data() {
                    received += data.len() as u64;
                    hash.update(&data);
                }
            }
            ensure!(received == length, "{received} of {length} bytes");
            Ok(bytes::hex(&hash.finalize()))
        })
    }

    /// Begins to download `length` bytes slowly, on a connection that lives on the backend called `home`.
    ///
    /// # Errors
    /// If there is none, or the request fails.
    pub fn download_slowly(&self, target: SocketAddr, home: &str, length: u64) -> Result<Download> {
        Download::start(self, target, Some(home), length)
    }

    /// Downloads `length` bytes as fast as they come.
    ///
    /// # Errors
    /// If the request fails, or a byte is not what it should be.
    pub fn download_whole(&self, target: SocketAddr, length: u64) -> Result<Downloaded> {
        Download::start(self, target, None, length)?.finish()
    }

    /// The answer to `GET path`, as text.
    ///
    /// # Errors
    /// If the request fails or the answer is not text.
    pub fn text(&self, target: SocketAddr, path: &str) -> Result<String> {
        self.block_on(async move {
            let mut sender = handshake(connect(&self.sources, target).await?).await?;
            let request = request(Method::GET, target, path).body(Empty::<Bytes>::new())?;
            let body = accepted(sender.send_request(request).await?)?.into_body().collect().await?;
            String::from_utf8(body.to_bytes().to_vec()).context("not text")
        })
    }

    /// Sends `count` datagrams, each from a socket and port of its own, and awaits the answer to each.
    ///
    /// # Errors
    /// If the client cannot run. A datagram that is not answered, or answered with another payload, is an outcome.
    pub fn datagrams(&self, target: SocketAddr, count: usize) -> Result<Outcomes> {
        self.block_on(async move {
            let mut outcomes = Vec::with_capacity(count);
            for n in 0..count {
                outcomes.push(datagram(&self.sources, target, &format!("datagram {n}")).await);
            }
            Ok(Outcomes(outcomes))
        })
    }

    /// Runs a future to its end, on a thread of its own inside the namespace.
    fn block_on<T: Send>(&self, future: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.netns.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
            runtime.block_on(future)
        })
    }
}

/// Sends one datagram from the next source and awaits the answer.
async fn datagram(sources: &Sources, target: SocketAddr, payload: &str) -> Outcome {
    Outcome::run(target, async |local: &mut Option<SocketAddr>| {
        let socket = UdpSocket::bind(sources.next(target)).await?;
        // A connected socket takes answers only from the address it sent to.
        socket.connect(target).await?;
        *local = Some(socket.local_addr()?);
        socket.send(payload.as_bytes()).await?;
        let mut answer = vec![0; 2048];
        let length = socket.recv(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        match answer.split_once(':') {
            Some((name, echoed)) if echoed == payload => Ok(name.to_owned()),
            _ => bail!("sent {payload:?}, received {answer:?}"),
        }
    })
    .await
}
