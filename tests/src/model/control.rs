//! A node's control plane: it takes in what it is told of backends and publishes it as the daemon's planner does, with the
//! daemon's own rules for transitions. It must not know what other nodes know, nor which backends really live.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use maglev_common::backend::MemberId;
use maglev_common::table::{PoolIndex, PoolWord, TableIndex};
use maglev_daemon::transition::{Change, Survey, Transition};

use super::design::{Design, Fresh};
use super::node::Node;
use super::ownership::{NOBODY, Ownership, Weights};
use super::{Millis, NEVER, SECOND};

/// How long a node waits between two looks at its flow tables while a slot is tracked.
const SURVEY_INTERVAL: Millis = 10 * SECOND;

/// What a node knows of a backend's standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not configured.
    Absent,
    /// It takes new connections.
    Active,
    /// It keeps those that it has.
    Draining,
    /// Disabled or dead.
    Down,
}

/// What a node is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) backend: u16,
    pub(super) standing: Standing,
    pub(super) weight: u16,
    /// When the backend came by its standing.
    pub(super) since: Millis,
}

/// What a node knows.
#[derive(Clone, Copy, Debug)]
struct Known {
    standing: Standing,
    weight: u16,
    since: Millis,
    /// Its member id while it lives, else nobody.
    member: MemberId,
}

/// A pool: its backends, by number, and its slots.
struct Pool {
    index: PoolIndex,
    backends: Range<u16>,
    transition: Transition,
}

/// The control plane of one node.
pub(super) struct Control {
    design: Design,
    known: Vec<Known>,
    pools: Vec<Pool>,
    ids: Ids,
    survey_at: Millis,
    /// Until then it is not running.
    deaf_until: Millis,
}

impl Control {
    /// It knows of no backend yet.
    pub(super) fn new(design: Design, pools: &[Range<u16>], ids: u16) -> Self {
        let absent = Known { standing: Standing::Absent, weight: 0, since: 0, member: MemberId::NOBODY };
        let backends = pools.iter().map(|pool| pool.end).max().unwrap_or(0);
        let pool = |(index, backends): (u16, &Range<u16>)| Pool {
            index: PoolIndex(index),
            backends: backends.clone(),
            transition: Transition::new(),
        };
        Self {
            design,
            known: vec![absent; backends.into()],
            pools: (0..).zip(pools).map(pool).collect(),
            ids: Ids::new(ids),
            survey_at: NEVER,
            deaf_until: 0,
        }
    }

    /// Which backend a member is.
    #[inline]
    pub(super) fn backend(&self, member: MemberId) -> Option<u16> {
        self.ids.0.get(usize::from(member.get())).copied().flatten()
    }

    /// Whether a slot of a pool is in transition.
    pub(super) fn is_moving(&self, pool: u8, slot: usize) -> bool {
        self.pools[usize::from(pool)].transition.is_moving(slot)
    }

    /// The backend that owns a slot.
    pub(super) fn owner(&self, pool: u8, slot: usize) -> Option<u16> {
        self.backend(self.pools[usize::from(pool)].transition.owners()[slot])
    }

    /// How many slots are in which phase, in words.
    pub(super) fn progress(&self) -> String {
        let progress = self.pools.iter().map(|pool| pool.transition.progress());
        let (learning, tracked) =
            progress.fold((0, 0), |(a, b), progress| (a + progress.learning, b + progress.tracked));
        format!("{learning} slots learn, {tracked} are tracked")
    }

    /// Takes in what changed at once, and publishes it: new members' records, tables, the pool's word; then the dead.
    pub(super) fn told(&mut self, node: &Node, tables: &mut Ownership, news: &[News], now: Millis) {
        let mut dead = Vec::new();
        for &News { backend, standing, weight, since } in news {
            let known = &mut self.known[usize::from(backend)];
            let lives = matches!(standing, Standing::Active | Standing::Draining);
            if !lives && !known.member.is_nobody() {
                dead.push(std::mem::take(&mut known.member));
            }
            if lives && known.member.is_nobody() {
                known.member = self.ids.take(backend);
                let pool = self.pools.iter().find(|pool| pool.backends.contains(&backend));
                pool.into_iter().for_each(|pool| node.write_member(known.member, pool.index));
            }
            *known = Known { standing, weight, since, ..*known };
        }
        for pool in 0..self.pools.len() {
            if news.iter().any(|news| self.pools[pool].backends.contains(&news.backend)) {
                self.change(pool, tables, now);
                self.publish(pool, node);
            }
        }
        for member in dead {
            node.bury_member(member);
            self.ids.release(member);
        }
        self.mind_surveys(now);
    }

    /// The daemon's process ends; until the time given, nothing is taken in and no deadline minded.
    pub(super) fn stop_until(&mut self, time: Millis) {
        self.deaf_until = time;
    }

    /// Starts anew over maps of zeroes: history is lost.
    pub(super) fn start_fresh(&mut self, node: &Node, tables: &mut Ownership, now: Millis) {
        self.ids = Ids::new(self.ids.0.len() as u16 - 1);
        self.survey_at = NEVER;
        for pool in 0..self.pools.len() {
            let Pool { index, ref backends, .. } = self.pools[pool];
            for backend in backends.clone() {
                let known = &mut self.known[usize::from(backend)];
                if !known.member.is_nobody() {
                    known.member = self.ids.take(backend);
                    node.write_member(known.member, index);
                }
            }
            self.pools[pool].transition = Transition::new();
            self.change(pool, tables, now);
            self.derive(pool, tables, now);
            self.publish(pool, node);
        }
        self.mind_surveys(now);
    }

