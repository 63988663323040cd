//! Ethernet II frames and VLAN tags (IEEE 802.1Q, 802.1ad).

use maglev_common::backend::Tag;
use zerocopy::byteorder::{BE, LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::env::Packet;
use maglev_common::forwarding::OwnMac;

/// Bytes of an Ethernet header without tags.
pub const HEADER: usize = 14;
/// Bytes a VLAN tag adds.
pub const TAG: usize = 4;
/// Stacked tags that are looked through: 802.1ad allows two.
const MAX_TAGS: usize = 2;

/// IPv4.
pub const IPV4: u16 = 0x0800;
/// IPv6.
pub const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;

/// An Ethernet header.
///
/// ```text
///  0                 6                 12       14
/// +-----------------+-----------------+--------+
/// | destination     | source          | type   |
/// +-----------------+-----------------+--------+
/// ```
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ethernet {
    /// Destination MAC address and the first two bytes of the source's.
    pub start: U64<LE>,
    /// The rest of the source's.
    pub source_end: [u8; 4],
    /// EtherType.
    pub ether_type: U16<BE>,
}

/// What an Ethernet frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// An IPv4 packet that begins at this offset: [`HEADER`], and [`TAG`] for each VLAN tag.
    Ipv4(usize),
    /// An IPv6 packet, likewise.
    Ipv6(usize),
    /// Anything else.
    Other,
}

/// The destination MAC address of a frame; `None` if it is shorter than its header.
#[inline(always)]
pub fn destination(packet: &impl Packet) -> Option<OwnMac> {
    let header = packet.view::<Ethernet>(0)?;
    Some(OwnMac::from_frame(header.start.get()))
}

/// Turns a frame round: it goes to where it came from.
#[inline(always)]
pub fn turn(packet: &mut impl Packet) {
    let Some(header) = packet.view_mut::<Ethernet>(0) else { return };
    let start = header.start.get();
    let source = start >> 48 | u64::from(u32::from_le_bytes(header.source_end)) << 16;
    header.start.set(source | start << 48);
    header.source_end = ((start >> 16) as u32).to_le_bytes();
}

/// Makes room for headers between the Ethernet header, tags included, and the packet at an offset; the frame is turned round
/// with it. False if there was no room: the frame is as before.
#[inline(always)]
pub fn insert_and_turn(packet: &mut impl Packet, l3: usize, bytes: usize) -> bool {
    if !packet.grow(bytes) {
        return false;
    }
    let Some(&[destination, source]) = packet.view::<[[u8; 6]; 2]>(bytes) else { return false };
    let Some(macs) = packet.view_mut::<[[u8; 6]; 2]>(0) else { return false };
    *macs = [source, destination];
    // Tags and EtherType, two bytes at a time.
    for at in [12, 14, 16, 18, 20] {
        if at >= l3 {
            break;
        }
        let Some(&word) = packet.view::<[u8; 2]>(bytes + at) else { return false };
        let Some(to) = packet.view_mut::<[u8; 2]>(at) else { return false };
        *to = word;
    }
    true
}

/// The MAC addresses of a frame, and a tag behind them.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Tagged {
    macs: [U32<LE>; 3],
    tag: U32<LE>,
}

/// Inserts a VLAN tag before all that a frame has. False if there was no room: the frame is as before.
#[inline(always)]
pub fn insert_tag(packet: &mut impl Packet, tag: Tag) -> bool {
    if !packet.grow(TAG) {
        return false;
    }
    let Some(&macs) = packet.view::<[U32<LE>; 3]>(TAG) else { return false };
    let Some(start) = packet.view_mut::<Tagged>(0) else { return false };
    *start = Tagged { macs, tag: U32::new(tag.0) };
    true
}

/// Returns the content of a frame; `None` if it is shorter than its headers.
#[inline(always)]
pub fn payload(packet: &impl Packet) -> Option<Payload> {
    match packet.view::<Ethernet>(0)?.ether_type.get() {
        IPV4 => Some(Payload::Ipv4(HEADER)),
        IPV6 => Some(Payload::Ipv6(HEADER)),
        VLAN | SERVICE_VLAN => tagged_payload(packet),
        _ => Some(Payload::Other),
    }
}

/// Whether a frame begins with a VLAN tag.
#[inline(always)]
pub fn is_tagged(packet: &impl Packet) -> bool {
    packet.view::<Ethernet>(0).is_some_and(|header| matches!(header.ether_type.get(), VLAN | SERVICE_VLAN))
}

#[inline(always)]
fn tagged_payload(packet: &impl Packet) -> Option<Payload> {
    let mut offset = HEADER;
    for _ in 0..MAX_TAGS {
        let ether_type = packet.view::<U16<BE>>(offset + TAG - 2)?.get();
        offset += TAG;
        match ether_type {
            IPV4 => return Some(Payload::Ipv4(offset)),
            IPV6 => return Some(Payload::Ipv6(offset)),
            VLAN | SERVICE_VLAN => {}
            _ => return Some(Payload::Other),
        }
    }
    Some(Payload::Other)
}
