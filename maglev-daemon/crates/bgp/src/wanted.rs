//! What neighbors are to know, as the speaker hands it to their tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use maglev_model::UnixTime;
use maglev_model::bgp::Route;

/// Prefixes and what is said of them.
pub(crate) type Routes = BTreeMap<IpNet, Arc<Route>>;

/// What neighbours are to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Prefixes, and what is said of each.
    pub routes: Routes,
    /// This is all: only changes follow. Neighbours that kept prefixes over a restart drop what is not among them.
    pub complete: bool,
    /// Which of the sets it is: each has a greater number than those before.
    pub version: u64,
}

/// Returns the present time.
pub type Clock = fn() -> UnixTime;
