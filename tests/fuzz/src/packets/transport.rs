//! Transport headers and what they carry: mostly valid. Checksums are any: the programs do not verify them.

use fastrand::Rng;

use super::addresses::Flow;
use super::{choose, one_in};

/// A length of payload: mostly short, sometimes about as long as links take.
pub(super) fn length(rng: &mut Rng) -> usize {
    match rng.u8(..16) {
        0..8 => rng.usize(..64),
        8..11 => rng.usize(..600),
        11 => 0,
        12 => rng.usize(900..1_020),
        13 => rng.usize(1_220..1_300),
        14 => rng.usize(1_340..1_500),
        _ => rng.usize(..1_500),
    }
}

/// The transport header of a flow, and payload.
pub(super) fn payload(rng: &mut Rng, flow: Flow) -> Vec<u8> {
    let mut bytes = vec![rng.u8(..); length(rng)];
    let ports = [flow.source_port.to_be_bytes(), flow.port.to_be_bytes()].concat();
    let header = match flow.protocol {
        6 => tcp(rng, &ports),
        17 | 136 => {
            if one_in(rng, 8) {
                bytes.clear();
            }
            let length = if flow.protocol == 136 { 8 } else { 8 + bytes.len() as u16 };
            [&ports[..], &length.to_be_bytes(), &rng.u16(..).to_be_bytes()].concat()
        }
        132 => [&ports[..], &rng.u64(..).to_be_bytes()].concat(),
        // Flags and version, and an IPv4 or IPv6 packet.
        47 => [&[0, 0], &choose(rng, &[[0x08, 0], [0x86, 0xdd]])[..]].concat(),
        _ => Vec::new(),
    };
    [header, bytes].concat()
}

fn tcp(rng: &mut Rng, ports: &[u8]) -> Vec<u8> {
    let flags = match rng.u8(..8) {
        0..3 => choose(rng, &[0x02, 0x02, 0x02, 0x10, 0x12, 0x18, 0x11, 0x04, 0x14, 0x01, 0x03, 0x06, 0x00]),
        3 => rng.u8(..),
        _ => 0x10,
    };
    let words = if one_in(rng, 4) { rng.u8(..) >> 4 } else { 5 };
    let mut header = ports.to_vec();
    header.extend(rng.u64(..).to_be_bytes());
    header.extend([words << 4, flags]);
    header.extend(rng.u32(..).to_be_bytes());
    header.extend([0, 0]);
    // Options: MSS, window scale, and padding.
    let options = usize::from(words.saturating_sub(5)) * 4;
    header.extend([2, 4, 5, 0xb4, 1, 3, 3, 7].iter().cycle().take(options));
    header
}
