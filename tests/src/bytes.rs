//! The bytes that uploads, downloads and talks carry: endless, cheap, the same on both ends, and without a short period,
//! so that a lost, repeated or reordered segment changes their hash.

use std::convert::Infallible;

use futures_util::{Stream, stream};
use hyper::body::Bytes;
use sha2::{Digest, Sha256};

/// How much one chunk of a stream holds at most, in bytes.
const CHUNK: u64 = 64 * 1024;

/// The first `length` bytes of the sequence, in chunks.
pub fn chunks(length: u64) -> impl Iterator<Item = Bytes> + Send {
    let mut words = Words(0);
    (0..length.div_ceil(CHUNK)).map(move |n| {
        let size = CHUNK.min(length - n * CHUNK) as usize;
        let mut chunk = Vec::with_capacity(size + 8);
        while chunk.len() < size {
            chunk.extend_from_slice(&words.next_word().to_le_bytes());
        }
        chunk.truncate(size);
        Bytes::from(chunk)
    })
}

/// The same in one piece.
pub fn block(length: usize) -> Vec<u8> {
    chunks(length as u64).flatten().collect()
}

/// The same as a stream that cannot fail.
pub fn stream(length: u64) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::iter(chunks(length).map(Ok))
}

/// The SHA-256 of the first `length` bytes of the sequence, in hexadecimal.
pub fn digest(length: u64) -> String {
    let mut hash = Sha256::new();
    chunks(length).for_each(|chunk| hash.update(&chunk));
    hex(&hash.finalize())
}

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A sequence that is laid over bytes, from its first byte on and no byte twice: the same sequence laid over what came
/// of it gives the bytes back, another sequence or another place in it does not.
#[derive(Clone, Debug)]
pub struct Pad {
    words: Words,
    word: [u8; 8],
    /// How many bytes of `word` have been used.
    used: usize,
}

impl Pad {
    /// The sequence of a number.
    pub fn numbered(number: u64) -> Self {
        Self { words: Words(number), word: [0; 8], used: 8 }
    }

    /// The sequence of a name.
    pub fn named(name: &str) -> Self {
        let hash = Sha256::digest(name);
        Self::numbered(hash.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// Lays the next part of the sequence over `bytes`.
    pub fn lay_over(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.used == self.word.len() {
                (self.word, self.used) = (self.words.next_word().to_le_bytes(), 0);
            }
            *byte ^= self.word[self.used];
            self.used += 1;
        }
    }
}

/// SplitMix64: one addition and a mix a word, period 2^64.
#[derive(Clone, Debug)]
pub(crate) struct Words(pub(crate) u64);

impl Words {
    /// The next 64 bits.
    pub(crate) fn next_word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_sequence_begins_with_the_shorter_one() {
        let bytes = |length| chunks(length).flatten().collect::<Vec<u8>>();
        let long = bytes(3 * CHUNK + 5);
        assert_eq!(long.len() as u64, 3 * CHUNK + 5);
        assert_eq!(bytes(CHUNK + 1), long[..CHUNK as usize + 1]);
        assert!(bytes(0).is_empty());
    }

    #[test]
    fn no_two_chunks_are_alike() {
        let all: Vec<Bytes> = chunks(4 * CHUNK).collect();
        for (n, chunk) in all.iter().enumerate() {
            assert!(all[n + 1..].iter().all(|other| other != chunk));
        }
    }

    #[test]
    fn a_pad_is_taken_off_by_its_like_at_the_same_place_only() {
        let mut bytes = b"what was said".to_vec();
        let (mut on, mut off) = (Pad::named("web1"), Pad::named("web1"));
        let (first, rest) = bytes.split_at_mut(5);
        on.lay_over(first);
        on.lay_over(rest);
        let laid = bytes.clone();
        off.lay_over(&mut bytes);
        assert_eq!(bytes, b"what was said");
        for mut other in [off, Pad::named("web2"), Pad::numbered(1)] {
            let mut bytes = laid.clone();
            other.lay_over(&mut bytes);
            assert_ne!(bytes, b"what was said", "{other:?}");
        }
    }

    #[test]
    fn the_digest_is_that_of_the_empty_string_for_no_bytes() {
        assert_eq!(digest(0), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
