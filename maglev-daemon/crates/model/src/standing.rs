//! What checks say of a backend, and what follows for its slots. It must not know how it was found out.

use super::Ramp;

/// What is known by checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It failed.
    Unhealthy,
    /// No check has ended yet.
    Checking,
    /// It serves.
    Healthy,
}

/// What a backend's health makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it owns slots, as far as its health goes.
    pub serves: bool,
    /// Whether flows that are its are kept.
    pub lives: bool,
    /// The part of its weight that it has, in percent.
    pub percent: u8,
}

impl Default for Standing {
    /// That of a backend that is not checked.
    fn default() -> Self {
        Self { serves: true, lives: true, percent: Ramp::FULL }
    }
}
