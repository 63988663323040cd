//! Ethernet frames: addresses, tags, padding.

use fastrand::Rng;

use super::{choose, one_in};
use crate::world::{INGRESS, World};

/// The frame that carries a packet.
pub(super) fn frame(rng: &mut Rng, world: &World, ether_type: u16, packet: &[u8]) -> Vec<u8> {
    let own: Vec<[u8; 6]> = world
        .interfaces
        .iter()
        .filter(|interface| interface.index == INGRESS)
        .flat_map(|interface| interface.also.iter().chain([&interface.mac]))
        .copied()
        .collect();
    let first = world.interfaces.first().map_or([2; 6], |interface| interface.mac);
    let to = match rng.u8(..48) {
        0 => [0xff; 6],
        1 => [1, 0, 0x5e, 0, 0, 1],
        2 => [2, 0, 0, 0, 0, rng.u8(..)],
        3 => [0; 6],
        4 => world.interfaces[rng.usize(..world.interfaces.len())].mac,
        5..9 if !own.is_empty() => choose(rng, &own),
        _ => first,
    };
    let mut frame = to.to_vec();
    frame.extend([2, 0, 0, 0, 0x55, rng.u8(..)]);
    let tags = match rng.u8(..16) {
        0..12 => 0,
        12 | 13 => 1,
        14 => 2,
        _ => rng.usize(..4),
    };
    for _ in 0..tags {
        frame.extend(choose(rng, &[[0x81, 0x00], [0x88, 0xa8]]));
        frame.extend(choose(rng, &[100, 0xabc, rng.clone().u16(..)]).to_be_bytes());
    }
    let ether_type = if one_in(rng, 200) { choose(rng, &[0x0806, 0x0800, 0x86dd, 0x8847, 0x9100]) } else { ether_type };
    frame.extend(ether_type.to_be_bytes());
    frame.extend(packet);
    if frame.len() < 60 && !one_in(rng, 4) {
        frame.resize(60, if one_in(rng, 4) { rng.u8(..) } else { 0 });
    }
    if one_in(rng, 16) {
        // A trailer.
        frame.resize(frame.len() + choose(rng, &[1, 4, 20, 64]), rng.u8(..));
    }
    frame
}
