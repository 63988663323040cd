//! The inputs of a session: the wanted routes, and the time.

use maglev_model::UnixTime;
pub use maglev_model::bgp::Wanted;

/// Returns the present time.
pub type Clock = fn() -> UnixTime;
