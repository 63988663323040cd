//! How a node is taken out of service, and how it is shown that no packet is lost by it. Pure: it must not know sessions,
//! disks, nor where counters come from.
//!
//! ```text
//!            saved                          lead over            neighbors sent         no packets for quiet
//!  (serving) ─────▶ marked ─────▶ leaving ────────▶ withdrawing ───────────────▶ waiting ───────────────────▶ drained
//!      ▲            if neighbors are configured    │                             ▲   │   packets come again      │
//!      │               └───────────────────────────┘ otherwise                   └───┼───────────────────────────┘
//!      └──────────────────────────── undrain, saved: from every stage ◀──────────────┘
//! ```
//!
//! An order outlives the daemon and the machine once it is saved. If it cannot be saved, it holds until the next start,
//! and saving is retried.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use maglev_model::node_drain::{Settings, Stage};
use maglev_model::{Name, Refusal, UnixTime};

use crate::reconcile::RequestId;

#[cfg(test)]
mod tests;

/// How long neighbors may take to be sent the withdrawal: for one that reads nothing the wait ends then.
const SENT: Duration = Duration::from_secs(2);

/// How long after a failure the order is saved again.
const SAVE_AGAIN: Duration = Duration::from_secs(5);

/// The order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// When.
    pub since: UnixTime,
    /// Why, in the operator's words.
    pub reason: Option<String>,
    /// No other node announces this node's VIPs.
    pub last_node: bool,
}

/// The saved state of a drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The order.
    pub order: Order,
    /// All prefixes are withdrawn.
    pub withdrawn: bool,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets that arrived for each VIP.
    pub vips: BTreeMap<Name, u64>,
    /// Packets that were forwarded to backends.
    pub forwarded: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The daemon starts, and this was saved. `kept`: packets were forwarded in between.
    Resume {
        /// The saved state.
        record: Record,
        /// Neighbors may still send packets because of the last daemon's announcements.
        kept: bool,
    },
    /// An operator orders a drain.
    Drain {
        /// The request to answer.
        request: RequestId,
        /// The order.
        order: Order,
    },
    /// An operator cancels the drain.
    Undrain {
        /// The request to answer.
        request: RequestId,
    },
    /// The state was saved, or why not.
    Saved(Result<(), String>),
    /// Every neighbor was sent the withdrawal of all prefixes.
    Sent,
    /// The requested counters.
    Counted(Traffic),
    /// [`Drain::deadline`] has come.
    Tick,
}

/// An order to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Save this durably, in order, or that there is nothing; then report [`Event::Saved`].
    Save(Option<Record>),
    /// Read the counters, then report [`Event::Counted`].
    Count,
    /// Report [`Event::Sent`] once every neighbor was sent the withdrawal.
    AwaitSent,
    /// A stage begins.
    Entered(Stage),
    /// The node serves again.
    Ended,
    /// Answer a request.
    Reply {
        /// The request.
        request: RequestId,
        /// Its outcome.
        outcome: Result<(), Refusal>,
    },
}

/// The progress of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The order.
    pub order: &'a Order,
    /// The stages so far and when each began; the last one is the present one.
    pub stages: &'a [(Stage, Duration)],
    /// Packets forwarded to backends since the drain began, or since the daemon did.
    pub forwarded: u64,
    /// The daemon began in the midst of the drain.
    pub resumed: bool,
    /// VIPs with packets at the last count, and how many a second.
    pub receiving: &'a [(Name, u64)],
    /// For how long no packet has arrived, in the stage that waits for packets to stop.
    pub quiet_for: Duration,
}

impl Progress<'_> {
    /// The reason that neighbors are sent if the daemon stops during the drain.
    pub fn last_words(&self) -> String {
        let reason = self.order.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        format!("the node is out of service{reason}")
    }
}

/// Whether the node is drained, and how it gets there.
#[derive(Debug)]
pub struct Drain {
    settings: Settings,
    /// Neighbors are configured.
    announces: bool,
    course: Option<Course>,
    saving: VecDeque<Saving>,
    /// When the counters were requested, until they are there.
    asked: Option<Duration>,
    count_at: Duration,
    unsaved: Option<Unsaved>,
}

