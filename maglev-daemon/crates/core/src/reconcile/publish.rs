//! From the saved services to the published ones: the plan, its outcome, and the attempts after a failure. It must not know how a
//! plan is made, nor the source of a change.

use std::iter;
use std::sync::Arc;

use maglev_common::backend::NextHop;
use maglev_model::digest::Digest;
use maglev_model::plan::{Known, Planned};
use maglev_model::{Name, Refusal, Resolution, Services, ShownDuration, Vip};

use super::{Backoff, Batch, Effect, Interfaces, OutOfSync, Phase, Reconciler, Wish, refuse};

impl Reconciler {
    /// Publishes the saved services, if they are not published yet. After a plan that failed, only a request is attempted
    /// before the next attempt is due.
    pub(super) fn publish(&mut self, batch: Batch) -> Vec<Effect> {
        let succeeded = match self.succeed() {
            Ok(succeeded) => succeeded,
            Err(refused) => return iter::once(refused).chain(self.publish(batch)).collect(),
        };
        let mut batch: Batch = std::mem::take(&mut self.ready).into_iter().chain(batch).collect();
        let before = std::mem::replace(&mut self.target, Arc::clone(&self.saved));
        let changed = before != self.target;
        if changed {
            self.target_digest = Digest::from_services(&self.target);
        }
        if std::mem::take(&mut self.served_outdated) || changed {
            self.serve_possible_vips();
        }
        let is_asked = !batch.is_empty();
        batch = self.departing.hold(batch);
        let begins = succeeded.map(|(request, members)| {
            batch.push((request, Wish::Succeed));
            Effect::Succeed(members)
        });
        (self.restless, self.stirred) = (false, false);
        let mut effects = self.follow();
        if !is_asked && batch.is_empty() && self.is_pausing() {
            effects.extend(self.check());
            effects.extend(self.go_on());
            return effects;
        }
        let planned = match self.unfinished.take() {
            Some(planned) => Planned { complete: false, ..planned },
            None => self.plan(),
        };
        let Planned { steps, complete } = planned;
        if steps.is_empty() {
            self.settle(complete);
            effects.extend(self.check());
            if complete || self.departing.is_empty() {
                effects.extend(accept_all(&batch));
            } else {
                // Numbers are short as long as removed VIPs hold some.
                self.departing.wait(batch);
            }
            effects.extend(self.go_on());
            return effects;
        }
        effects.splice(..0, begins.into_iter().chain([Effect::Publish(steps.clone())]));
        self.phase = Phase::Publishing { batch, steps, complete };
        // New targets are checked once the packet path knows their next hops.
        effects.extend(self.check());
        effects
    }

    /// Leaves out VIPs on addresses that the node needs.
    pub(super) fn serve_possible_vips(&mut self) {
        self.conflicts = self.settings.needed.conflicts(&self.target);
        let before = std::mem::replace(&mut self.served, Arc::clone(&self.target));
        if !self.conflicts.is_empty() {
            let Self { served, conflicts, .. } = self;
            Arc::make_mut(served).vips.retain(|name, _| !conflicts.contains_key(name));
        }
        let mut places = self.target.places();
        let stay = self.leaving.iter().filter(|vip| self.can_stay(vip, &before) && places.try_insert(vip));
        let leaving: Vec<Vip> = stay.cloned().collect();
        if !leaving.is_empty() && self.target.vips.len() + leaving.len() <= self.settings.rules.limits.vips as usize {
            let Services { vips, pools, .. } = Arc::make_mut(&mut self.served);
            for vip in leaving {
                let pool = before.pools.get(&vip.pool).filter(|pool| !pools.contains_key(&pool.name));
                pools.extend(pool.map(|pool| (pool.name.clone(), pool.clone())));
                vips.insert(vip.name.clone(), vip);
            }
        }
        self.keep_departing(&before);
        self.reaches_outdated |= self.fleet.follow(&self.served, self.now);
    }

    /// Whether a removed VIP can be served a while longer, if no other has its place: no other has its name.
    fn can_stay(&self, vip: &Vip, before: &Services) -> bool {
        let Services { pools, vips, .. } = &*self.target;
        let has_pool = [pools, &before.pools].iter().any(|pools| pools.contains_key(&vip.pool));
        !vips.contains_key(&vip.name) && has_pool && self.settings.needed.conflict(vip, &self.target).is_none()
    }

