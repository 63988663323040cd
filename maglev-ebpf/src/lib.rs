//! The packet path: ordinary generic Rust over the bytes of a packet and the tables, so that the same code runs in the
//! kernel, in host tests and in `maglev flow explain`. It must not know aya, a map or a raw pointer.
//!
//! `frame → parse → vip → slot → (flow) → backend → encap → verdict`: [`path::forward::forward`] is the whole of it.
#![no_std]

#[cfg(any(test, feature = "fixtures"))]
extern crate std;

pub mod affinity;
pub mod encap;
pub mod env;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod packet;
pub mod path;
pub mod verdict;
pub mod vip;

#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), expect(dead_code, reason = "most of it is for the crate's own tests"))]
mod testing;
