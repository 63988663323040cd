//! The frame up to the packet's first IP header, with the extension headers of IPv6 (RFC 791, RFC 8200).

use std::net::IpAddr;
use std::ops::Range;

use crate::oracle::bytes::{array, be16};

/// Where an Ethernet frame's type stands.
const ETHER_TYPE: usize = 12;
/// IEEE 802.1Q and 802.1ad tags: at most two are skipped.
const TAGS: [u16; 2] = [0x8100, 0x88a8];

/// Whether a packet is part of a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment {
    Whole,
    Part,
}

/// An IP header that may be a tunnel's.
#[derive(Clone, Debug)]
pub(super) struct Outer {
    /// Where the frame's type stands that says the header's family: behind the tags.
    pub(super) ether_type: usize,
    pub(super) source: IpAddr,
    pub(super) ecn: u8,
    /// The protocol of what follows the header.
    pub(super) protocol: u8,
    pub(super) fragment: Fragment,
    /// The bytes that the header says are its payload; `None` if its lengths contradict each other or the frame's.
    pub(super) payload: Option<Range<usize>>,
}

impl Outer {
    /// The first IP header of a frame, if there is one.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let mut at = ETHER_TYPE;
        for _ in 0..2 {
            if TAGS.contains(&be16(frame, at)?) {
                at += 4;
            }
        }
        match be16(frame, at)? {
            0x0800 => Self::parse4(frame, at),
            0x86dd => Self::parse6(frame, at),
            _ => None,
        }
    }

    /// RFC 791 section 3.1.
    fn parse4(frame: &[u8], ether_type: usize) -> Option<Self> {
        let l3 = ether_type + 2;
        let header = frame.get(l3..l3 + 20)?;
        if header[0] >> 4 != 4 {
            return None;
        }
        let length = usize::from(header[0] & 15) * 4;
        let total = usize::from(be16(header, 2)?);
        // More fragments, or an offset.
        let is_part = be16(header, 6)? & 0x3fff != 0;
        let is_sound = length >= 20 && total >= length && l3 + total <= frame.len();
        Some(Self {
            ether_type,
            source: array::<4>(header, 12)?.into(),
            ecn: header[1] & 3,
            protocol: header[9],
            fragment: if is_part { Fragment::Part } else { Fragment::Whole },
            payload: is_sound.then(|| l3 + length..l3 + total),
        })
    }

    /// RFC 8200 section 3.
    fn parse6(frame: &[u8], ether_type: usize) -> Option<Self> {
        let l3 = ether_type + 2;
        let header = frame.get(l3..l3 + 40)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let end = l3 + 40 + usize::from(be16(header, 4)?);
        let is_sound = end <= frame.len();
        Some(Self {
            ether_type,
            source: array::<16>(header, 8)?.into(),
            ecn: header[1] >> 4 & 3,
            protocol: header[6],
            fragment: Fragment::Whole,
            payload: is_sound.then_some(l3 + 40..end),
        })
    }
}
