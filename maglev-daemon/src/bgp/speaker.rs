//! The speaker: a task for each neighbour, one more for each address at which passive ones are listened for. It must not
//! know why a prefix is wanted.
//!
//! ```text
//!  Wanted ──watch──▶ driver (one per neighbour) ──watch──▶ NeighborStatus
//!  Order  ──mpsc───▶    ▲
//!                       │ connections
//!                    listener (one per address)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::driver::{Driver, Inputs, Order, Routes};
use super::fsm::{End, Settings, State};
use super::link;
use super::settings::{Bgp, Neighbor, OnStop};

/// Orders, and connections of a passive neighbour, that wait for its task. More connections are dropped.
const ORDERS: usize = 8;
const INCOMING: usize = 4;

/// How long the end of all sessions may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// What neighbours are to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Prefixes, and what is said of each.
    pub routes: Routes,
    /// This is all: only changes follow. Neighbours that kept prefixes over a restart drop what is not among them.
    pub complete: bool,
    /// Which of the sets it is: each has a greater number than those before.
    pub version: u64,
}

/// A neighbour's session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NeighborStatus {
    /// Its name.
    pub name: String,
    /// Its AS number.
    pub remote_as: u32,
    /// The state, in the RFC's words.
    pub state: String,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// Prefixes that it knows of us.
    pub prefixes_sent: usize,
    /// The [`Wanted::version`] that it was told, as far as we can tell it anything.
    pub told: u64,
    /// How often a session came up.
    pub sessions: u64,
    /// Why the last session, or attempt at one, ended.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<u64>,
}

/// What was before this process, as far as neighbours ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before {
    /// It follows another one that announced the same prefixes.
    pub restarted: bool,
    /// Packets were forwarded in between.
    pub forwarding_kept: bool,
}

/// The tasks.
#[derive(Debug)]
pub struct Speaker {
    handle: Handle,
    on_stop: OnStop,
    drivers: JoinSet<()>,
    listeners: Vec<AbortHandle>,
}

/// The way to the neighbours' tasks; empty if there are none.
#[derive(Clone, Debug, Default)]
pub struct Handle(Arc<Vec<NeighborHandle>>);

#[derive(Debug)]
struct NeighborHandle {
    name: String,
    orders: mpsc::Sender<Order>,
    status: watch::Receiver<NeighborStatus>,
}

/// Passive neighbours by their address, and the way to each.
type Passive = BTreeMap<IpAddr, mpsc::Sender<TcpStream>>;

impl Speaker {
    /// Starts the tasks. They follow `wanted`.
    ///
    /// # Errors
    /// An address cannot be listened at.
    pub fn start(bgp: &Bgp, before: Before, wanted: &watch::Receiver<Arc<Wanted>>) -> anyhow::Result<Self> {
        let (mut drivers, mut handles, mut passive) = (JoinSet::new(), Vec::new(), Passive::new());
        for (number, neighbor) in (0_u64..).zip(&bgp.neighbors) {
            let (orders, received) = mpsc::channel(ORDERS);
            let (sender, incoming) = mpsc::channel(INCOMING);
            let (shown, status) = watch::channel(first_status(neighbor));
            if neighbor.passive {
                passive.insert(neighbor.address, sender);
            }
            let inputs = Inputs { orders: received, wanted: wanted.clone(), incoming };
            drivers.spawn(Driver::new(settings(bgp, neighbor, before, number), shown).run(inputs));
            handles.push(NeighborHandle { name: neighbor.name.clone(), orders, status });
        }
        let listeners = listeners(&bgp.neighbors)?;
        let listeners = listeners.into_iter().map(|listener| tokio::spawn(take_in(listener, passive.clone())));
        let listeners = listeners.map(|task| task.abort_handle()).collect();
        Ok(Self { handle: Handle(Arc::new(handles)), on_stop: bgp.on_stop, drivers, listeners })
    }

