//! What the packet path needs of its surroundings: the bytes of a packet and the tables. Traits only.

use maglev_common::backend::MemberId;
use maglev_common::counters::{Counter, DecapCounter};
use maglev_common::flow::{Bucket, Seconds};
use maglev_common::forwarding::Forwarding;
use maglev_common::hash::{FlowHash, KeyWords};
use maglev_common::vip::VipId;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::decision::{Choice, Decision, Flow, Segment};

/// A header as it lies in a packet: any bytes are one, at any address.
pub trait Header: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned {}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned> Header for T {}

/// The bytes of one packet, from its Ethernet header on.
pub trait Packet {
    /// Bytes in the packet.
    fn len(&self) -> usize;

    /// Whether the packet has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The header at an offset, unless the packet ends before the header does.
    fn view<T: Header>(&self, offset: usize) -> Option<&T>;

    /// The same, to write to.
    fn view_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T>;

    /// Adds bytes of unspecified content in front of the packet. On failure the packet is as before.
    #[must_use]
    fn grow(&mut self, bytes: usize) -> bool;

    /// Removes bytes from the front of the packet. On failure the packet is as before.
    #[must_use]
    fn shrink(&mut self, bytes: usize) -> bool;

    /// Cuts the packet off at this length, which is less than it has. On failure the packet is as before.
    #[must_use]
    fn trim(&mut self, length: usize) -> bool;
}

/// The tables the load balancer decides by, as seen by the CPU that handles the packet.
pub trait Tables {
    /// The interface the packet came in by.
    fn ingress(&self) -> u32;
    /// The time by which flows age.
    fn now(&self) -> Seconds;

    /// The key of the flow hash.
    fn hash_key(&self) -> impl KeyWords;
    /// VIPs, pools, tables, members and interfaces.
    fn forwarding(&self) -> &Forwarding;
    /// The bucket of the flow table in which a flow is kept.
    fn bucket(&self, hash: FlowHash) -> Option<&Bucket>;

    /// Whether frames to this MAC address are for this node if they come in where the packet did: [`Forwarding::owns`]. In the
    /// kernel, a function of its own, so that the verifier need not follow what comes after from each turn of a loop.
    #[inline(always)]
    fn owns(&self, mac: u64) -> bool {
        self.forwarding().owns(self.ingress(), mac)
    }

    /// Whether the table alone decides: for measurement.
    #[inline(always)]
    fn table_only(&self) -> bool {
        false
    }

    /// [`crate::affinity::resolve`]: in the kernel a function of its own, so that the straight way stays short.
    fn resolve(&self, flow: Flow, segment: Segment) -> (MemberId, Choice);

    /// Is told of each decision, for tracing.
    #[inline(always)]
    fn decided(&self, _decision: &Decision) {}

    /// Counts an event.
    fn count(&self, counter: Counter);
    /// Counts a packet of a VIP.
    fn count_vip(&self, vip: VipId, bytes: u64);
    /// Counts a packet sent to a member.
    fn count_member(&self, member: MemberId, bytes: u64);
}

/// What decapsulation on a backend decides by.
pub trait DecapTables {
    /// Whether encapsulated packets are accepted from this IPv4 address: its network-order bytes read little-endian.
    fn accepts4(&self, source: u32) -> bool;
    /// Whether encapsulated packets are accepted from this IPv6 address: its network-order bytes as little-endian words.
    fn accepts6(&self, source: [u64; 2]) -> bool;
    /// Whether a VIP has this IPv4 address, in the same form.
    fn serves4(&self, destination: u32) -> bool;
    /// Whether a VIP has this IPv6 address, in the same form.
    fn serves6(&self, destination: [u64; 2]) -> bool;
    /// Counts an event.
    fn count(&self, counter: DecapCounter);
}
