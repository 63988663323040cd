//! Every counter and drop reason, once: its name, its help text, and the packet's verdict.

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::backend::MemberId;
use crate::flow::Seconds;
use crate::forwarding::MEMBER_IDS;
use crate::hash::FlowHash;
pub use crate::ids::VipTraffic;
use crate::maps::{COUNTER_REGION, MAX_VIPS};
use crate::pod::Word;

const _: () = assert!(Counter::ALL.len() <= COUNTER_REGION as usize);
const _: () = assert!(DecapCounter::ALL.len() <= COUNTER_REGION as usize);

/// What became of a packet that a counter counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Sent on to a backend (or, by `decap`, to the host without its outer header).
    Forwarded,
    /// Left to the host's network stack.
    Passed,
    /// Answered by the node itself.
    Answered,
    /// Dropped.
    Dropped,
    /// None of these: something that happened on the way.
    Noted,
}

impl Outcome {
    /// The word in text, JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Passed => "passed",
            Self::Answered => "answered",
            Self::Dropped => "dropped",
            Self::Noted => "noted",
        }
    }
}

/// A table of counters: the variants, each with name, outcome and help text.
macro_rules! counters {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal, $outcome:ident, $help:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $type {
            $(#[doc = $help] $variant,)*
        }

        impl $type {
            /// All of them, in the order in which they lie in the map.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in metrics, logs and `maglev counters`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// One sentence for an operator.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help),* }
            }

            /// What became of the packet.
            #[inline(always)]
            pub const fn outcome(self) -> Outcome {
                match self { $(Self::$variant => Outcome::$outcome),* }
            }
        }
    };
}

