//! Effects of the node: carried out by the tools, and answered to the requesters.

use maglev_api::view;
use maglev_common::counters::Counter;
use maglev_core::node::Effect;
use maglev_core::node_drain::{self, Traffic};
use maglev_core::reconcile::{Draft, RequestId};
use maglev_dataplane::Snapshot;
use maglev_model::Refusal;
use maglev_store::{Author, Commit};

use super::{Owner, Waiting};
use crate::http::{By, Caller};

impl Owner {
    pub(super) fn carry_out(&mut self, effect: Effect) {
        let tools = &mut self.tools;
        match effect {
            Effect::Persist(draft) => self.commit(draft),
            Effect::Publish(plan) => self.publish(plan),
            Effect::Survey(orders) => tools.dataplane.orders().survey(orders),
            Effect::Follow(delta) => tools.resolver.change(&delta.added, &delta.removed),
            Effect::Check(orders) => tools.scheduler.follow(orders),
            Effect::Announce { wanted, prefixes } => {
                self.prefixes.send_replace(prefixes);
                self.wanted.send_if_modified(|known| {
                    let changed = known.version != wanted.version;
                    *known = wanted;
                    changed
                });
            }
            // Its task ends with this one.
            Effect::SaveDrain(record) => drop(tools.records.send(record)),
            Effect::Count(vips) => {
                let (snapshot, counted) = (tools.dataplane.orders().snapshot(), tools.counted.clone());
                tokio::spawn(async move {
                    let Ok(snapshot) = snapshot.await else { return };
                    let vips = vips.into_iter().map(|(name, id)| (name, snapshot.vip(id).packets)).collect();
                    // The owner may have ended.
                    let _ = counted.send(node_drain::Event::Counted(Traffic { vips, forwarded: forwarded(&snapshot) }));
                });
            }
            Effect::News(news) => self.log.news(news, self.clock.now()),
            Effect::Reply { request, outcome } => self.answer(request, outcome),
        }
    }

    /// Saves services, each change with its author.
    fn commit(&mut self, draft: Draft) {
        let Draft { services, revisions } = draft;
        let mut edited = None;
        let by_author = |(request, delta)| {
            if let Some(Waiting::Reload(_, _, read, _)) = self.waiting.get_mut(&request) {
                edited = edited.take().or_else(|| read.take());
            }
            (self.waiting.get(&request).map(Waiting::author).unwrap_or_default(), delta)
        };
        let revisions = revisions.into_iter().map(by_author).collect();
        // Only this owner adds to the history while it runs: changes were based on the last commit.
        let expected = self.tools.disk.stored().borrow().revision;
        self.tools.disk.commit(Commit { expected, services, revisions, edited });
    }

    fn answer(&mut self, request: RequestId, outcome: Result<(), Refusal>) {
        // The requester may have gone.
        match self.waiting.remove(&request) {
            Some(Waiting::Start(reply)) => {
                let _ = reply.send(outcome);
            }
            Some(Waiting::Change(change, by, reply)) => {
                self.log.ordered(&change.to_string(), by.caller, &outcome);
                let _ = reply.send(outcome.map_err(view::Error::from));
            }
            Some(Waiting::Reload(reload, reloaded, _, prepared)) => {
                let successor = outcome.as_ref().ok().and_then(|()| self.apply_live(*prepared, &reloaded.neighbors));
                match successor {
                    Some(successor) => self.succeed(Some((reload, reloaded)), successor),
                    None => self.reloaded(reload, outcome.map(|()| reloaded).map_err(view::Error::from)),
                }
            }
            Some(Waiting::Succession(reload, next)) => self.succeeded(reload.map(|reload| *reload), *next, outcome),
            Some(Waiting::Rollback(rollback, changes)) => self.rolled_back(rollback, changes, outcome),
            Some(Waiting::Apply(apply, changes)) => self.applied(apply, changes, outcome),
            Some(Waiting::Node(order, caller, reply)) => {
                self.log.ordered(order, caller, &outcome);
                let _ = reply.send(outcome.map_err(view::Error::from));
            }
            None => tracing::error!(?request, "a reply to an unknown request"),
        }
    }
}

impl Waiting {
    /// Its author, the command and the reason.
    fn author(&self) -> Author {
        let (by, command) = match self {
            Self::Start(_) | Self::Succession(..) => return Author::default(),
            Self::Change(change, by, _) => (by.clone(), change.to_string()),
            Self::Reload(reload, ..) => (reload.by.clone(), "reload services.yaml".to_owned()),
            Self::Rollback(rollback, _) => (rollback.by.clone(), rollback.command()),
            Self::Apply(apply, _) => (apply.by.clone(), apply.command()),
            Self::Node(order, caller, _) => (By { caller: *caller, why: None }, (*order).to_owned()),
        };
        let By { caller: Caller { uid, pid }, why } = by;
        Author { uid, pid, command, why }
    }
}

/// Packets forwarded to backends.
fn forwarded(snapshot: &Snapshot) -> u64 {
    [Counter::Transmitted, Counter::Redirected].map(|counter| snapshot.counter(counter)).iter().sum()
}
