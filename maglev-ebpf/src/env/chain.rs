//! What stands behind the extension headers of an IPv6 packet, as a value that a function of the kernel can hand back.

/// What follows the extension headers of a packet, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// A header of this protocol, so many bytes on.
    Ends(u8, usize),
    /// A fragment header, so many bytes on: that of the first fragment or of a later one.
    Fragment(usize),
    /// The sender chose the packet's route: [`crate::packet::Parsed::SourceRoute`].
    SourceRoute,
    /// More than are followed.
    TooLong,
    /// The frame ends before they do.
    Cut,
}

impl Chain {
    /// Offsets fit twelve bits.
    pub const MOST: usize = 4_095;

    /// As a number, to be handed back by a function of the kernel.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Ends(protocol, at) => protocol as u32 | (at as u32) << 8,
            Self::Fragment(at) => 1 << 24 | (at as u32) << 8,
            Self::SourceRoute => 2 << 24,
            Self::TooLong => 3 << 24,
            Self::Cut => 4 << 24,
        }
    }

    /// The reverse of [`Self::bits`].
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        match bits >> 24 {
            0 => Self::Ends(bits as u8, (bits >> 8) as usize & Self::MOST),
            1 => Self::Fragment((bits >> 8) as usize & Self::MOST),
            2 => Self::SourceRoute,
            3 => Self::TooLong,
            _ => Self::Cut,
        }
    }
}