counters! {
    /// What the load balancer's program counts, per CPU.
    Counter {
        Transmitted = "transmitted", Forwarded, "Encapsulated and sent out of the interface it came in by.";
        Redirected = "redirected", Forwarded, "Encapsulated and handed to another interface.";
        NotIp = "not_ip", Passed, "Neither IPv4 nor IPv6, such as ARP.";
        NotVip = "not_vip", Passed, "For an address that no VIP has.";
        NoSuchVip = "no_such_vip", Dropped, "For a VIP's address, but no VIP has this protocol and port.";
        NoBackend = "no_backend", Dropped, "For a VIP whose pool has no backend to send to.";
        NextHopUnresolved = "next_hop_unresolved", Dropped, "The backend's route or neighbor is not resolved.";
        TooBig = "too_big", Dropped, "With its outer header the packet exceeds the MTU of the path to its backend, and is not answered: it has no DF, is an ICMP error, or has a source that is never answered.";
        NoHeadroom = "no_headroom", Dropped, "The driver left no room for the outer header.";
        Malformed = "malformed", Dropped, "For a VIP's address, with a header that is cut short or contradicts itself.";
        FragmentUnknown = "fragment_unknown", Dropped, "For a VIP's address, a later fragment of a datagram whose first fragment did not come before it, or not in the last four seconds.";
        SourceRoute = "source_route", Dropped, "For a VIP's address, with a route that its sender chose: an IPv4 source route option, or an IPv6 routing header of type 0 or with segments left.";
        ExtensionHeader = "extension_header", Dropped, "For a VIP's address, with more than 8 IPv6 extension headers, or more than 512 bytes of them.";
        Icmp = "icmp", Dropped, "For a VIP's address, an ICMP or ICMPv6 message that is neither an error nor an echo request, is in fragments, or has options or extension headers.";
        OtherProtocol = "other_protocol", Dropped, "For a VIP's address, a protocol without ports that no VIP has.";
        Truncated = "truncated", Passed, "Too short for its Ethernet or IP header to name a destination.";
        FlowHit = "flow_hit", Noted, "The flow table knew the flow, but not at a first look, which is not counted.";
        FlowMiss = "flow_miss", Noted, "The flow table was asked for a flow and did not know it.";
        FlowPrevious = "flow_previous", Noted, "A flow that the flow table did not know went to the previous owner of its learning slot.";
        FlowWritten = "flow_written", Noted, "An entry was written to the flow table.";
        FlowPromoted = "flow_promoted", Noted, "A flow's entry was taken over from the flow table before a change of its size.";
        FlowTableFull = "flow_table_full", Noted, "A flow found its bucket full of confirmed flows and was not recorded.";
        FlowEvicted = "flow_evicted", Noted, "A recent entry was evicted by another flow: it named another backend than its slot's owner, or flows displace each other where every one is tracked.";
        FlowTableMissing = "flow_table_missing", Noted, "A CPU outside the flow table's range chose by the table alone.";
        FlowMemberDead = "flow_member_dead", Noted, "The flow's backend is gone, or serves the VIP no more; the table chose again.";
        CheckSent = "check_sent", Forwarded, "Of a health check of this node: encapsulated and sent to the backend that is checked.";
        CheckUnsent = "check_unsent", Dropped, "Of a health check of this node, but the backend's next hop is not resolved, or the packet does not fit its interface.";
        Stray = "stray", Dropped, "From this node itself for a VIP's address, and of no health check of a backend that exists: it would be balanced.";
        OtherMac = "other_mac", Passed, "For a VIP's address, but addressed to another MAC address than the interface's own.";
        HopLimit = "hop_limit", Dropped, "For a VIP's address, with a TTL or hop limit of 0.";
        IcmpError = "icmp_error", Noted, "An ICMP or ICMPv6 error about a flow of a VIP; it goes to the flow's backend.";
        IcmpStray = "icmp_stray", Dropped, "For a VIP's address, an ICMP or ICMPv6 error that quotes no TCP or UDP packet from a VIP at that address.";
        EchoReply = "echo_reply", Answered, "An echo request to a VIP's address, answered by the node.";
        PacketTooBig = "packet_too_big", Answered, "Too long for the path to its backend with an outer header: answered with the MTU.";
        AnswerLimit = "answer_limit", Dropped, "The node would have answered, but this CPU has given as many answers as it may in this second.";
        Unanswerable = "unanswerable", Dropped, "The node would have answered, but the source is no single remote host's address, or is a VIP's, or the packet is shorter than its answer.";
        Nested = "nested", Dropped, "For a VIP's address, IPv4 or IPv6 in IP: a backend might unwrap it too.";
        FragmentNoted = "fragment_noted", Noted, "The first fragment of a datagram to a VIP; where it goes was noted for those that follow.";
        FragmentLimit = "fragment_limit", Dropped, "The first fragment of a datagram to a VIP, but as many have begun on this CPU in this second as may.";
        Reset = "reset", Answered, "A TCP segment for a VIP without a backend (`when_empty: reset`), or for a port that no VIP has (`packets.unknown_port: reset`): answered with a RST.";
        PortUnreachable = "port_unreachable", Answered, "A UDP datagram for a VIP without a backend (`when_empty: reset`), or for a port that no VIP has (`packets.unknown_port: reset`): answered with an ICMP or ICMPv6 port unreachable.";
        EchoOff = "echo_off", Dropped, "An echo request to a VIP's address that the node leaves unanswered: `packets.echo` is off, or it is serving and no VIP of the address has a backend.";
        DaemonGone = "daemon_gone", Dropped, "For a VIP's address, and the daemon has been gone for longer than `dataplane.watchdog`.";
    }
}

counters! {
    /// What the backend's decapsulation program counts, per CPU. A counter keeps its place: pinned counters go on under the
    /// next release's program.
    DecapCounter {
        Decapsulated = "decapsulated", Forwarded, "The outer headers were removed.";
        NotEncapsulated = "not_encapsulated", Passed, "Neither IP in IP nor GUE: left as it is.";
        ForeignSource = "foreign_source", Passed, "IP in IP or GUE, but not from an allowed source: left as it is.";
        Malformed = "malformed", Dropped, "IP in IP or GUE with a header that is cut short, or lengths that contradict each other.";
        Fragment = "fragment", Dropped, "IP in IP whose outer packet is a fragment.";
        Congestion = "congestion", Dropped, "Outer ECN is CE but the inner packet is not ECN-capable (RFC 6040 section 4.2).";
        NoRoom = "no_room", Dropped, "The driver refused to move the start of the packet.";
        ForeignDestination = "foreign_destination", Dropped, "IP in IP or GUE whose inner packet is for no VIP of this backend, or is for a multicast, broadcast, loopback or link-local one.";
        NeighborDiscovery = "neighbor_discovery", Dropped, "IP in IP or GUE whose inner packet is neighbor discovery, a router advertisement or a redirect.";
        ImpossibleSource = "impossible_source", Dropped, "IP in IP or GUE whose inner source no remote host can have, or is the inner destination.";
        MssLowered = "mss_lowered", Noted, "The MSS in the answer to a SYN that came encapsulated was lowered.";
        UnsupportedGue = "unsupported_gue", Dropped, "GUE of another version than 0 and 1, a control message, with flags, or with another payload than an IP packet.";
    }
}

