//! UPDATE messages: prefixes that are announced or withdrawn, as many to a message as fit.
//!
//! ```text
//!    +-----------------------------------------------------+
//!    |   Withdrawn Routes Length (2 octets)                |
//!    +-----------------------------------------------------+
//!    |   Withdrawn Routes (variable)                       |
//!    +-----------------------------------------------------+
//!    |   Total Path Attribute Length (2 octets)            |
//!    +-----------------------------------------------------+
//!    |   Path Attributes (variable)                        |
//!    +-----------------------------------------------------+
//!    |   Network Layer Reachability Information (variable) |    (RFC 4271, section 4.3)
//!    +-----------------------------------------------------+
//! ```

use ipnet::IpNet;

use super::attributes::{self, Attributes, Form, Received, UNREACH_LEN};
use super::prefix::{self, Family};
use super::reader::Reader;
use super::{Fault, HEADER, Kind, MAX_MESSAGE, Notification, fill_u16, finish, reserve_u16, start};

/// Octets of prefixes that fit beside the header and the two lengths.
const ROOM: usize = MAX_MESSAGE - HEADER - 4;

/// How a session writes UPDATEs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoding {
    /// AS numbers have 32 bits (RFC 6793).
    pub(crate) four_octet_as: bool,
    /// IPv4 prefixes may have an IPv6 next hop (RFC 8950).
    pub(crate) extended_next_hop: bool,
}

/// The attributes left no room for a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// Appends messages that announce these prefixes of one family.
///
/// # Errors
/// The attributes fill a message by themselves; nothing was appended.
pub(crate) fn announce(
    out: &mut Vec<u8>,
    encoding: Encoding,
    family: Family,
    attributes: &Attributes,
    prefixes: &[IpNet],
) -> Result<(), NoRoom> {
    let next_hop = attributes.next_hop;
    let classic = family == Family::Ipv4 && next_hop.is_ipv4();
    let mut common = Vec::new();
    attributes.encode(&mut common, Form { four_octet_as: encoding.four_octet_as, classic });
    let fixed = common.len() + if classic { 0 } else { attributes::reach_len(next_hop) };
    let room = ROOM.checked_sub(fixed).filter(|room| *room >= LONGEST).ok_or(NoRoom)?;
    for (some, length) in Portions::new(prefixes, room) {
        let begin = start(out, Kind::Update);
        out.extend([0, 0]);
        let total = reserve_u16(out);
        if classic {
            out.extend(&common);
            fill_u16(out, total);
            put_all(out, some);
        } else {
            // First, so that a reader finds it whatever follows (RFC 7606, section 5.1).
            attributes::put_reach(out, family, next_hop, length);
            put_all(out, some);
            out.extend(&common);
            fill_u16(out, total);
        }
        finish(out, begin);
    }
    Ok(())
}

/// Appends messages that withdraw these prefixes of one family.
pub(crate) fn withdraw(out: &mut Vec<u8>, encoding: Encoding, family: Family, prefixes: &[IpNet]) {
    let classic = family == Family::Ipv4 && !encoding.extended_next_hop;
    for (some, length) in Portions::new(prefixes, ROOM - UNREACH_LEN) {
        let begin = start(out, Kind::Update);
        let withdrawn = reserve_u16(out);
        if classic {
            put_all(out, some);
            fill_u16(out, withdrawn);
            out.extend([0, 0]);
        } else {
            let total = reserve_u16(out);
            attributes::put_unreach(out, family, length);
            put_all(out, some);
            fill_u16(out, total);
        }
        finish(out, begin);
    }
}

/// Appends the mark of a family's end (End-of-RIB; RFC 4724, section 2).
pub(crate) fn end_of_rib(out: &mut Vec<u8>, family: Family) {
    let begin = start(out, Kind::Update);
    out.extend([0, 0]);
    let total = reserve_u16(out);
    if family != Family::Ipv4 {
        attributes::put_unreach(out, family, 0);
        fill_u16(out, total);
    }
    finish(out, begin);
}

fn put_all(out: &mut Vec<u8>, prefixes: &[IpNet]) {
    prefixes.iter().for_each(|prefix| prefix::encode(out, prefix));
}

/// Octets of the longest prefix.
const LONGEST: usize = 17;

/// Prefixes in portions that fit into so many octets, each with its length.
struct Portions<'a> {
    rest: &'a [IpNet],
    room: usize,
}

impl<'a> Portions<'a> {
    fn new(prefixes: &'a [IpNet], room: usize) -> Self {
        Self { rest: prefixes, room }
    }
}

impl<'a> Iterator for Portions<'a> {
    type Item = (&'a [IpNet], usize);

    fn next(&mut self) -> Option<Self::Item> {
        let (mut count, mut length) = (0, 0);
        for prefix in self.rest {
            let more = prefix::encoded_len(prefix);
            if length + more > self.room {
                break;
            }
            (count, length) = (count + 1, length + more);
        }
        let (portion, rest) = self.rest.split_at(count);
        self.rest = rest;
        (count > 0).then_some((portion, length))
    }
}

/// The parts of a neighbor's UPDATE that are checked: nothing of it is imported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Update {
    pub(crate) withdrawn: Vec<IpNet>,
    pub(crate) announced: Vec<IpNet>,
    /// It marks the end of this family's prefixes.
    pub(crate) end_of_rib: Option<Family>,
}

impl Update {
    /// Checks lengths and prefixes (RFC 4271, section 6.3, as RFC 7606 revises it).
    pub(super) fn decode(mut body: Reader<'_>) -> Result<Self, Notification> {
        let malformed = || Notification::new(Fault::MALFORMED_ATTRIBUTES);
        let mut field = || body.u16().and_then(|length| body.take(length.into())).map(Reader::new);
        let withdrawn = field().ok_or_else(malformed)?;
        let attributes = field().ok_or_else(malformed)?;
        let announced = Reader::new(body.rest());
        let received = Received::decode(attributes)?;
        if withdrawn.is_empty() && announced.is_empty() && !received.any {
            return Ok(Self { end_of_rib: Some(Family::Ipv4), ..Self::default() });
        }
        let ipv4 = |field| prefix::decode_all(field, Family::Ipv4).ok_or(Notification::new(Fault::INVALID_NETWORK));
        let mut update = Self { withdrawn: ipv4(withdrawn)?, announced: ipv4(announced)?, end_of_rib: None };
        if let Some(reach) = &received.reach {
            update.announced.extend(reach.prefixes()?);
        }
        if let Some(unreach) = &received.unreach {
            let prefixes = unreach.prefixes()?;
            if prefixes.is_empty() && update.announced.is_empty() && update.withdrawn.is_empty() {
                update.end_of_rib = unreach.family;
            }
            update.withdrawn.extend(prefixes);
        }
        Ok(update)
    }
}
