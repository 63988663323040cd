//! What still binds connections to a backend that gets no new ones. It must not know how it is counted.

use std::fmt;

/// Connections of a backend beside those of its own slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Slots that learn for it, their previous owner.
    pub learning_slots: u32,
    /// Flows that are pinned to it; `None` while they are not counted.
    pub pinned_flows: Option<u32>,
}

impl Leftover {
    /// Whether the backend is drained.
    pub fn is_nothing(self) -> bool {
        self == Self { learning_slots: 0, pinned_flows: Some(0) }
    }
}

impl fmt::Display for Leftover {
    /// `12 slots are learning for it and 1 flow is pinned to it`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let are = |count: u32, what: &str| match count {
            1 => format!("1 {what} is"),
            _ => format!("{count} {what}s are"),
        };
        let learning = are(self.learning_slots, "slot");
        match self.pinned_flows {
            Some(flows) => write!(f, "{learning} learning for it and {} pinned to it", are(flows, "flow")),
            None => write!(f, "{learning} learning for it and the flows pinned to it are not counted yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said_in_a_sentence() {
        for (learning_slots, pinned_flows, text) in [
            (6_554, Some(312), "6554 slots are learning for it and 312 flows are pinned to it"),
            (0, Some(1), "0 slots are learning for it and 1 flow is pinned to it"),
            (1, None, "1 slot is learning for it and the flows pinned to it are not counted yet"),
        ] {
            let left = Leftover { learning_slots, pinned_flows };
            assert!(!left.is_nothing());
            assert_eq!(left.to_string(), text);
        }
        assert!(Leftover { learning_slots: 0, pinned_flows: Some(0) }.is_nothing());
        assert!(!Leftover { learning_slots: 0, pinned_flows: None }.is_nothing(), "nothing is known yet");
    }
}
