//! Rollbacks: the services of an older revision are reviewed, and restored or refused as a whole, as a new revision.

use maglev_api::{Answer, view};
use maglev_core::reconcile::{Denied, Event};
use maglev_model::{Refusal, Services};
use maglev_store::Author;
use tokio::sync::oneshot;

use super::reload::in_words;
use super::{Owner, Waiting};
use crate::http::By;

/// An order to restore the services of an older revision.
#[derive(Debug)]
pub(super) struct Rollback {
    pub(super) revision: u64,
    pub(super) services: Services,
    /// Whether it may take out of service more than is allowed at once.
    pub(super) force: bool,
    /// The author, and the reason.
    pub(super) by: By,
    /// Receives the answer.
    pub(super) reply: oneshot::Sender<Answer<view::RolledBack>>,
}

impl Rollback {
    /// The order in words.
    pub(super) fn command(&self) -> String {
        format!("roll back to revision {}", self.revision)
    }
}

impl Owner {
    pub(super) fn roll_back(&mut self, mut rollback: Rollback) {
        let services = std::mem::take(&mut rollback.services);
        match self.review_revision(&services, rollback.force) {
            Ok(changes) => {
                let request = self.expect(Waiting::Rollback(rollback, changes));
                self.reconcile(Event::Replace { request, services });
            }
            Err(denied) => {
                let refused = view::Error::conflict(format!("nothing changed: {}", in_words(denied)));
                let _ = rollback.reply.send(Err(refused));
            }
        }
    }

    /// Previews a rollback.
    pub(super) fn plan_rollback(&self, services: &Services) -> Answer<view::PlannedRollback> {
        let refused = self.review_revision(services, false).err().map(in_words);
        Ok(view::PlannedRollback { changes: self.node.reconciler().difference(services).into(), refused })
    }

    /// Checks whether an older revision may be restored: this node's limits may be lower now.
    fn review_revision(&self, services: &Services, force: bool) -> Result<view::Changes, Denied> {
        let faults = services.validate(&self.files.running().rules());
        if !faults.is_empty() {
            return Err(Denied::Invalid(faults.iter().map(ToString::to_string).collect()));
        }
        Ok(self.node.reconciler().review(services, force)?.into())
    }

    pub(super) fn rolled_back(&mut self, rollback: Rollback, changes: view::Changes, outcome: Result<(), Refusal>) {
        self.log.ordered(&rollback.command(), rollback.by.caller, &outcome);
        let made = || self.revision_made(&rollback.by, rollback.command(), changes);
        let answer = outcome.map(|()| view::RolledBack { to: rollback.revision, revision: made(), changes });
        let _ = rollback.reply.send(answer.map_err(view::Error::from));
    }

    /// The new revision; none if nothing changed.
    pub(super) fn revision_made(&self, by: &By, command: String, changes: view::Changes) -> Option<u64> {
        let By { caller, why } = by.clone();
        let author = Author { uid: caller.uid, pid: caller.pid, command, why };
        let stored = self.tools.disk.stored();
        let newest =
            stored.borrow().history.revisions().rev().find(|found| found.author == author).map(|found| found.revision);
        newest.filter(|_| changes != view::Changes::default())
    }
}
