//! From collected changes to saved ones: what is saved, and when plans wait for the disk. It must not know how services are stored.

use std::sync::Arc;
use std::time::Duration;

use super::{Batch, DISK, Draft, Effect, Phase, Reconciler, Saving, admission};

impl Reconciler {
    pub(super) fn flush(&mut self) -> Vec<Effect> {
        if !matches!(self.phase, Phase::Idle) {
            self.flush_again = true;
            return Vec::new();
        }
        if self.saving.is_some() {
            // Changes that were collected meanwhile are saved after it.
            self.flush_again |= !self.collected.is_empty();
            let is_due = self.impatient().is_some_and(|until| until <= self.now);
            return if is_due { self.publish(Vec::new()) } else { Vec::new() };
        }
        let batch = std::mem::take(&mut self.collected);
        if self.working == self.saved {
            // Changes that were refused, or undid each other, left a copy.
            self.working = Arc::clone(&self.saved);
            return self.publish(batch);
        }
        let (services, revisions) = (Arc::clone(&self.working), admission::revisions(&batch));
        self.saving = Some(Saving { batch, services: Arc::clone(&services), until: self.now + DISK });
        vec![Effect::Persist(Draft { services, revisions })]
    }

    /// When results of checks, next hops and the host are published although the disk has not answered.
    pub(super) fn impatient(&self) -> Option<Duration> {
        let is_new = self.stirred || self.restless || self.served_outdated;
        self.saving.as_ref().map(|saving| saving.until).filter(|_| is_new)
    }

    pub(super) fn persisted(&mut self, outcome: Result<(), String>) -> Vec<Effect> {
        let Some(Saving { batch, services, .. }) = self.saving.take() else { return Vec::new() };
        match outcome {
            Ok(()) => {
                self.saved = services;
                self.publish_when_idle(batch)
            }
            Err(reason) => self.not_saved(batch, &reason),
        }
    }

    /// Publishes the saved services for these requests, now or with the next plan.
    pub(super) fn publish_when_idle(&mut self, batch: Batch) -> Vec<Effect> {
        if matches!(self.phase, Phase::Idle) {
            return self.publish(batch);
        }
        self.ready.extend(batch);
        self.flush_again = true;
        Vec::new()
    }

    /// Processes the changes that were flushed during another operation.
    pub(super) fn go_on(&mut self) -> Vec<Effect> {
        if std::mem::take(&mut self.flush_again) { self.flush() } else { Vec::new() }
    }
}
