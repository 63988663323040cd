//! The speaker: a thread with a task for each neighbor, and one more for each address at which passive ones are listened for.
//! It must not know why a prefix is wanted.
//!
//! ```text
//!                    ┌ thread `bgp` ──────────────┐
//!  Wanted ──watch──▶ │ driver (one per neighbor) │ ──watch──▶ NeighborStatus, and that there is news
//!  Order  ──mpsc───▶ │    ▲ connections           │
//!                    │ listener (one per address) │
//!                    └────────────────────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use maglev_model::UnixTime;
use maglev_model::bgp::{Bgp, Carried, Neighbor, NeighborStatus, OnStop};

use super::driver::{Driver, Inputs, Order};
use super::fsm::{End, Settings, State};
use super::link;
pub use super::wanted::{Clock, Wanted};

/// Orders, and connections of a passive neighbor, that wait for its task. More connections are dropped.
const ORDERS: usize = 8;
const INCOMING: usize = 4;

/// How long the end of all sessions may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// The state before this process, as far as neighbors ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before {
    /// It follows another one that announced the same prefixes.
    pub restarted: bool,
    /// Packets were forwarded in between.
    pub forwarding_kept: bool,
}

/// The thread of the sessions: no other task of the daemon delays a KEEPALIVE. It ends with this value.
#[derive(Debug)]
pub struct Speaker {
    handle: Handle,
    on_stop: OnStop,
    /// Comes once every session has ended.
    ended: oneshot::Receiver<()>,
    _alive: oneshot::Sender<()>,
}

/// Gives access to the neighbors' tasks; empty if there are none.
#[derive(Clone, Debug, Default)]
pub struct Handle(Arc<Vec<NeighborHandle>>);

#[derive(Debug)]
struct NeighborHandle {
    name: String,
    orders: mpsc::Sender<Order>,
    status: watch::Receiver<NeighborStatus>,
}

/// A passive neighbor: where its connections are expected, and the task that takes them.
#[derive(Clone, Debug)]
struct Expected {
    source: Option<IpAddr>,
    port: u16,
    task: mpsc::Sender<TcpStream>,
}

/// Passive neighbors by their address.
type Passive = BTreeMap<IpAddr, Expected>;

/// The tasks of the thread.
struct Sessions {
    drivers: Vec<(Driver, Inputs)>,
    neighbors: Vec<Neighbor>,
    passive: Passive,
}

impl Speaker {
    /// Starts the thread, in the calling thread's network namespace. Its tasks follow `wanted`; `news` is notified when a session's
    /// status changed.
    ///
    /// # Errors
    /// An address cannot be listened at, or there is no thread.
    pub fn start(
        bgp: &Bgp,
        before: Before,
        wanted: &watch::Receiver<Arc<Wanted>>,
        news: &watch::Sender<()>,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let (mut drivers, mut handles, mut passive) = (Vec::new(), Vec::new(), Passive::new());
        for (number, neighbor) in (0_u64..).zip(&bgp.neighbors) {
            let (orders, received) = mpsc::channel(ORDERS);
            let (task, incoming) = mpsc::channel(INCOMING);
            let (shown, status) = watch::channel(first_status(neighbor, clock()));
            if neighbor.passive {
                passive.insert(neighbor.address, Expected { source: neighbor.source, port: neighbor.port, task });
            }
            let inputs = Inputs { orders: received, wanted: wanted.clone(), incoming };
            let driver = Driver::new(settings(bgp, neighbor, before, number), shown, news.clone(), clock);
            drivers.push((driver, inputs));
            handles.push(NeighborHandle { name: neighbor.name.clone(), orders, status });
        }
        let sessions = Sessions { drivers, neighbors: bgp.neighbors.clone(), passive };
        let (begun, outcome) = std::sync::mpsc::sync_channel(1);
        let (alive, released) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("bgp".into());
        thread.spawn(move || sessions.run(&begun, released, end)).context("cannot start the BGP thread")?;
        outcome.recv().context("the BGP thread ended")??;
        Ok(Self { handle: Handle(Arc::new(handles)), on_stop: bgp.on_stop, ended, _alive: alive })
    }

    /// Gives access to the tasks.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Whether prefixes are announced to a neighbor.
    pub fn has_announced(&self) -> bool {
        self.handle.0.iter().any(|neighbor| !neighbor.status.borrow().announced.is_empty())
    }

    /// Whatever the settings say, prefixes are withdrawn at the end.
    pub const fn withdraw_on_stop(&mut self) {
        self.on_stop = OnStop::Withdraw;
    }

    /// Whether neighbors are to keep the prefixes that they hold when sessions end.
    pub fn keeps_on_stop(&self) -> bool {
        self.on_stop == OnStop::Keep
    }

    /// Ends all sessions as the settings say, with this reason for neighbors if prefixes are withdrawn.
    pub async fn stop(self, text: &str) {
        let Self { handle, on_stop, ended, _alive } = self;
        let end = match on_stop {
            OnStop::Withdraw => End::Cease(text.to_owned()),
            OnStop::Keep => End::Silent,
        };
        for neighbor in handle.0.iter() {
            // A task that does not process orders is ended below.
            let _ = neighbor.orders.try_send(Order::Stop(end.clone()));
        }
        if tokio::time::timeout(GOODBYE, ended).await.is_err() {
            tracing::warn!("not every BGP neighbor received the end of its session");
        }
    }
}

