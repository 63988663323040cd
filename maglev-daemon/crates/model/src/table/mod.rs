//! Maglev hashing: the lookup table and what a change of it moves. Pure; it knows names and weights, not addresses or
//! ids.

mod disruption;
mod lookup;

pub use disruption::{Disruption, disruption};
pub use lookup::{NOBODY, Table};
