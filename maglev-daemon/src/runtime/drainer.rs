//! Carries out what a drain of the node asks for: the file, counters, and the wait for neighbours. It must not know the
//! stages' order.

use std::time::Duration;

use maglev_api::view;
use maglev_api::view::What;
use maglev_common::counters::Counter;
use maglev_config::NodeConfig;
use maglev_core::announce::Node;
use maglev_core::drain::{Drain, Effect, Event, Order, Progress, Traffic};
use maglev_core::reconcile::{RequestId, View};
use maglev_dataplane::Snapshot;
use maglev_model::drain::{Settings, Stage};
use maglev_model::{Refusal, UnixTime};
use tokio::sync::mpsc;

use super::announcer::Announcer;
use super::node_state;
use super::plane::Orders;
use crate::http::Journal;

/// The drain of the node, if there is one.
#[derive(Debug)]
pub(super) struct Drainer {
    drain: Drain,
    settings: Settings,
    announces: bool,
    records: mpsc::UnboundedSender<Option<maglev_core::drain::Record>>,
    events: mpsc::UnboundedSender<Event>,
    /// [`Event::Told`] is to be reported.
    awaits_told: Option<Awaited>,
    journal: Journal,
}

/// What neighbors are to be told before a drain goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// What is wanted once the drain's withdrawal is among it.
    Next,
    /// This version of what is wanted.
    Version(u64),
}

/// What is to be told to whom.
pub(super) type Replies = Vec<(RequestId, Result<(), Refusal>)>;

impl Drainer {
    /// Goes on with what was ordered before. Also returns what it hears.
    pub(super) fn start(node: &NodeConfig, journal: Journal) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (events, heard) = mpsc::unbounded_channel();
        let (records, to_write) = mpsc::unbounded_channel();
        tokio::spawn(node_state::write(node_state::path(&node.services), to_write, events.clone()));
        let (settings, announces) = (node.drain, node.bgp.is_some());
        let drain = Drain::new(settings, announces);
        (Self { drain, settings, announces, records, events, awaits_told: None, journal }, heard)
    }

    /// Takes in what happened, and does what that asks for.
    pub(super) fn handle(&mut self, event: Event, now: Duration, view: &View, plane: &Orders) -> Replies {
        let mut replies = Replies::new();
        for effect in self.drain.handle(event, now) {
            match effect {
                // Its task ends with this one.
                Effect::Save(record) => drop(self.records.send(record)),
                Effect::Count => self.count(view, plane),
                Effect::AwaitTold => self.awaits_told = Some(Awaited::Next),
                Effect::Entered(stage) => self.log(stage),
                Effect::Ended => {
                    // What neighbors are told for this drain says nothing of another one.
                    self.awaits_told = None;
                    tracing::info!("the node serves again");
                    self.journal.tell(What::Node { stage: "serving".to_owned(), reason: None });
                }
                Effect::Reply { request, outcome } => replies.push((request, outcome)),
            }
        }
        replies
    }

    /// When [`Event::Tick`] is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.drain.deadline()
    }

    /// What the node as a whole may announce, if it drains.
    pub(super) fn node(&self) -> Option<Node> {
        self.drain.stage().map(|stage| if stage < Stage::Withdrawing { Node::Leaving } else { Node::Drained })
    }

    /// What is wanted is ordered: the version that withdraws is awaited, if one is and neighbors can be told yet.
    pub(super) fn await_told(&mut self, announcer: &Announcer) {
        if self.awaits_told == Some(Awaited::Next) && announcer.has_neighbors() {
            self.awaits_told = Some(Awaited::Version(announcer.version()));
        }
        self.check_told(announcer);
    }

    /// Reports once neighbors were told what is awaited. The report is in the queue before any end of this drain, so that it is
    /// never taken for another one's.
    pub(super) fn check_told(&mut self, announcer: &Announcer) {
        if let Some(Awaited::Version(version)) = self.awaits_told
            && announcer.is_told(version)
        {
            self.awaits_told = None;
            // The owner ends with this.
            let _ = self.events.send(Event::Told);
        }
    }

    /// What neighbours are told when the daemon stops, and whether they must be.
    pub(super) fn last_words(&self) -> (String, bool) {
        match self.drain.progress() {
            None => ("maglevd is stopping".into(), false),
            Some(progress) => (progress.last_words(), self.node() == Some(Node::Drained)),
        }
    }

    /// What the API tells of it.
    pub(super) fn view(&self, now: Duration) -> view::Node {
        let Settings { lead, quiet, last_node } = self.settings;
        let drain = self.drain.progress().map(|progress| {
            let Progress { order: Order { since: UnixTime(since), reason, last_node }, stages, .. } = progress;
            let UnixTime(unix_now) = maglev_api::now();
            let at = |time: Duration| unix_now.saturating_sub(now.saturating_sub(time).as_secs());
            let passed = |(stage, time): &(Stage, Duration)| view::PassedStage {
                stage: *stage,
                at: at(*time),
                seconds: now.saturating_sub(*time).as_secs(),
            };
            let receiving =
                |(vip, rate): &(_, u64)| view::Receiving { vip: format!("{vip}"), packets_per_second: *rate };
            view::NodeDrain {
                since: *since,
                reason: reason.clone(),
                last_node: *last_node,
                stages: stages.iter().map(passed).collect(),
                resumed: progress.resumed,
                packets_forwarded: progress.forwarded,
                receiving: progress.receiving.iter().map(receiving).collect::<Vec<_>>(),
                quiet_seconds: progress.quiet_for.as_secs(),
            }
        });
        view::Node {
            drain,
            unable: None,
            announces: self.announces,
            last_node,
            lead_seconds: lead.as_secs(),
            quiet_seconds: quiet.as_secs(),
            not_saved: self.drain.unsaved().map(str::to_owned),
        }
    }

    fn count(&self, view: &View, plane: &Orders) {
        let (snapshot, events) = (plane.snapshot(), self.events.clone());
        let vips: Vec<_> = view.vips.iter().filter_map(|vip| Some((vip.name.clone(), vip.id?))).collect();
        tokio::spawn(async move {
            let Ok(snapshot) = snapshot.await else { return };
            let vips = vips.into_iter().map(|(name, id)| (name, snapshot.vip(id).packets)).collect();
            let _ = events.send(Event::Counted(Traffic { vips, forwarded: forwarded(&snapshot) }));
        });
    }

    fn log(&self, stage: Stage) {
        let Some(Progress { order, forwarded, .. }) = self.drain.progress() else { return };
        let stage_name = stage.as_str().to_owned();
        self.journal.tell(What::Node { stage: stage_name, reason: order.reason.clone() });
        let reason = order.reason.as_deref().unwrap_or("none given");
        match stage {
            Stage::Marked if order.last_node => tracing::warn!(
                reason,
                "node drain: marked; no other node announces its VIPs, so nobody will serve them"
            ),
            Stage::Marked => tracing::info!(reason, "node drain: marked"),
            Stage::Leaving => tracing::info!(reason, lead = ?self.settings.lead, "node drain: leaving"),
            Stage::Withdrawing => tracing::info!(reason, "node drain: withdrawing"),
            Stage::Waiting => tracing::info!(reason, forwarded, "node drain: waiting for packets to stop"),
            Stage::Drained => tracing::info!(reason, forwarded, "node drain: drained, no packet for VIPs comes in"),
        }
    }
}

