//! Reloads: the files are read, reviewed, and applied or refused as a whole.

use maglev_api::{Answer, view};
use maglev_core::reconcile::{Denied, Event};
use maglev_model::{Difference, Refusal, UnixTime};
use tokio::sync::oneshot;

use super::super::files::{Forwarding, Reread};
use super::super::succession::Successor;
use super::succession::Cause;
use super::{Owner, Waiting};
use crate::http::By;

/// The largest number of listed revisions that are newer than a file.
const MOST_LISTED: usize = 5;

/// An order to reload the configuration.
#[derive(Debug)]
pub(super) struct Reload {
    /// Whether it may take out of service more than is allowed at once; a signal's may not.
    pub(super) force: bool,
    /// The author, and the reason.
    pub(super) by: By,
    /// Receives the answer, if one is awaited.
    pub(super) reply: Option<oneshot::Sender<Answer<view::Reloaded>>>,
}

impl Owner {
    /// Reads the files, in the task itself: nothing may change between this and the event.
    pub(super) fn reload(&mut self, reload: Reload) {
        self.tools.manager.reloading();
        self.tools.scheduler.reload_authorities();
        let read = self.files.reread(self.node.reconciler().services()).map_err(Denied::Invalid);
        match read.and_then(|read| Ok((self.review(&read, reload.force)?, read))) {
            Ok((difference, read)) => match read.forwarding.as_ref().map(|forwarding| forwarding.node.clone()) {
                Some(node) => self.prepare_forwarding(Cause::Reload(reload, Box::new(read)), &node),
                None => self.replace(reload, read, difference, None),
            },
            Err(denied) => self.reloaded(reload, Err(nothing_changed(denied))),
        }
    }

    /// Replaces the services by those of the files, whose other settings apply after it.
    pub(super) fn replace(
        &mut self,
        reload: Reload,
        read: Reread,
        difference: Difference,
        successor: Option<Successor>,
    ) {
        let Reread { services, edited, live, forwarding, restart_needed } = read;
        let (neighbors, data_plane) = (self.changed_neighbors(&live), keys(forwarding.as_ref()));
        let reloaded = view::Reloaded { restart_needed, changes: difference.into(), neighbors, data_plane };
        let prepared = match self.prepare(live, forwarding.zip(successor)) {
            Ok(prepared) => prepared,
            Err(denied) => return self.reloaded(reload, Err(nothing_changed(denied))),
        };
        let edited = if difference == Difference::default() {
            // It equals the saved services: the next change may replace it.
            self.tools.disk.read(edited.stamp);
            None
        } else {
            Some(edited)
        };
        let request = self.expect(Waiting::Reload(reload, reloaded, edited, Box::new(prepared)));
        self.reconcile(Event::Replace { request, services });
    }

    /// Checks whether a file may be applied, and returns its changes.
    pub(super) fn review(&self, read: &Reread, force: bool) -> Result<Difference, Denied> {
        let difference = self.node.reconciler().review(&read.services, force)?;
        self.review_live(&read.live, &read.services)?;
        if let Some(Forwarding { node, .. }) = &read.forwarding {
            self.review_forwarding(node, &read.services)?;
        }
        if !force {
            self.check_base("services.yaml", read.edited.base(), difference)?;
        }
        Ok(difference)
    }

    /// Refuses a file that is based on an older revision: later changes would be undone.
    pub(super) fn check_base(&self, file: &str, base: Option<u64>, difference: Difference) -> Result<(), Denied> {
        let Some(base) = base else { return Ok(()) };
        let stored = self.tools.disk.stored();
        let since: Vec<_> =
            stored.borrow().history.revisions().filter(|found| found.revision > base).cloned().collect();
        let Some(newest) = since.last().filter(|_| difference != Difference::default()) else { return Ok(()) };
        let listed =
            since.iter().rev().take(MOST_LISTED).map(|found| format!("{} {}", found.revision, found.author.command));
        let listed: Vec<_> = listed.collect();
        let more = if since.len() > MOST_LISTED { ", …" } else { "" };
        Err(Denied::Refused(Refusal::Conflict(format!(
            "{file} is based on revision {base}, and {} changed since: {}{more}; see `maglev history diff {base} {}`, add the \
             missing changes and set its first line to `# revision {}`, or --force",
            if since.len() == 1 { "one revision has" } else { "others have" },
            listed.join("; "),
            newest.revision,
            newest.revision,
        ))))
    }

    /// Previews a reload.
    pub(super) fn plan_reload(&self) -> Answer<view::PlannedReload> {
        let reread = self.files.reread(self.node.reconciler().services());
        let reread = reread.map_err(|problems| nothing_changed(Denied::Invalid(problems)))?;
        let refused = self.review(&reread, false).err().map(in_words);
        let Reread { services, edited: _, live, forwarding, restart_needed } = reread;
        let changes = self.node.reconciler().difference(&services).into();
        let (neighbors, data_plane) = (self.changed_neighbors(&live), keys(forwarding.as_ref()));
        Ok(view::PlannedReload { restart_needed, changes, refused, neighbors, data_plane })
    }

    pub(super) fn reloaded(&mut self, reload: Reload, outcome: Answer<view::Reloaded>) {
        let UnixTime(unix_seconds) = maglev_api::now();
        self.last_reload = Some(view::LastReload { unix_seconds, successful: outcome.is_ok() });
        self.snapshots.outdate_beside();
        self.log.record(view::What::Reloaded { successful: outcome.is_ok() });
        match &outcome {
            Ok(view::Reloaded { restart_needed, changes, neighbors: _, data_plane }) => {
                tracing::info!("reloaded: {changes}");
                if !data_plane.is_empty() {
                    tracing::info!(fields = ?data_plane, "another data plane has taken over with these maglev.yaml changes");
                }
                if !restart_needed.is_empty() {
                    tracing::warn!(fields = ?restart_needed, "reloaded; these maglev.yaml changes need a restart");
                }
            }
            Err(error) => {
                tracing::error!("reload refused: {error}");
                error.details.iter().for_each(|problem| tracing::error!("{problem}"));
            }
        }
        if let Some(reply) = reload.reply {
            let _ = reply.send(outcome);
        }
        self.ready();
    }
}

/// The settings of the data plane that differ.
fn keys(forwarding: Option<&Forwarding>) -> Vec<String> {
    forwarding.iter().flat_map(|forwarding| &forwarding.keys).map(ToString::to_string).collect()
}

/// The reason why services are rejected or refused, in one line.
pub(super) fn in_words(denied: Denied) -> String {
    match denied {
        Denied::Invalid(problems) => problems.join("; "),
        Denied::Refused(refusal) => refusal.to_string(),
    }
}

/// The error for files: one line, and one more for each mistake if there are several.
pub(super) fn nothing_changed(denied: Denied) -> view::Error {
    let invalid = |problems: Vec<String>| match problems.as_slice() {
        [problem] => view::Error::invalid(format!("nothing changed: {problem}")),
        several => {
            let error = view::Error::invalid(format!("nothing changed: {} errors in the files:", several.len()));
            view::Error { details: problems, ..error }
        }
    };
    match denied {
        Denied::Invalid(problems) => invalid(problems),
        Denied::Refused(refusal) => view::Error::conflict(format!("nothing changed: {refusal}")),
    }
}
