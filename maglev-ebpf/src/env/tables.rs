//! The capabilities: the inputs and outputs of the path, as seen by the CPU that handles the packet.

use maglev_common::backend::MemberId;
use maglev_common::counters::{Counter, DecapCounter, VipTraffic};
use maglev_common::flow::{Bucket, Seconds};
use maglev_common::forwarding;
use maglev_common::fragment::{Datagram, Line};
use maglev_common::hash::{FlowHash, KeyWords};
use maglev_common::pod::Word;
use maglev_common::settings::Mss;
use maglev_common::table::{Slot, SlotWord, TableStart};
use maglev_common::vip::{Key4, Key6, VipWord};

use super::decision::{Choice, Decision, Ends, Flow, Segment};

/// Which VIP a packet is for, and where its packets go: directories, pools, tables, members and interfaces.
pub trait Forwarding {
    /// What user space publishes.
    fn forwarding(&self) -> &forwarding::Forwarding;
    /// A slot of a table; a settled slot without an owner if there is no such table.
    fn slot(&self, start: TableStart, slot: Slot) -> SlotWord;

    /// The key of the flow hash.
    #[inline(always)]
    fn hash_key(&self) -> impl KeyWords {
        self.forwarding()
    }

    /// [`maglev_common::vip::Index::find_by_rules`] for an IPv4 address, port and protocol. In the kernel, a function of its own, so that its turns take no
    /// room on the stack of others.
    #[inline(always)]
    fn find_by_rules4(&self, address: u32, service: u64) -> VipWord {
        self.forwarding().directory4().find_by_rules(Key4::from_service(address, service))
    }

    /// The same for IPv6.
    #[inline(always)]
    fn find_by_rules6(&self, address: [u64; 2], service: u64) -> VipWord {
        self.forwarding().directory6().find_by_rules(Key6::from_service(address, service))
    }
}

/// The interface that the packet came in by.
pub trait Ingress: Forwarding {
    /// Its index. For an outgoing packet, the outgoing interface, which may differ from the one it is redirected to.
    fn ingress(&self) -> u32;

    /// Whether frames to this MAC address are for this node if they come in where the packet did:
    /// [`forwarding::Forwarding::owns`]. In the kernel, a function of its own, so that the verifier need not follow what comes after
    /// from each turn of a loop.
    #[inline(always)]
    fn owns(&self, mac: u64) -> bool {
        self.forwarding().owns(self.ingress(), mac)
    }
}

/// The time by which flows age.
pub trait Clock {
    /// Now.
    fn now(&self) -> Seconds;
}

/// The flow table.
pub trait Flows: Forwarding + Clock {
    /// The bucket in which a flow is kept.
    fn bucket(&self, hash: FlowHash) -> Option<&Bucket>;

    /// The bucket in which a flow was kept before the flow table got another size, if it did: to be read only, since an earlier
    /// program may be given the table back.
    #[inline(always)]
    fn bucket_before(&self, _hash: FlowHash) -> Option<&Bucket> {
        None
    }

    /// Chooses a flow's member, if there is one: [`crate::affinity::choose`], or another design that is compared with it.
    fn choose(&self, flow: Flow, segment: impl Fn() -> Segment) -> (MemberId, Choice);

    /// [`crate::affinity::resolve`]: in the kernel a function of its own, so that the path of most packets stays short.
    fn resolve(&self, flow: Flow, segment: Segment) -> (MemberId, Choice);

    /// [`crate::affinity::choose_for_error`]: likewise.
    fn choose_for_error(&self, flow: Flow, segment: Segment) -> (MemberId, Choice);
}

/// Packets that the node itself answers, and errors about packets of others.
pub trait Answers {
    /// Takes one of the answers that this CPU may give in this second. False if none was left.
    fn may_answer(&self) -> bool;
    /// Whether it is the second side's turn for an error about a flow: [`maglev_common::counters::Sides::take_turn`].
    fn takes_turn(&self, flow: FlowHash) -> bool;
}

/// Datagrams that arrive in fragments.
pub trait Fragments: Clock {
    /// Takes one of the datagrams in fragments that may begin on this CPU in this second. False if none was left.
    fn may_begin(&self) -> bool;
    /// The line of the fragment table in which a datagram is noted.
    fn line(&self, datagram: Datagram) -> Option<&Line>;
}

/// What is counted.
pub trait Counters {
    /// Counts an event.
    fn count(&self, counter: Counter);
    /// Counts a packet of a VIP.
    fn count_vip(&self, vip: VipTraffic, bytes: u64);
    /// Counts a packet sent to a member.
    fn count_member(&self, member: MemberId, bytes: u64);
}

/// Receives each decision. Does nothing unless the program traces.
pub trait Trace {
    /// A packet of a VIP goes to a member, if there is one.
    #[inline(always)]
    fn decided(&self, _decision: &Decision) {}

    /// A plain packet came for a VIP.
    #[inline(always)]
    fn received(&self, _ends: Ends) {}
}

/// All that balancing takes.
pub trait Balancing: Ingress + Flows + Fragments + Answers + Counters + Trace {}

impl<T: Ingress + Flows + Fragments + Answers + Counters + Trace> Balancing for T {}

/// SYNs that came to a backend encapsulated.
pub trait Syns: Clock {
    /// The entry of a flow's SYN: [`maglev_common::syn::SynWord`].
    fn syn(&self, hash: FlowHash) -> Option<&Word>;
}

/// What decapsulation on a backend decides by.
pub trait DecapTables: Syns {
    /// By what the MSS in answers to SYNs is limited: a load-time constant.
    fn mss(&self) -> Mss;
    /// The MTU of the interface that the packet came in by.
    fn mtu(&self) -> u32;
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
