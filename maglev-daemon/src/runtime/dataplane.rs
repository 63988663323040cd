//! The thread that owns the data plane: plans wait for packets in flight, so they are carried out off the event loop,
//! in their order. It must not know the reason of a plan.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use maglev_common::table::PoolIndex;
use maglev_core::reconcile::{Event, Previewed};
use maglev_dataplane::{Asked, Dataplane, Explanation, Interface, Refresh, Snapshot, Survey, VlanDevice};
use maglev_model::plan::{Saved, Step, SurveyOrder};
use maglev_net::links::{Link, LinkState};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::adoption::Keeper;
use super::plans::Plans;

/// How often flows of unknown age are cleared from the flow tables; it must be less than nine hours.
const SWEEP: Duration = Duration::from_secs(3_600);

/// An order to the data plane.
#[derive(Debug)]
enum Order {
    Publish(Vec<Step>, Option<Box<Saved>>),
    Outlive(oneshot::Sender<Result<(), String>>),
    Beat,
    Release,
    Survey(Vec<SurveyOrder>),
    Refresh(Vec<Link>, oneshot::Sender<Refreshed>),
    Snapshot(oneshot::Sender<Snapshot>),
    Explain(Asked, oneshot::Sender<Result<Explanation, String>>),
    ActiveFlows(ActiveFlows, oneshot::Sender<Result<u64, String>>),
    Stop(End),
}

/// The state of the data plane after its thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is detached.
    Detach,
    /// It stays pinned and continues to forward.
    Leave,
}

/// The flows to count.
#[derive(Debug)]
pub(super) struct ActiveFlows {
    pub(super) pool: PoolIndex,
    /// For each slot, whether its flows are counted.
    pub(super) slots: Vec<bool>,
    /// Only flows seen within so many seconds are counted.
    pub(super) idle: u16,
}

impl ActiveFlows {
    /// The flows on the slots that a change would move. A pool that is not published has none.
    pub(super) fn from_preview(previewed: &Previewed) -> Option<Self> {
        let idle = previewed.settings.transition.idle.as_secs();
        let idle = u16::try_from(idle).unwrap_or(u16::MAX / 2);
        Some(Self { pool: previewed.index?, slots: previewed.preview.moved.clone(), idle })
    }
}

/// The attached interfaces after a refresh.
#[derive(Debug, Default)]
pub(super) struct Refreshed {
    pub(super) interfaces: Vec<Interface>,
    /// The VLAN devices on them.
    pub(super) vlans: Vec<VlanDevice>,
    /// The detached ones, with the reason.
    pub(super) refresh: Refresh,
    /// All interfaces that exist, by index.
    pub(super) links: BTreeMap<u32, Link>,
}

impl Refreshed {
    pub(super) fn new(dataplane: &Dataplane, refresh: Refresh, existing: Vec<Link>) -> Self {
        let links = existing.into_iter().map(|link| (link.index, link)).collect();
        Self { interfaces: dataplane.interfaces().to_vec(), vlans: dataplane.vlans().to_vec(), refresh, links }
    }

    /// The renamed interfaces: the name in `maglev.yaml`, and the present one.
    pub(super) fn renamed(&self) -> impl Iterator<Item = (&str, &str)> {
        let link = |interface: &Interface| self.links.get(&interface.index);
        let names = self.interfaces.iter().filter_map(move |it| Some((it.name.as_str(), link(it)?.name.as_str())));
        names.filter(|(configured, now)| configured != now)
    }

    /// The reason why the node cannot forward, if so.
    pub(super) fn trouble(&self) -> Option<String> {
        if let Some(name) = self.refresh.detached.first() {
            if !self.links.values().any(|link| link.name == *name) {
                return Some(format!("interface {name} does not exist"));
            }
            return Some(format!("the XDP program is detached from {name}"));
        }
        let state = |interface: &Interface| self.links.get(&interface.index).map(|link| link.state);
        let mut down = self.interfaces.iter().filter(|it| state(it).is_some_and(|state| !state.is_up()));
        let first = down.next()?;
        let state = if state(first) == Some(LinkState::Down) { "is down" } else { "has no carrier" };
        (down.count() + 1 == self.interfaces.len()).then(|| format!("interface {} {state}", first.name))
    }
}

/// The thread.
#[derive(Debug)]
pub(super) struct Worker {
    orders: Orders,
    thread: JoinHandle<()>,
}

