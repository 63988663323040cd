//! The consequences of events: health, announcements, drains, reconciliation. State machines that are given events and the time,
//! and return effects; they must not know tasks, sockets, files or a clock.

mod addresses;
pub mod announce;
pub mod announced;
pub mod health;
pub mod node;
pub mod node_drain;
pub mod reconcile;

pub use addresses::AddressDelta;
