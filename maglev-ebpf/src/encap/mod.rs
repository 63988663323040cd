//! Encapsulation: the outer headers a packet is given on its way to a backend.

pub mod checksum;
pub mod ipip;

/// What an outer header takes from the packet and its flow.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// Protocol number of the packet inside: 4 for IPv4, 41 for IPv6.
    pub protocol: u8,
    /// Where in the frame its IP header begins: what stands in front of it is replaced.
    pub l3: usize,
    /// The inner packet's length in bytes.
    pub length: u32,
    /// The flow hash, from which a source prefix takes its host bits and IPv6 its flow label.
    pub hash: u64,
}

#[cfg(test)]
mod tests;
