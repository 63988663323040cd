//! The task of one neighbour: it hears sockets, orders and time, tells the state machine, and does what that says. It must
//! not know the protocol.

use std::collections::BTreeMap;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::fsm::{End, Input, Output, Peer, Settings, Side, State};
use super::link::{self, Happened, Link};
use super::settings::Neighbor;
use super::speaker::{NeighborStatus, Wanted};
use crate::api;
use crate::model::UnixTime;

/// Connections whose last word is still on its way, at most: a neighbour that is refused again and again costs no more.
const FINISHING: usize = 4;

/// What a neighbour's task is told.
#[derive(Debug)]
pub(super) enum Order {
    /// End the session and begin again.
    Reset(String),
    /// End the session, and the task.
    Stop(End),
}

/// All that a neighbour's task hears, but its own sockets.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) wanted: watch::Receiver<Arc<Wanted>>,
    pub(super) incoming: mpsc::Receiver<TcpStream>,
}

type Dialing = Pin<Box<dyn Future<Output = Result<TcpStream, String>> + Send>>;

/// A neighbour's task.
pub(super) struct Driver {
    peer: Peer,
    neighbor: Arc<Neighbor>,
    started: Instant,
    /// What the state machine was told is wanted.
    told: Arc<Wanted>,
    dialing: Option<Dialing>,
    dialed: Option<Link>,
    accepted: Option<Link>,
    finishing: JoinSet<()>,
    status: watch::Sender<NeighborStatus>,
}

/// Something the task heard.
enum Heard {
    Order(Option<Order>),
    Wanted,
    Incoming(TcpStream),
    Dialed(Result<TcpStream, String>),
    Link(Side, Happened),
    Time,
}

impl Driver {
    pub(super) fn new(settings: Settings, status: watch::Sender<NeighborStatus>) -> Self {
        Self {
            neighbor: Arc::clone(&settings.neighbor),
            peer: Peer::new(settings),
            started: Instant::now(),
            told: Arc::default(),
            dialing: None,
            dialed: None,
            accepted: None,
            finishing: JoinSet::new(),
            status,
        }
    }

    /// Runs until told to stop, and until its last word is said.
    pub(super) async fn run(mut self, mut inputs: Inputs) {
        self.wanted(&inputs.wanted.borrow_and_update().clone());
        self.input(Input::Start);
        loop {
            match self.hear(&mut inputs).await {
                Heard::Order(Some(Order::Reset(text))) => self.input(Input::Reset(text)),
                Heard::Order(Some(Order::Stop(end))) => {
                    self.input(Input::Stop(end));
                    break;
                }
                // Nobody is left who could say how to end.
                Heard::Order(None) => break,
                Heard::Wanted => {
                    let wanted = inputs.wanted.borrow_and_update().clone();
                    self.wanted(&wanted);
                }
                Heard::Incoming(stream) => self.incoming(stream),
                Heard::Dialed(Ok(stream)) => self.connected(Side::Dialed, stream, Input::Connected),
                Heard::Dialed(Err(why)) => self.input(Input::Closed(Side::Dialed, why)),
                Heard::Link(side, happened) => self.happened(side, happened),
                Heard::Time => self.input(Input::Tick),
            }
        }
        while self.finishing.join_next().await.is_some() {}
    }

    async fn hear(&mut self, inputs: &mut Inputs) -> Heard {
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
        tokio::select! {
            order = inputs.orders.recv() => Heard::Order(order),
            Ok(()) = inputs.wanted.changed() => Heard::Wanted,
            Some(stream) = inputs.incoming.recv() => Heard::Incoming(stream),
            outcome = dialing => Heard::Dialed(outcome),
            happened = happening(self.dialed.as_mut()) => Heard::Link(Side::Dialed, happened),
            happened = happening(self.accepted.as_mut()) => Heard::Link(Side::Accepted, happened),
            () = due => Heard::Time,
            Some(_) = self.finishing.join_next() => Heard::Time,
        }
    }

