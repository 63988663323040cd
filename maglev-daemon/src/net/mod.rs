//! The host's network as netlink tells it: interfaces, and the ways to backends. The only room that names rtnetlink.
//! Beside it, the socket options that only routing protocols need. It must not know the data plane, weights or tables.

pub mod addresses;
mod connection;
pub mod identity;
pub mod links;
pub mod loopback;
pub mod next_hop;
pub(crate) mod socket;

#[cfg(test)]
pub(crate) mod testing;

pub use connection::NetError;
