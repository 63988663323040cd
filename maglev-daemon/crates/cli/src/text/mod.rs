//! How answers read: the text of each view. It must not know how an answer was asked for.

mod backend;
mod bgp;
mod check;
pub(crate) mod node;
mod pool;
mod status;
mod units;
mod vip;
