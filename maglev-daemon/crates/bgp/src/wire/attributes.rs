//! Path attributes: the properties of the prefixes in an UPDATE. Ours are written; a neighbor's are only checked.

use std::collections::BTreeSet;
use std::net::IpAddr;

use maglev_model::Community;

use super::open::AS_TRANS;
use super::prefix::{self, Family, UNICAST};
use super::reader::Reader;
use super::{Fault, Notification};

const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0x40;
const EXTENDED: u8 = 0x10;

const ORIGIN: u8 = 1;
const AS_PATH: u8 = 2;
const NEXT_HOP: u8 = 3;
const MED: u8 = 4;
const LOCAL_PREF: u8 = 5;
const ATOMIC_AGGREGATE: u8 = 6;
const COMMUNITIES: u8 = 8;
const MP_REACH: u8 = 14;
const MP_UNREACH: u8 = 15;
const EXTENDED_COMMUNITIES: u8 = 16;
const AS4_PATH: u8 = 17;
const LARGE_COMMUNITIES: u8 = 32;
const ONLY_TO_CUSTOMER: u8 = 35;

/// The attributes with IANA numbers that are common between routers.
const KNOWN: [u8; 21] = [
    ORIGIN,
    AS_PATH,
    NEXT_HOP,
    MED,
    LOCAL_PREF,
    ATOMIC_AGGREGATE,
    7, // AGGREGATOR
    COMMUNITIES,
    9,  // ORIGINATOR_ID
    10, // CLUSTER_LIST
    MP_REACH,
    MP_UNREACH,
    EXTENDED_COMMUNITIES,
    AS4_PATH,
    18, // AS4_AGGREGATOR
    22, // PMSI_TUNNEL
    23, // tunnel encapsulation
    25, // IPv6 address specific extended communities
    26, // AIGP
    LARGE_COMMUNITIES,
    ONLY_TO_CUSTOMER,
];

/// A segment of an AS path in the order of the path.
const SEQUENCE: u8 = 2;

/// The attributes of prefixes that are announced together. ORIGIN is always IGP: they originate here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attributes {
    /// The ASes, the nearest first; at most 255.
    pub(crate) as_path: Vec<u32>,
    pub(crate) next_hop: IpAddr,
    pub(crate) med: Option<u32>,
    pub(crate) local_pref: Option<u32>,
    pub(crate) communities: BTreeSet<Community>,
    /// The AS below which the prefix must stay (RFC 9234, section 5).
    pub(crate) only_to_customer: Option<u32>,
}

/// How a session writes attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) four_octet_as: bool,
    /// The next hop stands in NEXT_HOP; otherwise MP_REACH_NLRI has it.
    pub(super) classic: bool,
}

impl Attributes {
    /// Appends all attributes but MP_REACH_NLRI, in the order of their numbers.
    pub(super) fn encode(&self, out: &mut Vec<u8>, form: Form) {
        let Self { as_path, next_hop, med, local_pref, communities, only_to_customer } = self;
        put(out, TRANSITIVE, ORIGIN, &[0]);
        put(out, TRANSITIVE, AS_PATH, &path(as_path, form.four_octet_as));
        if let (true, IpAddr::V4(next_hop)) = (form.classic, next_hop) {
            put(out, TRANSITIVE, NEXT_HOP, &next_hop.octets());
        }
        if let Some(med) = med {
            put(out, OPTIONAL, MED, &med.to_be_bytes());
        }
        if let Some(local_pref) = local_pref {
            put(out, TRANSITIVE, LOCAL_PREF, &local_pref.to_be_bytes());
        }
        let (standard, extended, large) = by_kind(communities);
        for (number, value) in [(COMMUNITIES, standard), (EXTENDED_COMMUNITIES, extended)] {
            if !value.is_empty() {
                put(out, OPTIONAL | TRANSITIVE, number, &value);
            }
        }
        // A neighbor with 16 bits passes on the attribute that it cannot read (RFC 6793, section 4.2.2).
        if !form.four_octet_as && as_path.iter().any(|asn| u16::try_from(*asn).is_err()) {
            put(out, OPTIONAL | TRANSITIVE, AS4_PATH, &path(as_path, true));
        }
        if !large.is_empty() {
            put(out, OPTIONAL | TRANSITIVE, LARGE_COMMUNITIES, &large);
        }
        if let Some(asn) = only_to_customer {
            put(out, OPTIONAL | TRANSITIVE, ONLY_TO_CUSTOMER, &asn.to_be_bytes());
        }
    }
}

/// Appends the head of MP_REACH_NLRI (RFC 4760, section 3), of as many octets of prefixes as will follow.
pub(super) fn put_reach(out: &mut Vec<u8>, family: Family, next_hop: IpAddr, prefixes: usize) {
    let next_hop = match next_hop {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    put_head(out, OPTIONAL, MP_REACH, 5 + next_hop.len() + prefixes);
    out.extend(family.afi().to_be_bytes());
    out.extend([UNICAST, next_hop.len() as u8]);
    out.extend(next_hop);
    out.push(0);
}

/// How many octets [`put_reach`] takes without prefixes.
pub(super) const fn reach_len(next_hop: IpAddr) -> usize {
    match next_hop {
        IpAddr::V4(_) => 4 + 5 + 4,
        IpAddr::V6(_) => 4 + 5 + 16,
    }
}

/// Appends the head of MP_UNREACH_NLRI (RFC 4760, section 4).
pub(super) fn put_unreach(out: &mut Vec<u8>, family: Family, prefixes: usize) {
    put_head(out, OPTIONAL, MP_UNREACH, 3 + prefixes);
    out.extend(family.afi().to_be_bytes());
    out.push(UNICAST);
}

/// How many octets [`put_unreach`] takes without prefixes.
pub(super) const UNREACH_LEN: usize = 4 + 3;

fn put(out: &mut Vec<u8>, flags: u8, number: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) => out.extend([flags, number, length]),
        Err(_) => put_head(out, flags, number, value.len()),
    }
    out.extend(value);
}