    /// Tells the state machine what has changed of what is wanted.
    fn wanted(&mut self, wanted: &Arc<Wanted>) {
        let Wanted { routes, complete, version: _ } = wanted.as_ref();
        let gone = self.told.routes.keys().filter(|prefix| !routes.contains_key(prefix)).copied().collect();
        let changed = routes.iter().filter(|(prefix, route)| self.told.routes.get(prefix) != Some(route));
        let changed = changed.map(|(prefix, route)| (*prefix, Arc::clone(route))).collect();
        self.input(Input::Withdraw(gone));
        self.input(Input::Announce(changed));
        if *complete {
            self.input(Input::Complete);
        }
        self.told = Arc::clone(wanted);
        self.show();
    }

    fn incoming(&mut self, stream: TcpStream) {
        if let Some(bytes) = self.peer.refusal() {
            let mut link = Link::new(stream);
            link.send(&bytes);
            self.finish(link);
            return;
        }
        match link::prepare(&stream, &self.neighbor) {
            Ok(()) => self.connected(Side::Accepted, stream, Input::Accepted),
            Err(error) => tracing::error!(neighbor = self.neighbor.name, %error, "cannot take a connection"),
        }
    }

    fn connected(&mut self, side: Side, stream: TcpStream, input: fn(std::net::IpAddr) -> Input<'static>) {
        let link = Link::new(stream);
        match link.local() {
            Ok(local) => {
                *self.link(side) = Some(link);
                if side == Side::Dialed {
                    self.dialing = None;
                }
                self.input(input(local));
            }
            Err(error) => self.input(Input::Closed(side, error.to_string())),
        }
    }

    fn happened(&mut self, side: Side, happened: Happened) {
        match happened {
            Happened::Flushed => self.input(Input::Flushed(side)),
            Happened::Closed(why) => {
                *self.link(side) = None;
                self.input(Input::Closed(side, why));
            }
            Happened::Read(count) => {
                let Some(link) = self.link(side).take() else { return };
                let now = self.started.elapsed();
                let outputs = self.peer.handle(Input::Bytes(side, link.read(count)), now);
                *self.link(side) = Some(link);
                self.carry_out(outputs);
            }
        }
    }

    fn link(&mut self, side: Side) -> &mut Option<Link> {
        match side {
            Side::Dialed => &mut self.dialed,
            Side::Accepted => &mut self.accepted,
        }
    }

    fn input(&mut self, input: Input<'_>) {
        let outputs = self.peer.handle(input, self.started.elapsed());
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
                Output::Down(why) => self.down(&why),
                Output::Log(text) => tracing::warn!(neighbor = self.neighbor.name, "{text}"),
            }
        }
        self.show();
    }

    fn close(&mut self, side: Side) {
        if side == Side::Dialed {
            self.dialing = None;
        }
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
        self.status.send_modify(|status| status.sessions += 1);
    }

    fn down(&mut self, why: &str) {
        // Attempts that fail one after another for one reason are told once.
        let known = self.status.borrow();
        let news = known.state == State::Established.to_string() || known.last_error.as_deref() != Some(why);
        drop(known);
        if news {
            tracing::warn!(neighbor = self.neighbor.name, "no BGP session: {why}");
        }
        let UnixTime(now) = api::now();
        self.status.send_modify(|status| {
            status.last_error = Some(why.to_owned());
            status.last_error_at = Some(now);
        });
    }

    /// Publishes the state, if it has changed.
    fn show(&self) {
        let (state, prefixes) = (self.peer.state().to_string(), self.peer.prefixes_sent());
        let told = self.peer.is_all_said().then_some(self.told.version);
        self.status.send_if_modified(|status| {
            let told = told.unwrap_or(status.told);
            let changed = (&status.state, status.prefixes_sent, status.told) != (&state, prefixes, told);
            status.told = told;
            if status.state != state {
                status.since = api::now().0;
                status.state = state;
            }
            status.prefixes_sent = prefixes;
            changed
        });
    }
}

async fn happening(link: Option<&mut Link>) -> Happened {
    match link {
        Some(link) => link.happening().await,
        None => pending().await,
    }
}

/// Prefixes and what is said of them.
pub(super) type Routes = BTreeMap<ipnet::IpNet, Arc<super::Route>>;
