//! The task of one neighbor: it receives from sockets, orders and timers, passes events to the state machine, and carries out its
//! outputs. It must not know the protocol.

use std::future::pending;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use maglev_model::bgp::{Cause, Neighbor, NeighborStatus};

use super::fsm::{Configured, End, Input, Output, Peer, Settings, Side, State};
use super::link::{self, Link, LinkEvent};
use super::wanted::{Clock, Wanted};
use super::wire::Family;

/// Closed connections whose last message is still being sent, at most: a neighbor that is rejected again and again costs no more.
const FINISHING: usize = 4;

/// An order to a neighbor's task.
#[derive(Debug)]
pub(super) enum Order {
    /// End the session and begin again.
    Reset(String),
    /// End the session, and the task.
    Stop(End),
}

/// The inputs of a neighbor's task, except its own sockets.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) wanted: watch::Receiver<Arc<Wanted>>,
    pub(super) incoming: mpsc::Receiver<TcpStream>,
    /// The neighbor's settings; `None` once it is no longer configured.
    pub(super) configured: watch::Receiver<Option<Configured>>,
}

type Dialing = Pin<Box<dyn Future<Output = Result<TcpStream, String>> + Send>>;

/// A neighbor's task.
pub(super) struct Driver {
    peer: Peer,
    neighbor: Arc<Neighbor>,
    started: Instant,
    /// The wanted set that was passed to the state machine.
    applied: Arc<Wanted>,
    dialing: Option<Dialing>,
    links: [Option<Link>; 2],
    finishing: JoinSet<()>,
    status: watch::Sender<NeighborStatus>,
    /// Receives a notice when the status changes.
    news: watch::Sender<()>,
    clock: Clock,
}

/// An event that the task received.
enum Received {
    Order(Option<Order>),
    Configured,
    Wanted,
    Incoming(TcpStream),
    Dialed(Result<TcpStream, String>),
    Link(Side, LinkEvent),
    Time,
}

impl Driver {
    pub(super) fn new(
        settings: Settings,
        status: watch::Sender<NeighborStatus>,
        news: watch::Sender<()>,
        clock: Clock,
    ) -> Self {
        Self {
            neighbor: Arc::clone(&settings.neighbor),
            peer: Peer::new(settings),
            started: Instant::now(),
            applied: Arc::default(),
            dialing: None,
            links: [None, None],
            finishing: JoinSet::new(),
            status,
            news,
            clock,
        }
    }

    /// Runs until ordered to stop, and until its last message is sent.
    pub(super) async fn run(mut self, mut inputs: Inputs) {
        self.wanted(&inputs.wanted.borrow_and_update().clone());
        self.input(Input::Start);
        loop {
            match self.receive(&mut inputs).await {
                Received::Order(Some(Order::Reset(text))) => self.input(Input::Reset(text)),
                Received::Order(Some(Order::Stop(end))) => {
                    self.input(Input::Stop(end));
                    break;
                }
                // The source of orders is gone: the neighbor was removed, or the speaker ended.
                Received::Order(None) => {
                    if inputs.configured.borrow().is_none() {
                        self.input(Input::Stop(End::Removed));
                    }
                    break;
                }
                Received::Configured => {
                    let configured = inputs.configured.borrow_and_update().clone();
                    let Some(configured) = configured else {
                        self.input(Input::Stop(End::Removed));
                        break;
                    };
                    self.configure(configured);
                }
                Received::Wanted => {
                    let wanted = inputs.wanted.borrow_and_update().clone();
                    self.wanted(&wanted);
                }
                Received::Incoming(stream) => self.incoming(stream),
                Received::Dialed(Ok(stream)) => self.connected(Side::First, stream, Input::Connected),
                Received::Dialed(Err(why)) => self.input(Input::Closed(Side::First, why)),
                Received::Link(side, event) => self.link_event(side, event),
                Received::Time => self.input(Input::Tick),
            }
        }
        while self.finishing.join_next().await.is_some() {}
    }

