//! Generators of frames. They must not know what becomes of a frame.

use std::net::IpAddr;

use fastrand::Rng;
use ipnet::IpNet;

pub mod decap;

/// True once in so many times.
fn one_in(rng: &mut Rng, times: u32) -> bool {
    rng.u32(..times) == 0
}

/// An address within a prefix.
fn address_in(rng: &mut Rng, prefix: IpNet) -> IpAddr {
    match prefix {
        IpNet::V4(prefix) => (u32::from(prefix.network()) | rng.u32(..) & u32::from(prefix.hostmask())).into(),
        IpNet::V6(prefix) => (u128::from(prefix.network()) | rng.u128(..) & u128::from(prefix.hostmask())).into(),
    }
}

/// Changes a few bytes of a frame, mostly of its headers, or its length.
fn mutate(rng: &mut Rng, frame: &mut Vec<u8>) {
    for _ in 0..rng.u8(1..=3) {
        // Most headers end within 120 bytes.
        let Some(last) = frame.len().checked_sub(1) else { return };
        let at = if one_in(rng, 6) { rng.usize(..=last) } else { rng.usize(12.min(last)..=last.min(120)) };
        match rng.u8(..10) {
            0..4 => frame[at] ^= 1 << rng.u8(..8),
            4..6 => frame[at] = rng.u8(..),
            6 => frame[at] = rng.choice([0, 1, 4, 17, 41, 0x45, 0x46, 0x60, 255]).unwrap_or(0),
            7 => frame[at] = frame[at].wrapping_add(if rng.bool() { 1 } else { 255 }),
            8 => frame.truncate(at),
            _ => frame.extend((0..rng.usize(1..40)).map(|_| 0)),
        }
    }
}
