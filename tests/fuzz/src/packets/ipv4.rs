//! IPv4 packets, with options and in fragments.

use std::net::Ipv4Addr;

use fastrand::Rng;

use super::{choose, one_in};

/// The fields of a header.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) protocol: u8,
    pub(super) class: u8,
    pub(super) identification: u16,
    /// Flags and offset.
    pub(super) fragment: u16,
    pub(super) ttl: u8,
    /// A whole number of words.
    pub(super) options: Vec<u8>,
}

impl Header {
    /// A header of an ordinary packet.
    pub(super) fn new(rng: &mut Rng, source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Self {
        let class = if one_in(rng, 3) { rng.u8(..) } else { 0 };
        let ttl = match rng.u8(..32) {
            0 => 0,
            1 => 1,
            _ => choose(rng, &[64, 63, 255, 2]),
        };
        let fragment = if one_in(rng, 3) { 0 } else { 0x4000 };
        // Few, so that datagrams meet others' numbers.
        let identification = choose(rng, &[0, 1, 2, 3, 0xffff, 0x1234]);
        let options = if one_in(rng, 6) { options(rng) } else { Vec::new() };
        Self { source, destination, protocol, class, identification, fragment, ttl, options }
    }

    /// The packet with this payload.
    pub(super) fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let length = 20 + self.options.len();
        let mut header = vec![0x40 | (length / 4) as u8, self.class];
        header.extend(((length + payload.len()) as u16).to_be_bytes());
        header.extend(self.identification.to_be_bytes());
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, self.protocol, 0, 0]);
        header.extend(self.source.octets());
        header.extend(self.destination.octets());
        header.extend(&self.options);
        set_checksum(&mut header, 10);
        [&header, payload].concat()
    }

    /// The packets of a payload in fragments of about so many bytes.
    pub(super) fn fragments(&self, rng: &mut Rng, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
        let size = (size & !7).max(8);
        let mut packets = Vec::new();
        for (n, piece) in payload.chunks(size).enumerate() {
            let more = if (n + 1) * size < payload.len() { 0x2000 } else { 0 };
            let flags = if one_in(rng, 8) { 0x4000 } else { 0 };
            let fragment = flags | more | (n * size / 8) as u16;
            packets.push(Self { fragment, ..self.clone() }.packet(piece));
        }
        packets
    }
}

/// Writes the checksum of a header, of which it is zero.
pub(super) fn set_checksum(header: &mut [u8], at: usize) {
    let mut sum: u32 =
        header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[at..at + 2].copy_from_slice(&(!sum as u16).to_be_bytes());
}

/// Options of all kinds, some with lengths that lie, in whole words.
fn options(rng: &mut Rng) -> Vec<u8> {
    let mut options = Vec::new();
    for _ in 0..rng.usize(1..6) {
        match rng.u8(..12) {
            0..3 => options.extend(std::iter::repeat_n(1, rng.usize(1..4))),
            3 => options.push(0),
            // Timestamp, security, router alert, and others whose copied bit is set or not.
            4..9 => {
                let kind = choose(rng, &[7, 68, 130, 148, 136, 129, 139, 133, 3, 9, 11, 0x97]);
                let length = choose(rng, &[2, 3, 4, 7, 8]);
                options.extend([kind, length]);
                options.extend(std::iter::repeat_n(rng.u8(..), usize::from(length) - 2));
            }
            9 => {
                let kind = choose(rng, &[131, 137]);
                options.extend([kind, 7, 4, 10, 0, 0, 1]);
            }
            10 => options.extend([rng.u8(..), rng.u8(..)]),
            _ => options.push(choose(rng, &[7, 131, 137, 68, 1])),
        }
    }
    options.truncate(40);
    let missing = options.len().next_multiple_of(4) - options.len();
    options.extend(std::iter::repeat_n(choose(rng, &[0, 1, 7]), missing));
    options
}
