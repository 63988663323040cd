//! The one owner of the daemon's mutable state: a pure function from events to effects. It must not know tasks,
//! sockets, files or a clock.
//!
//! ```text
//! Change, Replace, NextHop ──▶ collected ──Flush──▶ Persist ──Persisted──▶ Publish ──Published──▶ Reply
//!        │ refused: Reply at once                 (if the disk holds                (again, if the way
//!        ▼                                         something else)                   takes two plans)
//! Checked ──▶ collected, if a backend is used no more or again by it
//! Tick ──▶ Publish, if learning ends or slow start goes on; Survey ──Surveyed──▶ Publish, if slots settle
//!      ╰──▶ Publish, if a plan failed and its next attempt is due; requests are attempted at once
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use maglev_common::backend::NextHop;
use maglev_common::vip::VipId;
use maglev_model::digest::Digest;
use maglev_model::plan::{HOLD, InUse, Planned, Planner, Saved, Step, Surveyed};
use maglev_model::{Change, Delta, Name, Refusal, Resolution, Rules, Services, Vip};

use crate::addresses::Addresses;
use crate::health::{Fleet, Orders};

mod admission;
mod backoff;
mod check;
mod check_paths;
mod departing;
mod event;
mod needed;
mod preview;
mod publish;
mod saving;
mod serving;
mod succession;
mod view;

pub use admission::Denied;
pub use backoff::Backoff;
use departing::Departing;
pub use event::{Draft, Effect, Event, Interfaces, Members, RequestId, Settings, Successor};
pub use needed::Needed;
pub use preview::Previewed;
use serving::Served;
pub use serving::{BackendUse, PoolUse, ServedVip, Serving};
pub use view::{BackendView, NextHopView, OutOfSync, PoolView, View, VipView};

/// A change that waits for the next flush.
#[derive(Debug)]
enum Wish {
    /// The change, whether it is forced, and its effect.
    Change(Change, bool, Delta),
    /// The services that the store holds.
    Load,
    /// Services that are to be saved, and how they differ from those before.
    Replace(Arc<Services>, Delta),
    /// Another data plane.
    Succeed,
}

/// Requests in the order in which they came.
type Batch = Vec<(RequestId, Wish)>;

/// The operation under way.
#[derive(Debug)]
enum Phase {
    Idle,
    /// These steps are being carried out.
    Publishing {
        batch: Batch,
        steps: Vec<Step>,
        complete: bool,
    },
}

/// All mutable state of the daemon.
#[derive(Debug)]
pub struct Reconciler {
    settings: Settings,
    /// The services on the disk. While nothing changes, this, `working` and `target` are the same and share their memory.
    saved: Arc<Services>,
    /// The services on the disk once all collected changes are written.
    working: Arc<Services>,
    collected: Batch,
    /// The services that are being saved. Results of checks and next hops are published meanwhile, unless the disk answers soon.
    saving: Option<Saving>,
    /// Requests that were saved while a plan was under way: the next plan is theirs.
    ready: Batch,
    /// A next hop, an interface or an address of the host changed since the last plan.
    stirred: bool,
    /// Next hops or standings of backends may differ from those that the last plan was made with.
    reaches_outdated: bool,
    phase: Phase,
    flush_again: bool,
    /// The data plane that the next plan is for, and its request.
    successor: Option<(RequestId, Box<Successor>)>,
    /// The services that are or are being published.
    target: Arc<Services>,
    target_digest: Digest,
    /// The same without VIPs that cannot be served, and with removed ones that are still served: the services that packets meet.
    served: Arc<Services>,
    /// The services that packets meet after the last plan: an attempt at it after a failure serves no others.
    planned: Served,
    /// The services that packets meet since a plan was last carried out to its end; `None` before the first.
    settled: Option<Served>,
    /// Removed VIPs that another daemon served: neighbors may still send packets for them.
    leaving: Vec<Vip>,
    departing: Departing,
    /// VIPs that cannot be served, and why.
    conflicts: BTreeMap<Name, String>,
    /// The served VIPs have to be determined anew, though services did not change.
    served_outdated: bool,
    resolutions: BTreeMap<IpAddr, Resolution>,
    /// The addresses whose next hops are unresolved, and since when.
    lost: BTreeMap<IpAddr, Duration>,
    /// The addresses whose next hops are followed.
    followed: Addresses,
    planner: Planner,
    /// A plan that failed. It is carried out again before any other.
    unfinished: Option<Planned>,
    /// Why the last plan failed, and when the next attempt is due; until one reaches the desired state.
    failing: Option<Backoff>,
    /// Why removed members are not cleared, if that failed: it is tried again, before any other plan.
    unclosed: Option<String>,
    /// The next hops of adopted members as another daemon knew them, until they are known here.
    adopted: BTreeMap<IpAddr, NextHop>,
    /// When they are no longer trusted.
    adopted_until: Duration,
    /// The time of the last event.
    now: Duration,
    survey: Survey,
    fleet: Fleet,
    /// The targets, and how they are checked.
    checked: Orders,
    /// Whether check results are not planned yet.
    restless: bool,
}