/// Packets and bytes of a VIP or a member on one CPU. Bytes are those of the frame as it came in, Ethernet header
/// included.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Traffic {
    /// Packets.
    pub packets: Word,
    /// Bytes.
    pub bytes: Word,
}

impl Traffic {
    /// Counts one packet. For the CPU that owns the counter.
    #[inline(always)]
    pub fn add(&self, bytes: u64) {
        self.packets.add_unshared(1);
        self.bytes.add_unshared(bytes);
    }
}

/// How often something may still be done in this second.
///
/// ```text
///  63   49   48   47     32 31            0
/// +-------+------+---------+---------------+
/// | 0     | used | second  | times left    |
/// +-------+------+---------+---------------+
/// ```
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(transparent)]
pub struct Allowance(Word);

impl Allowance {
    /// Takes one of `each_second` times. False if none was left. For the CPU that owns it.
    #[inline(always)]
    pub fn take(&self, Seconds(now): Seconds, each_second: u32) -> bool {
        let word = self.0.get();
        let second = 1 << 48 | u64::from(now) << 32;
        let left = if word >> 32 == second >> 32 { word as u32 } else { each_second };
        if left == 0 {
            return false;
        }
        self.0.set(second | u64::from(left - 1));
        true
    }
}

/// One of two sides for each of 256 groups of flows, which are taken in turn.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(transparent)]
pub struct Sides([Word; 4]);

impl Sides {
    /// Whether it is the second side's turn for a flow. The other side is next. For the CPU that owns them.
    #[inline(always)]
    pub fn take_turn(&self, flow: FlowHash) -> bool {
        let group = flow.set(0xff);
        let (word, bit) = (&self.0[group as usize >> 6 & 3], 1 << (group & 63));
        let sides = word.get();
        word.set(sides ^ bit);
        sides & bit != 0
    }
}

const VIPS: usize = MAX_VIPS as usize;
/// The entry of member id 0: those before it are the counters'.
const MEMBERS: usize = COUNTER_REGION as usize / 2;
const _: () = assert!(VIPS.is_power_of_two() && MEMBER_IDS.is_power_of_two() && MEMBER_IDS + VIPS <= 1 << 16);

/// All that one CPU counts: one value of a map, so that one look-up finds every counter of a packet.
#[derive(Debug, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Counts {
    /// A word per [`Counter`], two to an entry, and room to grow; what was sent to each member, by its id; and what came for each VIP,
    /// whose word names an entry ([`VipTraffic`]). One array, which begins where the value does: so the instruction that reads an
    /// entry adds up where it lies, but not beyond 32 KiB.
    entries: [Traffic; MEMBERS + MEMBER_IDS + VIPS],
    /// Answers that the CPU may still give in this second.
    pub answers: Allowance,
    /// Datagrams in fragments that may still begin on the CPU in this second.
    pub fragmented: Allowance,
    /// Which of its two owners the next error about a flow of a slot that is learning goes to.
    pub sides: Sides,
    /// Fills the line.
    pub reserved: [Word; 2],
}

impl Counts {
    /// The first word of member id 0, and the number of ids: two words each.
    pub const MEMBERS: [u32; 2] = [2 * MEMBERS as u32, MEMBER_IDS as u32];
    /// The same of VIPs.
    pub const VIPS: [u32; 2] = [2 * (MEMBERS + MEMBER_IDS) as u32, VIPS as u32];

