//! The changes an operator makes to a pool, as commands of `maglev`.

use super::WEIGHT;
use crate::lab::{Lab, addresses::WWW4};

/// A change to backend `web<n>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It gets no new connections and keeps those it has.
    Drain(u8),
    /// It gets new connections again.
    Undrain(u8),
    /// It joins the pool.
    Add(u8),
    /// It leaves the pool, drained.
    Remove(u8),
    /// It gets another weight.
    Weight(u8, u32),
}

impl Change {
    /// The command's words for this pool.
    pub(super) fn command(self, pool: &str, lab: &Lab) -> String {
        match self {
            Self::Drain(n) => format!("backend drain {pool} web{n}"),
            Self::Undrain(n) => format!("backend undrain {pool} web{n}"),
            Self::Add(n) => {
                let address = lab.backend_address(n, WWW4);
                format!("backend add {pool} web{n} --address {address} --weight {WEIGHT}")
            }
            Self::Remove(n) => format!("backend remove {pool} web{n}"),
            Self::Weight(n, weight) => format!("backend weight {pool} web{n} {weight}"),
        }
    }
}
