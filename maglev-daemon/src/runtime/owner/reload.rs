//! Reloads: the files are read again, reviewed, and taken over or refused as a whole.

use maglev_api::{Answer, view};
use maglev_core::reconcile::Event;
use maglev_model::{Refusal, UnixTime};
use tokio::sync::oneshot;

use super::super::files::Reread;
use super::{Owner, Waiting};

/// An order to read the files again.
#[derive(Debug)]
pub(super) struct Reload {
    /// Whether it may take out of service as much as it does; a signal's may not.
    pub(super) force: bool,
    /// Takes the answer, if one is awaited.
    pub(super) reply: Option<oneshot::Sender<Answer<view::Reloaded>>>,
}

impl Owner {
    /// Reads the files, in the task itself: nothing may change between this and the event.
    pub(super) fn reload(&mut self, reload: Reload) {
        self.scheduler.reload_authorities();
        let read = self.files.reread().and_then(|read| {
            self.reconciler.check_services(&read.services)?;
            Ok(read)
        });
        let Reread { services, stamp, restart_needed } = match read {
            Ok(reread) => reread,
            Err(problems) => return self.reloaded(reload, Err(refusal(problems))),
        };
        match self.reconciler.review(&services, reload.force) {
            Ok(difference) => {
                // Only what is taken over may be replaced by the next change.
                self.disk.read(stamp);
                let reloaded = view::Reloaded { restart_needed, changes: difference.into() };
                let request = self.expect(Waiting::Reload(reload, reloaded));
                self.handle(Event::Reload { request, services });
            }
            Err(refused) => self.reloaded(reload, Err(nothing_changed(&refused).into())),
        }
    }

    /// Says what a reload would do.
    pub(super) fn plan_reload(&self) -> Answer<view::PlannedReload> {
        let Reread { services, stamp: _, restart_needed } = self.files.reread().map_err(refusal)?;
        let refused = self.reconciler.review(&services, false).err().map(|refused| refused.to_string());
        let changes = self.reconciler.review(&services, true)?.into();
        Ok(view::PlannedReload { restart_needed, changes, refused })
    }

    pub(super) fn reloaded(&mut self, reload: Reload, outcome: Answer<view::Reloaded>) {
        let UnixTime(unix_seconds) = maglev_api::now();
        self.last_reload = Some(view::LastReload { unix_seconds, successful: outcome.is_ok() });
        self.teller.tell(view::What::Reloaded { successful: outcome.is_ok() });
        match &outcome {
            Ok(view::Reloaded { restart_needed, changes }) => {
                tracing::info!("reloaded: {changes}");
                if !restart_needed.is_empty() {
                    tracing::warn!(fields = ?restart_needed, "reloaded; these maglev.yaml changes need a restart");
                }
            }
            Err(error) => {
                tracing::error!("reload refused: {error}");
                error.details.iter().for_each(|problem| tracing::error!("{problem}"));
            }
        }
        self.show();
        if let Some(reply) = reload.reply {
            let _ = reply.send(outcome);
        }
    }
}

/// That a reload is refused as a whole.
fn nothing_changed(refused: &Refusal) -> Refusal {
    Refusal::Conflict(format!("nothing changed: {refused}"))
}

/// Why files are not taken over: one line, and one more for each fault if there are several.
fn refusal(problems: Vec<String>) -> view::Error {
    match problems.as_slice() {
        [problem] => view::Error::invalid(format!("nothing changed: {problem}")),
        several => {
            let error = view::Error::invalid(format!("nothing changed: {} errors in the files:", several.len()));
            view::Error { details: problems, ..error }
        }
    }
}