/// Services that are being saved.
#[derive(Debug)]
struct Saving {
    /// For these requests.
    batch: Batch,
    services: Arc<Services>,
    /// Plans wait for the disk until then, so that a burst becomes one plan.
    until: Duration,
}

/// How long plans wait for the disk.
const DISK: Duration = Duration::from_millis(100);

/// Surveys of the flow tables, one after the other.
#[derive(Clone, Copy, Debug)]
enum Survey {
    /// The next one may begin at this time.
    Due(Duration),
    Running,
}

/// The pause after a survey: each walks through all of the flow tables.
const SURVEY_PAUSE: Duration = Duration::from_secs(2);

/// How long the earlier next hops of adopted members are trusted: neighbors that answer do so long before, and a silent one
/// is known by then.
const ADOPTED: Duration = Duration::from_secs(5);

impl Reconciler {
    /// A daemon that has read nothing and published nothing. Its first event is an [`Event::Load`] with the services
    /// from disk.
    pub fn new(settings: Settings) -> Self {
        let (Rules { limits, outer }, packets) = (settings.rules, settings.packets);
        Self {
            fleet: Fleet::new(settings.common_failure),
            checked: Orders::new(),
            restless: false,
            settings,
            saved: Arc::default(),
            working: Arc::default(),
            collected: Vec::new(),
            saving: None,
            ready: Vec::new(),
            stirred: false,
            reaches_outdated: true,
            phase: Phase::Idle,
            flush_again: false,
            successor: None,
            target: Arc::default(),
            target_digest: Digest::from_services(&Services::default()),
            served: Arc::default(),
            planned: Served::default(),
            settled: None,
            leaving: Vec::new(),
            departing: Departing::default(),
            conflicts: BTreeMap::new(),
            served_outdated: false,
            resolutions: BTreeMap::new(),
            lost: BTreeMap::new(),
            followed: Addresses::default(),
            planner: Planner::new(limits, outer).with_packets(packets),
            unfinished: None,
            failing: None,
            unclosed: None,
            adopted: BTreeMap::new(),
            adopted_until: Duration::ZERO,
            now: Duration::ZERO,
            survey: Survey::Due(Duration::ZERO),
        }
    }

    /// A daemon that continues where another ended, whose maps it adopted.
    pub fn adopt(settings: Settings, planner: Planner, now: Duration) -> Self {
        let (adopted, planner) = (planner.next_hops(), planner.with_packets(settings.packets));
        Self { adopted, planner, adopted_until: now + ADOPTED, now, ..Self::new(settings) }
    }

    /// The backends that another daemon used at its end, whether or not its maps are there: until they have been checked,
    /// these are used and no others.
    pub fn recall(&mut self, in_use: InUse) {
        self.fleet.recall(in_use);
    }

    /// The state that the next daemon needs to continue where this one ends, once the last plan is carried out.
    pub fn save(&mut self) -> Saved {
        self.planner.save().with_served(self.planned.services.vips.values())
    }

    /// Continues to serve VIPs that another daemon served, if they are removed and their pools exist; until
    /// [`Self::let_go`].
    pub fn keep_serving(&mut self, vips: Vec<Vip>) {
        self.leaving = vips;
    }

    /// Removed VIPs are no longer served, from the next [`Event::Flush`] on.
    pub fn let_go(&mut self) {
        self.served_outdated |= !self.leaving.is_empty();
        self.leaving.clear();
    }