/// The sender of orders to the thread.
#[derive(Clone, Debug)]
pub(super) struct Orders(mpsc::Sender<Order>);

impl Worker {
    /// Moves the data plane to its own thread, which reports each plan as [`Event::Published`]. `keeper` writes the resulting state
    /// before each plan.
    pub(super) fn start(
        dataplane: Dataplane,
        keeper: Option<Keeper>,
        done: UnboundedSender<Event>,
    ) -> anyhow::Result<Self> {
        let (orders, received) = mpsc::channel();
        let thread = move || {
            let mut working = Working { dataplane, keeper, plans: Plans::default(), began: Instant::now() };
            let end = work(&mut working, &received, &done);
            working.end(end);
        };
        let thread = std::thread::Builder::new().name("dataplane".into()).spawn(thread);
        Ok(Self { orders: Orders(orders), thread: thread.context("cannot start a thread")? })
    }

    /// A sender for another task.
    pub(super) fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Ends the thread after all earlier orders.
    pub(super) fn stop(self, end: End) {
        let Self { orders, thread } = self;
        orders.order(Order::Stop(end));
        let _ = thread.join();
    }
}

/// Answers come after the plans ordered before; none comes once the daemon is stopping.
impl Orders {
    /// Orders a plan, which is reported as [`Event::Published`]. `saved` is the planner's state after it.
    pub(super) fn publish(&self, steps: Vec<Step>, saved: Option<Saved>) {
        self.order(Order::Publish(steps, saved.map(Box::new)));
    }

    /// From this call on, the data plane outlives the daemon.
    pub(super) fn outlive(&self) -> oneshot::Receiver<Result<(), String>> {
        self.ask(Order::Outlive)
    }

    /// The daemon lives: [`Dataplane::beat`].
    pub(super) fn beat(&self) {
        self.order(Order::Beat);
    }

    /// Frees the data plane that this one continues.
    pub(super) fn release(&self) {
        self.order(Order::Release);
    }

    /// Orders a survey, which is reported as [`Event::Surveyed`].
    pub(super) fn survey(&self, orders: Vec<SurveyOrder>) {
        self.order(Order::Survey(orders));
    }

    pub(super) fn refresh(&self, links: Vec<Link>) -> oneshot::Receiver<Refreshed> {
        self.ask(|reply| Order::Refresh(links, reply))
    }

    pub(super) fn snapshot(&self) -> oneshot::Receiver<Snapshot> {
        self.ask(Order::Snapshot)
    }

    pub(super) fn explain(&self, flow: Asked) -> oneshot::Receiver<Result<Explanation, String>> {
        self.ask(|reply| Order::Explain(flow, reply))
    }

    pub(super) fn active_flows(&self, flows: ActiveFlows) -> oneshot::Receiver<Result<u64, String>> {
        self.ask(|reply| Order::ActiveFlows(flows, reply))
    }

    fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        self.order(order(reply));
        answer
    }

    fn order(&self, order: Order) {
        // Orders after the end of the thread are dropped without an answer.
        let _ = self.0.send(order);
    }
}

/// The data plane, its plans, and the state for the next daemon.
struct Working {
    dataplane: Dataplane,
    keeper: Option<Keeper>,
    plans: Plans,
    began: Instant,
}

impl Working {
    fn publish(&mut self, steps: &[Step], saved: Option<Box<Saved>>, done: &UnboundedSender<Event>) {
        if let (Some(keeper), Some(saved)) = (&mut self.keeper, saved) {
            keeper.note_slots(self.dataplane.slots());
            keeper.keep(saved);
        }
        self.plans.begin(steps);
        self.go_on(done);
    }

    /// Carries out the remaining steps of plans.
    fn go_on(&mut self, done: &UnboundedSender<Event>) {
        let Self { dataplane, plans, began, .. } = self;
        let carry = |steps: &[Step]| dataplane.publish(steps).map_err(|error| error.to_string());
        // The owner may have ended.
        plans.carry_out(began.elapsed(), carry, |event| drop(done.send(event)));
    }

    /// The time until failed closing steps are retried.
    fn pause(&self) -> Option<Duration> {
        Some(self.plans.deadline()?.saturating_sub(self.began.elapsed()))
    }

    fn end(self, end: End) {
        match end {
            End::Detach => {
                self.keeper.iter().for_each(Keeper::leave_file);
                self.dataplane.stop();
            }
            End::Leave => self.dataplane.leave(),
        }
    }
}

