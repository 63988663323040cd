//! The speaker: a thread with a task for each neighbor, and one more for each address at which passive ones are listened for.
//! Neighbors come, go and change while it runs, without effect on the sessions of others. It must not know why a prefix is wanted.
//!
//! ```text
//!                     ┌ thread `bgp` ─────────────┐
//!  Wanted ───watch──▶ │ driver (one per neighbor) │ ──watch──▶ NeighborStatus, and that there is news
//!  Order ────mpsc───▶ │    ▲ connections          │
//!  Configured─watch─▶ │    │                      │
//!  Command ──mpsc───▶ │ listeners                 │
//!                     └───────────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use maglev_model::UnixTime;
use maglev_model::bgp::{Bgp, Carried, Neighbor, NeighborStatus, OnStop};

use super::driver::{Driver, Inputs, Order};
use super::fsm::{Configured, End, Settings, State};
use super::listeners::{self, Bound, Expected, Listeners, Passive, Places};
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
    /// The configuration that applies.
    bgp: Bgp,
    on_stop: OnStop,
    running: BTreeMap<IpAddr, Running>,
    /// Neighbors that were started so far.
    started: u64,
    shown: watch::Sender<Arc<Vec<NeighborHandle>>>,
    sources: Sources,
    thread: Thread,
}

/// Another configuration that can be applied: its addresses are listened at.
#[derive(Debug)]
pub struct Prepared {
    bgp: Bgp,
    places: Places,
    bound: Bound,
}

/// Gives access to the neighbors' tasks; empty if there are none.
#[derive(Clone, Debug)]
pub struct Handle(watch::Receiver<Arc<Vec<NeighborHandle>>>);

#[derive(Clone, Debug)]
struct NeighborHandle {
    name: String,
    orders: mpsc::Sender<Order>,
    status: watch::Receiver<NeighborStatus>,
}

/// A neighbor's task, as the speaker reaches it.
#[derive(Debug)]
struct Running {
    configured: watch::Sender<Option<Configured>>,
    incoming: mpsc::Sender<TcpStream>,
    handle: NeighborHandle,
}

/// The sources that every task follows.
#[derive(Clone, Debug)]
struct Sources {
    wanted: watch::Receiver<Arc<Wanted>>,
    news: watch::Sender<()>,
    clock: Clock,
}

#[derive(Debug)]
struct Thread {
    commands: mpsc::UnboundedSender<Command>,
    /// Comes once every session has ended.
    ended: oneshot::Receiver<()>,
    alive: oneshot::Sender<()>,
}

/// A command to the thread.
enum Command {
    /// Run a neighbor's task.
    Run(Box<Driver>, Inputs),
    /// Listen at these places and no others.
    Listen(Places, Bound, Passive),
}

