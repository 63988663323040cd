//! IPv6 packets, with extension headers and in fragments.

use std::net::Ipv6Addr;

use fastrand::Rng;

use super::{choose, one_in};

const FRAGMENT: u8 = 44;

/// The fields of a header.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    pub(super) class: u8,
    pub(super) label: u32,
    pub(super) hop_limit: u8,
    /// Kinds of extension headers and their bytes, of which the first is to be the next one's kind.
    pub(super) extensions: Vec<(u8, Vec<u8>)>,
    pub(super) protocol: u8,
}

impl Header {
    /// A header of an ordinary packet.
    pub(super) fn new(rng: &mut Rng, source: Ipv6Addr, destination: Ipv6Addr, protocol: u8) -> Self {
        let class = if one_in(rng, 3) { rng.u8(..) } else { 0 };
        let hop_limit = match rng.u8(..32) {
            0 => 0,
            1 => 1,
            _ => choose(rng, &[64, 255, 2]),
        };
        let extensions = if one_in(rng, 5) { extensions(rng) } else { Vec::new() };
        Self { source, destination, class, label: rng.u32(..) & 0xf_ffff, hop_limit, extensions, protocol }
    }

    /// The packet with this payload behind all extension headers.
    pub(super) fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let kinds: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).chain([self.protocol]).collect();
        let mut rest = Vec::new();
        for ((_, bytes), next) in self.extensions.iter().zip(&kinds[1..]) {
            rest.push(*next);
            rest.extend(&bytes[1..]);
        }
        rest.extend(payload);
        let mut packet = (6 << 28 | u32::from(self.class) << 20 | self.label).to_be_bytes().to_vec();
        packet.extend((rest.len() as u16).to_be_bytes());
        packet.extend([kinds[0], self.hop_limit]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(rest);
        packet
    }

    /// The packets of a payload in fragments of about so many bytes; the extension headers are in each.
    pub(super) fn fragments(&self, rng: &mut Rng, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
        let (size, identification) = ((size & !7).max(8), choose(rng, &[0_u32, 1, 2, 3, 0xffff_ffff]));
        let mut packets = Vec::new();
        for (n, piece) in payload.chunks(size).enumerate() {
            let more = u16::from((n + 1) * size < payload.len());
            let mut header = self.clone();
            header.extensions.push((FRAGMENT, fragment((n * size) as u16 | more, identification)));
            packets.push(header.packet(piece));
        }
        packets
    }
}

fn fragment(position: u16, identification: u32) -> Vec<u8> {
    [&[0, 0], &position.to_be_bytes()[..], &identification.to_be_bytes()].concat()
}

/// Extension headers of all kinds: a few, or more than are followed, by number or by bytes.
fn extensions(rng: &mut Rng) -> Vec<(u8, Vec<u8>)> {
    let count = match rng.u8(..8) {
        0..5 => rng.usize(1..4),
        5 => rng.usize(4..8),
        6 => 8,
        _ => 9,
    };
    let long = one_in(rng, 3);
    (0..count).map(|_| extension(rng, long)).collect()
}

fn extension(rng: &mut Rng, long: bool) -> (u8, Vec<u8>) {
    let units = if long && one_in(rng, 2) { choose(rng, &[7, 15, 31, 62, 63, 64, 127]) } else { rng.u8(..3) };
    let options = |rng: &mut Rng, units: u8| {
        let mut bytes = vec![0, units];
        bytes.resize(8 + usize::from(units) * 8, if one_in(rng, 2) { 0 } else { 1 });
        bytes
    };
    match rng.u8(..16) {
        0..4 => (0, options(rng, units)),
        4..9 => (60, options(rng, units)),
        9..11 => {
            let mut bytes = options(rng, 2);
            bytes[2] = choose(rng, &[0, 1, 2, 3, 4]);
            bytes[3] = if one_in(rng, 3) { choose(rng, &[1, 2, 255]) } else { 0 };
            (43, bytes)
        }
        11..13 => {
            let words = choose(rng, &[0, 1, 2, 4, 10]);
            (51, [vec![0, words], vec![rng.u8(..); 6 + 4 * usize::from(words)]].concat())
        }
        // Neither an offset nor more to come (RFC 6946).
        13..15 => (FRAGMENT, fragment(rng.u16(..) & 6, rng.u32(..))),
        _ => (FRAGMENT, fragment(rng.u16(..), rng.u32(..) & 3)),
    }
}
