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
use crate::oracle::bytes::be16;

/// The protocol number of UDP.
pub(super) const UDP: u8 = 17;
/// The registered port of GUE.
const PORT: u16 = 6080;
/// Bytes of a UDP header.
const UDP_BYTES: usize = 8;

/// Whether a packet of UDP is one for GUE's port. Fragments are not: the later ones have no ports, and the host puts a datagram
/// together.
pub(super) fn is_for_port(frame: &[u8], outer: &Outer) -> bool {
    let ports = |payload: &Range<usize>| be16(frame.get(payload.clone())?, 2);
    outer.fragment == Fragment::Whole && outer.payload.as_ref().and_then(ports) == Some(PORT)
}

/// The protocol and the bytes of the packet in a datagram, or the reason why it has none.
pub(super) fn open(frame: &[u8], datagram: Range<usize>) -> Result<(u8, Range<usize>), &'static str> {
    let bytes = frame.get(datagram.clone()).ok_or("malformed")?;
    let length = usize::from(be16(bytes, 4).ok_or("malformed")?);
    if length < UDP_BYTES || length > bytes.len() {
        return Err("malformed");
    }
    let start = datagram.start + UDP_BYTES;
    let end = datagram.start + length;
    let gue = &bytes[UDP_BYTES..length];
    let first = *gue.first().ok_or("malformed")?;
    match (first >> 6, first >> 4) {
        (0, _) => version_0(gue).map(|(protocol, skipped)| (protocol, start + skipped..end)),
        (_, 4) => Ok((IPV4, start..end)),
        (_, 6) => Ok((IPV6, start..end)),
        _ => Err("unsupported_gue"),
    }
}

/// The protocol of the packet behind a header, and the header's length.
fn version_0(gue: &[u8]) -> Result<(u8, usize), &'static str> {
    let header: [u8; 4] = gue.get(..4).and_then(|header| header.try_into().ok()).ok_or("malformed")?;
    let [first, protocol, flags @ ..] = header;
    let is_control = first & 0x20 != 0;
    if is_control || flags != [0, 0] || !matches!(protocol, IPV4 | IPV6) {
        return Err("unsupported_gue");
    }
    let length = 4 + usize::from(first & 0x1f) * 4;
    if length > gue.len() {
        return Err("malformed");
    }
    Ok((protocol, length))
}
