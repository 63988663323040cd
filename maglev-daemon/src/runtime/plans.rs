//! Plans on the data plane's thread: each is carried out up to its closing steps and reported; its closing steps are
//! retried until they are done, and no other plan begins before. It must not know maps, nor a clock.

use std::time::Duration;

use maglev_core::reconcile::{Backoff, Event};
use maglev_model::plan::Step;

/// The remaining steps of plans.
#[derive(Debug, Default)]
pub(super) struct Plans {
    /// The steps of a plan that affect packets.
    visible: Option<Vec<Step>>,
    /// Its closing steps.
    next: Vec<Step>,
    /// Closing steps of the plan before. They clear members, and free memory for later plans.
    closing: Vec<Step>,
    failing: Option<Backoff>,
}

impl Plans {
    /// Adds a plan. Its closing steps remove members that no new packet can reach: the report need not wait for them.
    pub(super) fn begin(&mut self, steps: &[Step]) {
        let closes = |step: &&Step| {
            use Step::{Barrier, KillMember, PurgeFlows, RemoveMember};
            matches!(step, Barrier | KillMember { .. } | RemoveMember { .. } | PurgeFlows { .. })
        };
        let closing = steps.iter().rev().take_while(closes).count();
        let (visible, closing) = steps.split_at(steps.len() - closing);
        self.visible = Some(visible.to_vec());
        self.next = closing.to_vec();
    }

    /// The time of the retry of failed closing steps.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.failing.as_ref().map(Backoff::next)
    }

    /// Carries out the remaining steps by `carry`. A plan that comes while members of the last one are not cleared fails: a new
    /// member with the number of such a one would receive its flows.
    pub(super) fn carry_out(
        &mut self,
        now: Duration,
        mut carry: impl FnMut(&[Step]) -> Result<(), String>,
        mut report: impl FnMut(Event),
    ) {
        let closed = self.close(now, &mut carry, &mut report);
        let Some(visible) = self.visible.take() else { return };
        let outcome = match closed {
            Ok(()) => carry(&visible),
            Err(reason) => Err(format!("cannot finish removing members: {reason}")),
        };
        let next = std::mem::take(&mut self.next);
        let carried_out = outcome.is_ok();
        report(Event::Published(outcome));
        // The closing steps of a failed plan are dropped: the whole plan is ordered again.
        if carried_out {
            self.closing = next;
            // A failure is reported and retried.
            let _ = self.close(now, &mut carry, &mut report);
        }
    }

    fn close(
        &mut self,
        now: Duration,
        carry: &mut impl FnMut(&[Step]) -> Result<(), String>,
        report: &mut impl FnMut(Event),
    ) -> Result<(), String> {
        if self.closing.is_empty() {
            return Ok(());
        }
        let outcome = carry(&self.closing);
        match &outcome {
            Ok(()) => {
                self.closing.clear();
                if self.failing.take().is_some() {
                    report(Event::Closed(Ok(())));
                }
            }
            Err(reason) => {
                self.failing = Some(Backoff::failed(self.failing.take(), reason.clone(), now));
                report(Event::Closed(outcome.clone()));
            }
        }
        outcome
    }
}

#[cfg(test)]
#[path = "plans_tests.rs"]
mod faults;
