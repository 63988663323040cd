//! The BGP speaker: it announces the prefixes that this node serves to routers. It imports no routes.
//!
//! ```text
//!  wanted prefixes ──▶ speaker ──▶ driver (a task per neighbor) ◀──▶ link ◀──▶ router
//!                      (thread)       │  ▲
//!                              inputs ▼  │ outputs
//!                                    fsm ──▶ wire
//! ```
//!
//! `wire` knows bytes, `fsm` knows the protocol, and neither knows a socket or a clock. `driver` carries out the state
//! machine's outputs, `link` reads and writes a connection.

mod driver;
mod fsm;
#[cfg(feature = "testing")]
pub mod fuzzing;
#[cfg(test)]
mod interop;
mod link;
mod listeners;
pub mod speaker;
mod wanted;
mod wire;