/// Packets sent on to backends.
fn forwarded(snapshot: &Snapshot) -> u64 {
    [Counter::Transmitted, Counter::Redirected].map(|counter| snapshot.counter(counter)).iter().sum()
}

#[cfg(test)]
mod faults {
    use tokio::sync::watch;

    use super::*;
    use maglev_bgp::speaker::Handle;
    use maglev_core::reconcile::{self, Reconciler};
    use maglev_model::bgp::NeighborStatus;
    use maglev_testing::matrix::Row;

    const NOW: Duration = Duration::from_secs(100);

    /// A drainer, and what is reported to its owner.
    fn drainer() -> (Drainer, mpsc::UnboundedReceiver<Event>) {
        let (events, heard) = mpsc::unbounded_channel();
        let settings = Settings { lead: Duration::ZERO, ..Settings::default() };
        let (drain, journal) = (Drain::new(settings, true), Journal::start());
        let records = mpsc::unbounded_channel().0;
        (Drainer { drain, settings, announces: true, records, events, awaits_told: None, journal }, heard)
    }

    #[tokio::test]
    async fn a_drain_goes_on_when_its_own_withdrawal_was_told_and_not_another_one_s() {
        let _row = Row::fault("R8", "neighbors told of an earlier drain: a later one does not go on by it");
        let (view, plane) = (Reconciler::new(reconcile::Settings::default()).view(), Orders::ignored());
        let (session, status) = watch::channel(NeighborStatus::default());
        let mut announcer = Announcer::new(Duration::ZERO);
        announcer.follow(Handle::of(vec![status]));
        announcer.update(&View { busy: false, not_published: None, ..view.clone() }, &Node::Serving, NOW);
        let version = announcer.version();
        assert!(version > 0);
        let (mut drainer, mut heard) = drainer();
        let drain = |drainer: &mut Drainer, number| {
            let order = Order { since: UnixTime(0), reason: None, last_node: false };
            // Ordered, saved, and the withdrawal saved.
            let drain = Event::Drain { request: RequestId(number), order };
            for event in [drain, Event::Saved(Ok(())), Event::Saved(Ok(()))] {
                drainer.handle(event, NOW, &view, &plane);
            }
            assert_eq!(drainer.drain.stage(), Some(Stage::Withdrawing));
        };
        drain(&mut drainer, 1);
        drainer.await_told(&announcer);
        assert!(heard.try_recv().is_err(), "the neighbor was not told yet");
        for event in [Event::Undrain { request: RequestId(2) }, Event::Saved(Ok(()))] {
            drainer.handle(event, NOW, &view, &plane);
        }
        drain(&mut drainer, 3);
        // The neighbor is told of the first withdrawal only now.
        session.send_modify(|status| status.told = version);
        drainer.check_told(&announcer);
        assert!(heard.try_recv().is_err());
        drainer.await_told(&announcer);
        assert_eq!(heard.try_recv(), Ok(Event::Told));
        drainer.handle(Event::Told, NOW, &view, &plane);
        drainer.check_told(&announcer);
        assert!(heard.try_recv().is_err(), "once");
        assert_eq!(drainer.drain.stage(), Some(Stage::Waiting));
    }
}
