//! How packets for a member are encapsulated.

/// What stands between the outer IP header and the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EncapKind {
    /// Nothing: IP in IP (RFC 2003, RFC 2473).
    #[default]
    IpIp,
    /// A UDP header and a GUE header of version 0 without optional fields (draft-ietf-intarea-gue): the source port says which
    /// flow it is, so that network cards that hash ports spread flows.
    Gue,
}

/// The headers that a packet is given, from the outside in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encap {
    /// IP in IP with an outer IPv4 header (RFC 2003).
    IpIp4,
    /// IP in IP with an outer IPv6 header (RFC 2473).
    IpIp6,
    /// GUE with an outer IPv4 header.
    Gue4,
    /// GUE with an outer IPv6 header.
    Gue6,
}

/// The UDP port of GUE, as registered with IANA.
pub const GUE_PORT: u16 = 6_080;

/// Bytes of a UDP header and a GUE header without optional fields.
pub const GUE_HEADERS: usize = 8 + 4;

impl Encap {
    /// Encapsulation of this kind with an outer header of this family.
    #[inline(always)]
    pub const fn new(kind: EncapKind, is_outer_v6: bool) -> Self {
        match (kind, is_outer_v6) {
            (EncapKind::IpIp, false) => Self::IpIp4,
            (EncapKind::IpIp, true) => Self::IpIp6,
            (EncapKind::Gue, false) => Self::Gue4,
            (EncapKind::Gue, true) => Self::Gue6,
        }
    }

    /// What stands between the outer IP header and the packet.
    #[inline(always)]
    pub const fn kind(self) -> EncapKind {
        match self {
            Self::IpIp4 | Self::IpIp6 => EncapKind::IpIp,
            Self::Gue4 | Self::Gue6 => EncapKind::Gue,
        }
    }

    /// Whether the outer IP header is IPv6, else IPv4.
    #[inline(always)]
    pub const fn is_outer_v6(self) -> bool {
        matches!(self, Self::IpIp6 | Self::Gue6)
    }

    /// Bytes it adds to an IP packet.
    #[inline(always)]
    pub const fn overhead(self) -> usize {
        let between = match self.kind() {
            EncapKind::IpIp => 0,
            EncapKind::Gue => GUE_HEADERS,
        };
        between + if self.is_outer_v6() { 40 } else { 20 }
    }
}

/// The most that an encapsulation adds to an IP packet, by the family of the outer IP header: that header, and those of UDP and GUE.
#[inline(always)]
pub const fn most_overhead(is_outer_v6: bool) -> usize {
    Encap::new(EncapKind::Gue, is_outer_v6).overhead()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_encapsulation_is_a_kind_and_a_family_and_adds_so_many_bytes() {
        for (encap, overhead) in [(Encap::IpIp4, 20), (Encap::IpIp6, 40), (Encap::Gue4, 32), (Encap::Gue6, 52)] {
            assert_eq!(Encap::new(encap.kind(), encap.is_outer_v6()), encap);
            assert_eq!(encap.overhead(), overhead, "{encap:?}");
        }
    }
}
