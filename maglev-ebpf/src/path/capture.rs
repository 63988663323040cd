//! The headers that a capture's filters read, of a packet as it came in or behind its outer headers. It must not know filters.

use maglev_common::capture::{Headers, NO_FAMILY, transport_word};
use zerocopy::byteorder::{BE, LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::env::Packet;
use crate::packet::eth::{self, Payload};
use crate::packet::{ipv4, ipv6, l4};

/// An IPv4 header, as far as it is read here.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Start4 {
    version_ihl: u8,
    class: u8,
    length: U16<BE>,
    identification: U16<BE>,
    flags_fragment: U16<BE>,
    ttl: u8,
    protocol: u8,
    checksum: U16<BE>,
    source: U32<LE>,
    destination: U32<LE>,
}

/// An IPv6 header, likewise.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Start6 {
    start: U64<LE>,
    source: [U64<LE>; 2],
    destination: [U64<LE>; 2],
}

/// A TCP header as far as its flags.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct TcpStart {
    ports: U32<LE>,
    sequence_to_offset: [u8; 9],
    flags: u8,
}

/// The bits of an IPv4 header that say where a fragment lies in its datagram.
const OFFSET: u16 = 0x1fff;
/// Bytes of the headers of UDP and GUE.
const GUE: usize = 12;

/// Reads the headers of a frame into `headers`; of the packet inside it, if it is `encapsulated`.
///
/// Ports and flags are read of whole packets and first fragments, and of IPv6 without extension headers.
#[inline(always)]
pub fn read<P: Packet>(packet: &P, encapsulated: bool, headers: &Headers) {
    headers.transport.set(transport_word(NO_FAMILY, 0, 0));
    match (eth::payload(packet), encapsulated) {
        (Some(Payload::Ipv4(l3)), false) => read4(packet, l3, headers),
        (Some(Payload::Ipv6(l3)), false) => read6(packet, l3, headers),
        (Some(Payload::Ipv4(l3)), true) => {
            let Some(outer) = packet.view::<Start4>(l3) else { return };
            read_inside(packet, l3 + ipv4::HEADER, outer.protocol, headers);
        }
        (Some(Payload::Ipv6(l3)), true) => {
            let Some(outer) = packet.view::<Start6>(l3) else { return };
            read_inside(packet, l3 + ipv6::HEADER, (outer.start.get() >> 48) as u8, headers);
        }
        _ => {}
    }
}

/// Reads the packet behind an outer IP header of this protocol.
#[inline(always)]
fn read_inside<P: Packet>(packet: &P, after: usize, protocol: u8, headers: &Headers) {
    let l3 = if protocol == l4::UDP { after + GUE } else { after };
    match packet.view::<u8>(l3).map(|first| first >> 4) {
        Some(4) => read4(packet, l3, headers),
        Some(6) => read6(packet, l3, headers),
        _ => {}
    }
}

#[inline(always)]
fn read4<P: Packet>(packet: &P, l3: usize, headers: &Headers) {
    let Some(header) = packet.view::<Start4>(l3) else { return };
    headers.source[0].set(u64::from(header.source.get()));
    headers.source[1].set(0);
    headers.destination[0].set(u64::from(header.destination.get()));
    headers.destination[1].set(0);
    let transport = l3 + (header.version_ihl as usize & 0xf) * 4;
    let protocol = if header.flags_fragment.get() & OFFSET == 0 { header.protocol } else { 0 };
    headers.transport.set(read_transport(packet, transport, 4, protocol));
}

#[inline(always)]
fn read6<P: Packet>(packet: &P, l3: usize, headers: &Headers) {
    let Some(header) = packet.view::<Start6>(l3) else { return };
    for n in 0..2 {
        headers.source[n].set(header.source[n].get());
        headers.destination[n].set(header.destination[n].get());
    }
    let protocol = (header.start.get() >> 48) as u8;
    headers.transport.set(read_transport(packet, l3 + ipv6::HEADER, 6, protocol));
}

#[inline(always)]
fn read_transport<P: Packet>(packet: &P, at: usize, family: u8, protocol: u8) -> u64 {
    let tcp = if protocol == l4::TCP { packet.view::<TcpStart>(at) } else { None };
    if let Some(header) = tcp {
        return transport_word(family, header.flags, header.ports.get());
    }
    let ports = if l4::has_ports(protocol) { packet.view::<U32<LE>>(at).map(|ports| ports.get()) } else { None };
    transport_word(family, 0, ports.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encap;
    use crate::env::Outer;
    use crate::fixtures::{VecPacket, tcp4, tcp6};
    use crate::packet::Ip as _;
    use crate::testing::{backend4, backend6, tables};
    use maglev_common::hash::{Tuple4, Tuple6};
    use maglev_common::template::Template;
    use std::vec::Vec;
    use zerocopy::FromZeros as _;

    fn read_of(frame: &[u8], encapsulated: bool) -> ([u64; 4], u64) {
        let headers = Headers::new_zeroed();
        read(&VecPacket::new(frame), encapsulated, &headers);
        let word = |words: &[maglev_common::pod::Word; 2], n: usize| words[n].get();
        let Headers { source, destination, transport, .. } = &headers;
        ([word(source, 0), word(source, 1), word(destination, 0), word(destination, 1)], transport.get())
    }

    #[test]
    fn a_packet_reads_the_same_before_and_inside_its_outer_headers() {
        for (record, tags) in [(backend4(), 0), (backend6(), 0), (backend4(), 1)] {
            for (frame, protocol) in [(tcp4(b"hello"), Tuple4::IN_IP), (tcp6(b"hello"), Tuple6::IN_IP)] {
                let mut tagged = frame.clone();
                tagged.splice(12..12, [0x81, 0, 0, 5].repeat(tags));
                let before = read_of(&tagged, false);
                assert!(before.1 & 0xffff_ffff != 0 && before.1 >> 40 >= 4, "{before:x?}");
                let interface = tables(record.clone()).forwarding.interfaces[0].clone();
                let template = Template::new(&record, &interface);
                let l3 = eth::HEADER + tags * eth::TAG;
                let outer = Outer { protocol, l3, length: (frame.len() - eth::HEADER) as u32, hash: 7 };
                let mut packet = VecPacket::new(&tagged);
                assert!(encap::encapsulate::<Tuple4>(
                    &mut packet,
                    template.exit().encap(),
                    true,
                    outer,
                    &template,
                    &record
                ));
                assert_eq!(read_of(&packet.bytes, true), before);
            }
        }
    }

    #[test]
    fn frames_that_end_early_have_what_is_there() {
        let frame: Vec<u8> = tcp4(b"");
        let whole = read_of(&frame, false);
        for length in 0..frame.len() {
            let (_, transport) = read_of(&frame[..length], false);
            assert!(transport != 0 && (transport == whole.1 || transport & 0xff_0000_0000 == 0), "{length}");
            read_of(&frame[..length], true);
        }
    }
}
