//! What of a pool is in transition. It must not know how that comes about.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The slots of a pool that are in transition, and the flows that are pinned for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InTransition {
    /// Slots whose unknown flows belong to their previous owner.
    pub learning_slots: u32,
    /// Slots whose unknown flows are new, while known ones may belong to another backend than the owner.
    pub tracked_slots: u32,
    /// Until the last learning slot's learning ends; null if none is learning.
    pub learning_seconds_left: Option<u64>,
    /// Flows that belong to another backend than their slot's owner; null until the flow tables have been surveyed.
    pub pinned_flows: Option<u32>,
    /// When the last learning slot's learning ends, from the daemon's start: what is left is told when it is asked for.
    #[serde(skip)]
    pub learning_until: Option<Duration>,
}

impl InTransition {
    /// As it is when the daemon has been up for so long.
    #[must_use]
    pub fn at(self, uptime: Duration) -> Self {
        // The last second is told as one, not as none.
        let left = |until: Duration| until.saturating_sub(uptime).as_millis().div_ceil(1_000) as u64;
        Self { learning_seconds_left: self.learning_until.map(left), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_whole_seconds_and_never_too_little() {
        let learning = InTransition { learning_until: Some(Duration::from_secs(130)), ..InTransition::default() };
        let left = |milliseconds| learning.at(Duration::from_millis(milliseconds)).learning_seconds_left;
        assert_eq!([10_000, 10_001, 129_999, 130_000, 140_000].map(left), [120, 120, 1, 0, 0].map(Some));
        assert_eq!(InTransition::default().at(Duration::ZERO).learning_seconds_left, None);
    }
}
