//! The bytes that uploads and downloads carry: endless, cheap, the same on both ends, and without a short period, so
//! that a lost, repeated or reordered segment changes their hash.

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

/// SplitMix64: one addition and a mix a word, period 2^64.
struct Words(u64);

impl Words {
    fn next_word(&mut self) -> u64 {
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
    fn the_digest_is_that_of_the_empty_string_for_no_bytes() {
        assert_eq!(digest(0), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
