//! Changes to frames: of bits, bytes, lengths and checksums; cuts, additions, and parts of other frames.

use fastrand::Rng;

use super::{choose, one_in};

/// Values at which parsers turn.
const TURNING: [u8; 24] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 17, 20, 40, 41, 43, 44, 50, 51, 59, 60, 127, 128, 132, 254, 255];

/// Changes a frame somehow, most often within its headers.
pub(super) fn change(rng: &mut Rng, frame: &mut Vec<u8>, others: &[Vec<u8>]) {
    if frame.is_empty() {
        return;
    }
    let at = place(rng, frame.len());
    match rng.u8(..20) {
        0..4 => frame[at] ^= 1 << rng.u8(..8),
        4..7 => frame[at] = rng.u8(..),
        7..10 => frame[at] = choose(rng, &TURNING),
        10 => frame[at] = frame[at].wrapping_add(choose(rng, &[1, 255, 8, 248])),
        // The IP header's fields: version and lengths, fragment, TTL, protocol, checksum.
        11..14 => {
            let offset = choose(rng, &[0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 20, 21, 40, 41, 42, 43, 44, 45]);
            if let Some(byte) = frame.get_mut(14 + offset) {
                *byte =
                    if one_in(rng, 2) { choose(rng, &TURNING) } else { byte.wrapping_add(choose(rng, &[1, 255, 4])) };
            }
        }
        14 => frame.truncate(at),
        15 => frame.truncate(frame.len() - rng.usize(..frame.len().min(40))),
        16 => frame.resize(frame.len() + rng.usize(1..40), rng.u8(..)),
        17 => {
            let bytes: Vec<u8> = (0..choose(rng, &[1, 2, 4, 8])).map(|_| rng.u8(..)).collect();
            frame.splice(at..at, bytes);
        }
        18 => {
            let end = (at + choose(rng, &[1, 2, 4, 8])).min(frame.len());
            frame.drain(at..end);
        }
        _ => splice(rng, frame, others, at),
    }
}

/// A place in a frame, most often among the headers.
fn place(rng: &mut Rng, length: usize) -> usize {
    let most = if one_in(rng, 4) { length } else { length.min(90) };
    rng.usize(..most)
}

/// The end of another frame from the same place on, or a part of it.
fn splice(rng: &mut Rng, frame: &mut Vec<u8>, others: &[Vec<u8>], at: usize) {
    let Some(other) = (!others.is_empty()).then(|| &others[rng.usize(..others.len())]) else { return };
    let Some(rest) = other.get(at..) else { return };
    if one_in(rng, 2) {
        frame.truncate(at);
        frame.extend(rest);
    } else {
        let size = rest.len().min(choose(rng, &[2, 4, 8, 16, 20, 40]));
        frame.iter_mut().skip(at).zip(&rest[..size]).for_each(|(to, from)| *to = *from);
    }
}