/// The head of an attribute that may be long.
fn put_head(out: &mut Vec<u8>, flags: u8, number: u8, length: usize) {
    out.extend([flags | EXTENDED, number]);
    out.extend((length as u16).to_be_bytes());
}

/// One segment; none if the path is empty, which it is within an AS.
fn path(ases: &[u32], four_octets: bool) -> Vec<u8> {
    let mut value = Vec::new();
    for segment in ases.chunks(255) {
        value.extend([SEQUENCE, segment.len() as u8]);
        for asn in segment {
            if four_octets {
                value.extend(asn.to_be_bytes());
            } else {
                value.extend(u16::try_from(*asn).unwrap_or(AS_TRANS).to_be_bytes());
            }
        }
    }
    value
}

/// The values of COMMUNITIES, EXTENDED COMMUNITIES and LARGE_COMMUNITY.
fn by_kind(communities: &BTreeSet<Community>) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let (mut standard, mut extended, mut large) = (Vec::new(), Vec::new(), Vec::new());
    for community in communities {
        match *community {
            Community::Standard(asn, value) => standard.extend([asn, value].map(u16::to_be_bytes).as_flattened()),
            Community::Extended(octets) => extended.extend(octets),
            Community::Large(asn, first, second) => {
                large.extend([asn, first, second].map(u32::to_be_bytes).as_flattened());
            }
        }
    }
    (standard, extended, large)
}

/// The result of checking a neighbor's attributes.
#[derive(Debug, Default)]
pub(super) struct Received<'a> {
    pub(super) any: bool,
    pub(super) reach: Option<Multiprotocol<'a>>,
    pub(super) unreach: Option<Multiprotocol<'a>>,
}

/// Prefixes of a family, or of one that is not ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Multiprotocol<'a> {
    pub(super) family: Option<Family>,
    prefixes: Reader<'a>,
}

impl Multiprotocol<'_> {
    pub(super) fn prefixes(&self) -> Result<Vec<ipnet::IpNet>, Notification> {
        let Some(family) = self.family else { return Ok(Vec::new()) };
        prefix::decode_all(self.prefixes, family).ok_or(Notification::new(Fault::OPTIONAL_ATTRIBUTE))
    }
}

impl<'a> Received<'a> {
    /// Checks a neighbor's attributes as far as they can end a session. We import nothing, so where RFC 7606 says
    /// *treat as withdraw* or *discard the attribute*, there is nothing to do.
    pub(super) fn decode(mut field: Reader<'a>) -> Result<Self, Notification> {
        let mut received = Self { any: !field.is_empty(), ..Self::default() };
        while !field.is_empty() {
            let whole = field.rest();
            // An attribute that overruns the rest: those before it count (RFC 7606, section 4).
            let Some((flags, number, value)) = attribute(&mut field) else { break };
            let taken = &whole[..whole.len() - field.rest().len()];
            received.take(flags, number, value, taken)?;
        }
        Ok(received)
    }

    fn take(&mut self, flags: u8, number: u8, value: &'a [u8], whole: &[u8]) -> Result<(), Notification> {
        let mut value = Reader::new(value);
        let malformed = || Notification::with(Fault::OPTIONAL_ATTRIBUTE, whole);
        let place = match number {
            MP_REACH => &mut self.reach,
            MP_UNREACH => &mut self.unreach,
            // Well-known attributes are never optional, and an unknown attribute cannot be well-known (RFC 4271, section 6.3).
            // For a known optional attribute the flag is an error that costs the prefixes, which we do not import (RFC 7606, 3c).
            _ if flags & OPTIONAL == 0 && !KNOWN.contains(&number) => {
                return Err(Notification::with(Fault::UNRECOGNIZED_WELL_KNOWN, whole));
            }
            _ => return Ok(()),
        };
        // Of these two, one each (RFC 7606, section 3g).
        if place.is_some() {
            return Err(Notification::new(Fault::MALFORMED_ATTRIBUTES));
        }
        let (afi, safi) = value.u16().zip(value.u8()).ok_or_else(malformed)?;
        if number == MP_REACH {
            let length = value.u8().ok_or_else(malformed)?;
            value.take(length.into()).and_then(|_| value.u8()).ok_or_else(malformed)?;
        }
        *place = Some(Multiprotocol { family: Family::from_numbers(afi, safi), prefixes: value });
        Ok(())
    }
}

fn attribute<'a>(field: &mut Reader<'a>) -> Option<(u8, u8, &'a [u8])> {
    let (flags, number) = (field.u8()?, field.u8()?);
    let length = if flags & EXTENDED != 0 { field.u16()? } else { field.u8()?.into() };
    Some((flags, number, field.take(length.into())?))
}