    /// A way to the tasks.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Whether a neighbour knows prefixes of us.
    pub fn is_heard(&self) -> bool {
        self.handle.0.iter().any(|neighbor| neighbor.status.borrow().prefixes_sent > 0)
    }

    /// Whatever the settings say, neighbours will be told of the end.
    pub const fn withdraw_on_stop(&mut self) {
        self.on_stop = OnStop::Withdraw;
    }

    /// Ends all sessions as the settings say, and tells neighbours why if they are told at all.
    pub async fn stop(self, text: &str) {
        let Self { handle, on_stop, mut drivers, listeners } = self;
        listeners.iter().for_each(AbortHandle::abort);
        let end = match on_stop {
            OnStop::Withdraw => End::Cease(text.to_owned()),
            OnStop::Keep => End::Silent,
        };
        for neighbor in handle.0.iter() {
            // A task that does not take orders is ended below.
            let _ = neighbor.orders.try_send(Order::Stop(end.clone()));
        }
        let all = async { while drivers.join_next().await.is_some() {} };
        if tokio::time::timeout(GOODBYE, all).await.is_err() {
            tracing::warn!("not every BGP neighbour took the end of its session");
        }
    }
}

impl Handle {
    /// Every neighbour's session, in the order of the configuration.
    pub fn neighbors(&self) -> Vec<NeighborStatus> {
        self.0.iter().map(|neighbor| neighbor.status.borrow().clone()).collect()
    }

    /// Waits until every neighbour that can be told was told this version: it is with the kernel, which sends it.
    pub async fn told(self, version: u64) {
        for neighbor in self.0.iter() {
            // A task that has ended tells nobody any more.
            let _ = neighbor.status.clone().wait_for(|status| status.told >= version).await;
        }
    }

    /// Ends a neighbour's session and begins again; `false` if there is no such neighbour.
    pub async fn reset(&self, name: &str, text: &str) -> bool {
        let Some(neighbor) = self.0.iter().find(|neighbor| neighbor.name == name) else { return false };
        neighbor.orders.send(Order::Reset(text.to_owned())).await.is_ok()
    }
}

fn first_status(neighbor: &Neighbor) -> NeighborStatus {
    NeighborStatus {
        name: neighbor.name.clone(),
        remote_as: neighbor.remote_as,
        state: State::Idle.to_string(),
        since: crate::api::now().0,
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
        // Jitter keeps neighbours apart, not secrets: node and neighbour are enough.
        seed: u64::from(u32::from(bgp.router_id)) << 16 | number,
    }
}

/// One listener for each address and port at which a passive neighbour is expected.
fn listeners(neighbors: &[Neighbor]) -> anyhow::Result<Vec<TcpListener>> {
    let passive: Vec<&Neighbor> = neighbors.iter().filter(|neighbor| neighbor.passive).collect();
    let places: BTreeSet<SocketAddr> = passive.iter().map(|neighbor| place(neighbor)).collect();
    let listener = |at: SocketAddr| {
        let here: Vec<&Neighbor> = passive.iter().copied().filter(|neighbor| place(neighbor) == at).collect();
        link::listen(at, &here).with_context(|| format!("cannot listen for BGP neighbours at {at}"))
    };
    places.into_iter().map(listener).collect()
}

/// Where a passive neighbour is expected.
fn place(neighbor: &Neighbor) -> SocketAddr {
    let any = match neighbor.address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(neighbor.source.unwrap_or(any), neighbor.port)
}

/// Takes connections in and gives each to its neighbour's task; others are closed.
async fn take_in(listener: TcpListener, passive: Passive) {
    /// Accepting fails for want of descriptors, mostly: others must close theirs first.
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        match listener.accept().await {
            Ok((stream, from)) => match passive.get(&from.ip()) {
                // A task that has no time for one more connection has enough of them.
                Some(task) => drop(task.try_send(stream)),
                None => tracing::debug!(%from, "a connection from no neighbour"),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a BGP connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
