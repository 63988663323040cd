//! A captured packet: what a record of the ring says. It must not know filters.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use maglev_common::capture::{DecisionWord, Record};
use maglev_common::counters::Counter;
use maglev_common::hash::FlowHash;
use maglev_ebpf::env::Choice;
use nix::time::{ClockId, clock_gettime};

/// A packet as it came in and, if it left changed, as it left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When the packet path was done with it.
    pub time: SystemTime,
    /// The index of the interface it came in by.
    pub ingress: u32,
    /// What became of it.
    pub counter: Counter,
    /// Where it went, if that was decided.
    pub decision: Option<CapturedDecision>,
    /// Its length in bytes as it came in.
    pub length: u32,
    /// The first of these bytes.
    pub bytes: Vec<u8>,
    /// The same as it left, if it was encapsulated or answered.
    pub left: Option<(u32, Vec<u8>)>,
}

/// The decision about a captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturedDecision {
    /// VIP, pool, member and choice.
    pub word: DecisionWord,
    /// The hash of its flow.
    pub hash: FlowHash,
}

impl CapturedDecision {
    /// Why the flow went where it did.
    pub const fn choice(self) -> Choice {
        Choice::from_number(self.word.choice())
    }
}

/// Bytes of an Ethernet header, and of a VLAN tag.
const ETHERNET: usize = 14;
const TAG: usize = 4;

/// Bytes of the longest headers that are put in front of a packet.
pub(super) const OUTER: usize = ETHERNET + TAG + 40 + 12;

impl Captured {
    /// Reads a record, whose times begin at `epoch`.
    pub(super) fn read(record: &Record, before: &[u8], after: &[u8], epoch: SystemTime) -> Option<Self> {
        let counter = *Counter::ALL.get(record.counter as usize)?;
        let bytes = if record.kept == 0 && record.left_kept != 0 { came_in(record, after)? } else { before.to_vec() };
        let word = DecisionWord(record.decision);
        let decided = CapturedDecision { word, hash: FlowHash(record.hash) };
        Some(Self {
            time: epoch + Duration::from_nanos(record.time),
            ingress: record.ingress,
            counter,
            decision: word.is_made().then_some(decided),
            length: record.length,
            bytes,
            left: (record.left_length != 0).then(|| (record.left_length, after.to_vec())),
        })
    }

    /// The same with at most so many bytes of the packet.
    pub(super) fn cut(&self, most: usize) -> Self {
        let mut cut = self.clone();
        cut.bytes.truncate(most);
        if let Some((_, bytes)) = &mut cut.left {
            bytes.truncate(most + OUTER);
        }
        cut
    }
}

/// The bytes of a packet as it came in, from those with which it left encapsulated: an Ethernet header without tags, and what is
/// behind the outer headers.
fn came_in(record: &Record, after: &[u8]) -> Option<Vec<u8>> {
    let link: Vec<u8> = record.link.iter().flat_map(|word| word.to_le_bytes()).collect();
    let inside = after.get(outer_length(after)?..)?;
    Some(link[..ETHERNET].iter().chain(inside).copied().collect())
}

/// Bytes of the outer headers of a frame that left.
fn outer_length(frame: &[u8]) -> Option<usize> {
    let ether_type = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let (kind, ip) = match ether_type(12)? {
        0x8100 | 0x88a8 => (ether_type(12 + TAG)?, ETHERNET + TAG),
        kind => (kind, ETHERNET),
    };
    let (header, protocol) = match kind {
        0x0800 => (20, *frame.get(ip + 9)?),
        0x86dd => (40, *frame.get(ip + 6)?),
        _ => return None,
    };
    const UDP: u8 = 17;
    Some(ip + header + if protocol == UDP { 12 } else { 0 })
}

/// The moment at which the monotonic clock began, by the clock of the system as it is now.
pub(super) fn epoch() -> SystemTime {
    SystemTime::now().checked_sub(monotonic()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The monotonic clock now.
pub(super) fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// An address as the packet path has it: a word or two.
pub(super) fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => [u64::from(u32::from_le_bytes(address.octets())), 0],
        IpAddr::V6(address) => {
            let bytes = address.octets();
            let word = |at: usize| bytes[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            [word(0), word(8)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_words_in_network_order() {
        assert_eq!(words("10.0.0.1".parse().unwrap()), [0x0100_000a, 0]);
        assert_eq!(words("2001:db8::1".parse().unwrap()), [0xb80d_0120, 1 << 56]);
    }

    #[test]
    fn outer_headers_of_any_kind_are_measured() {
        let frame = |kind: &[u8], at: usize, protocol: u8| {
            let mut frame = vec![0; 100];
            frame[12..12 + kind.len()].copy_from_slice(kind);
            frame[at] = protocol;
            outer_length(&frame)
        };
        assert_eq!(frame(&[8, 0], 23, 4), Some(34));
        assert_eq!(frame(&[8, 0], 23, 17), Some(46));
        assert_eq!(frame(&[0x86, 0xdd], 20, 41), Some(54));
        assert_eq!(frame(&[0x81, 0, 0, 5, 0x86, 0xdd], 24, 17), Some(70));
        assert_eq!(frame(&[8, 6], 23, 4), None);
        assert_eq!(outer_length(&[0; 13]), None);
    }
}