/// The order could not be saved.
#[derive(Debug)]
struct Unsaved {
    reason: String,
    again_at: Duration,
}

/// A drain under way, or at its end.
#[derive(Debug)]
struct Course {
    order: Order,
    stages: Vec<(Stage, Duration)>,
    withdrawn_saved: bool,
    resumed: bool,
    counted: Option<Counted>,
}

/// The last counts of traffic.
#[derive(Debug)]
struct Counted {
    forwarded_first: u64,
    last: Traffic,
    at: Duration,
    receiving: Vec<(Name, u64)>,
    quiet_since: Option<Duration>,
}

/// The change that takes effect once it is saved.
#[derive(Debug)]
enum Saving {
    Drain(RequestId, Order),
    Undrain(RequestId),
    Withdrawn,
    Again,
}

impl Drain {
    /// A node that serves.
    pub fn new(settings: Settings, announces: bool) -> Self {
        Self {
            settings,
            announces,
            course: None,
            saving: VecDeque::new(),
            asked: None,
            count_at: Duration::ZERO,
            unsaved: None,
        }
    }

    /// Processes an event and returns effects, in their order.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        let mut effects = match event {
            Event::Resume { record, kept } => self.resume(record, kept, now),
            Event::Drain { request, order } => self.drain(request, order),
            Event::Undrain { request } => self.undrain(request),
            Event::Saved(outcome) => self.saved(outcome, now),
            Event::Sent if self.stage() == Some(Stage::Withdrawing) => self.enter(Stage::Waiting, now),
            Event::Sent | Event::Tick => Vec::new(),
            Event::Counted(traffic) => self.counted(traffic, now),
        };
        effects.extend(self.pass(now));
        effects
    }

    /// When [`Event::Tick`] is due, if no other event comes before.
    pub fn deadline(&self) -> Option<Duration> {
        let count = self.course.as_ref().and_then(|_| self.asked.is_none().then_some(self.count_at));
        let again = self.unsaved.as_ref().filter(|_| self.saving.is_empty()).map(|unsaved| unsaved.again_at);
        [self.stage_ends(), count, again].into_iter().flatten().min()
    }

    /// Whether the node announces prefixes to neighbors.
    pub const fn announces(&self) -> bool {
        self.announces
    }

    /// Why the order is not saved, if so: it holds until the next start.
    pub fn unsaved(&self) -> Option<&str> {
        self.unsaved.as_ref().map(|unsaved| unsaved.reason.as_str())
    }

    /// The stage, while the node does not serve.
    pub fn stage(&self) -> Option<Stage> {
        self.course.as_ref().map(Course::stage)
    }

    /// How far the drain has come, if there is one.
    pub fn progress(&self) -> Option<Progress<'_>> {
        let Course { order, stages, resumed, counted, withdrawn_saved: _ } = self.course.as_ref()?;
        let counted = counted.as_ref();
        Some(Progress {
            order,
            stages,
            forwarded: counted.map_or(0, |c| c.last.forwarded.saturating_sub(c.forwarded_first)),
            resumed: *resumed,
            receiving: counted.map_or(&[], |c| &c.receiving),
            quiet_for: counted.and_then(|c| Some(c.at.saturating_sub(c.quiet_since?))).unwrap_or_default(),
        })
    }

    /// Prefixes that were announced before are announced again only if routers may still rely on them.
    fn resume(&mut self, Record { order, withdrawn }: Record, kept: bool, now: Duration) -> Vec<Effect> {
        let mut course = Course::new(order, now);
        (course.withdrawn_saved, course.resumed) = (withdrawn, true);
        self.course = Some(course);
        let leaving = kept && !withdrawn && self.announces;
        self.enter(if leaving { Stage::Leaving } else { Stage::Withdrawing }, now)
    }

    fn drain(&mut self, request: RequestId, order: Order) -> Vec<Effect> {
        if self.will_drain() {
            return vec![refuse(request, self.draining_already())];
        }
        let record = Record { order: order.clone(), withdrawn: false };
        self.saving.push_back(Saving::Drain(request, order));
        vec![Effect::Save(Some(record))]
    }

    fn undrain(&mut self, request: RequestId) -> Vec<Effect> {
        if !self.will_drain() {
            return vec![refuse(request, "the node is not draining: it serves".into())];
        }
        self.saving.push_back(Saving::Undrain(request));
        vec![Effect::Save(None)]
    }

    /// Whether the node drains once all is saved.
    fn will_drain(&self) -> bool {
        let ordered = self.saving.iter().rev().find_map(|saving| match saving {
            Saving::Drain(..) => Some(true),
            Saving::Undrain(_) => Some(false),
            Saving::Withdrawn | Saving::Again => None,
        });
        ordered.unwrap_or(self.course.is_some())
    }

    fn draining_already(&self) -> String {
        let Some(course) = &self.course else { return "the node is about to drain already".into() };
        let (since, stage) = (course.order.since, course.stage());
        let reason = course.order.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        match stage {
            Stage::Drained => format!("the node is drained already, ordered at {since}{reason}"),
            _ => format!("the node is draining already, since {since}{reason}: {stage}"),
        }
    }

    fn saved(&mut self, outcome: Result<(), String>, now: Duration) -> Vec<Effect> {
        let Some(saving) = self.saving.pop_front() else { return Vec::new() };
        // Each write replaces the file: the last one decides.
        self.unsaved = outcome.err().map(|reason| Unsaved { reason, again_at: now + SAVE_AGAIN });
        // An order that cannot be saved is carried out all the same: a full disk must not keep a node in service.
        let outcome = Ok(());
        match saving {
            Saving::Withdrawn | Saving::Again => Vec::new(),
            Saving::Undrain(request) => {
                self.course = None;
                vec![Effect::Ended, Effect::Reply { request, outcome }]
            }
            Saving::Drain(request, order) => {
                self.course = Some(Course::new(order, now));
                self.count_at = now;
                let mut effects = vec![Effect::Entered(Stage::Marked)];
                effects.extend(self.enter(if self.announces { Stage::Leaving } else { Stage::Withdrawing }, now));
                effects.push(Effect::Reply { request, outcome });
                effects
            }
        }
    }

    fn enter(&mut self, stage: Stage, now: Duration) -> Vec<Effect> {
        // A later event must not undo an order that waits for the disk.
        let is_ordered = self.saving.iter().any(|saving| matches!(saving, Saving::Drain(..) | Saving::Undrain(_)));
        let Some(course) = &mut self.course else { return Vec::new() };
        // A stage that begins again replaces those after it.
        course.stages.retain(|(passed, _)| *passed < stage);
        course.stages.push((stage, now));
        let mut effects = vec![Effect::Entered(stage)];
        match stage {
            Stage::Marked | Stage::Leaving | Stage::Drained => {}
            Stage::Withdrawing => {
                if !is_ordered && !std::mem::replace(&mut course.withdrawn_saved, true) {
                    effects.push(Effect::Save(Some(Record { order: course.order.clone(), withdrawn: true })));
                    self.saving.push_back(Saving::Withdrawn);
                }
                if self.announces {
                    effects.push(Effect::AwaitSent);
                } else {
                    effects.extend(self.enter(Stage::Waiting, now));
                }
            }
            Stage::Waiting => self.count_at = now,
        }
        effects
    }

    /// When the stage ends by time alone.
    fn stage_ends(&self) -> Option<Duration> {
        let (stage, since) = self.course.as_ref()?.last();
        match stage {
            Stage::Leaving => Some(since + self.settings.lead),
            Stage::Withdrawing => Some(since + SENT),
            Stage::Marked | Stage::Waiting | Stage::Drained => None,
        }
    }

    /// Applies the time.
    fn pass(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        while self.stage_ends().is_some_and(|at| at <= now) {
            let next = if self.stage() == Some(Stage::Leaving) { Stage::Withdrawing } else { Stage::Waiting };
            effects.extend(self.enter(next, now));
        }
        if self.course.is_some() && self.asked.is_none() && self.count_at <= now {
            self.asked = Some(now);
            self.count_at = now + self.pace();
            effects.push(Effect::Count);
        }
        effects.extend(self.save_again(now));
        effects
    }

    /// Saves the present state, if the last attempt failed a while ago.
    fn save_again(&mut self, now: Duration) -> Option<Effect> {
        let unsaved = self.unsaved.as_mut().filter(|unsaved| self.saving.is_empty() && unsaved.again_at <= now)?;
        unsaved.again_at = now + SAVE_AGAIN;
        self.saving.push_back(Saving::Again);
        let record = |course: &Course| Record { order: course.order.clone(), withdrawn: course.withdrawn_saved };
        Some(Effect::Save(self.course.as_ref().map(record)))
    }

    /// The time between two reads of the counters.
    fn pace(&self) -> Duration {
        (self.settings.quiet / 4).min(Duration::from_secs(1))
    }

    fn counted(&mut self, traffic: Traffic, now: Duration) -> Vec<Effect> {
        // They were read after they were requested and before now: the time without packets is at least that between the
        // end of one read and the start of another.
        let (asked, quiet) = (self.asked.take().unwrap_or(now), self.settings.quiet);
        let Some(course) = &mut self.course else { return Vec::new() };
        let quiet_for = course.count(traffic, asked, now);
        match course.stage() {
            Stage::Waiting if quiet_for.is_some_and(|time| time >= quiet) => self.enter(Stage::Drained, now),
            Stage::Drained if quiet_for.is_none() => self.enter(Stage::Waiting, now),
            _ => Vec::new(),
        }
    }
}

