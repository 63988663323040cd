//! IP in IP (RFC 2003, RFC 2473): an outer IPv4 or IPv6 header in front of the whole packet, with a new Ethernet
//! header before it.

use maglev_common::backend::MemberRecord;
use maglev_common::encap::Encap;
use maglev_common::template::Template;
use zerocopy::byteorder::{LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{Fields, write4, write6};
use crate::env::{Outer, Packet};
use crate::packet::{Ip, eth};

/// Bytes an outer IPv4 header adds.
pub const OVERHEAD4: usize = Encap::IpIp4.overhead();
/// Bytes an outer IPv6 header adds.
pub const OVERHEAD6: usize = Encap::IpIp6.overhead();

/// Ethernet and IPv4: 34 bytes as four words and a half; then the inner header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Frame4 {
    words: [U64<LE>; 4],
    last: U16<LE>,
    inner: U16<LE>,
}

/// Ethernet and IPv6: 54 bytes; then the inner header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Frame6 {
    words: [U64<LE>; 6],
    last: U32<LE>,
    end: U16<LE>,
    inner: U16<LE>,
}

/// Puts an outer IPv4 header in front of a packet, and an Ethernet header without tags before it. Returns whether there was room.
#[inline(always)]
pub fn encapsulate4<F: Ip>(packet: &mut impl Packet, outer: Outer, template: &Template) -> bool {
    if !packet.grow(OVERHEAD4 + eth::HEADER - outer.l3) {
        return false;
    }
    let Some(frame) = packet.view_mut::<Frame4>(0) else { return false };
    let class = F::traffic_class(frame.inner.get());
    let Outer { length, protocol, hash, .. } = outer;
    let fields = Fields { class, length: length + OVERHEAD4 as u32, protocol, hash };
    let last = write4(&mut frame.words, template, &fields);
    frame.last.set(last);
    true
}

/// The same with an outer IPv6 header.
#[inline(always)]
pub fn encapsulate6<F: Ip>(packet: &mut impl Packet, outer: Outer, template: &Template, record: &MemberRecord) -> bool {
    if !packet.grow(OVERHEAD6 + eth::HEADER - outer.l3) {
        return false;
    }
    let Some(frame) = packet.view_mut::<Frame6>(0) else { return false };
    let class = F::traffic_class(frame.inner.get());
    let Outer { length, protocol, hash, .. } = outer;
    let last = write6(&mut frame.words, template, record, &Fields { class, length, protocol, hash });
    frame.last.set(last as u32);
    frame.end.set((last >> 32) as u16);
    true
}
