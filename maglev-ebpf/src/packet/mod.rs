//! Headers, one page each: offsets, accessors, and parsers that yield values which cannot be wrong.

pub mod eth;
pub mod ipv4;
pub mod ipv6;
pub mod l4;

use maglev_common::counters::Counter;

/// A packet the path can balance, reduced to what it is decided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner<T> {
    /// Addresses, ports and protocol.
    pub tuple: T,
    /// The traffic class: DSCP in the high six bits, ECN in the low two.
    pub traffic_class: u8,
    /// The IP packet's length in bytes, IP header included.
    pub length: u16,
    /// What the packet means to its flow.
    pub segment: l4::Segment,
}

/// A packet the path does not balance: where it is going, and why not.
///
/// It is dropped and counted by this reason if its destination is a VIP's address; else it belongs to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unhandled<A> {
    /// The destination address as [`Inner::tuple`] keeps it.
    pub destination: A,
    /// Why it is not balanced.
    pub reason: Counter,
}

/// What a parser makes of an IP packet; `None` if no destination can be read.
pub type Parsed<T, A> = Option<Result<Inner<T>, Unhandled<A>>>;
