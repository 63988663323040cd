//! Where passive neighbors are listened for, and the tasks that accept their connections. It must not know sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use maglev_model::bgp::Neighbor;

use super::link;

/// A passive neighbor: where its connections are expected, and the task that takes them.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) source: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) task: mpsc::Sender<TcpStream>,
}

/// Passive neighbors by their address.
pub(super) type Passive = BTreeMap<IpAddr, Expected>;

/// Addresses that are listened at, and the passive neighbors that are expected there.
pub(super) type Places = BTreeMap<SocketAddr, Vec<Neighbor>>;

/// Sockets that listen and are not served yet.
pub(super) type Bound = BTreeMap<SocketAddr, std::net::TcpListener>;

/// Where passive neighbors are expected: at their `source`, unless another one of the same port and family has none. An address
/// of its own cannot be listened at beside all addresses, so all are listened at, and connections are sorted out later.
pub(super) fn places(neighbors: &[Neighbor]) -> Places {
    let passive = || neighbors.iter().filter(|neighbor| neighbor.passive);
    let any = |neighbor: &Neighbor| match neighbor.address {
        IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), neighbor.port),
        IpAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), neighbor.port),
    };
    let anywhere: BTreeSet<SocketAddr> = passive().filter(|neighbor| neighbor.source.is_none()).map(any).collect();
    let mut places = Places::new();
    for neighbor in passive() {
        let any = any(neighbor);
        let own = neighbor.source.filter(|_| !anywhere.contains(&any));
        let at = own.map_or(any, |source| SocketAddr::new(source, any.port()));
        places.entry(at).or_default().push(neighbor.clone());
    }
    places
}

/// Listens at the places that `now` has no part in: one that shares port and family with a place of `now` may be in its way, and is
/// listened at once that one is left. Needs a tokio runtime.
///
/// # Errors
/// An address cannot be listened at.
pub(super) fn bind_new(now: &Places, next: &Places) -> anyhow::Result<Bound> {
    let is_ours = |at: &SocketAddr| now.keys().any(|own| (own.port(), own.is_ipv4()) == (at.port(), at.is_ipv4()));
    let bind = |(at, neighbors): (&SocketAddr, &Vec<Neighbor>)| {
        let listener = link::listen(*at, neighbors).and_then(TcpListener::into_std);
        Ok((*at, listener.with_context(|| format!("cannot listen for BGP neighbors at {at}"))?))
    };
    next.iter().filter(|(at, _)| !is_ours(at)).map(bind).collect()
}

/// The places that are listened at, each with its task.
#[derive(Debug)]
pub(super) struct Listeners {
    tasks: BTreeMap<SocketAddr, (Vec<Neighbor>, JoinSet<()>)>,
    passive: watch::Sender<Passive>,
}

impl Listeners {
    pub(super) fn new() -> Self {
        Self { tasks: BTreeMap::new(), passive: watch::Sender::default() }
    }

    /// Listens at these places, and at no others. A place whose keys are the same is listened at all the time.
    pub(super) async fn follow(&mut self, places: Places, mut bound: Bound, passive: Passive) {
        self.passive.send_replace(passive);
        let stays = |at: &SocketAddr, before: &[Neighbor]| {
            places.get(at).is_some_and(|next| keys(next) == keys(before)) && !bound.contains_key(at)
        };
        let left: Vec<_> = self.tasks.extract_if(.., |at, (before, _)| !stays(at, before)).collect();
        // An address is free once its task is gone.
        for (_, (_, mut task)) in left {
            task.shutdown().await;
        }
        for (at, neighbors) in places {
            let passive = self.passive.subscribe();
            let listener = bound.remove(&at);
            let (known, task) = self.tasks.entry(at).or_default();
            if task.is_empty() {
                task.spawn(serve(at, listener, neighbors.clone(), passive));
            }
            *known = neighbors;
        }
    }
}

/// The neighbors' addresses and passwords, for which a socket is made.
fn keys(neighbors: &[Neighbor]) -> Vec<(IpAddr, &[u8])> {
    let signed = neighbors.iter().filter_map(|neighbor| Some((neighbor.address, neighbor.password.as_ref()?.secret())));
    let mut keys: Vec<_> = signed.collect();
    keys.sort_unstable();
    keys
}

/// Accepts connections at a place, which is listened at first if it is not yet.
async fn serve(
    at: SocketAddr,
    bound: Option<std::net::TcpListener>,
    neighbors: Vec<Neighbor>,
    passive: watch::Receiver<Passive>,
) {
    /// Between attempts to listen: another process must leave the address first.
    const PAUSE: Duration = Duration::from_secs(1);
    let first = bound.map_or_else(|| link::listen(at, &neighbors), TcpListener::from_std);
    if let Err(error) = &first {
        tracing::error!(%error, "cannot listen for BGP neighbors at {at}; retrying");
    }
    let mut listener: io::Result<TcpListener> = first;
    loop {
        match listener {
            Ok(listener) => return take_in(listener, passive).await,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
        listener = link::listen(at, &neighbors);
    }
}

/// Accepts connections and hands each to its neighbor's task; others are closed.
async fn take_in(listener: TcpListener, passive: watch::Receiver<Passive>) {
    /// Accepting fails mostly for lack of descriptors: others must close theirs first.
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let expected = passive.borrow().get(&from.ip()).filter(|expected| expected.at(&stream)).cloned();
                match expected {
                    // A task whose queue is full has enough connections.
                    Some(expected) => drop(expected.task.try_send(stream)),
                    None => tracing::debug!(%from, "a connection from an unknown neighbor"),
                }
            }
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
