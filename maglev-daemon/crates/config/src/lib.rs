//! The files: `maglev.yaml` (this node), `services.yaml` (the same on every node) and `decap.yaml` (a backend), decoded into domain
//! types.
//! All errors are reported at once, each with its line and field path. It must not know its callers, nor the running state.

mod bgp;
pub mod bounds;
mod check_keys;
mod decap;
mod decode;
#[cfg(test)]
mod docs;
mod health;
mod interfaces;
mod node;
mod node_drain;
#[cfg(test)]
mod numbers;
mod origin;
mod packets;
mod problem;
mod services;
mod texts;
mod tree;
mod unchanged;

pub use decap::{DecapConfig, decode as decode_decap};
pub use health::{check_text, parse_check, parse_override};
pub use interfaces::{Interface, Mode};
pub use node::{Draft, NodeConfig, OnStop, decode as decode_node};
pub use origin::ReadSecret;
pub use problem::{Problem, Problems};
pub use services::{decode as decode_services, object_lines};
pub use texts::{PoolTexts, encode as encode_services};
pub use unchanged::decode_since as decode_services_since;

#[cfg(test)]
mod tests;
