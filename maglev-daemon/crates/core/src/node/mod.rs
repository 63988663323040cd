//! The node: services, health, announcements and drain in one pure machine, from events to effects in their order. It must not
//! know tasks, sockets, files or a clock.
//!
//! ```text
//!  Reconcile ──▶ Reconciler ──┬─ Serving ──▶ Announcements ── Announce ─┐
//!  Drain ──────▶ Drain ───────┼─ NodeState ─▶      │                    ├──▶ effects, then replies
//!  Sessions ──────────────────┼────────────────────┤ sent               │
//!       ▲                     ├─ Plan ───────────────────────── Publish ─┘
//!       ╰─ Forget ── Release ◀┴─ departing VIPs
//! ```
//!
//! A new prefix is announced once the packet path serves it. A removed one is withdrawn first: the packet path serves a removed VIP
//! until neighbors have moved traffic elsewhere, or had the time to; plans do not wait for that. A request is answered last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use maglev_model::node_drain::Stage;
use maglev_model::plan::{InUse, Planner};
use maglev_model::{Name, Refusal, Vip};

use crate::announce::{NodeState, Prefix};
use crate::node_drain::{self, Drain};
use crate::reconcile::{self, Members, Reconciler, RequestId, View};

mod announcements;
mod departure;
mod event;
mod latency;
mod reach;
mod release;
#[cfg(test)]
mod tests;

use announcements::{Announcements, Updated};
use departure::Departure;
pub use event::{Effect, Event, News, Plan, Settings};
use latency::TableLatency;
use reach::Reach;
use release::Release;

/// All mutable state behind the daemon's decisions.
#[derive(Debug)]
pub struct Node {
    reconciler: Reconciler,
    announcements: Announcements,
    drain: Drain,
    release: Release,
    departure: Departure,
    reach: Reach,
    /// The VIPs that cannot be served, as last reported.
    conflicts: BTreeMap<Name, String>,
    latency: TableLatency,
    /// Why no packet can be received or sent, if so.
    trouble: Option<String>,
    /// The version that neighbors must be sent before the drain leaves its stage *withdrawing*; each entry into that stage sets it anew.
    awaits: Option<Awaited>,
    keeps: bool,
    /// The time of the last event.
    now: Duration,
    /// An event requires a plan at the next flush.
    replan: bool,
    /// An event may change the announced prefixes.
    unsettled: bool,
    /// Outcomes to be answered once all their effects are ordered.
    replies: Vec<(RequestId, Result<(), Refusal>)>,
    effects: Vec<Effect>,
    /// Plans of this burst: an effect once prefixes are withdrawn.
    plans: Vec<Plan>,
    /// The members that a prepared data plane begins with: of the next plan.
    members: Option<Members>,
    generation: u64,
}

/// The version that neighbors must be sent before a drain continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// The next version of the wanted prefixes, which includes the drain's withdrawal.
    Next,
    /// This version of the wanted prefixes.
    Version(u64),
}

impl Node {
    /// A node that has read nothing and published nothing; or, with the planner of adopted maps, one that continues where another
    /// daemon ended.
    pub fn new(settings: Settings, adopted: Option<Planner>, now: Duration) -> Self {
        let Settings { reconcile, drain, announces, hold_down, keeps } = settings;
        let mut reconciler = match adopted {
            Some(planner) => Reconciler::adopt(reconcile, planner, now),
            None => Reconciler::new(reconcile),
        };
        if announces {
            reconciler.keep_removed();
        }
        Self {
            reconciler,
            announcements: Announcements::new(hold_down),
            drain: Drain::new(drain, announces),
            release: Release::default(),
            departure: Departure::default(),
            reach: Reach::default(),
            conflicts: BTreeMap::new(),
            latency: TableLatency::default(),
            trouble: None,
            awaits: None,
            keeps,
            now,
            replan: false,
            unsettled: false,
            replies: Vec::new(),
            effects: Vec::new(),
            plans: Vec::new(),
            members: None,
            generation: 0,
        }
    }

    /// Begins with the backends that another daemon used.
    pub fn recall(&mut self, in_use: InUse) {
        self.reconciler.recall(in_use);
    }

    /// Begins with the VIPs that another daemon served, whose packets were forwarded until now: removed ones are
    /// served until neighbors have received the withdrawal.
    pub fn keep_serving(&mut self, vips: Vec<Vip>) {
        if self.drain.announces() && !vips.is_empty() {
            self.departure = Departure::Early;
            self.reconciler.keep_serving(vips);
        }
    }