/// Carries out orders until the order to stop, and returns how. In between it sweeps the flow tables, and continues a survey of
/// them in parts, so that no order waits for a whole survey.
fn work(working: &mut Working, orders: &mpsc::Receiver<Order>, done: &UnboundedSender<Event>) -> End {
    let mut swept = Instant::now();
    let mut survey: Option<Survey> = None;
    loop {
        let pause = if survey.is_some() { Duration::ZERO } else { SWEEP.saturating_sub(swept.elapsed()) };
        let retry = working.keeper.as_ref().and_then(Keeper::pause);
        let pause = working.pause().into_iter().chain(retry).fold(pause, Duration::min);
        match orders.recv_timeout(pause) {
            Ok(Order::Stop(end)) => return end,
            Ok(Order::Publish(steps, saved)) => working.publish(&steps, saved, done),
            Ok(order) => carry_out(&mut working.dataplane, order, &mut survey, done),
            Err(mpsc::RecvTimeoutError::Disconnected) => return End::Leave,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if working.pause() == Some(Duration::ZERO) {
                    working.go_on(done);
                }
                working.keeper.iter_mut().for_each(Keeper::retry);
                survey = survey.take().and_then(|survey| go_on(&working.dataplane, survey, done));
                if swept.elapsed() >= SWEEP {
                    swept = Instant::now();
                    working.dataplane.sweep().unwrap_or_else(|error| tracing::error!(%error, "cannot clear old flows"));
                }
            }
        }
    }
}

/// Begins a survey. A failed begin reports no flows.
fn begin(dataplane: &Dataplane, orders: Vec<SurveyOrder>, done: &UnboundedSender<Event>) -> Option<Survey> {
    dataplane
        .survey(orders)
        .map_err(|error| {
            tracing::error!(%error, "cannot survey the flow tables");
            let _ = done.send(Event::Surveyed(Vec::new()));
        })
        .ok()
}

/// Continues a survey by one part, and reports its result after the last.
fn go_on(dataplane: &Dataplane, mut survey: Survey, done: &UnboundedSender<Event>) -> Option<Survey> {
    if dataplane.go_on(&mut survey) {
        return Some(survey);
    }
    let _ = done.send(Event::Surveyed(survey.end()));
    None
}

/// Carries out one order that is not a plan. The requester may have gone; then the answer is dropped.
fn carry_out(dataplane: &mut Dataplane, order: Order, survey: &mut Option<Survey>, done: &UnboundedSender<Event>) {
    match order {
        Order::Publish(..) | Order::Stop(_) => {}
        Order::Outlive(reply) => {
            let _ = reply.send(dataplane.outlive().map_err(|error| error.to_string()));
        }
        Order::Beat => dataplane.beat().unwrap_or_else(|error| tracing::error!(%error, "cannot renew the watchdog")),
        Order::Release => dataplane.release(),
        Order::Survey(orders) => *survey = begin(dataplane, orders, done),
        Order::Refresh(links, reply) => {
            let refresh = dataplane.refresh(&links);
            let _ = reply.send(Refreshed::new(dataplane, refresh, links));
        }
        Order::Snapshot(reply) => {
            let _ = reply.send(dataplane.snapshot());
        }
        Order::Explain(flow, reply) => {
            let _ = reply.send(dataplane.explain(flow).map_err(|error| error.to_string()));
        }
        Order::ActiveFlows(ActiveFlows { pool, slots, idle }, reply) => {
            let _ = reply.send(dataplane.active_flows(pool, &slots, idle).map_err(|error| error.to_string()));
        }
    }
}

/// A data plane that records its orders.
#[cfg(test)]
pub(super) mod testing {
    use super::{Order, Orders, Worker, mpsc};

    pub(in crate::runtime) struct Ordered(mpsc::Receiver<Order>);

    impl Ordered {
        /// The number of plans ordered since the last call.
        pub(in crate::runtime) fn plans(&self) -> usize {
            self.0.try_iter().filter(|order| matches!(order, Order::Publish(..))).count()
        }
    }

    pub(in crate::runtime) fn worker() -> (Worker, Ordered) {
        let (orders, received) = mpsc::channel();
        (Worker { orders: Orders(orders), thread: std::thread::spawn(|| {}) }, Ordered(received))
    }
}