    fn plan(&mut self) -> Planned {
        let Self { planner, served, resolutions, adopted, settings, fleet, now, reaches_outdated, .. } = self;
        let next_hop = |address| {
            let adopted = adopted.get(&address).copied();
            adopted.unwrap_or_else(|| next_hop(resolutions.get(&address), &settings.interfaces))
        };
        let standing = |pool: &Name, backend: &Name, address| fleet.standing(pool, backend, address);
        let unchanged = !std::mem::take(reaches_outdated);
        let planned = planner.plan(served, &Known { next_hop: &next_hop, standing: &standing, unchanged }, *now);
        self.planned = self.plan_serves();
        planned
    }

    /// A plan was carried out. `complete`: the desired state is reached.
    fn settle(&mut self, complete: bool) {
        self.failing = None;
        if complete {
            self.settled = Some(self.planned.clone());
        }
    }

    pub(super) fn published(&mut self, outcome: Result<(), String>) -> Vec<Effect> {
        let (batch, steps, complete) = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Publishing { batch, steps, complete } => (batch, steps, complete),
            other => {
                self.phase = other;
                return Vec::new();
            }
        };
        if outcome.is_ok() {
            self.planner.published(self.now);
        }
        match outcome {
            Ok(()) if complete => {
                self.settle(complete);
                let mut effects: Vec<_> = accept_all(&batch).collect();
                // Members that are new can be checked from here on.
                effects.extend(self.check());
                // Another plan may follow at once, and yet another.
                effects.extend(self.begin_survey());
                effects.extend(self.go_on());
                effects
            }
            Ok(()) => self.publish(batch),
            Err(reason) => {
                let failing = Backoff::failed(self.failing.take(), reason, self.now);
                let mut effects: Vec<_> =
                    batch.iter().map(|(request, wish)| refuse(*request, not_applied(wish, &failing))).collect();
                self.unfinished = Some(Planned { steps, complete });
                self.failing = Some(failing);
                effects.extend(self.go_on());
                effects
            }
        }
    }

    /// Whether a plan failed and its next attempt is not due yet.
    pub(super) fn is_pausing(&self) -> bool {
        self.unfinished.is_some() && self.failing.as_ref().is_some_and(|failing| self.now < failing.next())
    }

    /// Why the packet path is out of sync, if it is.
    pub fn out_of_sync(&self) -> Option<String> {
        let cleared = |why| format!("removed backends are not cleared: {why}");
        let failing = self.failing.as_ref().map(|failing| failing.reason().to_owned());
        failing.or_else(|| self.unclosed.as_ref().map(cleared))
    }

    /// Why the last plan was not carried out, and when the next attempt is due, if it is not under way.
    pub(super) fn not_published(&self) -> Option<OutOfSync> {
        let failing = self.failing.as_ref()?;
        let next = self.unfinished.as_ref().map(|_| failing.next());
        Some(OutOfSync { reason: failing.reason().to_owned(), next })
    }

    /// Orders the addresses whose next hops are followed, if they changed.
    pub(super) fn follow(&mut self) -> Vec<Effect> {
        let served = Some(&self.served).filter(|served| !Arc::ptr_eq(served, &self.target));
        let pools = self.target.pools.values().chain(served.into_iter().flat_map(|served| served.pools.values()));
        let delta = self.followed.follow(pools, self.asked());
        if delta.is_empty() {
            return Vec::new();
        }
        // Not only the removed ones: a report about an address may come after it was removed.
        let Self { resolutions, lost, followed, .. } = self;
        resolutions.retain(|address, _| followed.contains(address));
        lost.retain(|address, _| followed.contains(address));
        vec![Effect::Follow(delta)]
    }
}

/// The next hop's word; unresolved if it uses an interface that is not configured.
pub(super) fn next_hop(resolution: Option<&Resolution>, interfaces: &Interfaces) -> NextHop {
    match resolution {
        Some(Resolution::Resolved { interface, mac, gateway: _, mtu }) => {
            let hop = |&slot| NextHop::new(*mac, slot).limited_to(*mtu);
            interfaces.slots.get(interface).map_or(NextHop::UNRESOLVED, hop)
        }
        Some(Resolution::Unresolved(_)) | None => NextHop::UNRESOLVED,
    }
}

/// The refusal of a request that is not applied yet, by its order.
fn not_applied(wish: &Wish, failing: &Backoff) -> Refusal {
    let done = match wish {
        Wish::Change(..) | Wish::Replace(..) => "saved",
        Wish::Load | Wish::Succeed => "read",
    };
    let (reason, pause) = (failing.reason(), ShownDuration(failing.pause()));
    Refusal::Failed(format!("{done}, but not applied: {reason}; next try in {pause}, see `maglev status`"))
}

fn accept_all(batch: &Batch) -> impl Iterator<Item = Effect> {
    batch.iter().map(|(request, _)| Effect::Reply { request: *request, outcome: Ok(()) })
}
