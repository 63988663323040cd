//! The ways through the kernel, one file each: in from clients, out to backends, and at a backend.

pub mod capture;
pub mod decap;
pub mod egress;
pub mod forward;
pub mod fragment;
pub mod icmp;
pub mod mss;
pub mod tag;
pub mod too_big;
pub mod unserved;
