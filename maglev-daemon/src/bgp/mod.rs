//! The BGP speaker: it tells routers which prefixes this node serves, and takes nothing from them.
//!
//! ```text
//!  wanted prefixes ──▶ speaker ──▶ session (a task per neighbour) ◀──▶ router
//!                                     │  ▲
//!                              inputs ▼  │ outputs
//!                                    fsm ──▶ wire
//! ```
//!
//! `wire` knows bytes, `fsm` knows the protocol, and neither knows a socket or a clock; `session` carries out what the
//! state machine says.

mod driver;
mod fsm;
#[cfg(test)]
mod interop;
mod link;
pub mod settings;
pub mod speaker;
mod wire;

pub use fsm::Route;
