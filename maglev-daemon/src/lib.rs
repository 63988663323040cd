//! The daemon `maglevd` and the command line `maglev`: everything that is not the packet path.
//!
//! Control flows one way: files and CLI → [`config`] → [`model`] → [`reconcile`] → [`maglev`] tables → [`plan`] →
//! [`dataplane`]. The pure modules in the middle know no socket, no task and no clock; IO stands at both ends.

pub mod announce;
pub mod announced;
pub mod api;
pub mod bgp;
pub mod cli;
pub mod config;
pub mod dataplane;
pub mod digest;
pub mod drain;
pub mod health;
pub mod maglev;
#[cfg(test)]
mod matrix;
pub mod metrics;
pub mod model;
pub mod net;
pub mod plan;
pub mod reconcile;
pub mod runtime;
pub mod transition;
