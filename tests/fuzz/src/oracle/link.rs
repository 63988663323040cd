//! Ethernet II frames with up to two VLAN tags (IEEE 802.1Q, 802.1ad).

use super::bytes::{array, be16};

/// Bytes of a header without tags.
pub(crate) const HEADER: usize = 14;

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// It ends within its header or tags.
    Truncated,
    /// Neither IPv4 nor IPv6.
    Other,
    /// An IP packet that begins at this offset.
    Ip(Family, usize),
}

/// Reads the header and tags of a frame.
pub(crate) fn link(frame: &[u8]) -> Link {
    let mut at = HEADER - 2;
    for tags_left in (0..=2).rev() {
        let Some(ether_type) = be16(frame, at) else { return Link::Truncated };
        at += 2;
        match ether_type {
            0x0800 => return Link::Ip(Family::V4, at),
            0x86dd => return Link::Ip(Family::V6, at),
            0x8100 | 0x88a8 if tags_left > 0 => at += 2,
            _ => return Link::Other,
        }
    }
    Link::Other
}

/// The destination of a frame.
pub(crate) fn destination(frame: &[u8]) -> Option<[u8; 6]> {
    array(frame, 0)
}

/// The header of a frame, tags included, as that of an answer: its addresses change places.
pub(crate) fn turned(frame: &[u8], l3: usize) -> Vec<u8> {
    let macs: Vec<u8> = [&frame[6..12], &frame[..6]].concat();
    [&macs, &frame[12..l3]].concat()
}
