//! Predictions of what a program makes of a frame: plain functions of a world and the frame's bytes. They use nothing of the packet
//! path's crate.

pub mod decap;

pub use decap::decap;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// The host's network stack gets it.
    Pass,
    /// It is dropped.
    Drop,
    /// It is sent out of the interface that it came in by.
    Transmit,
    /// It is sent out of another interface.
    Redirect,
}

/// The prediction for a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predicted {
    /// The program's verdict.
    pub verdict: Verdict,
    /// The whole frame after the program; `None` if it is not predicted, as of a dropped one.
    pub bytes: Option<Vec<u8>>,
    /// The names of the counters that are incremented by one, each as often as it stands here.
    pub counted: Vec<&'static str>,
}
