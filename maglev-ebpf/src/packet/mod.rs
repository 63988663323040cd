//! Headers, one page each: offsets, accessors, and parsers that yield values which cannot be wrong.

pub mod eth;
pub mod ipv4;
pub mod ipv6;
pub mod l4;
pub mod plain;

/// A packet the path can balance, reduced to what it is decided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner<T> {
    /// Addresses, ports and protocol.
    pub tuple: T,
    /// The IP packet's length in bytes, IP header included.
    pub length: u32,
    /// Where in the packet the transport header begins.
    pub transport: usize,
}