    /// Processes an event and returns effects, in their order. `now` is the time since some start that is the same
    /// for a daemon that continues where this one ends.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        self.now = self.now.max(now);
        let mut effects = self.take(event);
        effects.extend(self.begin_survey());
        let news = self.fleet.take_news();
        effects.extend((!news.is_empty()).then_some(Effect::News(news)));
        effects
    }

    /// When [`Event::Tick`] is due, if no other event comes before.
    pub fn deadline(&self) -> Option<Duration> {
        if !matches!(self.phase, Phase::Idle) {
            return None;
        }
        if self.unfinished.is_some() {
            let next = self.failing.as_ref().map(Backoff::next);
            let lost = self.lost.values().map(|since| *since + HOLD).filter(|at| self.now < *at);
            return lost.chain(next).chain(self.fleet.deadline()).chain(self.resolving_until()).min();
        }
        let survey = match self.survey {
            Survey::Due(at) if !self.planner.surveys(&self.served).is_empty() => Some(at),
            Survey::Due(_) | Survey::Running => None,
        };
        let adopted = (!self.adopted.is_empty()).then_some(self.adopted_until);
        let health = self.fleet.deadline();
        let others = [adopted, health, self.planner.deadline(), self.impatient(), self.resolving_until()];
        survey.into_iter().chain(others.into_iter().flatten()).min()
    }

    fn take(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Change { request, change, force } => self.collect(request, change, force),
            Event::Load { request, services } => self.load(request, Arc::new(services)),
            Event::Replace { request, services } => self.replace(request, Arc::new(services)),
            Event::Flush => self.flush(),
            Event::Persisted(outcome) => self.persisted(outcome),
            Event::Published(outcome) => self.published(outcome),
            Event::Forget(vips) => {
                self.forget(vips);
                self.publish_when_idle(Vec::new())
            }
            Event::Closed(outcome) => {
                self.unclosed = outcome.err();
                Vec::new()
            }
            Event::NextHop { address, resolution } => {
                if matches!(resolution, Resolution::Resolved { .. }) {
                    self.adopted.remove(&address);
                    self.lost.remove(&address);
                } else {
                    self.lost.entry(address).or_insert(self.now);
                }
                (self.stirred, self.reaches_outdated) = (true, true);
                self.resolutions.insert(address, resolution);
                Vec::new()
            }
            Event::Checked { target, last } => {
                let changed = self.fleet.checked(&target, last, self.now);
                self.note_standings(changed);
                Vec::new()
            }
            Event::Tick => self.tick(),
            Event::Surveyed(found) => self.surveyed(found),
            Event::Interfaces(interfaces) => {
                (self.stirred, self.reaches_outdated) = (true, true);
                self.settings.interfaces = interfaces;
                Vec::new()
            }
            Event::Succeed { request, successor } => {
                self.successor = Some((request, successor));
                self.publish_when_idle(Vec::new())
            }
            Event::Host(host) => self.need(Needed { host, ..self.settings.needed.clone() }),
            Event::Configured(configured) => self.need(Needed { configured, ..self.settings.needed.clone() }),
        }
    }

    /// Whether results of checks changed the used backends, or the parts of their weights.
    const fn note_standings(&mut self, changed: bool) {
        self.restless |= changed;
        self.reaches_outdated |= changed;
    }

    /// Whether check results wait for [`Event::Flush`].
    pub const fn is_restless(&self) -> bool {
        self.restless
    }

    /// The services that are or are being published.
    pub fn services(&self) -> &Services {
        &self.target
    }

    /// Their digest.
    pub const fn services_digest(&self) -> Digest {
        self.target_digest
    }

    /// The VIPs that cannot be served, and why.
    pub const fn conflicts(&self) -> &BTreeMap<Name, String> {
        &self.conflicts
    }

    /// The numbers of the VIPs that are planned: the indices of their counters.
    pub fn vip_ids(&self) -> Vec<(Name, VipId)> {
        self.target.vips.keys().filter_map(|name| Some((name.clone(), self.planner.vip(name)?))).collect()
    }

    /// Whether nothing is under way and nothing waits.
    pub fn is_idle(&self) -> bool {
        let waits = !self.collected.is_empty() || self.saving.is_some() || !self.ready.is_empty();
        let waits = waits || !self.departing.is_empty() || self.successor.is_some();
        matches!(self.phase, Phase::Idle) && !waits && self.unfinished.is_none()
    }

    /// Applies the time.
    fn tick(&mut self) -> Vec<Effect> {
        let mut due = self.planner.deadline().is_some_and(|deadline| deadline <= self.now);
        if self.adopted_until <= self.now {
            let adopted = !std::mem::take(&mut self.adopted).is_empty();
            self.reaches_outdated |= adopted;
            due |= adopted;
        }
        if self.fleet.deadline().is_some_and(|deadline| deadline <= self.now) {
            let changed = self.fleet.tick(self.now);
            self.note_standings(changed);
        }
        due |= self.restless && self.saving.is_none();
        due |= self.impatient().is_some_and(|until| until <= self.now);
        due |= self.unfinished.is_some() && !self.is_pausing();
        if due && matches!(self.phase, Phase::Idle) { self.publish(Vec::new()) } else { Vec::new() }
    }

    fn surveyed(&mut self, found: Vec<Surveyed>) -> Vec<Effect> {
        self.survey = Survey::Due(self.now + SURVEY_PAUSE);
        if !self.planner.surveyed(found) {
            return Vec::new();
        }
        if matches!(self.phase, Phase::Idle) {
            return self.publish(Vec::new());
        }
        self.flush_again = true;
        Vec::new()
    }

    /// Begins a survey if one is due, and all slots that it may settle are published.
    pub(super) fn begin_survey(&mut self) -> Option<Effect> {
        let due = matches!(self.survey, Survey::Due(at) if at <= self.now);
        if !due || !matches!(self.phase, Phase::Idle) || self.unfinished.is_some() {
            return None;
        }
        let orders = self.planner.surveys(&self.served);
        if orders.is_empty() {
            return None;
        }
        self.survey = Survey::Running;
        Some(Effect::Survey(orders))
    }
}

fn refuse(request: RequestId, refusal: Refusal) -> Effect {
    Effect::Reply { request, outcome: Err(refusal) }
}

#[cfg(test)]
pub(crate) mod tests;
