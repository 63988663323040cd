//! ICMP (RFC 792) and ICMPv6 (RFC 4443): which messages are errors about a packet, which ask for an echo.

use maglev_common::hash::{Tuple4, Tuple6};
use zerocopy::byteorder::{BE, LE, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_ref};

use super::{Ip, checksum};
use crate::env::Packet;

/// Bytes of the header; in an error, the quoted packet follows.
pub const HEADER: usize = 8;

/// The header of a message.
///
/// ```text
///  0      1      2          4                                 8
/// +------+------+----------+----------------------------------+
/// | type | code | checksum | by type: an MTU, an identifier … |
/// +------+------+----------+----------------------------------+
/// ```
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Icmp {
    /// What the message is.
    pub kind: u8,
    /// What it is in detail.
    pub code: u8,
    /// The checksum as it is stored, read little-endian.
    pub checksum: U16<LE>,
    /// Of an error about a packet that is too big, the MTU; RFC 1191 has it in the lower half.
    pub rest: U32<BE>,
}

impl Icmp {
    /// The header of an error made here; `covered`: the sum of everything else that its checksum covers.
    #[inline(always)]
    pub fn error(kind: u8, code: u8, rest: u32, covered: u64) -> Self {
        let header = Self { kind, code, checksum: U16::ZERO, rest: U32::new(rest) };
        let words: &[U32<LE>; 2] = transmute_ref!(&header);
        let checksum = checksum::finish(checksum::folded(checksum::sum(words) + covered));
        Self { checksum: U16::new(checksum), ..header }
    }
}

/// What a message is to the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// An error about a packet that is quoted behind the header.
    Error,
    /// A request for an echo.
    EchoRequest,
    /// Any other: a redirect, an echo reply, neighbor discovery.
    Other,
}

/// The messages of a version of IP.
pub trait Messages: Ip {
    /// The types of an echo request and of its reply.
    const ECHO: [u8; 2];

    /// What a message of this type is.
    fn message(kind: u8) -> Message;
}

impl Messages for Tuple4 {
    const ECHO: [u8; 2] = [8, 0];

    /// Errors: destination unreachable, time exceeded, parameter problem.
    #[inline(always)]
    fn message(kind: u8) -> Message {
        match kind {
            3 | 11 | 12 => Message::Error,
            8 => Message::EchoRequest,
            _ => Message::Other,
        }
    }
}

impl Messages for Tuple6 {
    const ECHO: [u8; 2] = [128, 129];

    /// Errors: destination unreachable, packet too big, time exceeded, parameter problem.
    #[inline(always)]
    fn message(kind: u8) -> Message {
        match kind {
            1..=4 => Message::Error,
            128 => Message::EchoRequest,
            _ => Message::Other,
        }
    }
}

/// Makes the echo request at an offset of the frame a reply: its checksum changes by what its type does (RFC 1624).
#[inline(always)]
pub fn reply<F: Messages>(packet: &mut impl Packet, offset: usize) {
    let [request, reply] = F::ECHO;
    let Some(header) = packet.view_mut::<Icmp>(offset) else { return };
    header.kind = reply;
    header.checksum.set(checksum::replaced(header.checksum.get(), request.into(), reply.into()));
}
