//! Services files from clients: reviewed, and applied or refused as a whole, each as one revision.

use maglev_api::{Answer, view};
use maglev_core::reconcile::{Denied, Event};
use maglev_model::{Difference, Refusal, shown};
use tokio::sync::oneshot;

use super::reload::nothing_changed;
use super::{Owner, Waiting};
use crate::http::{By, SentFile};

/// An order to replace all services by those of a file.
#[derive(Debug)]
pub(super) struct Apply {
    pub(super) file: SentFile,
    /// Whether it may take out of service more than is allowed at once, and undo changes made since the file's revision.
    pub(super) force: bool,
    /// The author, and the reason.
    pub(super) by: By,
    /// Receives the answer.
    pub(super) reply: oneshot::Sender<Answer<view::Applied>>,
}

impl Apply {
    /// The order in words.
    pub(super) fn command(&self) -> String {
        format!("apply services from {}", shown(&self.file.name))
    }
}

impl Owner {
    pub(super) fn apply(&mut self, mut apply: Apply) {
        match self.review_file(&apply.file, apply.force) {
            Ok(difference) => {
                let services = std::mem::take(&mut apply.file.services);
                let request = self.expect(Waiting::Apply(apply, difference.into()));
                self.reconcile(Event::Replace { request, services });
            }
            Err(denied) => drop(apply.reply.send(Err(nothing_changed(denied)))),
        }
    }

    /// The error with which a file would be refused, if so.
    pub(super) fn plan_file(&self, file: &SentFile, force: bool) -> Option<view::Error> {
        self.review_file(file, force).err().map(nothing_changed)
    }

    /// Checks whether a file may be applied, and returns its changes.
    fn review_file(&self, file: &SentFile, force: bool) -> Result<Difference, Denied> {
        let difference = self.node.reconciler().review(&file.services, force)?;
        if !force {
            self.check_base(&shown(&file.name), file.base, difference)?;
        }
        Ok(difference)
    }

    pub(super) fn applied(&mut self, apply: Apply, changes: view::Changes, outcome: Result<(), Refusal>) {
        if outcome.is_err() || changes != view::Changes::default() {
            self.log.ordered(&apply.command(), apply.by.caller, &outcome);
        }
        let made = || self.revision_made(&apply.by, apply.command(), changes);
        let answer = outcome.map(|()| view::Applied { revision: made(), changes });
        let _ = apply.reply.send(answer.map_err(view::Error::from));
    }
}