impl Sessions {
    /// Runs until every session was ordered to end, or until the speaker is dropped. Reports whether it could begin.
    fn run(
        self,
        begun: &std::sync::mpsc::SyncSender<anyhow::Result<()>>,
        released: oneshot::Receiver<()>,
        end: oneshot::Sender<()>,
    ) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(begun.send(Err(error.into()))),
        };
        let all_ended = runtime.block_on(async {
            let Self { drivers, neighbors, passive } = self;
            let found = match listeners(&neighbors) {
                Ok(found) => found,
                Err(error) => {
                    let _ = begun.send(Err(error));
                    return false;
                }
            };
            let _ = begun.send(Ok(()));
            let (mut sessions, mut listeners) = (JoinSet::new(), JoinSet::new());
            found.into_iter().for_each(|listener| drop(listeners.spawn(take_in(listener, passive.clone()))));
            drivers.into_iter().for_each(|(driver, inputs)| drop(sessions.spawn(driver.run(inputs))));
            let all = async { while sessions.join_next().await.is_some() {} };
            tokio::select! {
                () = all => true,
                _ = released => false,
            }
        });
        // Every socket is closed by then.
        drop(runtime);
        if all_ended {
            let _ = end.send(());
        }
    }
}

impl Handle {
    /// Every neighbor's session, in the order of the configuration.
    pub fn neighbors(&self) -> Vec<NeighborStatus> {
        self.0.iter().map(|neighbor| neighbor.status.borrow().clone()).collect()
    }

    /// Whether this version was sent to every neighbor with a session: it is with the kernel, which transmits it.
    pub fn has_sent(&self, version: u64) -> bool {
        self.0.iter().all(|neighbor| neighbor.status.borrow().sent >= version)
    }

    /// Sessions without tasks.
    #[cfg(feature = "testing")]
    pub fn from_statuses(statuses: Vec<watch::Receiver<NeighborStatus>>) -> Self {
        let neighbor = |status: watch::Receiver<NeighborStatus>| {
            let name = status.borrow().name.clone();
            NeighborHandle { name, orders: mpsc::channel(1).0, status }
        };
        Self(Arc::new(statuses.into_iter().map(neighbor).collect()))
    }

    /// Ends a neighbor's session and begins again; `false` if the neighbor is unknown.
    pub async fn reset(&self, name: &str, text: &str) -> bool {
        let Some(neighbor) = self.0.iter().find(|neighbor| neighbor.name == name) else { return false };
        neighbor.orders.send(Order::Reset(text.to_owned())).await.is_ok()
    }
}

fn first_status(neighbor: &Neighbor, now: UnixTime) -> NeighborStatus {
    NeighborStatus {
        name: neighbor.name.clone(),
        remote_as: neighbor.remote_as,
        state: State::Idle.to_string(),
        since: now.0,
        ipv4: if neighbor.ipv4 { Carried::Yes } else { Carried::No },
        ipv6: if neighbor.ipv6 { Carried::Yes } else { Carried::No },
        ..NeighborStatus::default()
    }
}

fn settings(bgp: &Bgp, neighbor: &Neighbor, before: Before, number: u64) -> Settings {
    let mut neighbor = neighbor.clone();
    neighbor.communities.extend(&bgp.communities);
    Settings {
        local_as: bgp.local_as,
        router_id: bgp.router_id,
        dial: !neighbor.passive,
        listen: neighbor.passive,
        neighbor: Arc::new(neighbor),
        on_drain: bgp.on_drain,
        graceful_restart: bgp.graceful_restart,
        restarted: before.restarted,
        forwarding_kept: before.forwarding_kept,
        // Jitter keeps neighbors apart, not secrets: node and neighbor are enough.
        seed: u64::from(u32::from(bgp.router_id)) << 16 | number,
    }
}

/// One listener for each address and port at which a passive neighbor is expected.
fn listeners(neighbors: &[Neighbor]) -> anyhow::Result<Vec<TcpListener>> {
    let listener = |(at, here): (SocketAddr, Vec<&Neighbor>)| {
        link::listen(at, &here).with_context(|| format!("cannot listen for BGP neighbors at {at}"))
    };
    places(neighbors).into_iter().map(listener).collect()
}

/// Where passive neighbors are expected: at their `source`, unless another one of the same port and family has none. An address
/// of its own cannot be listened at beside all addresses, so all are listened at, and connections are sorted out later.
fn places(neighbors: &[Neighbor]) -> BTreeMap<SocketAddr, Vec<&Neighbor>> {
    let passive = || neighbors.iter().filter(|neighbor| neighbor.passive);
    let any = |neighbor: &Neighbor| match neighbor.address {
        IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), neighbor.port),
        IpAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), neighbor.port),
    };
    let anywhere: BTreeSet<SocketAddr> = passive().filter(|neighbor| neighbor.source.is_none()).map(any).collect();
    let mut places = BTreeMap::<_, Vec<_>>::new();
    for neighbor in passive() {
        let any = any(neighbor);
        let own = neighbor.source.filter(|_| !anywhere.contains(&any));
        places.entry(own.map_or(any, |source| SocketAddr::new(source, any.port()))).or_default().push(neighbor);
    }
    places
}

/// Accepts connections and hands each to its neighbor's task; others are closed.
async fn take_in(listener: TcpListener, passive: Passive) {
    /// Accepting fails mostly for lack of descriptors: others must close theirs first.
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        match listener.accept().await {
            Ok((stream, from)) => match passive.get(&from.ip()).filter(|expected| expected.at(&stream)) {
                // A task whose queue is full has enough connections.
                Some(expected) => drop(expected.task.try_send(stream)),
                None => tracing::debug!(%from, "a connection from an unknown neighbor"),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a BGP connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Expected {
    /// Whether a connection came in where it is expected.
    fn at(&self, stream: &TcpStream) -> bool {
        let is_here = |at: SocketAddr| at.port() == self.port && self.source.is_none_or(|source| source == at.ip());
        stream.local_addr().is_ok_and(is_here)
    }
}
