//! Admission: whether a change may be made, with which facts. The one gate of every source of changes: the command line, a reload,
//! and previews. And the outcome of a batch that cannot be saved. It must not know plans.
//!
//! Facts beside the services are the addresses that the node needs, and the connections that a draining backend has left. Rules that
//! cannot be forced are checked first.

use std::net::IpAddr;
use std::sync::Arc;

use maglev_model::{AdminState, Backend, Change, Delta, Difference, Leftover, Name, Pool, Refusal, Services, Touched};

use super::{Batch, Effect, Needed, Reconciler, RequestId, Wish, refuse};

/// Why services that were read are not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// They are wrong on this node, one line for each fault.
    Invalid(Vec<String>),
    /// They take more out of service than is allowed without force.
    Refused(Refusal),
}

impl Reconciler {
    /// Whether a change may be made, as far as the services alone do not decide it.
    ///
    /// # Errors
    /// The use that would be cut off, and the remedy.
    pub(super) fn review_change(&self, change: &Change, force: bool) -> Result<(), Refusal> {
        self.settings.needed.check_change(change, &self.working)?;
        if force {
            return Ok(());
        }
        if let Change::RemoveBackend { pool, backend, .. } = change
            && let Some(pool) = self.working.pools.get(pool)
            && let Some(backend) = pool.backends.get(backend)
        {
            self.check_drained(pool, backend)?;
        }
        self.working.guard_change(change)
    }

    /// Whether other services may be applied as a whole, and their changes.
    ///
    /// # Errors
    /// The use that would be cut off, and the remedy.
    pub fn review(&self, services: &Services, force: bool) -> Result<Difference, Denied> {
        self.settings.needed.check_services(&self.target, services).map_err(Denied::Invalid)?;
        if !force {
            self.saved.guard(services).map_err(Denied::Refused)?;
            self.check_all_drained(services).map_err(Denied::Refused)?;
        }
        Ok(self.difference(services))
    }

    /// Whether these addresses of another `maglev.yaml` may be the node's, with these services.
    ///
    /// # Errors
    /// The use that a VIP would cut off.
    pub fn review_configured(&self, configured: &[(IpAddr, String)], services: &Services) -> Result<(), Denied> {
        self.settings.needed.check_configured(configured, services).map_err(Denied::Invalid)
    }

    /// From now on no VIP may have these addresses.
    pub(super) fn need(&mut self, needed: Needed) -> Vec<Effect> {
        self.stirred = true;
        self.served_outdated |= self.settings.needed != needed;
        self.settings.needed = needed;
        Vec::new()
    }

    /// The changes that other services would make.
    pub fn difference(&self, services: &Services) -> Difference {
        self.saved.difference(services)
    }

    /// The connections of a backend beside those of its own slots.
    pub(super) fn leftover(&self, of: &Name, backend: &Backend) -> Leftover {
        let pool = self.planner.pool(of);
        let id = pool.and_then(|pool| pool.member(&backend.name, backend.address));
        let learning = pool.zip(id).and_then(|(pool, id)| pool.progress().learning_for.get(&id)).copied();
        let pinned = pool.and_then(|pool| pool.pinned()).map(|pinned| id.map_or(0, |id| pinned.to(id)));
        Leftover { learning_slots: learning.unwrap_or(0), pinned_flows: pinned }
    }

    /// Refuses to remove a backend that is draining and has connections left: only a drain promises to keep them.
    fn check_drained(&self, pool: &Pool, backend: &Backend) -> Result<(), Refusal> {
        let left = self.leftover(&pool.name, backend);
        if !matches!(backend.state, AdminState::Draining { .. }) || left.is_nothing() {
            return Ok(());
        }
        let (pool, backend) = (&pool.name, &backend.name);
        Err(Refusal::Conflict(format!(
            "backend {backend} of pool {pool} is not drained: {left}; wait (maglev backend drain {pool} {backend} --wait) or \
             --force"
        )))
    }

