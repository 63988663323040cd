//! The contract between the measuring harness and its user space: its programs, its maps, and the words through which a batch is
//! described and reported; and, on the host, the objects themselves. Never in what ships.
#![no_std]

use maglev_common::pod::Word;
use zerocopy::{FromBytes, IntoBytes};

#[cfg(not(target_arch = "bpf"))]
mod objects;

#[cfg(not(target_arch = "bpf"))]
pub use objects::{EARLIER, FAULTY, HARNESS, MEASURED};

/// The load balancer that minds [`MODE`], in an object of its own.
pub const MEASURED_PROGRAM: &str = "maglev_measured";
/// How [`MEASURED_PROGRAM`] departs from the program that ships (`u32`): [`SLOWED`] and [`TABLE_ONLY`], or 0.
pub const MODE: &str = "MODE";
/// Of [`MODE`]: each packet costs one call of a helper more than it has to. For the tests of the benchmark.
pub const SLOWED: u32 = 1;
/// Of [`MODE`]: the table alone decides, whatever pools and slots say.
pub const TABLE_ONLY: u32 = 2;

/// The load-time global with the [`Fault`] of the programs in `FAULTY` (`u32`), or 0 for none.
pub const FAULT: &str = "FAULT";

/// A fault of the load balancer's programs, for the tests of the fuzzer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fault {
    /// It takes any length for the packet's, beyond the frame's end too.
    BelievesLength = 1,
    /// It takes a source route for a recorded one.
    FollowsSourceRoute,
    /// It takes packets with more extension headers than it follows.
    ForgetsHeaderLimit,
    /// The outer checksum in front of GUE is wrong.
    WrongOuterChecksum,
    /// It cuts nothing off a frame's end.
    KeepsTrailer,
    /// Ports do not matter to the rules of an IPv4 address.
    ForgetsPort,
    /// It takes frames to other hosts.
    TakesOtherMac,
    /// It answers more than it may.
    AnswersWithoutLimit,
    /// It does not note where datagrams go.
    ForgetsFragments,
    /// It counts packets of VIPs twice.
    CountsVipTwice,
    /// It hands health checks to the interface that sends them anyway.
    RedirectsChecks,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::BelievesLength,
        Self::FollowsSourceRoute,
        Self::ForgetsHeaderLimit,
        Self::WrongOuterChecksum,
        Self::KeepsTrailer,
        Self::ForgetsPort,
        Self::TakesOtherMac,
        Self::AnswersWithoutLimit,
        Self::ForgetsFragments,
        Self::CountsVipTwice,
        Self::RedirectsChecks,
    ];
}

/// The harness's entry for IPv4 packets: varies the flow, then continues in the program under test.
pub const VARY4: &str = "vary4";
/// The same for IPv6 packets.
pub const VARY6: &str = "vary6";
/// Sends IPv4 packets as live frames.
pub const GENERATE4: &str = "generate4";
/// The same for IPv6 packets.
pub const GENERATE6: &str = "generate6";
/// Counts what comes back, and drops it.
pub const SINK: &str = "sink";
/// The floor *empty*: returns at once.
pub const EMPTY: &str = "empty";
/// The floor *transmit*: swaps the MAC addresses.
pub const TRANSMIT: &str = "transmit";
/// The floor *headers*: grows the packet and writes a constant outer IPv4 header.
pub const HEADERS: &str = "headers";
/// The floor *headers and one random line*: the same, and reads one random cache line of 8 MB.
pub const HEADERS_LINE: &str = "headers_line";

/// The map that holds the programs under test.
pub const UNDER_TEST: &str = "UNDER_TEST";
/// Programs that can take turns: a power of two.
pub const MOST_PROGRAMS: usize = 16;
/// The map with the one [`Rig`].
pub const RIG: &str = "RIG";
/// The floor *headers and one random line of as many bytes as the flow table has*.
pub const HEADERS_FLOW_LINE: &str = "headers_flow_line";
/// The map of which [`HEADERS_LINE`] and [`HEADERS_FLOW_LINE`] read.
pub const LINES: &str = "LINES";

/// Cache lines in [`LINES`]: a power of two; 32 MB.
pub const MOST_LINES: u32 = 1 << 19;
/// Cache lines of which [`HEADERS_LINE`] reads: 8 MB.
pub const LINE_COUNT: u32 = 1 << 17;
/// Words in a line.
pub const LINE_WORDS: usize = 8;
/// Readings of the clock in a batch: a power of two.
pub const READINGS: usize = 4_096;

/// Instructions the verifier walks for [`HEADERS`]. A floor that grows would flatter what is measured against it.
pub const HEADERS_INSTRUCTIONS: u32 = 25;

/// One batch: what it is to do, and what came of it. User space writes it before and reads it after.
///
/// The programs take turns, thousands of runs each, so that whatever slows the machine for longer slows them all. In each
/// turn the clock is read twice: after the program warmed its caches, and as the next one takes over.
///
/// Flow number *f* has the source address `source | f & 0xff | (f >> 24) << 8` in its last two bytes, the source port
/// `f >> 8`, and goes to VIP number `f & vip_mask`: no two numbers share a flow, and the number of flows does not
/// depend on the number of VIPs.
#[derive(Debug, FromBytes, IntoBytes)]
#[repr(C)]
pub struct Rig {
    /// Bytes in the packet before encapsulation.
    pub length: Word,
    /// Programs that take turns.
    pub programs: Word,
    /// Bytes each of them adds.
    pub overheads: [Word; MOST_PROGRAMS],
    /// Sixteen bytes of the frame, the first ones but for as many as its VLAN tags have: encapsulation overwrites fourteen of them.
    pub head: [Word; 2],
    /// Bytes of VLAN tags: 0, 4 or 8.
    pub tags: Word,
    /// The first eight bytes of the frame: with tags, encapsulation overwrites these too.
    pub start: Word,
    /// Bytes between IP header and ports: at most 63.
    pub gap: Word,
    /// The source address, or an IPv6 address's last eight bytes: its network-order bytes read little-endian.
    pub source: Word,
    /// The destination of VIP number 0, likewise.
    pub destination: Word,
    /// The ports of flow number 0: source, then destination, as four bytes read little-endian.
    pub ports: Word,
    /// Flow numbers are random numbers under this mask…
    pub flow_mask: Word,
    /// …plus a number that grows by this much with each run.
    pub flow_step: Word,
    /// VIP numbers under this mask: at most 16 bits.
    pub vip_mask: Word,
    /// Lines of which [`HEADERS_FLOW_LINE`] reads, less one: at most [`MOST_LINES`] − 1.
    pub flow_line_mask: Word,

    /// The generator's state; never 0. Carries on from batch to batch.
    pub random: Word,
    /// The number that grows. Carries on likewise.
    pub flow: Word,
    /// Runs so far.
    pub run: Word,
    /// Whose turn it is.
    pub turn: Word,
    /// The run before which the clock is read next.
    pub due: Word,
    /// Runs in a turn before its time begins.
    pub warming: Word,
    /// Runs that are timed.
    pub timed: Word,
    /// How often the clock was read.
    pub readings: Word,
    /// The readings of `bpf_ktime_get_ns`.
    pub clock: [Word; READINGS],
    /// Packets that had grown by exactly what their program adds when the next run began, or when they came back.
    pub grown: Word,

    /// The interface that live frames are sent into.
    pub interface: Word,
    /// Live frames that came back.
    pub returned: Word,
}
