//! The lab's client: real sockets and a maintained HTTP library, inside the client's namespace, one attempt a request.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{
    Method, Request, Response,
    body::{Body, Bytes, Frame, Incoming},
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use crate::{bytes, lab::Netns, server::Receipt};

/// How long a request may take before it counts as failed. Nothing in the lab takes a hundredth of it, save a lost
/// packet that TCP sends again.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client in one namespace.
#[derive(Clone, Debug)]
pub struct Client {
    netns: Netns,
}

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When the client began to connect.
    pub began: Instant,
    /// When it had the answer, or gave up.
    pub ended: Instant,
    /// Where it was sent.
    pub target: SocketAddr,
    /// The client's end of the connection, once there was one.
    pub local: Option<SocketAddr>,
    /// The name of the backend that answered, or why there was no answer.
    pub answer: Result<String, String>,
}

/// The outcomes of many requests.
#[derive(Clone, Debug, Default)]
pub struct Outcomes(pub Vec<Outcome>);

/// Requests that go on until they are told to stop.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    outcomes: mpsc::Receiver<Outcome>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Client {
    /// A client in `netns`.
    pub fn new(netns: Netns) -> Self {
        Self { netns }
    }

    /// `count` requests for `/`, each on a new connection, `concurrency` at a time, to the targets in turn.
    ///
    /// # Errors
    /// If the client cannot run. Failed requests are outcomes.
    pub fn requests(&self, targets: &[SocketAddr], count: u64, concurrency: usize) -> Result<Outcomes> {
        let traffic = self.start(targets, count, concurrency);
        traffic.finish()
    }

    /// Begins requests that end after `count`, or when told to stop.
    pub fn start(&self, targets: &[SocketAddr], count: u64, concurrency: usize) -> Traffic {
        let (sender, outcomes) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let plan = Arc::new(Plan { targets: targets.to_vec(), count, next: AtomicU64::new(0), stop: stop.clone() });
        let client = self.clone();
        let thread = thread::spawn(move || client.block_on(work(plan, concurrency, sender)));
        Traffic { stop, outcomes, thread }
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
                let open = open.clone();
                tasks.spawn(outcome(target, async move |connection: &mut Connection| {
                    // Nobody asks before everybody is connected. One that fails leaves the others waiting, and so
                    // fails them all: they are bounded by `PATIENCE`.
                    open.wait().await;
                    let first = connection.name(false).await?;
                    let second = connection.name(true).await?;
                    ensure!(first == second, "one connection was answered by {first} and by {second}");
                    Ok(first)
                }));
            }
            Ok(Outcomes(tasks.join_all().await))
        })
    }

    /// Uploads `length` bytes; returns what the backend says it received.
    ///
    /// # Errors
    /// If the request fails.
    pub fn upload(&self, target: SocketAddr, length: u64) -> Result<Receipt> {
        self.block_on(async move {
            let body = StreamBody::new(bytes::stream(length).map_ok(Frame::data));
            let mut sender = handshake(TcpStream::connect(target).await?).await?;
            let request = request(Method::PUT, target, "/upload").header(header::CONTENT_LENGTH, length).body(body)?;
            let answer = accepted(sender.send_request(request).await?)?.into_body().collect().await?.to_bytes();
            serde_json::from_slice(&answer).context("the answer to an upload")
        })
    }

    /// Downloads `length` bytes; returns their SHA-256.
    ///
    /// # Errors
    /// If the request fails or the length is another one.
    pub fn download(&self, target: SocketAddr, length: u64) -> Result<String> {
        self.block_on(async move {
            let mut sender = handshake(TcpStream::connect(target).await?).await?;
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

    /// What `GET path` answers, as text.
    ///
    /// # Errors
    /// If the request fails or the answer is not text.
    pub fn text(&self, target: SocketAddr, path: &str) -> Result<String> {
        self.block_on(async move {
            let mut sender = handshake(TcpStream::connect(target).await?).await?;
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
                outcomes.push(datagram(target, &format!("datagram {n}")).await);
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

impl Traffic {
    /// The next outcome, as soon as there is one; none if the requests have ended.
    pub fn next_outcome(&self) -> Option<Outcome> {
        self.outcomes.recv().ok()
    }

    /// Begins no further request, waits for those in flight, and returns what has not been fetched yet.
    ///
    /// # Errors
    /// If the client could not run.
    pub fn stop(self) -> Result<Outcomes> {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    fn finish(self) -> Result<Outcomes> {
        let outcomes = self.outcomes.iter().collect();
        match self.thread.join() {
            Ok(ended) => ended.map(|()| Outcomes(outcomes)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Outcomes {
    /// How many requests each backend answered.
    pub fn by_backend(&self) -> BTreeMap<&str, u64> {
        let mut answers = BTreeMap::new();
        for name in self.0.iter().filter_map(|outcome| outcome.answer.as_deref().ok()) {
            *answers.entry(name).or_insert(0) += 1;
        }
        answers
    }

    /// Those that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Outcome> {
        self.0.iter().filter(|outcome| outcome.answer.is_err())
    }

    /// Fails if a request failed, and says why for the first few.
    ///
    /// # Errors
    /// If any request failed.
    pub fn all_answered(&self) -> Result<()> {
        let reasons: Vec<String> = self.failed().take(5).map(ToString::to_string).collect();
        let failed = self.failed().count();
        ensure!(failed == 0, "{failed} of {} requests failed: {}", self.0.len(), reasons.join("; "));
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local {
            Some(local) => write!(f, "{local} -> {}: ", self.target)?,
            None => write!(f, "-> {}: ", self.target)?,
        }
        match &self.answer {
            Ok(name) => write!(f, "answered by {name}"),
            Err(reason) => f.write_str(reason),
        }
    }
}

/// What a run of requests shares among its workers.
struct Plan {
    targets: Vec<SocketAddr>,
    count: u64,
    next: AtomicU64,
    stop: Arc<AtomicBool>,
}

impl Plan {
    /// The next request's target, until there are enough or the run was stopped.
    fn next_target(&self) -> Option<SocketAddr> {
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        (n < self.count).then(|| self.targets[n as usize % self.targets.len()])
    }
}

/// ```text
///  plan ──► worker 1 … worker N ──► outcomes
/// ```
async fn work(plan: Arc<Plan>, concurrency: usize, outcomes: mpsc::Sender<Outcome>) -> Result<()> {
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        let (plan, outcomes) = (plan.clone(), outcomes.clone());
        workers.spawn(async move {
            while let Some(target) = plan.next_target() {
                let done = outcome(target, async |connection: &mut Connection| connection.name(true).await).await;
                // Nobody listens any more: the run is over.
                if outcomes.send(done).is_err() {
                    return;
                }
            }
        });
    }
    workers.join_all().await;
    Ok(())
}

/// An open connection with HTTP on it.
struct Connection {
    target: SocketAddr,
    sender: SendRequest<Empty<Bytes>>,
}

impl Connection {
    /// Asks `/`: who answers?
    async fn name(&mut self, last: bool) -> Result<String> {
        let mut request = request(Method::GET, self.target, "/");
        if last {
            request = request.header(header::CONNECTION, "close");
        }
        let response = accepted(self.sender.send_request(request.body(Empty::new())?).await?)?;
        Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?)
    }
}

/// Connects, lets `ask` use the connection, and notes what happened.
async fn outcome<A>(target: SocketAddr, ask: A) -> Outcome
where
    A: AsyncFnOnce(&mut Connection) -> Result<String>,
{
    let began = Instant::now();
    let mut local = None;
    let attempt = async {
        let stream = TcpStream::connect(target).await.context("connect")?;
        local = Some(stream.local_addr()?);
        let mut connection = Connection { target, sender: handshake(stream).await? };
        ask(&mut connection).await
    };
    let answer = match timeout(PATIENCE, attempt).await {
        Ok(answer) => answer.map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    Outcome { began, ended: Instant::now(), target, local, answer }
}

/// Sets HTTP up on a stream and drives it in the background.
async fn handshake<B>(stream: TcpStream) -> Result<SendRequest<B>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // What ends the connection early reaches the sender as well.
    tokio::spawn(connection);
    Ok(sender)
}

fn request(method: Method, target: SocketAddr, path: &str) -> hyper::http::request::Builder {
    Request::builder().method(method).uri(path).header(header::HOST, target.to_string())
}

fn accepted(response: Response<Incoming>) -> Result<Response<Incoming>> {
    ensure!(response.status().is_success(), "{}", response.status());
    Ok(response)
}

async fn datagram(target: SocketAddr, payload: &str) -> Outcome {
    let began = Instant::now();
    let mut local = None;
    let attempt = async {
        let any: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = tokio::net::UdpSocket::bind(any).await?;
        // A connected socket takes answers only from the address it sent to.
        socket.connect(target).await?;
        local = Some(socket.local_addr()?);
        socket.send(payload.as_bytes()).await?;
        let mut answer = vec![0; 2048];
        let length = socket.recv(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        match answer.split_once(':') {
            Some((name, echoed)) if echoed == payload => Ok(name.to_owned()),
            _ => bail!("sent {payload:?}, received {answer:?}"),
        }
    };
    let answer = match timeout(PATIENCE, attempt).await {
        Ok(answer) => answer.map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    Outcome { began, ended: Instant::now(), target, local, answer }
}
