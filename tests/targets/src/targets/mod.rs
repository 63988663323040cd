//! The targets: the parts of the product that read what others send. Each knows its crate's properties, and nothing of the loop.

use crate::fuzz::Target;

mod api;
mod bgp;
mod config;
mod maze;
mod packets;

pub use maze::MAZE;

/// All of them, but the one that is broken on purpose.
pub const ALL: [Target; 7] =
    [packets::FORWARD, packets::DECAP, packets::EGRESS, config::NODE, config::SERVICES, bgp::MESSAGES, api::REQUESTS];
