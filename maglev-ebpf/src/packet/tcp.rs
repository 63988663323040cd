//! The TCP header (RFC 9293 section 3.1), and the RST that answers a segment without a connection. It must not know IP.

use zerocopy::byteorder::{BE, LE, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a header without options.
pub const HEADER: usize = 20;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A header without options.
///
/// ```text
///  0          2          4          8              12       13      14       16         18       20
/// +----------+----------+----------+--------------+--------+-------+--------+----------+--------+
/// | src port | dst port | sequence | acknowledged | offset | flags | window | checksum | urgent |
/// +----------+----------+----------+--------------+--------+-------+--------+----------+--------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// Source and destination port, as four bytes read little-endian.
    pub ports: U32<LE>,
    /// The number of the first byte.
    pub sequence: U32<BE>,
    /// The number that is expected next of the other side.
    pub acknowledged: U32<BE>,
    /// The header's length in words, in the high four bits.
    pub offset: u8,
    /// Flags.
    pub flags: u8,
    /// Bytes that the sender takes.
    pub window: [u8; 2],
    /// The checksum as it is stored, read little-endian.
    pub checksum: U16<LE>,
    /// The urgent pointer.
    pub urgent: [u8; 2],
}

impl Tcp {
    /// The RST that answers this segment of `length` bytes, header included (RFC 9293 section 3.10.7.1). Its checksum is 0. `None` if the
    /// segment is a RST, or its header is longer than the segment or shorter than a header.
    #[inline(always)]
    pub fn reset(&self, length: u32) -> Option<Self> {
        let (flags, header) = (self.flags, u32::from(self.offset >> 4) * 4);
        if flags & RST != 0 || header < HEADER as u32 || header > length {
            return None;
        }
        let bytes = length - header + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let known = flags & ACK != 0;
        let next = self.sequence.get().wrapping_add(bytes);
        Some(Self {
            ports: U32::new(self.ports.get().rotate_left(16)),
            sequence: if known { self.acknowledged } else { U32::ZERO },
            acknowledged: if known { U32::ZERO } else { U32::new(next) },
            offset: (HEADER as u8 / 4) << 4,
            flags: if known { RST } else { RST | ACK },
            window: [0; 2],
            checksum: U16::ZERO,
            urgent: [0; 2],
        })
    }
}
