//! The host's network as netlink shows it: interfaces, addresses, and next hops. The only room that names rtnetlink.
//! Beside it, the socket options that only routing protocols need. It must not know the data plane, weights or tables.

mod connection;
mod error;
pub mod host;
pub mod identity;
pub mod links;
pub mod loopback;
pub mod mtu_probe;
pub mod next_hop;
mod notices;
pub mod socket;
pub mod statistics;
pub mod xdp;

pub use error::NetError;