    /// When there is something to do next.
    pub(super) fn due(&self) -> Millis {
        let deadline =
            |pool: &Pool| pool.transition.deadline().map_or(NEVER, |deadline| deadline.as_millis() as Millis);
        let due = self.pools.iter().map(deadline).min().unwrap_or(NEVER).min(self.survey_at);
        due.max(self.deaf_until)
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, node: &Node, now: Millis) {
        for pool in 0..self.pools.len() {
            if self.pools[pool].transition.expire(time(now)) {
                self.publish(pool, node);
            }
        }
        if self.survey_at <= now {
            for pool in 0..self.pools.len() {
                self.survey(pool, node, now);
            }
            self.survey_at = NEVER;
        }
        self.mind_surveys(now);
    }

    /// Gives slots to whom the table gives them.
    fn change(&mut self, pool: usize, tables: &mut Ownership, now: Millis) {
        let owners = self.owners(pool, tables, |standing| standing == Standing::Active);
        let Self { design, known, pools, .. } = self;
        let Pool { backends, transition, .. } = &mut pools[pool];
        let living = living(known, backends);
        let lives = |member: MemberId| design.has_transitions() && living[usize::from(member.get())];
        transition.change(Change {
            owners: &owners,
            lives: &lives,
            now: time(now),
            learning: Duration::from_secs(design.learning().into()),
        });
    }

    /// Draining members owned slots once: those that the table would give them.
    fn derive(&mut self, pool: usize, tables: &mut Ownership, now: Millis) {
        let Design::Exception { learning, fresh } = self.design else { return };
        let lives = |standing| matches!(standing, Standing::Active | Standing::Draining);
        let before = self.owners(pool, tables, lives);
        let Self { known, pools, .. } = self;
        let Pool { backends, transition, .. } = &mut pools[pool];
        let all = &known[usize::from(backends.start)..usize::from(backends.end)];
        for draining in all.iter().filter(|known| known.standing == Standing::Draining) {
            let from = match fresh {
                Fresh::FromStart => now,
                Fresh::WithTheOthers => draining.since,
            };
            let deadline = from + learning * SECOND;
            if deadline > now {
                transition.derive(&before, &|member| member == draining.member, time(deadline));
            }
        }
    }

    /// Per slot the member that owns it if these backends take part.
    fn owners(&self, pool: usize, tables: &mut Ownership, takes_part: impl Fn(Standing) -> bool) -> Vec<MemberId> {
        let of = |backend: u16| &self.known[usize::from(backend)];
        let backends = self.pools[pool].backends.clone();
        let weights: Weights = backends
            .filter(|&backend| takes_part(of(backend).standing))
            .map(|backend| (backend, of(backend).weight))
            .collect();
        let member = |&backend: &u16| if backend == NOBODY { MemberId::NOBODY } else { of(backend).member };
        tables.of(weights).iter().map(member).collect()
    }

    fn publish(&self, pool: usize, node: &Node) {
        let Pool { index, transition, .. } = &self.pools[pool];
        // No packet comes meanwhile: the tables in use are filled anew.
        let [current, previous] = [1, 2].map(|table| TableIndex(2 * index.0 + table));
        node.fill_table(current, transition.words());
        let mut word = PoolWord::settled(current);
        if let Some(words) = transition.previous_words() {
            node.fill_table(previous, words);
            word = word.learning(previous);
        }
        node.switch_pool(*index, self.design.tracked(word));
    }

    /// Looks for flows that belong elsewhere than to their slot's owner, and settles the slots that have none.
    fn survey(&mut self, pool: usize, node: &Node, now: Millis) {
        let Self { known, pools, .. } = self;
        let Pool { backends, transition, .. } = &mut pools[pool];
        let living = living(known, backends);
        let binds = |member: MemberId| living[usize::from(member.get())];
        let mut survey = Survey::new(Arc::new(transition.clone()), node.seconds(now), node.idle());
        node.clear(|entry| binds(entry.member()) && survey.look(entry));
        let (_, pinned) = survey.end();
        if transition.settle(&pinned) {
            self.publish(pool, node);
        }
    }

    /// Plans the next look at the flow tables, if a slot waits for one.
    fn mind_surveys(&mut self, now: Millis) {
        let is_tracked = self.pools.iter().any(|pool| pool.transition.progress().tracked > 0);
        self.survey_at = if is_tracked { self.survey_at.min(now + SURVEY_INTERVAL) } else { NEVER };
    }
}

/// By id, whether it is a living member of these backends.
fn living(known: &[Known], backends: &Range<u16>) -> Vec<bool> {
    let mut living = vec![false; usize::from(MemberId::MAX) + 1];
    for known in &known[usize::from(backends.start)..usize::from(backends.end)] {
        living[usize::from(known.member.get())] = !known.member.is_nobody();
    }
    living
}

fn time(now: Millis) -> Duration {
    Duration::from_millis(now.into())
}

/// Member ids: which backend has each, if any. They are given out in a cycle.
struct Ids(Vec<Option<u16>>, usize);

impl Ids {
    fn new(limit: u16) -> Self {
        Self(vec![None; usize::from(limit) + 1], 0)
    }

    fn take(&mut self, backend: u16) -> MemberId {
        let Self(backends, cursor) = self;
        let count = backends.len();
        let free = |&id: &usize| id != 0 && backends[id].is_none();
        let id = (1..=count).map(|step| (*cursor + step) % count).find(free).expect("a free member id");
        *cursor = id;
        backends[id] = Some(backend);
        MemberId::from_low_bits(id as u16)
    }

    fn release(&mut self, member: MemberId) {
        self.0[usize::from(member.get())] = None;
    }
}
