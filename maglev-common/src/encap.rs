//! How packets for a member are encapsulated.

/// The headers that a packet is given, from the outside in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encap {
    /// IP in IP with an outer IPv4 header (RFC 2003).
    IpIp4,
    /// IP in IP with an outer IPv6 header (RFC 2473).
    IpIp6,
}

impl Encap {
    /// IP in IP with an outer header of this family.
    #[inline(always)]
    pub const fn ipip(is_outer_v6: bool) -> Self {
        if is_outer_v6 { Self::IpIp6 } else { Self::IpIp4 }
    }

    /// Whether the outer IP header is IPv6, else IPv4.
    #[inline(always)]
    pub const fn is_outer_v6(self) -> bool {
        matches!(self, Self::IpIp6)
    }

    /// Bytes it adds to an IP packet.
    #[inline(always)]
    pub const fn overhead(self) -> usize {
        match self {
            Self::IpIp4 => 20,
            Self::IpIp6 => 40,
        }
    }
}

/// The most that an encapsulation adds to an IP packet, by the family of the outer IP header: that header, and those of UDP and GUE.
#[inline(always)]
pub const fn most_overhead(is_outer_v6: bool) -> usize {
    if is_outer_v6 { 40 + 8 + 4 } else { 20 + 8 + 4 }
}
