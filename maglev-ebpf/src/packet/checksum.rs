//! The Internet checksum (RFC 1071), over 16-bit words read little-endian: ones' complement sums do not mind the byte
//! order, as long as the result is stored in the same order.

use zerocopy::byteorder::{LE, U32};

/// The sum of data as 32-bit words: [`folded`] makes it one of 16-bit words.
#[inline(always)]
pub fn sum<const N: usize>(words: &[U32<LE>; N]) -> u64 {
    let mut sum = 0;
    for word in words {
        sum += u64::from(word.get());
    }
    sum
}

/// A sum of 32-bit words as one of 16-bit words, in 32 bits.
#[inline(always)]
pub const fn folded(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    (sum & 0xffff) as u32 + (sum >> 16) as u32
}

/// Folds a sum of 16-bit words and complements it: the two bytes to store, read little-endian.
#[inline(always)]
pub const fn finish(sum: u32) -> u16 {
    // The lower half of the sum carries into the upper, where the same two halves are added.
    (!sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// The checksum of data of which one word changed (RFC 1624, equation 3).
#[inline(always)]
pub const fn replaced(checksum: u16, old: u16, new: u16) -> u16 {
    finish(!checksum as u32 + !old as u32 + new as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_word_changes_the_checksum_as_a_new_sum_does() {
        for (old, new, others) in [(8, 0, 0xfff8), (0, 8, 0x1234), (0xffff, 0, 0x10), (0x80, 0x81, 0xff7e), (7, 7, 0)] {
            let before = finish(others + u32::from(old));
            let after = finish(others + u32::from(new));
            assert_eq!(replaced(before, old, new), after, "{old:x} {new:x}");
        }
    }

    #[test]
    fn words_of_32_bits_sum_up_as_those_of_16_do() {
        for words in [[0, 0, 0], [u32::MAX; 3], [0x0001_ffff, 0xffff_0001, 7], [0x1234_5678, 0x9abc_def0, 0x8000_0000]]
        {
            let halves: u32 = words.iter().map(|word| (word & 0xffff) + (word >> 16)).sum();
            assert_eq!(finish(folded(sum(&words.map(U32::new)))), finish(halves), "{words:x?}");
        }
    }

    #[test]
    fn carries_are_folded_twice() {
        assert_eq!(finish(0x0001_ffff), !1);
        assert_eq!(finish(0xffff_ffff), 0);
        assert_eq!(finish(0), 0xffff);
    }

    /// The example of RFC 1071 §3, whose sum is ddf2 in network order.
    #[test]
    fn the_rfc_example() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7_u8];
        let sum = bytes.chunks(2).map(|pair| u32::from(u16::from_le_bytes([pair[0], pair[1]]))).sum();
        assert_eq!((!finish(sum)).to_le_bytes(), [0xdd, 0xf2]);
    }
}
