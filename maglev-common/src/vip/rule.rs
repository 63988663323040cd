//! Which packets to an address a VIP takes, where a key of its own does not say so.

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::ADDRESS_ALONE;

/// Which packets to an address or prefix a VIP takes: ports and protocol.
///
/// ```text
///  63           48 47          32 31        24 23            0
/// +---------------+--------------+------------+---------------+
/// | last port     | first port   | protocol   | 0             |
/// +---------------+--------------+------------+---------------+
/// ```
///
/// Protocol 0 stands for any. A protocol without ports has port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Rule(u64);

impl Rule {
    /// Takes the ports from the first to the last, in the host's order; from 0 on to take any.
    pub const fn new(first: u16, last: u16, protocol: u8) -> Self {
        Self((last as u64) << 48 | (first as u64) << 32 | (protocol as u64) << 24)
    }

    /// Whether it takes packets with this port and protocol, as [`crate::hash::Transport::service`] has them.
    #[inline(always)]
    pub const fn takes(self, service: u64) -> bool {
        let (port, protocol) = ((service as u16).swap_bytes() as u64, service >> 16 & 0xff);
        let (first, last, own) = (self.0 >> 32 & 0xffff, self.0 >> 48, self.0 >> 24 & 0xff);
        first <= port && port <= last && (own == 0 || own == protocol) && service < ADDRESS_ALONE
    }
}
