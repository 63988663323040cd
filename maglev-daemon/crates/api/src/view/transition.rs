//! Slots in transition and pinned flows. It must not know how transitions work.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The slots of a pool in transition, and its pinned flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InTransition {
    /// Learning slots: unknown flows go to the previous owner.
    pub learning_slots: u32,
    /// Tracked slots: unknown flows are new, and flow entries may name another backend than the owner.
    pub tracked_slots: u32,
    /// Seconds until no slot is learning; null if none is.
    pub learning_seconds_left: Option<u64>,
    /// Flows pinned to another backend than their slot's owner; null until the flow tables have been surveyed.
    pub pinned_flows: Option<u32>,
    /// The end of the last learning slot's learning since the daemon's start; the seconds left are derived from it on request.
    #[serde(skip)]
    pub learning_until: Option<Duration>,
}

impl InTransition {
    /// With the times for the present uptime.
    #[must_use]
    pub fn at(self, uptime: Duration) -> Self {
        // Rounded up: the last second counts as one.
        let left = |until: Duration| until.saturating_sub(uptime).as_millis().div_ceil(1_000) as u64;
        Self { learning_seconds_left: self.learning_until.map(left), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_rounded_up_to_whole_seconds() {
        let learning = InTransition { learning_until: Some(Duration::from_secs(130)), ..InTransition::default() };
        let left = |milliseconds| learning.at(Duration::from_millis(milliseconds)).learning_seconds_left;
        assert_eq!([10_000, 10_001, 129_999, 130_000, 140_000].map(left), [120, 120, 1, 0, 0].map(Some));
        assert_eq!(InTransition::default().at(Duration::ZERO).learning_seconds_left, None);
    }
}
