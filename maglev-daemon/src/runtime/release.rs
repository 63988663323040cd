//! A plan that removes VIPs whose prefixes are announced: it waits until neighbors know of the withdrawal and had a moment to
//! turn to other nodes. It must not know what a plan is.

use std::time::Duration;

/// How long neighbors may take to be told. One that takes nothing off our hands is waited for no longer.
const TOLD: Duration = Duration::from_secs(1);

/// How long neighbors that know it take to turn to other nodes.
const TURNED: Duration = Duration::from_millis(100);

/// The plan that waits, if there is one.
#[derive(Debug)]
pub(super) struct Release<P>(Option<Waiting<P>>);

#[derive(Debug)]
struct Waiting<P> {
    plan: P,
    told: bool,
    /// When it is carried out, whatever neighbors know.
    at: Duration,
}

impl<P> Default for Release<P> {
    fn default() -> Self {
        Self(None)
    }
}

impl<P> Release<P> {
    /// Holds a plan back. Returns the one that waited before: plans are carried out in their order.
    pub(super) fn hold(&mut self, plan: P, now: Duration) -> Option<P> {
        let waiting = Waiting { plan, told: false, at: now + TOLD + TURNED };
        self.0.replace(waiting).map(|before| before.plan)
    }

    /// Whether it is waited for that neighbors are told.
    pub(super) fn awaits_told(&self) -> bool {
        self.0.as_ref().is_some_and(|waiting| !waiting.told)
    }

    /// Every neighbor was told.
    pub(super) fn told(&mut self, now: Duration) {
        if let Some(waiting) = self.0.as_mut().filter(|waiting| !waiting.told) {
            waiting.told = true;
            waiting.at = waiting.at.min(now + TURNED);
        }
    }

    /// When [`Self::due`] has the plan.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.0.as_ref().map(|waiting| waiting.at)
    }

    /// The plan, if its time has come.
    pub(super) fn due(&mut self, now: Duration) -> Option<P> {
        self.0.take_if(|waiting| waiting.at <= now).map(|waiting| waiting.plan)
    }

    /// The plan, whatever its time: the daemon stops, and its sessions have ended.
    pub(super) fn end(&mut self) -> Option<P> {
        self.0.take().map(|waiting| waiting.plan)
    }
}

#[cfg(test)]
mod faults {
    use super::*;
    use maglev_testing::matrix::Row;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn a_plan_is_held_until_neighbors_turned_elsewhere_and_never_lost() {
        {
            let _row = Row::fault("R8", "a held plan waits for neighbors to be told, and is due");
            let mut release = Release::default();
            assert_eq!(release.hold("plan", NOW), None);
            assert!(release.awaits_told() && release.due(NOW + TOLD).is_none());
            release.told(NOW);
            assert_eq!((release.awaits_told(), release.deadline()), (false, Some(NOW + TURNED)));
            release.told(NOW + TURNED);
            assert_eq!(
                (release.due(NOW + TURNED), release.deadline()),
                (Some("plan"), None),
                "being told again delays nothing"
            );
        }
        {
            let _row = Row::fault("R8", "a neighbor that is never told holds a plan for a second");
            let mut release = Release::default();
            release.hold("plan", NOW);
            assert_eq!(release.due(NOW + TOLD + TURNED), Some("plan"));
        }
        let _row = Row::fault("R8", "a stop and a second plan carry the held one out");
        let mut release = Release::default();
        release.hold("first", NOW);
        assert_eq!(release.hold("second", NOW), Some("first"));
        assert_eq!((release.end(), release.end()), (Some("second"), None));
    }
}
