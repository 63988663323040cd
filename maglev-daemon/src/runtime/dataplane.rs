//! The thread that owns the data plane: plans wait for packets in flight, so they are carried out off the event loop,
//! in their order. It must not know the reason of a plan.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use maglev_common::table::PoolIndex;
use maglev_core::reconcile::{Event, Members, Previewed};
use maglev_dataplane::{
    Asked, CaptureFilter, CaptureId, CaptureProgram, CaptureSource, CaptureTarget, CaptureTotals, Dataplane,
    Explanation, Sink, Snapshot, Survey,
};
use maglev_model::plan::{Saved, Step, SurveyOrder};
use maglev_net::links::Link;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, oneshot};

use super::adoption::{Keeper, Lineage};
use super::plans::Plans;
use super::refreshed::Refreshed;
use super::succession::{Next, Successor};

/// An order to the data plane.
enum Order {
    Publish(Vec<Step>, Option<Box<Saved>>),
    Outlive(oneshot::Sender<Result<(), String>>),
    Beat,
    Release,
    Survey(Vec<SurveyOrder>),
    Lineage(oneshot::Sender<Option<Lineage>>),
    Succeed(Box<Successor>, Members),
    Refresh(Vec<Link>, oneshot::Sender<bool>),
    Snapshot(oneshot::Sender<Snapshot>),
    Explain(Asked, oneshot::Sender<Result<Explanation, String>>),
    ActiveFlows(ActiveFlows, oneshot::Sender<Result<u64, String>>),
    Capture(CaptureOrder),
    Stop(End),
}

