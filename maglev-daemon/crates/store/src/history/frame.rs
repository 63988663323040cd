//! Frames: how a record lies in the history file, with its length and a checksum before it. It must not know a record's content.
//!
//! ```text
//!  "maglev history 1\n"  │ length u32 │ checksum 8 bytes │ payload, deflated │ length u32 │ …
//! ```
//!
//! Numbers are little endian. The checksum is the beginning of the SHA-256 of length and payload.

use std::io::{Read as _, Write as _};

use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use sha2::{Digest as _, Sha256};

/// The file's first line, which names its format.
pub(super) const MAGIC: &[u8] = b"maglev history 1\n";

/// The start of every format's first line.
pub(super) const FAMILY: &[u8] = b"maglev history ";

const HEADER: usize = 4 + 8;

/// Bytes that a payload has inflated at most: the largest services file and its record.
const LARGEST: u64 = 32 << 20;

/// Why no frame is at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// The file ends here.
    End,
    /// The file ends within the frame: it was being written as the machine stopped.
    Torn,
    /// The checksum does not match.
    Corrupt,
}

/// Makes a frame of a payload.
pub(crate) fn encode(payload: &[u8]) -> Result<Vec<u8>, String> {
    from_deflated(&deflate_end(payload)?)
}

/// Makes a frame of a payload that is deflated: parts, and an end.
pub(crate) fn from_deflated(payload: &[u8]) -> Result<Vec<u8>, String> {
    let length = u32::try_from(payload.len()).map_err(|_| "a revision is larger than 4 GiB".to_owned())?;
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend(length.to_le_bytes());
    frame.extend(checksum(length, payload));
    frame.extend(payload);
    Ok(frame)
}

/// Deflates a part of a payload, which others may follow: it ends at a byte and refers to no other part (RFC 1951, section 3.2.4).
pub(crate) fn deflate_part(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut deflate = Compress::new(Compression::fast(), false);
    // In one call, with room for all of it: a flush that is continued because its buffer was full may go wrong (flate2 1.1 over
    // miniz_oxide 0.9). Text that cannot be deflated grows by less than a sixteenth.
    let mut part = Vec::with_capacity(text.len() + text.len() / 8 + ROOM);
    deflate.compress_vec(text, &mut part, FlushCompress::Sync).map_err(|error| not_deflated(&error.into()))?;
    let whole = deflate.total_in() == text.len() as u64 && part.len() < part.capacity() && inflates_to(&part, text);
    part.shrink_to_fit();
    whole.then_some(part).ok_or_else(|| "cannot deflate a revision: its parts do not inflate".to_owned())
}

/// Whether a part is the text: the next daemon has nothing else.
fn inflates_to(part: &[u8], text: &[u8]) -> bool {
    let (mut inflate, mut found) = (Decompress::new(false), Vec::with_capacity(text.len() + ROOM));
    inflate.decompress_vec(part, &mut found, FlushDecompress::Sync).is_ok()
        && found == text
        && inflate.total_in() == part.len() as u64
}

/// Bytes of a part beside those of its text.
const ROOM: usize = 128 << 10;

/// Deflates the last part of a payload.
pub(crate) fn deflate_end(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut deflate = DeflateEncoder::new(Vec::new(), Compression::fast());
    deflate.write_all(text).and_then(|()| deflate.finish()).map_err(|error| not_deflated(&error))
}

fn not_deflated(error: &std::io::Error) -> String {
    format!("cannot deflate a revision: {error}")
}

/// The frame that begins a slice: its payload, still deflated.
pub(crate) fn first(bytes: &[u8]) -> Result<&[u8], Bad> {
    if bytes.is_empty() {
        return Err(Bad::End);
    }
    let (Some(length), Some(sum)) = (bytes.first_chunk::<4>(), bytes.get(4..HEADER)) else { return Err(Bad::Torn) };
    let length = u32::from_le_bytes(*length);
    let payload = bytes[HEADER..].get(..length as usize).ok_or(Bad::Torn)?;
    if sum != checksum(length, payload) { Err(Bad::Corrupt) } else { Ok(payload) }
}

/// How long a frame is, by its payload.
pub(super) const fn length(payload: &[u8]) -> usize {
    HEADER + payload.len()
}

/// A payload as it was before it was deflated.
pub(crate) fn inflate(payload: &[u8]) -> Result<String, String> {
    let mut text = String::new();
    let read = DeflateDecoder::new(payload).take(LARGEST).read_to_string(&mut text);
    read.map(|_| text).map_err(|error| format!("cannot inflate a revision: {error}"))
}

fn checksum(length: u32, payload: &[u8]) -> [u8; 8] {
    let sum: [u8; 32] = Sha256::new().chain_update(length.to_le_bytes()).chain_update(payload).finalize().into();
    let mut first = [0; 8];
    first.copy_from_slice(&sum[..8]);
    first
}
