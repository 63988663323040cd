//! Reading and writing of bytes by offset, each access checked; and the Internet checksum (RFC 1071).

/// The byte at an offset.
pub(crate) fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// Two bytes at an offset, big-endian.
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(array(bytes, at)?))
}

/// Four bytes at an offset, big-endian.
pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(array(bytes, at)?))
}

/// So many bytes at an offset.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Overwrites bytes from an offset on; those that lie beyond the end are left out.
pub(crate) fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(new) {
        *to = *from;
    }
}

/// The ones' complement sum of bytes as big-endian words, folded; an odd last byte has a zero behind it.
pub(crate) fn sum(parts: &[&[u8]]) -> u16 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u64::from);
    fold(parts.iter().map(|part| part.chunks(2).map(word).sum::<u64>()).sum())
}

/// The checksum of parts, of which all but the last have an even length.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    !sum(parts)
}

/// The checksum of data of which one word changed (RFC 1624, equation 3).
pub(crate) fn adjusted(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_the_rfcs_example() {
        // RFC 1071 section 3.
        assert_eq!(sum(&[&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]]), 0xddf2);
        assert_eq!(sum(&[&[0, 1], &[0xf2, 3, 0xf4, 0xf5], &[0xf6, 0xf7]]), 0xddf2);
        assert_eq!(checksum(&[&[1]]), !0x0100);
    }

    #[test]
    fn a_changed_word_changes_the_checksum() {
        // RFC 1624 section 4.
        assert_eq!(adjusted(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn nothing_is_read_or_written_beyond_the_end() {
        let mut bytes = [1, 2, 3];
        assert_eq!(
            (byte(&bytes, 3), be16(&bytes, 1), be16(&bytes, 2), be32(&bytes, 0)),
            (None, Some(0x203), None, None)
        );
        put(&mut bytes, 2, &[7, 8]);
        assert_eq!(bytes, [1, 2, 7]);
    }
}