impl Speaker {
    /// Starts the thread, in the calling thread's network namespace and within a tokio runtime. Its tasks follow `wanted`; `news` is
    /// notified when a session's status changed.
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
        let mut speaker = Self {
            bgp: Bgp { neighbors: Vec::new(), ..bgp.clone() },
            on_stop: bgp.on_stop,
            running: BTreeMap::new(),
            started: 0,
            shown: watch::Sender::default(),
            sources: Sources { wanted: wanted.clone(), news: news.clone(), clock },
            thread: Thread::start()?,
        };
        let prepared = speaker.prepare(bgp)?;
        speaker.follow(prepared, before);
        Ok(speaker)
    }

    /// Gives access to the tasks.
    pub fn handle(&self) -> Handle {
        Handle(self.shown.subscribe())
    }

    /// Prepares another configuration with the same identity: listens where a passive neighbor is expected from now on. Needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// An address cannot be listened at.
    pub fn prepare(&self, bgp: &Bgp) -> anyhow::Result<Prepared> {
        let places = listeners::places(&bgp.neighbors);
        let bound = listeners::bind_new(&listeners::places(&self.bgp.neighbors), &places)?;
        Ok(Prepared { bgp: bgp.clone(), places, bound })
    }

    /// Applies another configuration. Sessions of neighbors whose settings are the same go on, in their connections; so do those that no
    /// changed setting concerns. A neighbor is known by its address.
    pub fn apply(&mut self, prepared: Prepared) {
        self.follow(prepared, Before::default());
    }

    fn follow(&mut self, Prepared { bgp, places, bound }: Prepared, before: Before) {
        self.bgp = bgp;
        let neighbors = self.bgp.neighbors.clone();
        let stays = |address: &IpAddr| neighbors.iter().any(|neighbor| neighbor.address == *address);
        for (_, gone) in self.running.extract_if(.., |address, _| !stays(address)) {
            gone.configured.send_replace(None);
        }
        let mut shown = Vec::new();
        for neighbor in &neighbors {
            let configured = configured(&self.bgp, neighbor);
            match self.running.get_mut(&neighbor.address) {
                Some(running) => {
                    running.handle.name.clone_from(&neighbor.name);
                    running.configured.send_if_modified(|known| {
                        let changed = known.as_ref() != Some(&configured);
                        *known = Some(configured);
                        changed
                    });
                }
                None => self.run(neighbor, configured, before),
            }
            shown.extend(self.running.get(&neighbor.address).map(|running| running.handle.clone()));
        }
        self.shown.send_replace(Arc::new(shown));
        let passive = neighbors.iter().filter(|neighbor| neighbor.passive).filter_map(|neighbor| {
            let task = self.running.get(&neighbor.address)?.incoming.clone();
            Some((neighbor.address, Expected { source: neighbor.source, port: neighbor.port, task }))
        });
        self.thread.command(Command::Listen(places, bound, passive.collect()));
        self.sources.news.send_replace(());
    }

    /// Starts a neighbor's task.
    fn run(&mut self, neighbor: &Neighbor, settings: Configured, before: Before) {
        let Sources { wanted, news, clock } = self.sources.clone();
        let (orders, received) = mpsc::channel(ORDERS);
        let (incoming, connections) = mpsc::channel(INCOMING);
        let (shown, status) = watch::channel(first_status(neighbor, clock()));
        let (configured, follow) = watch::channel(Some(settings.clone()));
        let settings = self.settings(settings, before);
        let inputs = Inputs { orders: received, wanted, incoming: connections, configured: follow };
        self.thread.command(Command::Run(Box::new(Driver::new(settings, shown, news, clock)), inputs));
        let handle = NeighborHandle { name: neighbor.name.clone(), orders, status };
        self.running.insert(neighbor.address, Running { configured, incoming, handle });
    }

    fn settings(&mut self, Configured { neighbor, on_drain }: Configured, before: Before) -> Settings {
        let Bgp { local_as, router_id, graceful_restart, .. } = self.bgp;
        self.started += 1;
        Settings {
            local_as,
            router_id,
            dial: !neighbor.passive,
            listen: neighbor.passive,
            neighbor,
            on_drain,
            graceful_restart,
            restarted: before.restarted,
            forwarding_kept: before.forwarding_kept,
            // Jitter keeps neighbors apart, not secrets: node and neighbor are enough.
            seed: u64::from(u32::from(router_id)) << 16 | self.started,
        }
    }

    /// Whether prefixes are announced to a neighbor.
    pub fn has_announced(&self) -> bool {
        self.running.values().any(|neighbor| !neighbor.handle.status.borrow().announced.is_empty())
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
        let Self { on_stop, running, thread: Thread { commands, ended, alive: _alive }, .. } = self;
        let end = match on_stop {
            OnStop::Withdraw => End::Cease(text.to_owned()),
            OnStop::Keep => End::Silent,
        };
        for neighbor in running.values() {
            // A task that does not process orders is ended below.
            let _ = neighbor.handle.orders.try_send(Order::Stop(end.clone()));
        }
        drop(commands);
        if tokio::time::timeout(GOODBYE, ended).await.is_err() {
            tracing::warn!("not every BGP neighbor received the end of its session");
        }
    }
}

