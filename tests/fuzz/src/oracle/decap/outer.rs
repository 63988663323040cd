//! The IP header that may be a tunnel's (RFC 791, RFC 8200).

use std::net::IpAddr;
use std::ops::Range;

use crate::oracle::bytes::{array, be16};

/// Where an Ethernet frame's type stands, and the packet behind it. Frames with VLAN tags are the host's: a VLAN device gets them.
const ETHER_TYPE: usize = 12;
const L3: usize = 14;

/// Whether a packet is part of a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment {
    Whole,
    Part,
}

/// An IP header that may be a tunnel's.
#[derive(Clone, Debug)]
pub(super) struct Outer {
    pub(super) source: IpAddr,
    pub(super) ecn: u8,
    /// The protocol of what follows the header. An IPv6 extension header is not a tunnel's.
    pub(super) protocol: u8,
    pub(super) fragment: Fragment,
    /// Where the header ends, unless it has options.
    pub(super) end: Option<usize>,
    /// The bytes that the header says are its payload; `None` if it has options, or is not of the frame's type, or its lengths
    /// contradict each other or the frame's.
    pub(super) payload: Option<Range<usize>>,
}

impl Outer {
    /// The IP header of a frame, if there is one.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        match be16(frame, ETHER_TYPE)? {
            0x0800 => Self::parse4(frame),
            0x86dd => Self::parse6(frame),
            _ => None,
        }
    }

    /// RFC 791 section 3.1.
    fn parse4(frame: &[u8]) -> Option<Self> {
        let header: [u8; 20] = array(frame, L3)?;
        let is_plain = header[0] == 0x45;
        let total = usize::from(be16(&header, 2)?);
        // More fragments, or an offset.
        let is_part = be16(&header, 6)? & 0x3fff != 0;
        let end = is_plain.then_some(L3 + header.len());
        let is_sound = is_plain && total >= header.len() && L3 + total <= frame.len();
        Some(Self {
            source: array::<4>(&header, 12)?.into(),
            ecn: header[1] & 3,
            protocol: header[9],
            fragment: if is_part { Fragment::Part } else { Fragment::Whole },
            end,
            payload: is_sound.then_some(L3 + header.len()..L3 + total),
        })
    }

    /// RFC 8200 section 3.
    fn parse6(frame: &[u8]) -> Option<Self> {
        let header: [u8; 40] = array(frame, L3)?;
        let start = L3 + header.len();
        let end = start + usize::from(be16(&header, 4)?);
        let is_sound = header[0] >> 4 == 6 && end <= frame.len();
        Some(Self {
            source: array::<16>(&header, 8)?.into(),
            ecn: header[1] >> 4 & 3,
            protocol: header[6],
            fragment: Fragment::Whole,
            end: Some(start),
            payload: is_sound.then_some(start..end),
        })
    }
}
