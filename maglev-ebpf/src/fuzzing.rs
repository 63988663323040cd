//! The packet path over tables in memory, for fuzzers of other crates: each packet's outcome, bytes and counters.

use std::string::String;
use std::vec;
use std::vec::Vec;

use maglev_common::backend::{InterfaceRecord, InterfaceSlot, MemberState, NextHop, Tag};
use maglev_common::counters::{self, Counter};
use maglev_common::encap::Encap;
use maglev_common::mark::Mark;
use maglev_common::pod::Word;
use maglev_common::settings::{Mss, UdpPolicy, Unserved};
use maglev_common::syn::SYNS;
use maglev_common::vip::Rule;

use crate::fixtures::{NODE_MAC, VIP4, VIP6, VecPacket, tcp4, tcp6, udp4, udp6};
use crate::packet::checksum;
use crate::path::decap::decapsulate;
use crate::path::egress::{Departure, Origin, depart};
use crate::path::forward::forward;
use crate::path::mss::lower;
use crate::testing::{BACKEND4, FakeDecap, FakeTables, INGRESS, POOL, SOURCE4, SOURCE6, backend4, backend6, member};
use crate::verdict::Verdict;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was encapsulated and sent, or, on a backend, unwrapped.
    Sent,
    /// It was answered.
    Answered,
    /// It goes on as it is.
    Passed,
    /// It was dropped.
    Dropped,
}

/// A packet's fate.
#[derive(Clone, Debug)]
pub struct Ran {
    /// What the verdict says.
    pub outcome: Outcome,
    /// What the counters say, apart from those that only note an event.
    pub counted: Vec<Outcome>,
    /// The name of the last one.
    pub counter: &'static str,
    /// The bytes after.
    pub bytes: Vec<u8>,
}

/// How many different tables there are.
pub const KINDS: usize = 4;

/// A load balancer's node.
pub struct Node(FakeTables);

impl Node {
    /// With tables of this kind, below [`KINDS`].
    pub fn new(kind: usize) -> Self {
        let mut tables = FakeTables::with_members(2);
        tables.forwarding.members[1] = if kind.is_multiple_of(2) { backend4() } else { backend6() };
        tables.forwarding.members[2] = if kind.is_multiple_of(2) { backend6() } else { backend4() };
        if kind % 2 == 1 {
            tables.forwarding.members[1].state.set(MemberState::alive(POOL, Encap::Gue6, 0).0);
            let tag = Tag::new(0x8100, 100);
            let tagged = InterfaceRecord::new(NODE_MAC, INGRESS + 1, 1_400).tagged(tag);
            tables.forwarding.set_interface(1, &tagged);
            tables.forwarding.members[2].next_hop.set(NextHop::new(NODE_MAC, InterfaceSlot(1)).0);
        }
        if kind >= 2 {
            tables.unserved = Unserved::Reset;
            tables.move_slots(1, 2, UdpPolicy::Keep);
            let rules = [Rule::new(80, 80, 6), Rule::new(0, u16::MAX, 17), Rule::new(1_000, 2_000, 0)];
            tables.serve_by_source([24, 64], &rules, if kind == 3 { [24, 56] } else { [0, 0] });
        } else {
            tables.serve4(VIP4, 80, if kind == 0 { 6 } else { 17 });
            tables.serve6(VIP6, 80, if kind == 0 { 6 } else { 17 });
        }
        tables.renew(2);
        Self(tables)
    }

    /// A frame comes in.
    pub fn receive(&self, frame: &[u8]) -> Ran {
        self.run(frame, |packet, tables| match forward(packet, tables) {
            Verdict::Pass => Outcome::Passed,
            Verdict::Drop => Outcome::Dropped,
            Verdict::Transmit | Verdict::Redirect(_) | Verdict::Tag(_) => Outcome::Sent,
        })
    }

    /// A packet leaves, of a health check of this member; 0: of none.
    pub fn send(&self, id: u16, frame: &[u8]) -> Ran {
        let mark = if id == 0 { Mark(0) } else { Mark::from_member(member(id)) };
        self.run(frame, |packet, tables| match depart(packet, tables, Origin { mark, forwarded: false }) {
            Departure::Pass => Outcome::Passed,
            Departure::Drop => Outcome::Dropped,
            Departure::Encapsulated | Departure::Redirect(_) => Outcome::Sent,
        })
    }

    fn run(&self, frame: &[u8], path: impl FnOnce(&mut VecPacket, &FakeTables) -> Outcome) -> Ran {
        let Self(tables) = self;
        tables.answers.set(2);
        tables.advance(u16::from(frame.len().is_multiple_of(16)));
        let (before, ..) = tables.all_counted();
        let mut packet = VecPacket::new(frame);
        let outcome = path(&mut packet, tables);
        let (after, ..) = tables.all_counted();
        let (mut counted, mut last) = (Vec::new(), "");
        for counter in Counter::ALL {
            let times = [&after, &before].map(|counts| counts.get(counter.name()).copied().unwrap_or(0));
            let outcome = match counter.outcome() {
                counters::Outcome::Forwarded => Outcome::Sent,
                counters::Outcome::Answered => Outcome::Answered,
                counters::Outcome::Passed => Outcome::Passed,
                counters::Outcome::Dropped => Outcome::Dropped,
                counters::Outcome::Noted => continue,
            };
            for _ in times[1]..times[0] {
                counted.push(outcome);
                last = counter.name();
            }
        }
        // A verdict does not say whether what is sent is the packet or an answer to it.
        let is_answer = outcome == Outcome::Sent && counted == [Outcome::Answered];
        let outcome = if is_answer { Outcome::Answered } else { outcome };
        Ran { outcome, counted, counter: last, bytes: packet.bytes }
    }
}