impl Thread {
    fn start() -> anyhow::Result<Self> {
        let (commands, received) = mpsc::unbounded_channel();
        let (begun, outcome) = std::sync::mpsc::sync_channel(1);
        let (alive, released) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("bgp".into());
        thread.spawn(move || run(received, &begun, released, end)).context("cannot start the BGP thread")?;
        outcome.recv().context("the BGP thread ended")??;
        Ok(Self { commands, ended, alive })
    }

    fn command(&self, command: Command) {
        // The thread ends only with this value.
        let _ = self.commands.send(command);
    }
}

/// Runs the tasks until the speaker ends them, or until it is dropped. Reports whether it could begin.
fn run(
    commands: mpsc::UnboundedReceiver<Command>,
    begun: &std::sync::mpsc::SyncSender<anyhow::Result<()>>,
    released: oneshot::Receiver<()>,
    end: oneshot::Sender<()>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(begun.send(Err(error.into()))),
    };
    let _ = begun.send(Ok(()));
    let all_ended = runtime.block_on(async {
        tokio::select! {
            () = carry_out(commands) => true,
            _ = released => false,
        }
    });
    // Every socket is closed by then.
    drop(runtime);
    if all_ended {
        let _ = end.send(());
    }
}

/// Carries out commands until no more can come, and until every session has ended then.
async fn carry_out(mut commands: mpsc::UnboundedReceiver<Command>) {
    let (mut sessions, mut listeners) = (JoinSet::new(), Listeners::new());
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Run(driver, inputs)) => drop(sessions.spawn(driver.run(inputs))),
                Some(Command::Listen(places, bound, passive)) => listeners.follow(places, bound, passive).await,
                None => break,
            },
            Some(_) = sessions.join_next() => {}
        }
    }
    while sessions.join_next().await.is_some() {}
}

impl Default for Handle {
    fn default() -> Self {
        Self(watch::channel(Arc::default()).1)
    }
}

impl Handle {
    /// Every neighbor's session, in the order of the configuration.
    pub fn neighbors(&self) -> Vec<NeighborStatus> {
        self.all().iter().map(|neighbor| neighbor.status.borrow().clone()).collect()
    }

    /// Whether this version was sent to every neighbor with a session: it is with the kernel, which transmits it.
    pub fn has_sent(&self, version: u64) -> bool {
        self.all().iter().all(|neighbor| neighbor.status.borrow().sent >= version)
    }

    /// Sessions without tasks.
    #[cfg(feature = "testing")]
    pub fn from_statuses(statuses: Vec<watch::Receiver<NeighborStatus>>) -> Self {
        let neighbor = |status: watch::Receiver<NeighborStatus>| {
            let name = status.borrow().name.clone();
            NeighborHandle { name, orders: mpsc::channel(1).0, status }
        };
        Self(watch::channel(Arc::new(statuses.into_iter().map(neighbor).collect())).1)
    }

    /// Ends a neighbor's session and begins again; `false` if the neighbor is unknown.
    pub async fn reset(&self, name: &str, text: &str) -> bool {
        let orders = self.all().iter().find(|neighbor| neighbor.name == name).map(|found| found.orders.clone());
        let Some(orders) = orders else { return false };
        orders.send(Order::Reset(text.to_owned())).await.is_ok()
    }

    fn all(&self) -> Arc<Vec<NeighborHandle>> {
        Arc::clone(&self.0.borrow())
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

/// A neighbor's settings, with the communities of all.
fn configured(bgp: &Bgp, neighbor: &Neighbor) -> Configured {
    let mut neighbor = neighbor.clone();
    neighbor.communities.extend(&bgp.communities);
    Configured { neighbor: Arc::new(neighbor), on_drain: bgp.on_drain }
}
