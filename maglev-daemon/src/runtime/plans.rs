//! Plans on the data plane's thread: each is carried out up to its closing steps and reported; its closing steps are tried
//! again until they are done, and no other plan begins before. It must not know maps, nor a clock.

use std::time::Duration;

use maglev_core::reconcile::{Backoff, Event};
use maglev_model::plan::Step;

/// What of plans is left to be carried out.
#[derive(Debug, Default)]
pub(super) struct Plans {
    /// The steps of a plan that packets see.
    visible: Option<Vec<Step>>,
    /// Its closing steps.
    next: Vec<Step>,
    /// Closing steps of the plan before. They clear members, and set memory free that later plans use.
    closing: Vec<Step>,
    failing: Option<Backoff>,
}

impl Plans {
    /// Takes a plan. Its closing steps end members that no new packet can find any more: the report need not wait for them.
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

    /// When closing steps that failed are due again.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.failing.as_ref().map(Backoff::next)
    }

    /// Carries out what is left, by `carry`. A plan that comes while members of the last one are not cleared fails: what it
    /// gives their numbers to would meet their flows.
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
            Err(reason) => Err(format!("removed backends are not cleared: {reason}")),
        };
        let next = std::mem::take(&mut self.next);
        let carried_out = outcome.is_ok();
        report(Event::Published(outcome));
        // What packets still find stays: a plan that failed is ordered again, whole.
        if carried_out {
            self.closing = next;
            // A failure is reported, and tried again.
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