    fn check_all_drained(&self, next: &Services) -> Result<(), Refusal> {
        let stays = |pool: &Pool, backend: &Backend| {
            let found = next.pools.get(&pool.name).and_then(|pool| pool.backends.get(&backend.name));
            found.is_some_and(|found| found.address == backend.address)
        };
        let changed = self.saved.pools.values().filter(|pool| next.pools.get(&pool.name) != Some(*pool));
        let all = changed.flat_map(|pool| pool.backends.values().map(move |backend| (pool, backend)));
        all.filter(|(pool, backend)| !stays(pool, backend))
            .try_for_each(|(pool, backend)| self.check_drained(pool, backend))
    }

    /// Admits a change, or refuses it at once.
    pub(super) fn collect(&mut self, request: RequestId, change: Change, force: bool) -> Vec<Effect> {
        let reviewed = self.review_change(&change, force);
        let (rules, touched) = (&self.settings.rules, Touched::by(&change, &self.working));
        match reviewed.and_then(|()| Arc::make_mut(&mut self.working).admit(change.clone(), rules)) {
            Ok(()) => {
                let delta = touched.delta(&self.working);
                self.collected.push((request, Wish::Change(change, force, delta)));
                Vec::new()
            }
            Err(refusal) => vec![refuse(request, refusal)],
        }
    }

    /// The services that the store holds are known.
    pub(super) fn load(&mut self, request: RequestId, services: Arc<Services>) -> Vec<Effect> {
        self.saved = Arc::clone(&services);
        self.working = services;
        self.collected.push((request, Wish::Load));
        Vec::new()
    }

    /// Other services as a whole. They would undo changes that are not saved yet, so those are refused.
    pub(super) fn replace(&mut self, request: RequestId, services: Arc<Services>) -> Vec<Effect> {
        let undone = std::mem::take(&mut self.collected);
        let before = self.saving.as_ref().map_or(&self.saved, |saving| &saving.services);
        let delta = Delta::between(before, &services);
        self.working = Arc::clone(&services);
        self.collected.push((request, Wish::Replace(services, delta)));
        let line = "all services were replaced before this was saved; try again";
        undone.into_iter().map(|(request, _)| refuse(request, Refusal::Conflict(line.to_owned()))).collect()
    }

    /// The batch was not saved. Its changes are refused; a request that shares it and needs nothing to be saved is not.
    pub(super) fn not_saved(&mut self, batch: Batch, reason: &str) -> Vec<Effect> {
        let refusal = Refusal::Failed(format!("not saved, nothing changed: {reason}"));
        let (saved, changes): (Batch, Batch) = batch.into_iter().partition(is_saved);
        let mut effects: Vec<_> = changes.into_iter().map(|(request, _)| refuse(request, refusal.clone())).collect();
        effects.extend(self.restore());
        effects.extend(if saved.is_empty() { self.go_on() } else { self.publish_when_idle(saved) });
        effects
    }

    /// Returns to the saved services, and admits anew the changes that were collected meanwhile.
    fn restore(&mut self) -> Vec<Effect> {
        self.working = Arc::clone(&self.saved);
        let collected = std::mem::take(&mut self.collected);
        let mut effects = Vec::new();
        for (request, wish) in collected {
            match wish {
                Wish::Change(change, force, _) => effects.extend(self.collect(request, change, force)),
                Wish::Load | Wish::Succeed => self.collected.push((request, wish)),
                Wish::Replace(services, _) => effects.extend(self.replace(request, services)),
            }
        }
        effects
    }
}

/// The changes of each request of a batch.
pub(super) fn revisions(batch: &Batch) -> Vec<(RequestId, Delta)> {
    let delta = |(request, wish): &(RequestId, Wish)| match wish {
        Wish::Change(_, _, delta) | Wish::Replace(_, delta) => Some((*request, delta.clone())),
        Wish::Load | Wish::Succeed => None,
    };
    batch.iter().filter_map(delta).filter(|(_, delta)| !delta.is_empty()).collect()
}

/// Whether a request needs nothing to be saved.
fn is_saved((_, wish): &(RequestId, Wish)) -> bool {
    match wish {
        Wish::Load | Wish::Succeed => true,
        Wish::Replace(_, delta) => delta.is_empty(),
        Wish::Change(..) => false,
    }
}