    async fn receive(&mut self, inputs: &mut Inputs) -> Received {
        let deadline = self.peer.deadline().map(|at| tokio::time::Instant::from_std(self.started + at));
        let due = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => pending().await,
            }
        };
        let dialing = async {
            match &mut self.dialing {
                Some(dialing) => dialing.await,
                None => pending().await,
            }
        };
        let [first, second] = &mut self.links;
        tokio::select! {
            order = inputs.orders.recv() => Received::Order(order),
            Ok(()) = inputs.configured.changed() => Received::Configured,
            Ok(()) = inputs.wanted.changed() => Received::Wanted,
            Some(stream) = inputs.incoming.recv() => Received::Incoming(stream),
            outcome = dialing => Received::Dialed(outcome),
            event = next_event(first.as_mut()) => Received::Link(Side::First, event),
            event = next_event(second.as_mut()) => Received::Link(Side::Second, event),
            () = due => Received::Time,
            Some(_) = self.finishing.join_next() => Received::Time,
        }
    }

    /// Passes the changes of the wanted set to the state machine.
    fn wanted(&mut self, wanted: &Arc<Wanted>) {
        let Wanted { routes, complete, version: _ } = wanted.as_ref();
        let gone = self.applied.routes.keys().filter(|prefix| !routes.contains_key(prefix)).copied().collect();
        let changed = routes.iter().filter(|(prefix, route)| self.applied.routes.get(prefix) != Some(route));
        let changed = changed.map(|(prefix, route)| (*prefix, Arc::clone(route))).collect();
        self.input(Input::Withdraw(gone));
        self.input(Input::Announce(changed));
        if *complete {
            self.input(Input::Complete);
        }
        self.applied = Arc::clone(wanted);
        self.show();
    }

    /// Goes on with other settings.
    fn configure(&mut self, configured: Configured) {
        self.neighbor = Arc::clone(&configured.neighbor);
        self.status.send_modify(|status| {
            status.name.clone_from(&self.neighbor.name);
            status.remote_as = self.neighbor.remote_as;
        });
        self.input(Input::Configure(configured));
        self.news.send_replace(());
    }

    fn incoming(&mut self, stream: TcpStream) {
        if let Some(bytes) = self.peer.refusal() {
            let mut link = Link::new(stream);
            link.send(&bytes);
            self.finish(link);
            return;
        }
        if let Err(error) = link::prepare(&stream, &self.neighbor) {
            tracing::error!(neighbor = self.neighbor.name, %error, "cannot take a connection");
            return;
        }
        self.input(Input::Incoming);
        if let Some(side) = self.peer.vacancy() {
            self.connected(side, stream, |local| Input::Accepted(side, local));
        }
    }

    fn connected(&mut self, side: Side, stream: TcpStream, input: impl FnOnce(IpAddr) -> Input<'static>) {
        self.dialing = None;
        let link = Link::new(stream);
        match link.local() {
            Ok(local) => {
                *self.link(side) = Some(link);
                self.input(input(local));
            }
            Err(error) => self.input(Input::Closed(side, error.to_string())),
        }
    }

    fn link_event(&mut self, side: Side, event: LinkEvent) {
        match event {
            LinkEvent::Flushed => self.input(Input::Flushed(side)),
            LinkEvent::Closed(why) => {
                *self.link(side) = None;
                self.input(Input::Closed(side, why));
            }
            LinkEvent::Read(count) => self.read(side, count),
        }
    }

    /// Passes on the bytes that were read last.
    fn read(&mut self, side: Side, count: usize) {
        let Some(link) = self.link(side).take() else { return };
        let now = self.started.elapsed();
        self.read_overdue(now);
        let outputs = self.peer.handle(Input::Bytes(side, link.read(count)), now);
        *self.link(side) = Some(link);
        self.carry_out(outputs);
    }

    /// Reads what waits in the sockets of neighbors whose hold time is over, before that ends their sessions: if this thread did
    /// not run for so long, the neighbor was not silent.
    fn read_overdue(&mut self, now: Duration) {
        for side in self.peer.overdue(now) {
            let Some(mut link) = self.link(side).take() else { continue };
            let outputs = link.read_now().map(|count| self.peer.handle(Input::Bytes(side, link.read(count)), now));
            *self.link(side) = Some(link);
            self.carry_out(outputs.unwrap_or_default());
        }
    }

    const fn link(&mut self, side: Side) -> &mut Option<Link> {
        &mut self.links[side as usize]
    }

    fn input(&mut self, input: Input<'_>) {
        let now = self.started.elapsed();
        self.read_overdue(now);
        let outputs = self.peer.handle(input, now);
        self.carry_out(outputs);
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Dial => {
                    let neighbor = Arc::clone(&self.neighbor);
                    self.dialing = Some(Box::pin(async move { link::dial(&neighbor).await }));
                }
                Output::Send(side, bytes) => {
                    if let Some(link) = self.link(side) {
                        link.send(&bytes);
                    }
                }
                Output::Close(side) => self.close(side),
                Output::Up => self.up(),
                Output::Down(cause) => self.down(&cause),
                Output::Log(text) => tracing::warn!(neighbor = self.neighbor.name, "{text}"),
            }
        }
        self.show();
    }

    fn close(&mut self, side: Side) {
        self.dialing = None;
        if let Some(link) = self.link(side).take().filter(Link::is_unsent) {
            self.finish(link);
        }
    }

    fn finish(&mut self, link: Link) {
        if self.finishing.len() < FINISHING {
            self.finishing.spawn(link.finish());
        }
    }

    fn up(&mut self) {
        tracing::info!(neighbor = self.neighbor.name, "BGP session established");
        self.status.send_modify(|status| {
            status.sessions += 1;
            status.errors.established();
        });
    }

    fn down(&mut self, cause: &Cause) {
        // Attempts that fail one after another for one reason are logged once.
        let known = self.status.borrow();
        let news = known.state == State::Established.to_string() || !known.errors.is_known(&cause.text);
        drop(known);
        if news {
            tracing::warn!(neighbor = self.neighbor.name, "no BGP session: {}", cause.text);
        }
        self.status.send_modify(|status| status.errors.add(cause, (self.clock)()));
    }

    /// Publishes the state, if it has changed.
    fn show(&self) {
        let (state, announced) = (self.peer.state().to_string(), self.peer.announced());
        let sent = self.peer.is_all_said().then_some(self.applied.version);
        let [ipv4, ipv6] = [Family::Ipv4, Family::Ipv6].map(|family| self.peer.carried(family));
        let changed = self.status.send_if_modified(|status| {
            let sent = sent.unwrap_or(status.sent);
            let same = Arc::ptr_eq(&status.announced, announced) || status.announced == *announced;
            if same && (&status.state, status.sent, status.ipv4, status.ipv6) == (&state, sent, ipv4, ipv6) {
                return false;
            }
            if status.state != state {
                status.since = (self.clock)().0;
            }
            status.announced = Arc::clone(announced);
            (status.state, status.sent, status.ipv4, status.ipv6) = (state, sent, ipv4, ipv6);
            true
        });
        if changed {
            self.news.send_replace(());
        }
    }
}

async fn next_event(link: Option<&mut Link>) -> LinkEvent {
    match link {
        Some(link) => link.next_event().await,
        None => pending().await,
    }
}