/// A backend.
pub struct Backend(FakeDecap);

impl Backend {
    /// That lowers the MSS, of this kind, below [`KINDS`].
    pub fn new(kind: usize) -> Self {
        let mut syns = Vec::new();
        syns.resize_with(SYNS, Word::default);
        let words = |address: [u8; 16]| {
            let address = u128::from_le_bytes(address);
            [address as u64, (address >> 64) as u64]
        };
        Self(FakeDecap {
            sources4: [u32::from_le_bytes(SOURCE4)].into(),
            sources6: [words(SOURCE6)].into(),
            vips4: [u32::from_le_bytes(VIP4)].into(),
            vips6: [words(VIP6)].into(),
            mss: [Mss::Off, Mss::Auto, Mss::Limit(536), Mss::Auto][kind],
            mtu: if kind == 3 { 68 } else { 1_500 },
            syns,
            ..FakeDecap::default()
        })
    }

    /// A frame comes in.
    pub fn receive(&self, frame: &[u8]) -> Ran {
        let Self(tables) = self;
        tables.last.set(None);
        let mut packet = VecPacket::new(frame);
        let verdict = decapsulate(&mut packet, tables);
        let counter = tables.last.get();
        let counted = counter.map(|counter| match counter.outcome() {
            counters::Outcome::Forwarded => Outcome::Sent,
            counters::Outcome::Passed => Outcome::Passed,
            counters::Outcome::Answered => Outcome::Answered,
            counters::Outcome::Dropped | counters::Outcome::Noted => Outcome::Dropped,
        });
        let outcome = match (verdict, counted) {
            (Verdict::Pass, Some(Outcome::Sent)) => Outcome::Sent,
            (Verdict::Pass, _) => Outcome::Passed,
            _ => Outcome::Dropped,
        };
        let counter = counter.map_or("", |counter| counter.name());
        Ran { outcome, counted: counted.into_iter().collect(), counter, bytes: packet.bytes }
    }

    /// A packet as it leaves.
    ///
    /// # Errors
    /// The MSS that would change is not the one that stands there, or would grow.
    pub fn lower(&self, frame: &[u8]) -> Result<Vec<u8>, String> {
        let mut bytes = frame.to_vec();
        let Some(change) = lower(&VecPacket::new(frame), &self.0) else { return Ok(bytes) };
        let [at, sum] = [change.at, change.checksum].map(|at| bytes.get(at..)?.first_chunk::<2>().copied());
        let (Some(at), Some(sum)) = (at, sum) else { return Err("a change beyond the packet".into()) };
        if at != change.old.to_be_bytes() || change.new >= change.old {
            return Err(std::format!("{change:?} of {at:?}"));
        }
        let (old, new) = change.summed();
        let sum = checksum::replaced(u16::from_ne_bytes(sum), old, new);
        bytes[change.at..][..2].copy_from_slice(&change.new.to_be_bytes());
        bytes[change.checksum..][..2].copy_from_slice(&sum.to_ne_bytes());
        Ok(bytes)
    }
}

/// Frames as a backend of these tables receives them: in all combinations of families, in IP in IP and in GUE.
pub fn wrapped() -> Vec<Vec<u8>> {
    let frames = [tcp4(b"hello"), tcp6(b"hello"), udp4(VIP4, 80), udp6(80), syn()];
    let mut all = Vec::new();
    for frame in &frames {
        let inner = &frame[14..];
        let protocol = if inner[0] >> 4 == 4 { 4 } else { 41 };
        let port = [&[0xc0, 0, 0x17, 0xc0][..], &(12 + inner.len() as u16).to_be_bytes(), &[0; 2]].concat();
        let gue = [&port[..], &[0, protocol, 0, 0], inner].concat();
        for (protocol, payload) in [(protocol, inner), (17, &gue)] {
            let length = payload.len() as u16;
            let mut outer4 = [&frame[..12], &[8, 0, 0x45, 0]].concat();
            outer4.extend((20 + length).to_be_bytes());
            outer4.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            all.push([&outer4[..], &SOURCE4, &BACKEND4, payload].concat());
            let mut outer6 = [&frame[..12], &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
            outer6.extend(length.to_be_bytes());
            outer6.extend([protocol, 64]);
            all.push([&outer6[..], &SOURCE6, &SOURCE6, payload].concat());
        }
    }
    all
}

/// A SYN with an MSS.
fn syn() -> Vec<u8> {
    let mut frame = tcp4(&[2, 4, 5, 0xb4]);
    let start = frame.len() - 24;
    (frame[start + 12], frame[start + 13]) = (0x60, 2);
    frame
}

/// An answer to it, as a backend sends it, of both families.
pub fn answers() -> Vec<Vec<u8>> {
    let answer = |mut frame: Vec<u8>, address: usize, size: usize| {
        let start = frame.len() - 24;
        (frame[start + 12], frame[start + 13]) = (0x60, 0x12);
        let (left, right) = frame[address..address + 2 * size].split_at_mut(size);
        left.swap_with_slice(right);
        let (left, right) = frame[start..start + 4].split_at_mut(2);
        left.swap_with_slice(right);
        frame
    };
    let mss = [2, 4, 5, 0xb4];
    vec![answer(tcp4(&mss), 26, 4), answer(tcp6(&mss), 22, 16)]
}
