//! A stream: numbered datagrams of many flows at a steady pace, each of which a backend must answer. What is lost is known
//! packet by packet.

use std::{
    cell::RefCell,
    fmt,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    net::UdpSocket,
    task::LocalSet,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{Client, sources::Sources};

/// Flows to each target.
const FLOWS: usize = 64;
/// How often packets are sent, and how many at once at most, should the sender have been kept waiting.
const TICK: Duration = Duration::from_millis(1);
const BURST: u64 = 64;
/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the last answers are looked for.
const LOOK: Duration = Duration::from_millis(10);

/// Datagrams under way.
#[derive(Debug)]
pub struct Stream {
    began: Instant,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: thread::JoinHandle<Result<Streamed>>,
}

/// Their outcome.
#[derive(Clone, Debug)]
pub struct Streamed {
    /// Datagrams that were sent.
    pub sent: u64,
    /// For how long.
    pub took: Duration,
    /// Those that were not answered.
    pub lost: Vec<Lost>,
}

/// A datagram without an answer.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    /// Where it was sent from.
    pub from: SocketAddr,
    /// Where to.
    pub to: SocketAddr,
    /// When, counted from the beginning of the stream.
    pub at: Duration,
}

impl Stream {
    /// Begins to send so many a second, to the targets in turn.
    pub(super) fn start(client: &Client, targets: &[SocketAddr], rate: u32) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (client, targets) = (client.clone(), targets.to_vec());
        let shared = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            let sources = Arc::clone(&client.sources);
            client.netns.run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
                LocalSet::new().block_on(&runtime, async {
                    let flows = flows(&sources, &targets).await?;
                    stream(flows, rate, &shared.0, &shared.1).await
                })
            })
        });
        Self { began: Instant::now(), stop, sent, thread }
    }

    /// When it began: losses are timed from then.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Waits until so many more have been sent.
    ///
    /// # Errors
    /// If the stream has ended.
    pub fn pass(&self, more: u64) -> Result<()> {
        let until = self.sent.load(Ordering::Relaxed) + more;
        while self.sent.load(Ordering::Relaxed) < until {
            ensure!(!self.thread.is_finished(), "the stream ended early");
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Sends no more and waits for the last answers.
    ///
    /// # Errors
    /// If the client could not run.
    pub fn finish(self) -> Result<Streamed> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(streamed) => streamed,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Streamed {
    /// Datagrams a second.
    pub fn rate(&self) -> f64 {
        self.sent as f64 / self.took.as_secs_f64()
    }

    /// Fails if one was lost, and says which, for the first few.
    ///
    /// # Errors
    /// If one was lost.
    pub fn none_lost(&self) -> Result<()> {
        let few: Vec<String> = self.lost.iter().take(8).map(ToString::to_string).collect();
        let last = self.lost.last().map(ToString::to_string).unwrap_or_default();
        ensure!(self.lost.is_empty(), "lost {} of {}: {} … {last}", self.lost.len(), self.sent, few.join(", "));
        Ok(())
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} after {:.3} s", self.from, self.to, self.at.as_secs_f64())
    }
}

/// A socket of each flow, the targets in turn. A connected one takes answers only from where it sends to.
async fn flows(sources: &Sources, targets: &[SocketAddr]) -> Result<Vec<Rc<UdpSocket>>> {
    let mut flows = Vec::new();
    for n in 0..FLOWS * targets.len() {
        let target = targets[n % targets.len()];
        let socket = UdpSocket::bind(sources.next(target)).await.context("a flow's socket")?;
        socket.connect(target).await.context("a flow's socket")?;
        flows.push(Rc::new(socket));
    }
    Ok(flows)
}

/// Every datagram by its number: when it was sent, and whether it was answered.
type Ledger = Rc<RefCell<Vec<(Instant, bool)>>>;

/// ```text
///  pace ──► flow 1 … flow N ──► (load balancers, backends) ──► listen, one a flow ──► ledger
/// ```
async fn stream(flows: Vec<Rc<UdpSocket>>, rate: u32, stop: &AtomicBool, count: &AtomicU64) -> Result<Streamed> {
    let ledger = Ledger::default();
    for flow in &flows {
        tokio::task::spawn_local(listen(Rc::clone(flow), Rc::clone(&ledger)));
    }
    let began = Instant::now();
    pace(&flows, rate, stop, count, &ledger).await;
    let took = began.elapsed();

    let last = Instant::now();
    while last.elapsed() < PATIENCE && ledger.borrow().iter().any(|(_, answered)| !answered) {
        sleep(LOOK).await;
    }
    let ledger = ledger.borrow();
    let mut lost = Vec::new();
    for (n, (sent, _)) in ledger.iter().enumerate().filter(|(_, (_, answered))| !answered) {
        let flow = &flows[n % flows.len()];
        lost.push(Lost { from: flow.local_addr()?, to: flow.peer_addr()?, at: sent.duration_since(began) });
    }
    Ok(Streamed { sent: ledger.len() as u64, took, lost })
}

/// Sends the due datagrams at each tick, until stopped.
async fn pace(flows: &[Rc<UdpSocket>], rate: u32, stop: &AtomicBool, count: &AtomicU64, ledger: &Ledger) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut due, mut last) = (0.0, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let now = Instant::now();
        due = (due + now.duration_since(last).as_secs_f64() * f64::from(rate)).min(BURST as f64);
        last = now;
        while due >= 1.0 {
            due -= 1.0;
            let n = ledger.borrow().len();
            ledger.borrow_mut().push((Instant::now(), false));
            // A datagram that cannot be sent is not answered; an earlier packet's error is reported here too, so it is tried again.
            let flow = &flows[n % flows.len()];
            if flow.try_send(n.to_string().as_bytes()).is_err() {
                let _ = flow.try_send(n.to_string().as_bytes());
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Takes the answers to a flow, which are `name:number`.
async fn listen(flow: Rc<UdpSocket>, ledger: Ledger) {
    let mut answer = [0; 64];
    loop {
        // An error is a packet's that could not be delivered: it stays without an answer.
        let Ok(length) = flow.recv(&mut answer).await else { continue };
        let text = String::from_utf8_lossy(&answer[..length]);
        let number = text.split_once(':').and_then(|(_, number)| number.parse::<usize>().ok());
        let mut ledger = ledger.borrow_mut();
        if let Some((_, answered)) = number.and_then(|n| ledger.get_mut(n)) {
            *answered = true;
        }
    }
}
