//! The wire contract between the XDP program and the daemon: what lies in each map, bit by bit, and the one flow
//! hash. Pure and `no_std`; it must not know aya, a socket, a clock or an allocator.
//!
//! Both sides of every map use the types of this crate, so a layout is defined once. Numbers that come from
//! packets (addresses, ports, MAC addresses) are kept as their bytes in network order, read as a little-endian
//! integer: the XDP program then loads and compares them without swapping, and every machine agrees on the hash.
#![no_std]
#![forbid(unsafe_op_in_unsafe_fn)]

#[cfg(not(target_arch = "bpf"))]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod backend;
pub mod capture;
pub mod counters;
pub mod encap;
pub mod flow;
pub mod forwarding;
pub mod fragment;
pub mod hash;
pub mod ids;
pub mod maps;
pub mod mark;
pub mod pod;
pub mod settings;
pub mod syn;
pub mod table;
pub mod template;
pub mod vip;
