//! BGP messages as bytes: ours are encoded, received ones are checked. Pure, bounded, and without a panic whatever
//! comes in. It must not know sessions.
//!
//! ```text
//!    0                   1                   2                   3
//!    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!    |                    Marker (16 octets of ones)                 |
//!    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!    |          Length               |      Type     |                    (RFC 4271, section 4.1)
//!    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

mod attributes;
mod capability;
mod notification;
mod open;
mod prefix;
mod reader;
mod refresh;
#[cfg(test)]
mod tests;
mod update;

pub(crate) use attributes::Attributes;
pub(crate) use capability::{Capabilities, GracefulRestart};
pub(crate) use notification::{Fault, Notification};
pub(crate) use open::Open;
pub(crate) use prefix::Family;
pub(crate) use refresh::{Boundary, RouteRefresh, encode as route_refresh};
pub(crate) use update::{Encoding, NoRoom, Update, announce, end_of_rib, withdraw};

use reader::Reader;

/// The longest message; the extended one of RFC 8654 is not offered.
pub(crate) const MAX_MESSAGE: usize = 4096;

/// The length of a header, and of the shortest message.
const HEADER: usize = 19;

const MARKER: [u8; 16] = [0xff; 16];

/// The type of a message, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Open = 1,
    Update = 2,
    Notification = 3,
    Keepalive = 4,
    RouteRefresh = 5,
}

/// A message that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Open(Open),
    Update(Update),
    Notification(Notification),
    Keepalive,
    RouteRefresh(RouteRefresh),
}

/// The whole message at the beginning of the bytes, and how long it is. `None` if more bytes must come.
///
/// # Errors
/// The bytes are not a message: the NOTIFICATION for the other side.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Message, usize)>, Notification> {
    let Some((kind, length)) = header(bytes)? else { return Ok(None) };
    let Some(body) = bytes.get(HEADER..length) else { return Ok(None) };
    let reader = Reader::new(body);
    let message = match kind {
        Kind::Open => Message::Open(Open::decode(reader)?),
        Kind::Update => Message::Update(Update::decode(reader)?),
        Kind::Notification => Message::Notification(Notification::decode(reader).ok_or_else(|| bad_length(length))?),
        Kind::Keepalive => Message::Keepalive,
        Kind::RouteRefresh => Message::RouteRefresh(RouteRefresh::decode(reader, &bytes[..length])?),
    };
    Ok(Some((message, length)))
}

/// The kind and the length of the message that begins here, as soon as the header is complete.
///
/// A wrong marker is reported as soon as it shows: another protocol's client need not send 19 bytes of it.
fn header(bytes: &[u8]) -> Result<Option<(Kind, usize)>, Notification> {
    if bytes.iter().zip(MARKER).any(|(found, expected)| *found != expected) {
        return Err(Notification::new(Fault::NOT_SYNCHRONIZED));
    }
    let Some(&[high, low, kind]) = bytes.get(MARKER.len()..HEADER) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !(HEADER..=MAX_MESSAGE).contains(&length) {
        return Err(bad_length(length));
    }
    let (kind, fits) = match kind {
        1 => (Kind::Open, length >= 29),
        2 => (Kind::Update, length >= 23),
        3 => (Kind::Notification, length >= 21),
        4 => (Kind::Keepalive, length == HEADER),
        // RFC 7313 has an error of its own for this one.
        5 => (Kind::RouteRefresh, true),
        _ => return Err(Notification::with(Fault::BAD_TYPE, &[kind])),
    };
    if fits { Ok(Some((kind, length))) } else { Err(bad_length(length)) }
}

fn bad_length(length: usize) -> Notification {
    Notification::with(Fault::BAD_LENGTH, &u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes())
}

/// Appends a KEEPALIVE.
pub(crate) fn keepalive(out: &mut Vec<u8>) {
    let begin = start(out, Kind::Keepalive);
    finish(out, begin);
}

/// Begins a message; returns where, for [`finish`].
fn start(out: &mut Vec<u8>, kind: Kind) -> usize {
    let begin = out.len();
    out.extend(MARKER);
    out.extend([0, 0, kind as u8]);
    begin
}

/// Ends a message: its length is known now.
fn finish(out: &mut [u8], begin: usize) {
    let length = out.len() - begin;
    debug_assert!((HEADER..=MAX_MESSAGE).contains(&length));
    set_u16(out, begin + MARKER.len(), length);
}

/// Appends two octets for a length that is not known yet; returns where.
fn reserve_u16(out: &mut Vec<u8>) -> usize {
    out.extend([0, 0]);
    out.len() - 2
}

/// Fills in the length of all that followed since it was reserved.
fn fill_u16(out: &mut [u8], at: usize) {
    let length = out.len() - at - 2;
    set_u16(out, at, length);
}

fn set_u16(out: &mut [u8], at: usize, value: usize) {
    // Every length is bounded by the longest message.
    out[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
}
