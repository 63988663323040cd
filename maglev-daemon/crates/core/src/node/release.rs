//! Withdraw before forgetting: a plan that changes which VIPs the packet path serves waits until neighbors have turned away from
//! the prefixes that were withdrawn before it. It must not know why a prefix was withdrawn.

use std::collections::VecDeque;
use std::time::Duration;

use super::Plan;

/// How long neighbors may take to be sent a withdrawal. One that takes nothing off our hands is waited for no longer.
pub(super) const TOLD: Duration = Duration::from_secs(1);

/// How long neighbors that were sent it take to turn to other nodes.
pub(super) const TURNED: Duration = Duration::from_millis(100);

/// Plans that wait, in their order, and what for.
#[derive(Debug, Default)]
pub(super) struct Release {
    /// What the first plan waits for.
    turning: Option<Turning>,
    /// The last withdrawal since the first plan began to wait: only later plans wait for it.
    later: Option<Turning>,
    /// The first plan waits already.
    held: bool,
    plans: VecDeque<Plan>,
}

/// A withdrawal that neighbors may not follow yet.
#[derive(Debug)]
struct Turning {
    /// The version of the wanted routes that withdraws.
    version: u64,
    sent: bool,
    /// When it is over, whatever neighbors know.
    until: Duration,
}

impl Release {
    /// These routes withdraw a prefix.
    pub(super) fn withdraw(&mut self, version: u64, now: Duration) {
        let turning = Some(Turning { version, sent: false, until: now + TOLD + TURNED });
        if self.held { self.later = turning } else { self.turning = turning }
    }

    /// Neighbors were sent more. `is_sent`: every neighbor was sent this version of the routes.
    pub(super) fn sent(&mut self, is_sent: impl Fn(u64) -> bool, now: Duration) {
        let all = self.turning.iter_mut().chain(&mut self.later);
        for turning in all.filter(|turning| !turning.sent && is_sent(turning.version)) {
            turning.sent = true;
            turning.until = turning.until.min(now + TURNED);
        }
    }

    /// Takes a plan in.
    pub(super) fn push(&mut self, plan: Plan) {
        self.plans.push_back(plan);
    }

    /// When [`Self::due`] has something, if nothing else happens before.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.turning.as_ref().filter(|_| !self.plans.is_empty()).map(|turning| turning.until)
    }

    /// The plans that may be carried out now, in their order.
    pub(super) fn due(&mut self, now: Duration) -> Vec<Plan> {
        let mut due = Vec::new();
        loop {
            self.turning = self.turning.take().filter(|turning| now < turning.until);
            self.held = self.turning.is_some() && self.plans.front().is_some_and(Plan::changes_vips);
            if self.held {
                return due;
            }
            let Some(plan) = self.plans.pop_front() else { return due };
            due.push(plan);
            self.turning = self.later.take().or(self.turning.take());
        }
    }

    /// All plans, whatever they wait for: sessions have ended.
    pub(super) fn end(&mut self) -> Vec<Plan> {
        (self.turning, self.later, self.held) = (None, None, false);
        self.plans.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maglev_model::plan::Step;
    use maglev_testing::matrix::Row;

    const NOW: Duration = Duration::from_secs(100);

    fn removal() -> Plan {
        Plan { steps: vec![Step::SwitchDirectory4 { entries: Vec::new() }], saved: None }
    }

    fn plain() -> Plan {
        Plan { steps: vec![Step::Barrier], saved: None }
    }

    #[test]
    fn a_plan_is_held_until_neighbors_turned_elsewhere_and_never_lost() {
        {
            let _row = Row::fault("R8", "a held plan waits for neighbors to be sent the withdrawal, and is due");
            let mut release = Release::default();
            release.withdraw(3, NOW);
            release.push(removal());
            release.sent(|version| version < 3, NOW);
            assert_eq!((release.due(NOW + TOLD).len(), release.deadline()), (0, Some(NOW + TOLD + TURNED)));
            release.sent(|version| version <= 3, NOW);
            assert_eq!(release.deadline(), Some(NOW + TURNED));
            release.sent(|_| true, NOW + TURNED);
            assert_eq!(release.due(NOW + TURNED).len(), 1, "being sent it again delays nothing");
            assert_eq!(release.deadline(), None);
        }
        {
            let _row = Row::fault("R8", "a neighbor that is never sent it holds a plan for a second");
            let mut release = Release::default();
            release.withdraw(1, NOW);
            release.push(removal());
            assert_eq!((release.due(NOW + TOLD).len(), release.due(NOW + TOLD + TURNED).len()), (0, 1));
        }
        let _row = Row::fault("R8", "a stop carries the held plans out, in their order");
        let mut release = Release::default();
        release.withdraw(1, NOW);
        release.push(removal());
        release.push(plain());
        assert_eq!(release.due(NOW).len(), 0, "the second one does not overtake the first");
        assert_eq!((release.end().len(), release.end().len()), (2, 0));
    }

    #[test]
    fn a_plan_waits_for_a_withdrawal_that_came_before_it() {
        let _row = Row::fault("R8", "a plan that comes after the withdrawal it belongs to waits as well");
        let mut release = Release::default();
        release.withdraw(1, NOW);
        assert_eq!((release.due(NOW).len(), release.deadline()), (0, None), "nothing waits yet");
        release.push(removal());
        assert_eq!((release.due(NOW + TOLD).len(), release.due(NOW + TOLD + TURNED).len()), (0, 1));
        release.withdraw(2, NOW);
        release.push(plain());
        assert_eq!(release.due(NOW).len(), 1, "which VIPs are served is not changed by it");
    }

    #[test]
    fn a_held_plan_waits_for_no_withdrawal_that_comes_after_it() {
        let _row =
            Row::fault("R8", "prefixes are withdrawn one after the other while a plan is held: only later plans wait");
        let mut release = Release::default();
        release.withdraw(1, NOW);
        release.push(removal());
        assert_eq!(release.due(NOW).len(), 0);
        release.withdraw(2, NOW + TOLD);
        release.push(removal());
        assert_eq!(release.deadline(), Some(NOW + TOLD + TURNED));
        assert_eq!(release.due(NOW + TOLD + TURNED).len(), 1, "the second plan waits for the second withdrawal");
        assert_eq!(release.deadline(), Some(NOW + 2 * TOLD + TURNED));
        release.sent(|version| version == 2, NOW + TOLD + TURNED);
        assert_eq!(release.due(NOW + TOLD + 2 * TURNED).len(), 1);
        assert_eq!(release.deadline(), None);
    }
}