    /// Counts an event. For the CPU that owns the counters, as are the others.
    #[inline(always)]
    pub fn count(&self, counter: Counter) {
        self.counter(counter).add_unshared(1);
    }

    /// The word of a counter.
    #[inline(always)]
    pub fn counter(&self, counter: Counter) -> &Word {
        let n = counter as usize & (COUNTER_REGION as usize - 1);
        let entry = &self.entries[n / 2];
        if n.is_multiple_of(2) { &entry.packets } else { &entry.bytes }
    }

    /// Counts a packet that came for a VIP.
    #[inline(always)]
    pub fn count_vip(&self, VipTraffic(vip): VipTraffic, bytes: u64) {
        self.entries[MEMBERS + (vip as usize & (MEMBER_IDS | (VIPS - 1)))].add(bytes);
    }

    /// Counts a packet sent to a member.
    #[inline(always)]
    pub fn count_member(&self, member: MemberId, bytes: u64) {
        self.entries[MEMBERS + (member.index() & (MEMBER_IDS - 1))].add(bytes);
    }

    /// What came for each VIP.
    pub fn vips(&self) -> &[Traffic] {
        &self.entries[MEMBERS + MEMBER_IDS..]
    }

    /// What was sent to each member.
    pub fn members(&self) -> &[Traffic] {
        &self.entries[MEMBERS..][..MEMBER_IDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::VipId;
    use std::collections::BTreeSet;
    use std::vec::Vec;
    use zerocopy::FromZeros as _;

    #[test]
    fn names_are_unique_and_fit_for_metrics() {
        let names: BTreeSet<_> = Counter::ALL.iter().map(|c| c.name()).collect();
        assert_eq!(names.len(), Counter::ALL.len());
        let all = Counter::ALL.iter().map(|c| c.name()).chain(DecapCounter::ALL.iter().map(|c| c.name()));
        for name in all {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        }
    }

    #[test]
    fn an_allowance_lasts_for_its_second_and_is_whole_in_the_next() {
        let allowance = Allowance::default();
        assert!(Allowance::default().take(Seconds(0), 1), "also in the first second of a CPU that took none yet");
        let taken = |second| (0..5).filter(|_| allowance.take(Seconds(second), 3)).count();
        assert_eq!([taken(65_535), taken(65_535), taken(0), taken(1)], [3, 0, 3, 3]);
    }

    #[test]
    fn the_sides_of_a_flow_are_taken_in_turn_whatever_others_do() {
        let sides = Sides::default();
        for n in 0..300 {
            assert_eq!(sides.take_turn(FlowHash(u64::MAX << 32 | 77)), n % 2 == 1);
            // The groups of all other flows, this many times.
            (0..256 * n).filter(|flow| flow % 256 != 77).for_each(|flow| {
                sides.take_turn(FlowHash(flow));
            });
        }
    }

    #[test]
    fn vips_and_members_are_counted_apart() {
        let counts = Counts::new_box_zeroed().unwrap();
        let last = (VipId(MAX_VIPS as u16 - 1), MemberId::from_low_bits(u16::MAX));
        for ((vip, member), bytes) in [((VipId(0), MemberId::from_low_bits(1)), 100), (last, 1_000)] {
            assert_eq!(VipTraffic::new(vip).vip(), vip);
            counts.count_vip(VipTraffic::new(vip), bytes);
            counts.count_member(member, bytes + 1);
        }
        let counted = |all: &[Traffic]| {
            let used = all.iter().enumerate().filter(|(_, traffic)| traffic.packets.get() != 0);
            used.map(|(n, traffic)| (n, traffic.packets.get(), traffic.bytes.get())).collect::<Vec<_>>()
        };
        assert_eq!(counted(counts.vips()), [(0, 1, 100), (VIPS - 1, 1, 1_000)]);
        assert_eq!(counted(counts.members()), [(1, 1, 101), (MEMBER_IDS - 1, 1, 1_001)]);
    }

    #[test]
    fn a_counter_lies_where_its_number_says() {
        for (n, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, n);
        }
    }
}
