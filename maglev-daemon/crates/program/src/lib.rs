//! What `maglev` and `maglevd` have in common on the command line: exit codes, messages for wrong usage, man pages. It must not know
//! the arguments of either.

use std::process::ExitCode;

pub mod manual;
pub mod usage;

/// The exit codes of `maglev` and `maglevd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// The daemon refused, or something could not be done.
    Refused = 1,
    /// Wrong usage or invalid input.
    Invalid = 2,
    /// The daemon cannot be reached.
    Unreachable = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
