//! BGP as the rest of the daemon sees it: an operator's settings, and the status of each session. It must not know the
//! protocol.

mod change;
mod session;
mod settings;
mod wanted;

pub use change::{Changed, Effect, NeighborChange};
pub use session::{Carried, Cause, Errors, Failure, NeighborStatus, Route};
pub use settings::{Bgp, HOLD_TIME, Neighbor, OnDrain, OnStop, PORT, Password, Role};
pub use wanted::{Routes, Wanted};
