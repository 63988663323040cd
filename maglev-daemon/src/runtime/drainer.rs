//! Carries out what a drain of the node asks for: the file, counters, and the wait for neighbours. It must not know the
//! stages' order.

use std::time::Duration;

use maglev_common::counters::Counter;
use tokio::sync::mpsc;

use super::announcer::Announcer;
use super::node_state;
use super::plane::Orders;
use crate::announce::Node;
use crate::api::view::What;
use crate::api::{self, Journal, view};
use crate::config::NodeConfig;
use crate::dataplane::Snapshot;
use crate::drain::{Drain, Effect, Event, Order, Progress, Settings, Stage, Traffic};
use crate::model::{Refusal, UnixTime};
use crate::reconcile::{RequestId, View};

/// The drain of the node, if there is one.
#[derive(Debug)]
pub(super) struct Drainer {
    drain: Drain,
    settings: Settings,
    announces: bool,
    records: mpsc::UnboundedSender<Option<crate::drain::Record>>,
    events: mpsc::UnboundedSender<Event>,
    /// [`Event::Told`] is to be reported.
    awaits_told: bool,
    journal: Journal,
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
        (Self { drain, settings, announces, records, events, awaits_told: false, journal }, heard)
    }

    /// Takes in what happened, and does what that asks for.
    pub(super) fn handle(&mut self, event: Event, now: Duration, view: &View, plane: &Orders) -> Replies {
        let mut replies = Replies::new();
        for effect in self.drain.handle(event, now) {
            match effect {
                // Its task ends with this one.
                Effect::Save(record) => drop(self.records.send(record)),
                Effect::Count => self.count(view, plane),
                Effect::AwaitTold => self.awaits_told = true,
                Effect::Entered(stage) => self.log(stage),
                Effect::Ended => {
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

    /// Reports once neighbours were told what is wanted, if that is awaited and they can be told yet.
    pub(super) fn await_told(&mut self, announcer: &Announcer) {
        if !self.awaits_told {
            return;
        }
        if let Some(told) = announcer.told() {
            self.awaits_told = false;
            let events = self.events.clone();
            tokio::spawn(async move {
                told.await;
                let _ = events.send(Event::Told);
            });
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
            let UnixTime(unix_now) = api::now();
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