    /// Processes an event and returns effects, in their order. `now` is the time since some start that is the same for a
    /// daemon that continues where this one ends.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        self.now = self.now.max(now);
        match event {
            Event::Reconcile(event) => self.reconcile(event),
            Event::Drain(event) => self.drain(event),
            Event::Interfaces { interfaces, trouble } => {
                self.trouble = trouble;
                self.reconcile(reconcile::Event::Interfaces(interfaces));
            }
            Event::Sessions(sessions) => self.sessions(sessions),
            // Removals that wait for neighbors that keep prefixes are left to the next daemon: it reads services without those VIPs, and
            // serves them until neighbors have received the withdrawal.
            Event::SessionsEnded { kept: true } => {}
            Event::SessionsEnded { kept: false } => {
                let all = self.reconciler.departing().map(|vip| vip.name.clone()).collect();
                self.forget(all);
            }
            Event::Tick => {
                self.reconcile(reconcile::Event::Tick);
                self.drain(node_drain::Event::Tick);
                if self.departure.ends(self.now) {
                    self.reconciler.let_go();
                }
            }
            Event::Flush => self.flush(),
        }
        std::mem::take(&mut self.effects)
    }

    /// When [`Event::Tick`] is due, if no other event comes before.
    pub fn deadline(&self) -> Option<Duration> {
        let Self { reconciler, drain, announcements, release, departure, .. } = self;
        let of_plans = [reconciler.deadline(), release.deadline(), departure.deadline()];
        of_plans.into_iter().chain([drain.deadline(), announcements.deadline()]).flatten().min()
    }

    /// Answers questions about services, changes and checks.
    pub const fn reconciler(&self) -> &Reconciler {
        &self.reconciler
    }

    /// The state of the services at this moment.
    pub fn view(&self) -> View {
        self.reconciler.view()
    }

    /// The drain of the node.
    pub const fn node_drain(&self) -> &Drain {
        &self.drain
    }

    /// Why no packet can be received or sent, if so.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Every prefix, and why it is withheld if it is.
    pub fn prefixes(&self) -> Arc<Vec<Prefix>> {
        self.announcements.prefixes()
    }

    /// Grows with every event that changes the node's view, except check results that change nothing else.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the node as a whole may announce anything.
    pub fn state(&self) -> NodeState {
        let drain = match self.drain.stage() {
            None => NodeState::Serving,
            Some(stage) if stage < Stage::Withdrawing => NodeState::Leaving,
            Some(_) => return NodeState::Drained,
        };
        self.trouble.clone().map_or(drain, NodeState::Unable)
    }

    /// The reason that neighbors are sent when the daemon stops, and whether all prefixes must be withdrawn.
    pub fn last_words(&self) -> (String, bool) {
        match self.drain.progress() {
            None => ("maglevd is stopping".into(), false),
            Some(progress) => (progress.last_words(), self.drain.stage() >= Some(Stage::Withdrawing)),
        }
    }

    fn reconcile(&mut self, event: reconcile::Event) {
        let checked = if let reconcile::Event::Checked { last, .. } = &event { Some(last.at) } else { None };
        if let reconcile::Event::NextHop { address, resolution } = &event {
            self.reach.moved(*address, resolution);
        }
        if matches!(event, reconcile::Event::Published(Ok(()))) {
            let took = self.latency.published(self.now);
            took.into_iter().for_each(|took| self.report(News::TablesFollow(took)));
        }
        let before = self.reconciler.out_of_sync();
        let effects = self.reconciler.handle(event, self.now);
        let after = self.reconciler.out_of_sync();
        if before.is_some() != after.is_some() {
            self.report(News::OutOfSync(after));
        }
        let restless = self.reconciler.is_restless();
        if restless {
            checked.into_iter().for_each(|at| self.latency.checked(at));
        }
        // Most checks confirm the known health: a plan for each would be most of the work.
        if restless || checked.is_none() {
            (self.replan, self.unsettled) = (true, true);
            self.generation += 1;
        }
        effects.into_iter().for_each(|effect| self.pass_on(effect));
    }

    fn pass_on(&mut self, effect: reconcile::Effect) {
        self.effects.push(match effect {
            reconcile::Effect::Persist(draft) => Effect::Persist(draft),
            reconcile::Effect::Publish(steps) => {
                self.latency.planned();
                let saved = self.keeps.then(|| self.reconciler.save());
                return self.plans.push(Plan { steps, saved, members: self.members.take() });
            }
            reconcile::Effect::Succeed(members) => return self.members = Some(members),
            reconcile::Effect::Survey(orders) => Effect::Survey(orders),
            reconcile::Effect::Follow(addresses) => Effect::Follow(addresses),
            reconcile::Effect::Check(orders) => Effect::Check(orders),
            reconcile::Effect::News(news) => return news.into_iter().for_each(|news| self.report(News::Health(news))),
            reconcile::Effect::Reply { request, outcome } => return self.replies.push((request, outcome)),
        });
    }

    fn drain(&mut self, event: node_drain::Event) {
        let effects = self.drain.handle(event, self.now);
        self.unsettled |= !effects.is_empty();
        self.generation += 1;
        for effect in effects {
            match effect {
                node_drain::Effect::Save(record) => self.effects.push(Effect::SaveDrain(record)),
                node_drain::Effect::Count => self.effects.push(Effect::Count(self.reconciler.vip_ids())),
                node_drain::Effect::AwaitSent => self.awaits = Some(Awaited::Next),
                node_drain::Effect::Entered(stage) => self.report_stage(stage),
                node_drain::Effect::Ended => self.report(News::Serving),
                node_drain::Effect::Reply { request, outcome } => self.replies.push((request, outcome)),
            }
        }
    }

    fn report_stage(&mut self, stage: Stage) {
        if let Some(node_drain::Progress { order, forwarded, .. }) = self.drain.progress() {
            let (order, forwarded) = (order.clone(), forwarded);
            self.report(News::Stage { stage, order, forwarded });
        }
    }

    fn sessions(&mut self, sessions: Vec<maglev_model::bgp::NeighborStatus>) {
        let news = self.announcements.follow(sessions);
        if !news.is_empty() {
            self.report(News::Prefixes(news));
        }
        self.note_sent();
    }

    /// Continues drains and removals that wait for neighbors.
    fn note_sent(&mut self) {
        if self.announcements.has_neighbors() {
            self.departure.sessions(self.announcements.is_complete(), self.now);
        }
        self.release.sent(|version| self.announcements.is_known(version), self.now);
        if self.awaits == Some(Awaited::Next) && self.announcements.has_neighbors() && !self.unsettled {
            self.awaits = Some(Awaited::Version(self.announcements.wanted().version));
        }
        if let Some(Awaited::Version(version)) = self.awaits
            && self.announcements.is_sent(version)
        {
            self.awaits = None;
            self.drain(node_drain::Event::Sent);
        }
    }

    /// Ends a burst: plans for the collected events, announces prefixes, publishes, and answers.
    fn flush(&mut self) {
        if std::mem::take(&mut self.replan) {
            self.reconcile(reconcile::Event::Flush);
            self.replan = false;
        }
        self.settle();
        let due = self.release.due(self.reconciler.departing(), self.now);
        self.forget(due);
        let replies = std::mem::take(&mut self.replies);
        self.effects.extend(replies.into_iter().map(|(request, outcome)| Effect::Reply { request, outcome }));
    }

    /// Announces prefixes that can be served, then publishes the plan.
    fn settle(&mut self) {
        if std::mem::take(&mut self.unsettled) {
            self.announce();
            self.look();
            self.note_sent();
        }
        self.effects.extend(self.plans.drain(..).map(Effect::Publish));
    }

    /// Stops serving VIPs that were removed.
    fn forget(&mut self, vips: BTreeSet<Name>) {
        if !vips.is_empty() {
            self.reconcile(reconcile::Event::Forget(vips));
            self.replan = false;
            self.settle();
        }
    }

    fn announce(&mut self) {
        let state = self.state();
        let Updated { changed, withdrawn } = self.announcements.update(&self.reconciler.serving(), &state, self.now);
        let wanted = self.announcements.wanted();
        if self.announcements.has_neighbors() {
            self.release.withdraw(withdrawn, wanted.version, self.now);
        }
        if changed {
            self.generation += 1;
            self.effects.push(Effect::Announce { wanted, prefixes: self.announcements.prefixes() });
        }
    }

    /// Reports changes of backends and VIPs.
    fn look(&mut self) {
        let Self { reconciler, reach, conflicts, .. } = self;
        let mut news = reach.news(reconciler.services(), reconciler.services_digest());
        let now = reconciler.conflicts();
        if conflicts != now {
            let vip =
                |(vip, conflict): (&Name, Option<&String>)| News::Vip { vip: vip.clone(), conflict: conflict.cloned() };
            let new = now.iter().filter(|(vip, why)| conflicts.get(*vip) != Some(*why));
            news.extend(new.map(|(name, why)| vip((name, Some(why)))));
            news.extend(conflicts.keys().filter(|name| !now.contains_key(*name)).map(|name| vip((name, None))));
            conflicts.clone_from(now);
        }
        news.into_iter().for_each(|news| self.report(news));
    }

    fn report(&mut self, news: News) {
        self.effects.push(Effect::News(news));
    }
}
