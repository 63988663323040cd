//! A backend's health by its checks, and the consequences for its slots. It must not know how the health was determined.

use super::Ramp;

/// The result of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It failed.
    Unhealthy,
    /// No check has ended yet.
    Checking,
    /// It is healthy.
    Healthy,
}

/// The standing of a backend by its health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether its health lets it own slots.
    pub serves: bool,
    /// Whether its flows are kept.
    pub lives: bool,
    /// The part of its weight that is in effect, in percent.
    pub percent: u8,
}

impl Default for Standing {
    /// That of a backend that is not checked.
    fn default() -> Self {
        Self { serves: true, lives: true, percent: Ramp::FULL }
    }
}
