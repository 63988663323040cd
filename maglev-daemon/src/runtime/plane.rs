//! The thread that owns the data plane: plans wait for packets in flight, so they are carried out off the event loop,
//! in their order. It must not know why.

use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::sync::oneshot;

use crate::dataplane::{Dataplane, Explanation, Flow, Interface, Snapshot};
use crate::net::links::Link;
use crate::plan::Step;
use crate::reconcile::Event;

/// Something the data plane is asked to do.
#[derive(Debug)]
enum Order {
    Publish(Vec<Step>),
    Refresh(Vec<Link>, oneshot::Sender<Refreshed>),
    Snapshot(oneshot::Sender<Snapshot>),
    Explain(Flow, oneshot::Sender<Result<Explanation, String>>),
}

/// The attached interfaces after a look at those that exist.
#[derive(Debug)]
pub(super) struct Refreshed {
    pub(super) interfaces: Vec<Interface>,
    /// Names of those that are gone.
    pub(super) gone: Vec<String>,
}

/// The way to the thread.
#[derive(Debug)]
pub(super) struct Plane {
    orders: mpsc::Sender<Order>,
    thread: JoinHandle<()>,
}

impl Plane {
    /// Gives the data plane to a thread of its own, which reports each plan as [`Event::Published`].
    pub(super) fn start(
        dataplane: Dataplane,
        done: tokio::sync::mpsc::UnboundedSender<Event>,
    ) -> anyhow::Result<Self> {
        let (orders, received) = mpsc::channel();
        let work = move || {
            let mut dataplane = dataplane;
            for order in received {
                carry_out(&mut dataplane, order, &done);
            }
            dataplane.stop();
        };
        let thread = std::thread::Builder::new().name("dataplane".into()).spawn(work);
        Ok(Self { orders, thread: thread.context("cannot start a thread")? })
    }

    pub(super) fn publish(&self, steps: Vec<Step>) {
        self.order(Order::Publish(steps));
    }

    /// The answer comes after the plans ordered before; none comes once the daemon is stopping.
    pub(super) fn refresh(&self, links: Vec<Link>) -> oneshot::Receiver<Refreshed> {
        self.ask(|reply| Order::Refresh(links, reply))
    }

    pub(super) fn snapshot(&self) -> oneshot::Receiver<Snapshot> {
        self.ask(Order::Snapshot)
    }

    pub(super) fn explain(&self, flow: Flow) -> oneshot::Receiver<Result<Explanation, String>> {
        self.ask(|reply| Order::Explain(flow, reply))
    }

    /// Detaches the program, after all that was ordered before.
    pub(super) fn stop(self) {
        let Self { orders, thread } = self;
        drop(orders);
        let _ = thread.join();
    }

    fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        self.order(order(reply));
        answer
    }

    fn order(&self, order: Order) {
        // The thread ends only with the sender.
        let _ = self.orders.send(order);
    }
}

/// Whoever asked may have gone; then nobody takes the answer.
fn carry_out(dataplane: &mut Dataplane, order: Order, done: &tokio::sync::mpsc::UnboundedSender<Event>) {
    match order {
        Order::Publish(steps) => {
            let outcome = dataplane.publish(&steps).map_err(|error| error.to_string());
            let _ = done.send(Event::Published(outcome));
        }
        Order::Refresh(links, reply) => {
            let gone = dataplane.refresh(&links).unwrap_or_else(|error| {
                tracing::error!(%error, "cannot take over changed interfaces");
                Vec::new()
            });
            let _ = reply.send(Refreshed { interfaces: dataplane.interfaces().to_vec(), gone });
        }
        Order::Snapshot(reply) => {
            let _ = reply.send(dataplane.snapshot());
        }
        Order::Explain(flow, reply) => {
            let _ = reply.send(dataplane.explain(flow).map_err(|error| error.to_string()));
        }
    }
}
