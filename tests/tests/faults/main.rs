//! Faults that were found by running the product, each with others of its kind: `cargo xtask test faults`. A row's subject is
//! the fault's number.

mod api;
mod bgp;
mod changes;
mod decap;
mod hash;
mod health;
mod next_hops;
mod packets;
