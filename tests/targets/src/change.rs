//! Changes to an input. They must not know what it means, apart from the words that a target names.

use fastrand::Rng;

/// The longest input in bytes.
const LONGEST: usize = 4_096;

/// An input made of another one by some changes, sometimes with a part of a third.
pub fn changed(rng: &mut Rng, input: &[u8], other: &[u8], words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..1 << rng.u8(0..4) {
        change(rng, &mut bytes, other, words);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
    let at = rng.usize(..=bytes.len());
    let part = |rng: &mut Rng, of: &[u8]| {
        let from = rng.usize(..=of.len());
        of[from..rng.usize(from..=of.len().min(from + 32))].to_vec()
    };
    match rng.u8(..12) {
        0..2 => {
            let bit = rng.u8(..8);
            set(bytes, at, |byte| byte ^ 1 << bit);
        }
        2..4 => {
            let value = rng.u8(..);
            set(bytes, at, |_| value);
        }
        4 => {
            let value = rng.choice([0, 1, 0x7f, 0x80, 0xff]).unwrap_or(0);
            set(bytes, at, |_| value);
        }
        5 => {
            let by = rng.u8(1..=16);
            set(bytes, at, |byte| byte.wrapping_add(by));
        }
        6 => {
            let by = rng.u8(1..=16);
            set(bytes, at, |byte| byte.wrapping_sub(by));
        }
        7 => drop(bytes.drain(at..bytes.len().min(at + rng.usize(..16)))),
        8 => {
            let repeated = part(rng, bytes);
            insert(bytes, at, &repeated);
        }
        9 => {
            let foreign = part(rng, other);
            insert(bytes, at, &foreign);
        }
        10 => {
            let word = rng.choice(words).map_or_else(|| vec![rng.u8(..)], |word| word.to_vec());
            insert(bytes, at, &word);
        }
        _ => {
            let word = rng.choice(words).map_or_else(|| vec![rng.u8(..)], |word| word.to_vec());
            let end = bytes.len().min(at + word.len());
            bytes.splice(at..end, word);
        }
    }
}

fn set(bytes: &mut [u8], at: usize, to: impl Fn(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = to(*byte);
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    bytes.splice(at..at, part.iter().copied());
}