/// An order about captures.
enum CaptureOrder {
    Source(oneshot::Sender<Result<Option<CaptureSource>, String>>),
    Begin(Box<(Option<CaptureProgram>, CaptureFilter, Sink)>, oneshot::Sender<Result<CaptureId, String>>),
    Aim(CaptureId, Option<CaptureTarget>),
    Totals(CaptureId, oneshot::Sender<Option<CaptureTotals>>),
    End(CaptureId),
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

/// The thread.
#[derive(Debug)]
pub(super) struct Worker {
    orders: Orders,
    thread: JoinHandle<()>,
}

/// What the thread reports to.
#[derive(Clone, Debug)]
pub(super) struct Reports {
    pub(super) done: UnboundedSender<Event>,
    /// The interfaces, after each refresh.
    pub(super) interfaces: UnboundedSender<Refreshed>,
    /// Another data plane has taken over: the interfaces are to be refreshed.
    pub(super) taken_over: Arc<Notify>,
    /// The flow table before has no use any more: another data plane goes without it.
    pub(super) spent: Arc<Notify>,
}

/// The sender of orders to the thread.
#[derive(Clone, Debug)]
pub(super) struct Orders(mpsc::Sender<Order>);

impl Worker {
    /// Moves the data plane to its own thread, which reports each plan as [`Event::Published`]. `keeper` writes the resulting state
    /// before each plan.
    pub(super) fn start(dataplane: Dataplane, keeper: Option<Keeper>, reports: Reports) -> anyhow::Result<Self> {
        let (orders, received) = mpsc::channel();
        let thread = move || {
            let mut working = Working::new(dataplane, keeper, reports);
            let end = work(&mut working, &received);
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

    /// What is pinned, if anything is.
    pub(super) fn lineage(&self) -> oneshot::Receiver<Option<Lineage>> {
        self.ask(Order::Lineage)
    }

    /// The plans that are ordered from here on are for this data plane, which begins with these members. It takes over with the first
    /// one that is carried out.
    pub(super) fn succeed(&self, successor: Successor, members: Members) {
        self.order(Order::Succeed(Box::new(successor), members));
    }

    /// Follows changes of interfaces, reports the result, and answers whether all is well.
    pub(super) fn refresh(&self, links: Vec<Link>) -> oneshot::Receiver<bool> {
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

    /// What a program that captures is loaded from: [`Dataplane::capture_source`].
    pub(super) fn capture_source(&self) -> oneshot::Receiver<Result<Option<CaptureSource>, String>> {
        self.ask(|reply| Order::Capture(CaptureOrder::Source(reply)))
    }

    /// Begins a capture.
    pub(super) fn capture(
        &self,
        program: Option<CaptureProgram>,
        filter: CaptureFilter,
        sink: Sink,
    ) -> oneshot::Receiver<Result<CaptureId, String>> {
        self.ask(|reply| Order::Capture(CaptureOrder::Begin(Box::new((program, filter, sink)), reply)))
    }

    /// Gives a capture other numbers for what it was asked for by name.
    pub(super) fn aim_capture(&self, id: CaptureId, target: Option<CaptureTarget>) {
        self.order(Order::Capture(CaptureOrder::Aim(id, target)));
    }

    /// What a capture took so far; `None` if it has ended.
    pub(super) fn capture_totals(&self, id: CaptureId) -> oneshot::Receiver<Option<CaptureTotals>> {
        self.ask(|reply| Order::Capture(CaptureOrder::Totals(id, reply)))
    }

    /// Ends a capture.
    pub(super) fn end_capture(&self, id: CaptureId) {
        self.order(Order::Capture(CaptureOrder::End(id)));
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
    /// The one that takes over with the next plan.
    next: Option<Next>,
    /// Its number: how many of this process were to take over before.
    plane: u64,
    plans: Plans,
    survey: Option<Survey>,
    began: Instant,
    reports: Reports,
}

impl Working {
    fn new(dataplane: Dataplane, keeper: Option<Keeper>, reports: Reports) -> Self {
        let (next, survey, plans) = (None, None, Plans::default());
        Self { dataplane, keeper, next, plane: 0, plans, survey, began: Instant::now(), reports }
    }

    fn report(&self, event: Event) {
        // The owner may have ended.
        let _ = self.reports.done.send(event);
    }

    fn publish(&mut self, steps: &[Step], saved: Option<Box<Saved>>) {
        let (slots, keeper) = match &mut self.next {
            Some(next) => (next.slots(), Some(next.keeper())),
            None => (self.dataplane.slots(), self.keeper.as_mut()),
        };
        if let (Some(keeper), Some(saved)) = (keeper, saved) {
            keeper.note_slots(slots);
            keeper.keep(saved);
        }
        self.plans.begin(steps);
        self.go_on();
    }

    /// Carries out the remaining steps of plans.
    fn go_on(&mut self) {
        let Self { dataplane, keeper, next, plane, plans, began, reports, .. } = self;
        let carry = |steps: &[Step]| {
            let Some(mut successor) = next.take() else {
                return dataplane.publish(steps).map_err(|error| error.to_string());
            };
            match successor.carry_out(steps, dataplane) {
                Ok(()) => {
                    *plane = successor.take_place(dataplane, keeper);
                    reports.taken_over.notify_one();
                }
                Err(reason) => {
                    *next = Some(successor);
                    return Err(reason);
                }
            }
            Ok(())
        };
        // The owner may have ended.
        plans.carry_out(began.elapsed(), carry, |event| drop(reports.done.send(event)));
    }

    /// Follows changes of interfaces, and reports the result; returns whether all is well.
    fn refresh(&mut self, links: Vec<Link>) -> bool {
        let refresh = self.dataplane.refresh(&links);
        let is_well = refresh.problems.is_empty();
        let refreshed = Refreshed { plane: self.plane, ..Refreshed::new(&self.dataplane, refresh, links) };
        // The owner may have ended.
        let _ = self.reports.interfaces.send(refreshed);
        is_well
    }

    /// The plans that come are for another data plane. What is under way in this one is of no use there: its members are all alive.
    fn succeed(&mut self, successor: Successor, members: Members) {
        self.next = self.keeper.as_ref().and_then(|keeper| Next::new(successor, members, keeper));
        self.plans = Plans::default();
        if self.survey.take().is_some() {
            self.report(Event::Surveyed(Vec::new()));
        }
    }

    /// The time until the next work without an order.
    fn pause(&self, until_sweep: Duration) -> Duration {
        let retry = self.keeper.as_ref().and_then(Keeper::pause);
        let survey = self.survey.as_ref().map(|_| Duration::ZERO);
        self.closing().into_iter().chain(retry).chain(survey).fold(until_sweep, Duration::min)
    }

    /// The time until failed closing steps are retried.
    fn closing(&self) -> Option<Duration> {
        Some(self.plans.deadline()?.saturating_sub(self.began.elapsed()))
    }

    /// Works without an order: continues a survey by one part, and retries.
    fn idle(&mut self) {
        if self.closing() == Some(Duration::ZERO) {
            self.go_on();
        }
        self.keeper.iter_mut().for_each(Keeper::retry);
        self.survey = self.survey.take().and_then(|survey| self.survey_on(survey));
    }

    /// Begins a survey. A failed begin reports no flows.
    fn survey(&mut self, orders: Vec<SurveyOrder>) {
        self.survey = match self.dataplane.survey(orders) {
            Ok(survey) => Some(survey),
            Err(error) => {
                tracing::error!(%error, "cannot survey the flow tables");
                self.report(Event::Surveyed(Vec::new()));
                None
            }
        };
    }

    /// Continues a survey by one part, and reports its result after the last.
    fn survey_on(&self, mut survey: Survey) -> Option<Survey> {
        if self.dataplane.go_on(&mut survey) {
            return Some(survey);
        }
        self.report(Event::Surveyed(survey.end()));
        None
    }

    /// Carries out one order, but not the last one. The requester may have gone; then the answer is dropped.
    fn carry_out(&mut self, order: Order) {
        let Self { dataplane, .. } = self;
        match order {
            Order::Stop(_) => {}
            Order::Publish(steps, saved) => self.publish(&steps, saved),
            Order::Lineage(reply) => drop(reply.send(self.keeper.as_ref().map(Keeper::lineage))),
            Order::Succeed(successor, members) => self.succeed(*successor, members),
            Order::Outlive(reply) => drop(reply.send(dataplane.outlive().map_err(|error| error.to_string()))),
            Order::Beat => {
                dataplane.beat().unwrap_or_else(|error| tracing::error!(%error, "cannot renew the watchdog"));
            }
            Order::Release => dataplane.release(),
            Order::Survey(orders) => self.survey(orders),
            Order::Refresh(links, reply) => drop(reply.send(self.refresh(links))),
            Order::Snapshot(reply) => drop(reply.send(dataplane.snapshot())),
            Order::Explain(flow, reply) => drop(reply.send(dataplane.explain(flow).map_err(|error| error.to_string()))),
            Order::ActiveFlows(ActiveFlows { pool, slots, idle }, reply) => {
                let _ = reply.send(dataplane.active_flows(pool, &slots, idle).map_err(|error| error.to_string()));
            }
            Order::Capture(order) => carry_out_capture(dataplane, order),
        }
    }

    /// Clears old flow entries.
    fn sweep(&self) {
        match self.dataplane.sweep() {
            Ok(true) => self.reports.spent.notify_one(),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "cannot clear old flows"),
        }
    }

    fn end(self, end: End) {
        // One that has not taken over leaves nothing.
        drop(self.next);
        match end {
            End::Detach => {
                self.keeper.iter().for_each(Keeper::leave_file);
                self.dataplane.stop();
            }
            End::Leave => self.dataplane.leave(),
        }
    }
}

/// Carries out an order about captures. A capture whose requester is gone does not begin.
fn carry_out_capture(dataplane: &mut Dataplane, order: CaptureOrder) {
    match order {
        CaptureOrder::Source(reply) => {
            let _ = reply.send(dataplane.capture_source().map_err(|error| error.to_string()));
        }
        CaptureOrder::Begin(begun, reply) => {
            let (program, filter, sink) = *begun;
            let id = dataplane.capture(program, &filter, sink).map_err(|error| error.to_string());
            if let Err(Ok(id)) = reply.send(id) {
                dataplane.end_capture(id);
            }
        }
        CaptureOrder::Aim(id, target) => dataplane.aim_capture(id, target),
        CaptureOrder::Totals(id, reply) => drop(reply.send(dataplane.capture_totals(id))),
        CaptureOrder::End(id) => dataplane.end_capture(id),
    }
}

/// Carries out orders until the order to stop, and returns how. In between it sweeps the flow tables, and continues a survey of
/// them in parts, so that no order waits for a whole survey.
fn work(working: &mut Working, orders: &mpsc::Receiver<Order>) -> End {
    let mut swept = Instant::now();
    loop {
        let sweep = working.dataplane.sweep_interval();
        match orders.recv_timeout(working.pause(sweep.saturating_sub(swept.elapsed()))) {
            Ok(Order::Stop(end)) => return end,
            Ok(order) => working.carry_out(order),
            Err(mpsc::RecvTimeoutError::Disconnected) => return End::Leave,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                working.idle();
                if swept.elapsed() >= sweep {
                    swept = Instant::now();
                    working.sweep();
                }
            }
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
