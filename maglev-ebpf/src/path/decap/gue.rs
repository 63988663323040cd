//! GUE behind an outer IP header (draft-ietf-intarea-gue): version 0 with private data of any length, and version 1, which has no
//! header of its own. It must not know how the outer header was accepted.
//!
//! ```text
//!         0              2                  4        6          8                    9          10      12
//!        +--------------+------------------+--------+----------+--------------------+----------+-------+------
//!  v0    | source port  | destination port | length | checksum | 00 | C | hlen (5)  | protocol | flags | hlen × 4 bytes, packet
//!        +--------------+------------------+--------+----------+--------------------+----------+-------+------
//!  v1    | source port  | destination port | length | checksum | packet: 0100… or 0110…
//!        +--------------+------------------+--------+----------+--------------------
//! ```
//!
//! The checksum is not verified, whether it is 0 or not: the packet has one of its own.

use maglev_common::counters::DecapCounter;
use maglev_common::encap::GUE_PORT;
use zerocopy::byteorder::{BE, U16};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Tunnel;
use crate::env::Packet;
use crate::packet::{bounded, eth, ipv4, ipv6};

/// A UDP header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Udp {
    source: U16<BE>,
    destination: U16<BE>,
    length: U16<BE>,
    checksum: U16<BE>,
}

/// A UDP header, and a GUE header of version 0 or the first bytes of a packet.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Start {
    udp: Udp,
    first: u8,
    protocol: u8,
    flags: U16<BE>,
}

/// A control message, of the first byte of version 0.
const CONTROL: u8 = 0x20;
/// Words of optional fields and private data, likewise.
const WORDS: u8 = 0x1f;
/// Bytes of the longest headers before a packet.
pub(super) const MOST_HEADERS: usize = ipv6::HEADER + size_of::<Start>() + WORDS as usize * 4;
/// One less than a power of two.
const MOST: usize = 255;

const _: () = assert!(MOST_HEADERS <= MOST);

/// Whether the UDP header at an offset of the frame has GUE's port.
#[inline(always)]
pub(super) fn is_gue(packet: &impl Packet, offset: usize) -> bool {
    packet.view::<Udp>(offset).is_some_and(|udp| udp.destination.get() == GUE_PORT)
}

/// The tunnel whose outer IP header is followed by UDP and GUE.
///
/// # Errors
/// Lengths contradict each other, or it is a kind of GUE that is not supported.
#[inline(always)]
pub(super) fn open(packet: &impl Packet, outer: Tunnel) -> Result<Tunnel, DecapCounter> {
    let start = packet.view::<Start>(eth::HEADER + outer.header).ok_or(DecapCounter::Malformed)?;
    if usize::from(start.udp.length.get()) != outer.payload {
        return Err(DecapCounter::Malformed);
    }
    let (bytes, protocol) = match start.first >> 4 {
        0..=1 if start.first & CONTROL == 0 && start.flags.get() == 0 => {
            (size_of::<Start>() + usize::from(start.first & WORDS) * 4, start.protocol)
        }
        4 => (size_of::<Udp>(), ipv4::IN_IP),
        6 => (size_of::<Udp>(), ipv6::IN_IP),
        _ => return Err(DecapCounter::UnsupportedGue),
    };
    if !matches!(protocol, ipv4::IN_IP | ipv6::IN_IP) {
        return Err(DecapCounter::UnsupportedGue);
    }
    let bytes = bounded(bytes, MOST);
    let payload = outer.payload.checked_sub(bytes).ok_or(DecapCounter::Malformed)?;
    Ok(Tunnel { header: outer.header + bytes, protocol, payload, ..outer })
}
