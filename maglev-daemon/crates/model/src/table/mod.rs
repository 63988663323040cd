//! Maglev hashing: the lookup table and the slots that a change of it moves. Pure; it knows names and weights, not addresses or
//! ids.

mod disruption;
mod lookup;

pub use disruption::{Disruption, disruption};
pub use lookup::{NO_OWNER, Table};