impl Course {
    fn new(order: Order, now: Duration) -> Self {
        Self { order, stages: vec![(Stage::Marked, now)], withdrawn_saved: false, resumed: false, counted: None }
    }

    fn last(&self) -> (Stage, Duration) {
        self.stages.last().copied().unwrap_or((Stage::Marked, Duration::ZERO))
    }

    fn stage(&self) -> Stage {
        self.last().0
    }

    /// Records the counters. Returns for how long no packet arrived, if none did in the stage that waits for packets to stop,
    /// and there was an earlier count.
    fn count(&mut self, traffic: Traffic, asked: Duration, now: Duration) -> Option<Duration> {
        let waits = self.stage() >= Stage::Waiting;
        let before = self.counted.take();
        let receiving =
            before.as_ref().map_or_else(Vec::new, |c| received(&c.last, &traffic, now.saturating_sub(c.at)));
        let quiet_since = before.as_ref().and_then(|c| c.quiet_since).filter(|_| waits && receiving.is_empty());
        self.counted = Some(Counted {
            forwarded_first: before.map_or(traffic.forwarded, |c| c.forwarded_first),
            last: traffic,
            at: now,
            receiving,
            quiet_since: waits.then(|| quiet_since.unwrap_or(now)),
        });
        quiet_since.map(|since| asked.saturating_sub(since))
    }
}

/// VIPs with packets between two counts, and how many a second: at least one.
fn received(before: &Traffic, after: &Traffic, time: Duration) -> Vec<(Name, u64)> {
    let milliseconds = (time.as_millis() as u64).max(1);
    let grown = after.vips.iter().filter_map(|(name, count)| {
        // A new VIP counts from now on; a number that is reused begins anew.
        let before = *before.vips.get(name).unwrap_or(count);
        let packets = count.checked_sub(before).unwrap_or(*count);
        (packets > 0).then(|| (name.clone(), (packets.saturating_mul(1_000) / milliseconds).max(1)))
    });
    grown.collect()
}

fn refuse(request: RequestId, line: String) -> Effect {
    Effect::Reply { request, outcome: Err(Refusal::Conflict(line)) }
}
