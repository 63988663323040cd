//! The daemon `maglevd`: its tasks and threads in [`runtime`], the API's server in [`http`], and [`metrics`]; the backend's side in
//! [`decap`]; and [`doctor`].
//!
//! Decisions are in the pure crates `maglev-model` and `maglev-core`; input and output in `maglev-store`, `maglev-net`,
//! `maglev-bgp`, `maglev-probe` and `maglev-dataplane`.

pub mod decap;
pub mod doctor;
pub mod http;
pub mod metrics;
pub mod runtime;
