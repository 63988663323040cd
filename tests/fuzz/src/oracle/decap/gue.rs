//! GUE (draft-ietf-intarea-gue, sections 3 and 4) in UDP (RFC 768).
//!
//! ```text
//!   0                   1                   2                   3
//!   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!  +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!  | 0 |C|   Hlen  |  Proto/ctype  |             Flags             |
//!  +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!  ~            Hlen words: private data, for no flag is set       ~
//!  +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! Version 1 has no header of its own: its first bits are those of the IP header that stands there.

use std::ops::Range;

use super::outer::{Fragment, Outer};
use super::{IPV4, IPV6};
use crate::oracle::bytes::{array, be16};

/// The protocol number of UDP.
pub(super) const UDP: u8 = 17;
/// The registered port of GUE.
const PORT: u16 = 6080;
/// Bytes of a UDP header.
const UDP_BYTES: usize = 8;

/// Whether a packet of UDP is one for GUE's port. Fragments are not: the later ones have no ports, and the host puts a datagram
/// together. Behind options no port is looked for.
pub(super) fn is_for_port(frame: &[u8], outer: &Outer) -> bool {
    let port = |start: usize| be16(&array::<UDP_BYTES>(frame, start)?, 2);
    outer.fragment == Fragment::Whole && outer.end.and_then(port) == Some(PORT)
}

/// The protocol and the bytes of the packet in a datagram, or the reason why it has none.
pub(super) fn open(frame: &[u8], datagram: Range<usize>) -> Result<(u8, Range<usize>), &'static str> {
    let length = be16(frame, datagram.start + 4).ok_or("malformed")?;
    // The first bytes say what it is, even if the datagram is too short for them.
    let header: [u8; 4] = array(frame, datagram.start + UDP_BYTES).ok_or("malformed")?;
    if usize::from(length) != datagram.len() {
        return Err("malformed");
    }
    let (protocol, skipped) = match (header[0] >> 6, header[0] >> 4) {
        (0, _) => version_0(header)?,
        (_, 4) => (IPV4, 0),
        (_, 6) => (IPV6, 0),
        _ => return Err("unsupported_gue"),
    };
    let start = datagram.start + UDP_BYTES + skipped;
    if start > datagram.end {
        return Err("malformed");
    }
    Ok((protocol, start..datagram.end))
}

/// The protocol of the packet behind a header, and the header's length with its private data.
fn version_0([first, protocol, flags @ ..]: [u8; 4]) -> Result<(u8, usize), &'static str> {
    let is_control = first & 0x20 != 0;
    if is_control || flags != [0, 0] || !matches!(protocol, IPV4 | IPV6) {
        return Err("unsupported_gue");
    }
    Ok((protocol, 4 + usize::from(first & 0x1f) * 4))
}
