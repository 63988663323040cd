//! What is admitted into the next batch, and what becomes of it if the batch cannot be saved. It must not know plans.

use std::sync::Arc;

use maglev_model::{Change, Difference, Refusal, Services};

use super::{Batch, Effect, Phase, Reconciler, RequestId, Wish, refuse};

impl Reconciler {
    /// What a reload would change.
    ///
    /// # Errors
    /// It takes out of service more than it may without force.
    pub fn review(&self, services: &Services, force: bool) -> Result<Difference, Refusal> {
        if !force {
            self.saved.guard(services)?;
        }
        Ok(self.saved.difference(services))
    }

    /// Admits a change, or refuses it at once.
    pub(super) fn collect(&mut self, request: RequestId, change: Change, force: bool) -> Vec<Effect> {
        let guarded = if force { Ok(()) } else { self.working.guard_change(&change) };
        let rules = &self.settings.rules;
        match guarded.and_then(|()| Arc::make_mut(&mut self.working).admit(change.clone(), rules)) {
            Ok(()) => {
                self.collected.push((request, Wish::Change(change, force)));
                Vec::new()
            }
            Err(refusal) => vec![refuse(request, refusal)],
        }
    }

    /// The file is the truth: changes that are not written yet would be undone by it, so they are refused.
    pub(super) fn reload(&mut self, request: RequestId, services: Arc<Services>) -> Vec<Effect> {
        if matches!(self.phase, Phase::Persisting(..)) {
            let line = "services.yaml was being saved while it was read; check your edit and reload again";
            return vec![refuse(request, Refusal::Conflict(line.to_owned()))];
        }
        let refusal = Refusal::Conflict("services.yaml was read again before this was saved; try again".to_owned());
        let (kept, undone): (Batch, Batch) = std::mem::take(&mut self.collected).into_iter().partition(is_reload);
        self.collected = kept;
        self.saved = Arc::clone(&services);
        self.working = Arc::clone(&services);
        self.collected.push((request, Wish::Reload(services)));
        undone.into_iter().map(|(request, _)| refuse(request, refusal.clone())).collect()
    }

    /// The batch was not saved. Its changes are refused; reloads that share it are not undone by that: what they read is on
    /// the disk, and is published.
    pub(super) fn not_saved(&mut self, batch: Batch, reason: &str) -> Vec<Effect> {
        let refusal = Refusal::Failed(format!("not saved, nothing changed: {reason}"));
        let (reloads, changes): (Batch, Batch) = batch.into_iter().partition(is_reload);
        let mut effects: Vec<_> = changes.into_iter().map(|(request, _)| refuse(request, refusal.clone())).collect();
        effects.extend(self.restore());
        effects.extend(if reloads.is_empty() { self.go_on() } else { self.publish(reloads) });
        effects
    }

    /// Goes back to what the disk holds, and admits anew what was collected meanwhile.
    fn restore(&mut self) -> Vec<Effect> {
        self.working = Arc::clone(&self.saved);
        let collected = std::mem::take(&mut self.collected);
        let mut effects = Vec::new();
        for (request, wish) in collected {
            match wish {
                Wish::Change(change, force) => effects.extend(self.collect(request, change, force)),
                Wish::Reload(services) => effects.extend(self.reload(request, services)),
            }
        }
        effects
    }
}

const fn is_reload((_, wish): &(RequestId, Wish)) -> bool {
    matches!(wish, Wish::Reload(_))
}
