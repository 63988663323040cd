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
    turning: Option<Turning>,
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
        self.turning = Some(Turning { version, sent: false, until: now + TOLD + TURNED });
    }

    /// The version of the routes that neighbors are yet to be sent.
    pub(super) fn awaits(&self) -> Option<u64> {
        self.turning.as_ref().filter(|turning| !turning.sent).map(|turning| turning.version)
    }

    /// Every neighbor was sent the awaited version.
    pub(super) fn sent(&mut self, now: Duration) {
        if let Some(turning) = self.turning.as_mut().filter(|turning| !turning.sent) {
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
        if self.turning.as_ref().is_some_and(|turning| turning.until <= now) {
            self.turning = None;
        }
        let waits = |plan: &Plan| self.turning.is_some() && plan.changes_vips();
        let free = self.plans.iter().take_while(|plan| !waits(plan)).count();
        self.plans.drain(..free).collect()
    }

    /// All plans, whatever they wait for: sessions have ended.
    pub(super) fn end(&mut self) -> Vec<Plan> {
        self.turning = None;
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
            assert_eq!((release.awaits(), release.due(NOW + TOLD).len()), (Some(3), 0));
            release.sent(NOW);
            assert_eq!((release.awaits(), release.deadline()), (None, Some(NOW + TURNED)));
            release.sent(NOW + TURNED);
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
}
